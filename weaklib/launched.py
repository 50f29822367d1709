"""A stage that takes several GPUs: ``accelerate launch`` starts a process for each, and every one runs the stage's ``run``.

What a launched stage writes, its first process writes; the trainers see to that.
"""

import gc
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from weaklib.scratch import scratch

# Arguments of `accelerate launch` for each strategy. FSDP and DeepSpeed wrap by the model's own list of layers that stay whole.
STRATEGIES = {
    "ddp": ("--multi_gpu",),
    "fsdp": (
        "--use_fsdp",
        "--fsdp_version=2",
        "--fsdp_auto_wrap_policy=TRANSFORMER_BASED_WRAP",
        "--fsdp_state_dict_type=FULL_STATE_DICT",
    ),
    "deepspeed": ("--use_deepspeed", "--zero_stage=3", "--zero3_save_16bit_model=true"),
}


def run(stage: str, out: Path, arguments: dict) -> float:
    """``run(out, **arguments)`` of a stage, in as many processes as ``arguments["training"]["launch"]`` says, here otherwise.

    Returns:
        the seconds it took; here, without the imports of a worker's first stage.
    """
    launch = arguments.get("training", {}).get("launch")
    if launch is None:
        return _run_here(stage, out, arguments)
    started = time.perf_counter()
    _launch(stage, out, arguments, **launch)
    return time.perf_counter() - started


def _run_here(stage: str, out: Path, arguments: dict) -> float:
    """Raises:
    RuntimeError: a batch does not fit the GPU's memory; what to lower.
    """
    module = f"weaklib.stages.{stage}"
    if module not in sys.modules:
        importlib.import_module(module)
        gc.collect()
        gc.freeze()  # accelerate collects garbage at each training's start: not among all that the libraries hold
    started = time.perf_counter()
    try:
        sys.modules[module].run(out, **arguments)
        return time.perf_counter() - started
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own
            raise
        training = arguments.get("training", {})
        change = "lower sampling.batch_tokens" if "sampling" in arguments else "lower batch_tokens"
        if training and "batch_tokens" not in training:
            change = f"raise {stage}.gradient_accumulation_steps"
        if training:
            change += ", or use hardware.gradient_checkpointing or LoRA"
        raise RuntimeError(f"a batch does not fit the GPU's memory: {change} ({error})") from error
    finally:
        if arguments.get("device") == "cuda" and (torch := sys.modules.get("torch")):
            # trainers lie in cycles of references: the next stage would start beside the last one's weights
            gc.collect()
            torch.cuda.empty_cache()


def _launch(stage: str, out: Path, arguments: dict, processes: int, strategy: str) -> None:
    """Raises:
    RuntimeError: a process failed; the first error and where the log is.
    """
    folders = {name: str(value) for name, value in arguments.items() if isinstance(value, Path)}
    asked, failure, log = (scratch(out) / f"launch.{what}" for what in ("json", "error", "log"))
    asked.write_text(
        json.dumps({"stage": stage, "out": str(out), "folders": folders, "arguments": {**arguments, **folders}}),
        encoding="utf-8",
    )
    failure.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *STRATEGIES[strategy],
        f"--num_processes={processes}",
    ]
    # another port for each stage that runs at the same time
    command += ["--num_machines=1", "--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"]
    with log.open("w", encoding="utf-8") as text:
        # nothing is written to their standard input: it closes when this process dies, and they end with it
        with subprocess.Popen(
            [*command, "-m", "weaklib.launched", asked], stdin=subprocess.PIPE, stdout=text, stderr=text
        ) as launcher:
            try:
                code = launcher.wait()
            except BaseException:
                launcher.terminate()
                raise
    if code:
        why = failure.read_text(encoding="utf-8") if failure.is_file() else f"accelerate launch ended with {code}"
        raise RuntimeError(f"{why} (log: {log})")


def main(asked: Path) -> None:
    """One of the processes: runs the stage that the file ``asked`` describes."""
    import torch  # a client that starts stages does without

    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    said = json.loads(asked.read_text(encoding="utf-8"))
    arguments = said["arguments"] | {name: Path(folder) for name, folder in said["folders"].items()}
    if arguments["device"] != "cpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # which "cuda" then means
    try:
        _run_here(said["stage"], Path(said["out"]), arguments)
    except BaseException as error:
        try:  # the first error is the cause, those of the other processes follow from it
            with asked.with_suffix(".error").open("x", encoding="utf-8") as file:
                file.write(f"{type(error).__name__}: {error}")
        except FileExistsError:
            pass
        raise


def _end_with_the_launcher() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
