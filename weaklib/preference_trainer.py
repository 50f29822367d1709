"""TRL's trainers on weighted pairs: what a step is made of is ours, the rest is theirs."""

import json
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from torch.nn.functional import logsigmoid
from torch.utils.data import Sampler
from trl import DPOConfig, DPOTrainer, RewardTrainer

from weaklib import pairs
from weaklib.losses import preference_loss
from weaklib.processes import SharedSteps, through
from weaklib.training import train_and_save


class BucketSampler(Sampler):
    """Rows in an order whose every ``step_pairs`` neighbours are of like length; another order each epoch.

    All rows are shuffled, sorted by length within buckets of ``BUCKET`` steps, and the steps are shuffled.
    """

    BUCKET = 50

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
        order = torch.randperm(len(self.lengths), generator=self.generator).split(self.BUCKET * self.step_pairs)
        rows = [row for bucket in order for row in sorted(bucket.tolist(), key=self.lengths.__getitem__)]
        whole = len(rows) // self.step_pairs
        for step in torch.randperm(whole, generator=self.generator).tolist():
            yield from rows[step * self.step_pairs : (step + 1) * self.step_pairs]
        yield from rows[whole * self.step_pairs :]  # the last step is the one that is not full


class PairTrainer(SharedSteps):
    """What the trainers of policy and annotator share: a step is ``per_device_train_batch_size`` pairs in token-budget batches.

    The training set's rows have ``prompt_ids, chosen_ids, rejected_ids`` and, where the loss needs them,
    ``weight, ref_chosen_logps, ref_rejected_logps``. The loss of a step is Σ weight·loss over its pairs, divided by their number.
    Where several processes share a step, each has as many batches: the wrappers of their models wait for each other at every one.
    """

    def __init__(self, model, args, *, batch_tokens: int, train_dataset, processing_class):
        pairs.use_block_masks(model)
        self.form, self.batch_tokens = pairs.form(model), batch_tokens
        collator = {"data_collator": self._batches, "train_dataset": train_dataset}
        super().__init__(model, args=args, processing_class=processing_class, **collator)

    def train_and_save(self, out: Path) -> None:
        """Also says in ``pairs.json`` which form the pairs had and what share of the positions was padding."""
        train_and_save(self, out)
        if not self.is_world_process_zero():
            return
        record = {"form": self.form, "padding_share": self.padding_share()}
        (out / "pairs.json").write_text(json.dumps(record) + "\n", encoding="utf-8")

    def _prepare_dataset(self, dataset, *_):
        return dataset.to_list()  # tokenised already, and read row by row more than once

    def _get_train_sampler(self, dataset=None):
        rows = self.train_dataset if dataset is None else dataset
        return BucketSampler([pairs.length(row, self.form) for row in rows], self._train_batch_size, self.args.seed)

    def _batches(self, rows: list[dict]) -> list[pairs.Batch]:
        """The rows of one step that are this process's, as batches."""
        parts, process = self._parts(rows), self.args.process_index
        # gradients are averaged over the processes; a row that stands in counts nothing
        share = torch.tensor(len(parts) / len(rows) if process < len(rows) else 0.0)
        step, mine = [], parts[process]
        for numbers, batch in pairs.batches_of_pairs(mine, self.form, self.batch_tokens):
            for name in ("weight", "ref_chosen_logps", "ref_rejected_logps"):
                if name in mine[0]:
                    batch[name] = torch.tensor([mine[number][name] for number in numbers])
            step.append(batch | {"share": share})
        longest = max(len(list(pairs.numbers_of_batches(part, self.form, self.batch_tokens))) for part in parts)
        return step + [step[-1] | {"share": torch.tensor(0.0)}] * (longest - len(step))

    def padding_share(self) -> float:
        """Of the positions of the first epoch's batches."""
        rows, order = list(self.train_dataset), list(self._get_train_sampler())
        steps = (
            order[start : start + self._train_batch_size] for start in range(0, len(order), self._train_batch_size)
        )
        positions = sum(pairs.positions([rows[i] for i in step], self.form, self.batch_tokens) for step in steps)
        return 1 - sum(pairs.tokens(row, self.form) for row in rows) / positions

    def compute_loss_context_manager(self):
        # accelerate puts mixed precision around the model's own forward, which pairs do not come through
        return self.accelerator.autocast()

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss, whole = 0, self.accelerator.sync_gradients
        for number, batch in enumerate(inputs, start=1):
            # DeepSpeed would otherwise take a step after each batch
            self.accelerator.gradient_state._set_sync_gradients(whole and number == len(inputs))
            loss += super().training_step(model, batch)
        return loss

    def _note(self, margins: torch.Tensor) -> None:
        margins = margins.detach()
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["rewards/margins"].append(margins.mean().item())
        metrics["rewards/accuracies"].append((margins > 0).float().mean().item())


class WeightedDPOTrainer(PairTrainer, DPOTrainer):
    """Minimises the mean over pairs of weight · loss: CW-PO ([B]) when the weight is the confidence.

    With all weights 1 the loss and its gradient are those of TRL's own trainer.
    """

    def __init__(self, model, args: DPOConfig, *, objective: str, **rest):
        self.objective = objective
        # TRL then expects references with the data, and keeps no second model.
        args.precompute_ref_log_probs = True
        super().__init__(model, args, **rest)
        if is_peft_model(self.model):  # TRL has made a copy of the adapters for its references
            self.model.delete_adapter("ref")

    def _precompute_ref_logps(self, dataset, *_):
        return dataset  # computed already, by the reference stage

    def compute_loss(self, model, batch, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = through(model, self.model, pairs.response_logps, batch)
        chosen_lengths, rejected_lengths = batch["lengths"].view(2, -1)
        losses = preference_loss(
            chosen,
            rejected,
            batch["ref_chosen_logps"],
            batch["ref_rejected_logps"],
            objective=self.objective,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            chosen_lengths=chosen_lengths,
            rejected_lengths=rejected_lengths,
        )
        self._note(self.beta * (chosen - batch["ref_chosen_logps"] - rejected + batch["ref_rejected_logps"]))
        return (batch["weight"] * losses).sum() * batch["share"]


class BradleyTerryTrainer(PairTrainer, RewardTrainer):
    """Minimises −log σ(π_w(x, y⁺) − π_w(x, y⁻)) ([B]), as TRL's own trainer does."""

    def compute_loss(self, model, batch, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = through(model, self.model, pairs.response_rewards, batch)
        self._note(chosen - rejected)
        return -logsigmoid(chosen - rejected).sum() * batch["share"]
