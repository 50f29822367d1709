"""TRL's trainers as the study uses them: their settings, texts and weighted pairs, and going on after a stop."""

import json
import os
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch.nn.functional import pad
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed
from trl import SFTTrainer

from weaklib.training import language_models as lm


def trainer_settings(training: dict, seed, device, out: Path, checkpoint_steps=0, gradient_checkpointing=False) -> dict:
    """Arguments of every trainer from a section of the profile; checkpoints lie in the scratch of ``out``'s stage."""
    set_seed(seed)
    accumulated = training.get("gradient_accumulation_steps", 1)
    settings = {"seed": seed, "num_train_epochs": training["epochs"], "learning_rate": training["learning_rate"]}
    settings |= {"warmup_steps": 0.1, "train_sampling_strategy": "group_by_length"}  # warm-up: a share of all steps
    settings |= {"max_length": None, "remove_unused_columns": False}  # cut once, at tokenisation; weights are used, too
    settings |= {"gradient_accumulation_steps": accumulated, "gradient_checkpointing": gradient_checkpointing}
    settings |= {"per_device_train_batch_size": training["batch_size"] // accumulated, "use_cpu": device == "cpu"}
    settings |= {"bf16": training.get("precision") == "bfloat16", "disable_tqdm": True, "logging_first_step": True}
    settings |= {"save_strategy": "steps" if checkpoint_steps else "no", "save_steps": checkpoint_steps or 0}
    return settings | {"save_total_limit": 1, "output_dir": str(out.with_suffix(".scratch"))}


def adapters(training: dict, task_type: str) -> tuple[torch.dtype, LoraConfig | None]:
    """The weights of a model to be trained, and its LoRA adapters (Hu et al. 2021), if any: what learns is float32."""
    if not training.get("lora"):
        return torch.float32, None
    return getattr(torch, training.get("precision", "float32")), LoraConfig(**training["lora"], task_type=task_type)


def train_and_save(out: Path, kind: type[Trainer], model, args, rows: list[dict], tokenizer, **more) -> None:
    """Trains without printing, from the last checkpoint if there is one; the loss curve lies beside the model.
    Adapters are saved as such, with the way from ``out`` to their model; those of texts within a whole model."""
    if not rows:
        raise ValueError("nothing to train on: each pair's responses are equal once cut to max_response_tokens")
    trainer = kind(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(SameOrder())
    for checkpoint in Path(args.output_dir).glob("checkpoint-*"):
        if not (checkpoint / SameOrder.FILE).is_file():  # half-written
            shutil.rmtree(checkpoint)
    trainer.train(resume_from_checkpoint=any(Path(args.output_dir).glob("checkpoint-*")))
    model, curve = trainer.model, [entry for entry in trainer.state.log_history if "loss" in entry]
    if isinstance(model, PeftModel) and isinstance(trainer, TextTrainer):
        model = model.merge_and_unload()
    if isinstance(model, PeftModel):
        lora = model.peft_config["default"]
        lora.base_model_name_or_path = os.path.relpath(lora.base_model_name_or_path, out)
        model.save_pretrained(out, save_embedding_layers=False)  # or peft looks for that path, on the hub, too
    else:
        (model.to(torch.bfloat16) if args.bf16 else model).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training_log.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    if isinstance(trainer, PairTrainer):
        record = {"form": trainer.form, "padding_share": trainer.padding_share()}
        (out / "pairs.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


class SameOrder(TrainerCallback):
    """A training that goes on within an epoch sees the rest of that epoch's order: it is drawn from the generator's
    state at the epoch's start, which each checkpoint keeps."""

    FILE, at_start = "epoch_start.pth", None

    def on_epoch_begin(self, args, state, control, **_):
        if self.at_start is None and state.global_step:  # the first epoch of a training that goes on
            file = Path(args.output_dir, f"checkpoint-{state.global_step}", self.FILE)
            at_start, at_end = torch.load(file, weights_only=True)
            torch.set_rng_state(at_end if float(state.epoch).is_integer() else at_start)
        self.at_start = torch.get_rng_state()

    def on_save(self, args, state, control, **_):
        # the last file of a checkpoint, there as a whole or not at all: without it the checkpoint is none
        file = Path(args.output_dir, f"checkpoint-{state.global_step}", self.FILE)
        torch.save((self.at_start, torch.get_rng_state()), file.with_suffix(".partial"))
        file.with_suffix(".partial").rename(file)


class TextTrainer(SFTTrainer):
    """TRL's trainer and loss, the mean over a step's learned tokens, but faster on a CPU: there the tiles and metrics
    of TRL's head, which never holds the logits, cost more than the logits of those tokens."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        forward = {**inputs, "use_cache": False}
        labels = pad(forward.pop("labels"), (-1, 1), value=-100).flatten()  # each position's next token, if any
        learned = (labels != -100).nonzero()[:, 0]
        logps = lm.token_logps(self.model, forward, learned, labels[learned])
        return -logps.mean() if num_items_in_batch is None else -logps.sum() / num_items_in_batch


class PairTrainer:
    """Mixed into a trainer of TRL's: a step is ``per_device_train_batch_size`` pairs in token-budget batches, its loss
    their mean. A subclass's ``losses(batch)`` gives losses and margins, (B,) each, from the rows' ids and numbers."""

    def __init__(self, model, args, *, batch_tokens: int, **rest):
        self.form, self.batch_tokens = lm.form(model), batch_tokens
        super().__init__(model, args=args, data_collator=self._batches, **rest)

    def padding_share(self) -> float:
        """Of the positions of the first epoch's batches."""
        steps = torch.tensor(list(self._get_train_sampler())).split(self._train_batch_size)
        batches = (batch for step in steps for batch in self._batches([self.train_dataset[row] for row in step]))
        filled = torch.cat([(batch["segments"] >= 0).flatten() for batch in batches])
        return 1 - filled.sum().item() / len(filled)

    def compute_loss(self, model, batch, return_outputs=False, num_items_in_batch=None):
        # accelerate puts mixed precision around the model's own forward, which pairs do not come through
        with self.accelerator.autocast():
            losses, margins = self.losses(batch)
        self._metrics["train"]["rewards/margins"].append(margins.detach().mean().item())
        self._metrics["train"]["rewards/accuracies"].append((margins > 0).float().mean().item())
        return losses.sum() * batch["share"]

    def training_step(self, model, inputs, num_items_in_batch=None):
        return sum(super(PairTrainer, self).training_step(model, batch) for batch in inputs)

    def _prepare_dataset(self, dataset, *_):
        return dataset.to_list()  # tokenised already, and read row by row more than once

    def _get_train_sampler(self, *_):
        lengths = [lm.length(row, self.form) for row in self.train_dataset]
        return BucketSampler(lengths, self._train_batch_size, self.args.seed)

    def _batches(self, rows: list[dict]) -> list[dict]:
        names, step = [name for name in rows[0] if not name.endswith("_ids")], []
        for numbers, batch in lm.batches_of_pairs(rows, self.form, self.batch_tokens):
            batch |= {name: torch.tensor([rows[number][name] for number in numbers]) for name in names}
            step.append(batch | {"share": torch.tensor(1 / len(rows))})
        return step


class BucketSampler:
    """Rows in an order whose every ``step_pairs`` neighbours are of like length; another order each epoch.
    All rows are shuffled, sorted by length within buckets of 50 steps, and the steps are shuffled."""

    def __init__(self, lengths: list[int], step_pairs: int, seed: int):
        self.lengths, self.step_pairs, self.seed = lengths, step_pairs, seed
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """To the order of ``epoch`` (from 0), as after all before it: a training that goes on starts within one."""
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            list(self)

    def __iter__(self):
        order = torch.randperm(len(self), generator=self.generator).split(50 * self.step_pairs)
        rows = [row for bucket in order for row in sorted(bucket.tolist(), key=self.lengths.__getitem__)]
        whole = len(rows) // self.step_pairs
        for step in torch.randperm(whole, generator=self.generator).tolist():
            yield from rows[step * self.step_pairs : (step + 1) * self.step_pairs]
        yield from rows[whole * self.step_pairs :]  # the last step is the one that is not full
