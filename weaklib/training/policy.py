"""policy: preference training of the student on labelled pairs, from its supervised start."""

import math
from pathlib import Path

import pandas as pd
from accelerate.utils import is_peft_model
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from weaklib.training import pairs as pairs_of_responses
from weaklib.training.language_models import load_causal_lm, load_tokenizer, tokenize_pairs
from weaklib.training.losses import preference_loss
from weaklib.training.pair_trainer import PairTrainer
from weaklib.training.trainers import trainable, trainer_settings, weights_dtype


def run(
    out: Path, *, start: Path, labels: Path, reference: Path, weighting: str, top_percent: float | None = None,
    threshold: float | None = None, objective: str, beta: float, label_smoothing: float, training: dict, limits: dict,
    seed: int, device: str, **execution,
) -> None:  # fmt: skip
    """Writes a model folder: the policy. ``execution``: see :func:`weaklib.training.trainers.trainer_settings`."""
    tokenizer, model = load_tokenizer(start), load_causal_lm(start, device, weights_dtype(training))
    pairs = weigh(pd.read_parquet(labels / "labels.parquet"), weighting, top_percent, threshold)
    pairs = pairs.merge(pd.read_parquet(reference / "reference.parquet"), on="pair", validate="one_to_one")
    rows = tokenize_pairs(tokenizer, pairs, "chosen", "rejected", limits)
    for row, pair in zip(rows, pairs.itertuples(), strict=True):
        logps = (pair.logps_a, pair.logps_b) if pair.prefers_a else (pair.logps_b, pair.logps_a)
        row |= {"ref_chosen_logps": logps[0], "ref_rejected_logps": logps[1], "weight": pair.weight}
    settings = trainer_settings(training, seed, device, out, **execution)
    trainer = WeightedDPOTrainer(
        trainable(model, training, "CAUSAL_LM"),
        DPOConfig(**settings, beta=beta, label_smoothing=label_smoothing),
        objective=objective,
        batch_tokens=training["batch_tokens"],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train_and_save(out)


class WeightedDPOTrainer(PairTrainer, DPOTrainer):
    """Minimises the mean over pairs of weight · loss: CW-PO ([B]) when the weight is the confidence.

    With all weights 1 the loss and its gradient are those of TRL's own trainer.
    """

    def __init__(self, model, args: DPOConfig, *, objective: str, **rest):
        self.objective: str = objective
        # TRL then expects references with the data, and keeps no second model.
        args.precompute_ref_log_probs = True
        super().__init__(model, args, **rest)
        if is_peft_model(self.model):  # TRL has made a copy of the adapters for its references
            self.model.delete_adapter("ref")

    def _precompute_ref_logps(self, dataset, *_):
        return dataset  # computed already, by the reference stage

    def compute_loss(self, model, batch, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = pairs_of_responses.response_logps(self.model, batch)
        lengths = dict(zip(("chosen_lengths", "rejected_lengths"), batch["lengths"].view(2, -1)))
        references = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
        settings = {"objective": self.objective, "beta": self.beta, "label_smoothing": self.label_smoothing}
        losses = preference_loss(chosen, rejected, *references, **settings, **lengths)
        self._note(self.beta * (chosen - references[0] - rejected + references[1]))
        return (batch["weight"] * losses).sum() * batch["share"]


def weigh(
    labels: pd.DataFrame, weighting: str, top_percent: float | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """The labels a policy is trained on, with their ``weight``.

    - ``none``: all, weight 1;
    - ``confidence``: all, weighted by confidence (CW-PO, [B]); ``margin``: by the raw margin; ``rank``: by the rank of
      the confidence, from 1/n for the least to 1 for the most confident (equal ones share their mean rank);
    - ``top``: the ``top_percent`` % most confident, weight 1 ([B] Fig. 2); of equally confident ones the first;
    - ``above``: those of a confidence of at least ``threshold``, weight 1; the most confident one if there is none.

    Raises:
        ValueError: unknown weighting.
    """
    confidence = labels["confidence"]
    if weighting == "top":
        count = math.ceil(len(labels) * top_percent / 100)
        return labels.nlargest(count, "confidence", keep="first").sort_index().assign(weight=1.0)
    if weighting == "above":
        return labels[confidence >= min(threshold, confidence.max())].assign(weight=1.0)
    weights = {"none": 1.0, "confidence": confidence, "margin": labels["margin"], "rank": confidence.rank(pct=True)}
    if weighting not in weights:
        raise ValueError(f"unknown weighting {weighting!r}: top, above, {', '.join(weights)}")
    return labels.assign(weight=weights[weighting])
