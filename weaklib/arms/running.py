"""Running stages: tasks of a ``distributed`` client, each key once, with a progress bar."""

import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterable
from contextlib import contextmanager

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from distributed.comm import get_address_host_port
from tqdm import tqdm

from weaklib.arms.stage import Stage, upstream
from weaklib.arms.store import Store
from weaklib.data.errors import RequestError

# The address of the cluster that `python -m weaklib reproduce` shares among the notebooks it runs.
SCHEDULER = "WEAKLIB_SCHEDULER"

# What every worker's environment says before a library is imported: one thread, no traffic, no chatter. Parallelism comes from many
# stages at once; one thread a stage gives the same numbers on any number of cores.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


class StageFailed(Exception):
    """A stage raised an error: the study failed."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: the worker's traceback, then our line
        worker = traceback.format_exception(self.__cause__) if self.__cause__ else []
        return [*"".join(worker).splitlines(), f"StageFailed: {self}"]


_recorder: list[Stage] | None = None
_planning = False


@contextmanager
def recording(plan: bool = False):
    """Within it nothing runs: ``run`` only notes what it is asked for, in the list that this yields.

    A ``plan`` may be of another machine than this one, and what only a run needs may be missing.
    """
    global _recorder, _planning
    _recorder, _planning = [], plan
    try:
        yield _recorder
    finally:
        _recorder, _planning = None, False


def planning() -> bool:
    """Whether this is within :func:`recording` of a plan."""
    return _planning


@contextmanager
def cluster(workers: int | None = None, device: str = "cpu"):
    """A cluster on this machine: one process with one thread a worker, so that no result depends on their number.

    Where ``device`` is a GPU, a further worker for each one holds the resource ``GPU``, and sees no other.
    """
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}
    count = workers or len(os.sched_getaffinity(0))
    spec = {f"cpu-{number}": {"cls": Nanny, "options": options} for number in range(count)}
    for number, gpu in enumerate([] if device == "cpu" else visible_gpus()):
        own = {"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": {"GPU": 1}}
        spec[f"gpu-{number}"] = {"cls": Nanny, "options": options | own}
    # LocalCluster's workers are all alike
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    # before the process starts: some libraries read the environment when they are loaded
    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        # a failing stage is reported once, by the client
        with SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL) as local:
            yield local.scheduler_address


def visible_gpus() -> list[str]:
    """The GPUs of this machine as ``CUDA_VISIBLE_DEVICES`` names them, or by ``nvidia-smi``'s identifiers; without importing torch."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return re.findall(r"UUID: (GPU-[^)]+)", listed)


def check_scheduler(address: str, device: str = "cpu") -> None:
    """Raises:
    RequestError: nothing answers at ``address``, or a cluster without workers, or without one for stages on a GPU.
    """
    try:
        get_address_host_port(address)
        with Client(address, timeout=3, set_as_default=False) as client:
            _check_workers(client, address, device)
    except ValueError:
        raise RequestError(f"scheduler {address}: an address like tcp://HOST:PORT is needed") from None
    except OSError:
        raise RequestError(f"scheduler {address}: nothing answers there") from None


def _check_workers(client: Client, address: str, device: str) -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise RequestError(f"scheduler {address}: it has no workers")
    if device != "cpu" and not any(worker["resources"].get("GPU") for worker in workers):
        raise RequestError(
            f"scheduler {address}: no worker has the resource GPU=1; start workers with --resources GPU=1"
        )


def run(stages: Iterable[Stage], store: Store) -> bool:
    """Bring the artifacts of ``stages`` into ``store``: what is missing, each key once, on the cluster at hand.

    Returns:
        whether they are there now; not so within :func:`recording`.

    Raises:
        StageFailed: a stage raised; the message names it and says why.
        RequestError: no worker has a GPU that a stage needs.
    """
    stages = list(stages)
    if _recorder is not None:
        _recorder.extend(stages)
        return False
    missing = missing_stages(stages, store)
    device = next((d for stage in missing if (d := stage.parameters.get("device", "cpu")) != "cpu"), "cpu")
    if not missing:
        print(f"{len(upstream(stages))} stages, all stored already")
    elif address := os.environ.get(SCHEDULER):
        _run_on(address, missing, store, device)
    else:
        with cluster(device=device) as address:
            _run_on(address, missing, store, device)
    return True


def missing_stages(stages: Iterable[Stage], store: Store) -> list[Stage]:
    """The stages to run, inputs first. What lies behind a stored artifact is not needed."""
    needed, waiting = {}, list(stages)
    while waiting:
        stage = waiting.pop()
        if stage.key not in needed and not store.has(stage):
            needed[stage.key] = stage
            waiting += stage.inputs.values()
    return [stage for stage in upstream(needed.values()) if stage.key in needed]


def _run_on(address: str, missing: list[Stage], store: Store, device: str) -> None:
    with Client(address, set_as_default=False) as client:
        _check_workers(client, address, device)
        futures: dict = {}
        for stage in missing:
            needed = [futures[other.key] for other in stage.inputs.values() if other.key in futures]
            resources = {"GPU": 1} if stage.parameters.get("device", "cpu") != "cpu" else None
            options = {"key": str(stage), "pure": False, "resources": resources}
            futures[stage.key] = client.submit(_compute, store, stage.describe(), needed, **options)
        with tqdm(total=len(futures), desc="stages", unit="stage", file=sys.stdout, mininterval=1) as progress:
            for future in as_completed(futures.values(), loop=client.loop):
                if future.status == "error":
                    error = future.exception()
                    raise StageFailed(f"stage {future.key}: {type(error).__name__}: {error}") from error
                progress.set_postfix_str(future.key.split("/")[0], refresh=False)
                progress.update()


def _compute(store: Store, stage: dict, _needed) -> None:
    # External workers may have come up with another environment; libraries read it when they are imported.
    os.environ.update(WORKER_ENVIRONMENT)
    if "device" in stage["parameters"]:
        import torch

        torch.set_num_threads(1)
    store.compute(stage)
