"""What the training stages share: settings of TRL's trainers, adapters, and going on after a stop."""

import json
import os
import tempfile
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from weaklib.language_models import save, without_adapters
from weaklib.scratch import scratch


def trainer_settings(
    training: dict,
    seed: int,
    device: str,
    out: Path | None = None,
    *,
    checkpoint_steps: int | None = None,
    tracker: str = "none",
    gradient_checkpointing: bool = False,
) -> dict:
    """Arguments that every TRL trainer of the study is given.

    Args:
        training: ``epochs``, ``batch_size``, ``learning_rate``, and, where they are not the default, ``precision``, ``compile`` and
            ``gradient_accumulation_steps``.
        out: the stage's folder; checkpoints, every ``checkpoint_steps``, lie in its scratch.
        tracker: ``tensorboard`` (its files go to ``out``), ``wandb`` or ``trackio``.
    """
    if device != "cpu" and "launch" not in training and torch.cuda.device_count() > 1:
        raise ValueError(
            "this worker sees several GPUs, of which transformers would use all: CUDA_VISIBLE_DEVICES names one"
        )
    set_seed(seed)
    accumulated = training.get("gradient_accumulation_steps", 1)
    if tracker == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "tensorboard")
    checkpoints = {"save_strategy": "no", "output_dir": tempfile.gettempdir()}  # nothing is written there
    if checkpoint_steps:
        checkpoints = {"save_strategy": "steps", "save_steps": checkpoint_steps, "save_total_limit": 1}
        checkpoints["output_dir"] = str(scratch(out))
    return {
        **checkpoints,
        "report_to": tracker,
        "run_name": out.name if out else None,
        "disable_tqdm": True,
        "logging_first_step": True,
        "logging_steps": 10,
        "num_train_epochs": training["epochs"],
        "per_device_train_batch_size": training["batch_size"] // accumulated,
        "gradient_accumulation_steps": accumulated,
        "learning_rate": training["learning_rate"],
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,  # a share of all steps
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # or the column "length" would not reach the sampler
        "max_length": None,  # cut once, at tokenisation
        "gradient_checkpointing": gradient_checkpointing,
        "bf16": training.get("precision") == "bfloat16",
        "use_cpu": device == "cpu",
        "seed": seed,
    }


def weights_dtype(training: dict) -> torch.dtype:
    """Of a model that is to be trained: float32 under automatic mixed precision, but bfloat16 where only adapters (float32) learn."""
    return torch.bfloat16 if training.get("precision") == "bfloat16" and training.get("lora") else torch.float32


def compile_layers(model: PreTrainedModel) -> None:
    """Has each layer run by torch.compile, in place: one compilation serves all layers, and weights keep their names.

    ``TrainingArguments.torch_compile`` would compile the model's own forward, which pairs do not come through.
    """
    network = without_adapters(model)
    for module in network.modules():
        if type(module).__name__ in network._no_split_modules:
            module.compile()


def trainable(model: PreTrainedModel, training: dict, task_type: str) -> PreTrainedModel:
    """``model`` as ``training`` wants it: with LoRA's adapters (Hu et al. 2021), with compiled layers, or as it is.

    Raises:
        ValueError: none of LoRA's targets is a module of the model.
    """
    if training.get("compile"):
        compile_layers(model)
    lora = training.get("lora")
    if not lora:
        return model
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type=task_type,
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():  # a new scalar head, too
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def train_and_save(trainer: Trainer, out: Path, merge: bool = False) -> None:
    """Trains without printing, from the last checkpoint if there is one; the loss curve lies beside the model.

    Adapters are saved as such, with the way from ``out`` to the model they belong to, or, to ``merge``, in the weights of a whole model.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(SameOrder())
    keeps = trainer.args.save_strategy != "no"
    trainer.train(resume_from_checkpoint=_last_checkpoint(trainer.args.output_dir) if keeps else None)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if not trainer.is_world_process_zero():
        return
    model = trainer.model
    if is_peft_model(model) and merge:
        model = model.merge_and_unload()
    if is_peft_model(model):
        adapters = model.peft_config["default"]
        adapters.base_model_name_or_path = os.path.relpath(adapters.base_model_name_or_path, out)
    elif trainer.args.bf16:
        model = model.to(torch.bfloat16)
        weights = weights and {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save(out, model, trainer.processing_class, weights)
    curve = [entry for entry in trainer.state.log_history if "loss" in entry]
    (out / "training_log.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


class SameOrder(TrainerCallback):
    """A training that goes on within an epoch sees the rest of that epoch's order: it is drawn from the generator's state at its start."""

    FILE = "epoch_start.pth"

    def on_train_begin(self, args, state, control, **_):
        self.resumed = state.global_step > 0

    def on_epoch_begin(self, args, state, control, **_):
        if self.resumed:
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            at_start, at_end = torch.load(checkpoint / self.FILE, weights_only=True)
            torch.set_rng_state(at_end if float(state.epoch).is_integer() else at_start)
            self.resumed = False
        self.at_start = torch.get_rng_state()

    def on_save(self, args, state, control, **_):
        if not state.is_world_process_zero:
            return
        # the last file of a checkpoint, there as a whole or not at all: without it the checkpoint is none
        file = Path(args.output_dir, f"checkpoint-{state.global_step}", self.FILE)
        torch.save((self.at_start, torch.get_rng_state()), file.with_suffix(".partial"))
        file.with_suffix(".partial").rename(file)


def _last_checkpoint(folder: str) -> str | None:
    whole = [file.parent for file in Path(folder).glob(f"checkpoint-*/{SameOrder.FILE}")]
    return max(map(str, whole), key=lambda path: int(path.rpartition("-")[2]), default=None)
