"""TRL's trainers as the study uses them: their settings, adapters, and going on after a stop."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTTrainer

from weaklib.training.language_models import save, token_logps
from weaklib.training.scratch import scratch


def trainer_settings(
    training: dict, seed: int, device: str, out: Path, checkpoint_steps: int | None = None,
    gradient_checkpointing: bool = False,
) -> dict:  # fmt: skip
    """Arguments that every TRL trainer of the study is given.

    Args:
        training: ``epochs``, ``batch_size``, ``learning_rate``, and, where they are not the default, ``precision`` and
            ``gradient_accumulation_steps``.
        out: the stage's folder; checkpoints, every ``checkpoint_steps``, lie in its scratch.
    """
    if device != "cpu" and torch.cuda.device_count() > 1:
        raise ValueError(
            "this worker sees several GPUs, of which transformers would use all: CUDA_VISIBLE_DEVICES names one"
        )
    set_seed(seed)
    accumulated = training.get("gradient_accumulation_steps", 1)
    checkpoints = {"save_strategy": "no", "output_dir": tempfile.gettempdir()}  # nothing is written there
    if checkpoint_steps:
        checkpoints = {"save_strategy": "steps", "save_steps": checkpoint_steps, "save_total_limit": 1}
        checkpoints["output_dir"] = str(scratch(out))
    return {
        **checkpoints,
        "report_to": "none",
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
    """Of a model to be trained: float32 under automatic mixed precision, bfloat16 where only adapters (float32) learn."""
    return torch.bfloat16 if training.get("precision") == "bfloat16" and training.get("lora") else torch.float32


def trainable(model: PreTrainedModel, training: dict, task_type: str) -> PreTrainedModel:
    """``model`` as ``training`` wants it: with LoRA's adapters (Hu et al. 2021), or as it is.

    Raises:
        ValueError: none of LoRA's targets is a module of the model.
    """
    if not training.get("lora"):
        return model
    adapted = get_peft_model(model, LoraConfig(**training["lora"], task_type=task_type))
    for parameter in adapted.parameters():  # a new scalar head, too
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def train_and_save(trainer: Trainer, out: Path, merge: bool = False) -> None:
    """Trains without printing, from the last checkpoint if there is one; the loss curve lies beside the model.

    Adapters are saved as such, with the way from ``out`` to the model they belong to, or, to ``merge``, in the weights
    of a whole model.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(SameOrder())
    keeps, folder = trainer.args.save_strategy != "no", Path(trainer.args.output_dir)
    for checkpoint in folder.glob("checkpoint-*") if keeps else ():
        if not (checkpoint / SameOrder.FILE).is_file():  # half-written
            shutil.rmtree(checkpoint)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if keeps else None)
    model = trainer.model
    if is_peft_model(model) and merge:
        model = model.merge_and_unload()
    if is_peft_model(model):
        adapters = model.peft_config["default"]
        adapters.base_model_name_or_path = os.path.relpath(adapters.base_model_name_or_path, out)
    elif trainer.args.bf16:
        model = model.to(torch.bfloat16)
    save(out, model, trainer.processing_class)
    curve = [entry for entry in trainer.state.log_history if "loss" in entry]
    (out / "training_log.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


class SameOrder(TrainerCallback):
    """A training that goes on within an epoch sees the rest of that epoch's order: it is drawn from the generator's
    state at the epoch's start, which each checkpoint keeps."""

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
        # the last file of a checkpoint, there as a whole or not at all: without it the checkpoint is none
        file = Path(args.output_dir, f"checkpoint-{state.global_step}", self.FILE)
        torch.save((self.at_start, torch.get_rng_state()), file.with_suffix(".partial"))
        file.with_suffix(".partial").rename(file)


class TextTrainer(SFTTrainer):
    """TRL's SFT trainer, faster on a CPU. The loss is TRL's: the mean over the tokens of a step that are trained on.

    TRL's head never holds the logits, which a GPU needs; on a CPU its tiles, and what it measures beside the loss, cost
    more than the plain logits of those tokens.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"].roll(-1, dims=1)  # each position's next token; none follows the last
        labels[:, -1] = -100
        learned = (labels.flatten() != -100).nonzero()[:, 0]
        forward = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        logps = token_logps(self.model, forward, learned, labels.flatten()[learned])
        return -logps.mean() if num_items_in_batch is None else -logps.sum() / num_items_in_batch
