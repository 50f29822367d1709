"""What the trainers of policy and annotator share: steps of weighted pairs, in batches of like length."""

import json
from pathlib import Path

import torch
from torch.utils.data import Sampler

from weaklib.training import pairs
from weaklib.training.trainers import train_and_save


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


class PairTrainer:
    """Mixed into a trainer of TRL's: a step is ``per_device_train_batch_size`` pairs in token-budget batches.

    The training set's rows have ``prompt_ids, chosen_ids, rejected_ids`` and, where the loss needs them,
    ``weight, ref_chosen_logps, ref_rejected_logps``. The loss of a step is Σ weight·loss over its pairs, divided by
    their number: each batch carries the ``share`` 1/number.
    """

    def __init__(self, model, args, *, batch_tokens: int, train_dataset, processing_class):
        self.form, self.batch_tokens = pairs.form(model), batch_tokens
        rest = {"data_collator": self._batches, "train_dataset": train_dataset, "processing_class": processing_class}
        super().__init__(model, args=args, **rest)

    def train_and_save(self, out: Path) -> None:
        """Also says in ``pairs.json`` which form the pairs had and what share of the positions was padding."""
        train_and_save(self, out)
        record = {"form": self.form, "padding_share": self.padding_share()}
        (out / "pairs.json").write_text(json.dumps(record) + "\n", encoding="utf-8")

    def _prepare_dataset(self, dataset, *_):
        return dataset.to_list()  # tokenised already, and read row by row more than once

    def _get_train_sampler(self, dataset=None):
        rows = self.train_dataset if dataset is None else dataset
        return BucketSampler([pairs.length(row, self.form) for row in rows], self._train_batch_size, self.args.seed)

    def _batches(self, rows: list[dict]) -> list[pairs.Batch]:
        step = []
        for numbers in pairs.batches_of_pairs(rows, self.form, self.batch_tokens):
            batch = pairs.collate([rows[number] for number in numbers], self.form)
            for name in ("weight", "ref_chosen_logps", "ref_rejected_logps"):
                if name in rows[0]:
                    batch[name] = torch.tensor([rows[number][name] for number in numbers])
            step.append(batch | {"share": torch.tensor(1 / len(rows))})
        return step

    def padding_share(self) -> float:
        """Of the positions of the first epoch's batches."""
        order, size = list(self._get_train_sampler()), self._train_batch_size
        steps = [[self.train_dataset[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
        positions = sum(pairs.positions(step, self.form, self.batch_tokens) for step in steps)
        return 1 - sum(pairs.tokens(row, self.form) for step in steps for row in step) / positions

    def compute_loss_context_manager(self):
        # accelerate puts mixed precision around the model's own forward, which pairs do not come through
        return self.accelerator.autocast()

    def training_step(self, model, inputs, num_items_in_batch=None):
        return sum(super(PairTrainer, self).training_step(model, batch) for batch in inputs)

    def _note(self, margins: torch.Tensor) -> None:
        margins = margins.detach()
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["rewards/margins"].append(margins.mean().item())
        metrics["rewards/accuracies"].append((margins > 0).float().mean().item())
