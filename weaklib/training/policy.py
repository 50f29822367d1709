"""policy: preference training of the student on labelled pairs, from its supervised start."""

import math
from pathlib import Path

import pandas as pd
from trl import DPOConfig, DPOTrainer

from weaklib.training import language_models as lm
from weaklib.training.losses import preference_loss
from weaklib.training.tokens import Reader, load_tokenizer
from weaklib.training.trainers import PairTrainer, adapters, train_and_save, trainer_settings


def run(
    out: Path, *, start: Path, labels: Path, reference: Path, training: dict, limits: dict, seed: int, device: str,
    objective: str, beta: float, label_smoothing: float, weighting: str, top_percent=None, threshold=None, **execution,
) -> None:  # fmt: skip
    """Writes a model folder: the policy. ``execution``: see :func:`weaklib.training.trainers.trainer_settings`."""
    dtype, lora = adapters(training, "CAUSAL_LM")
    reader, model = Reader(load_tokenizer(start), limits), lm.load_causal_lm(start, device, dtype)
    pairs = weigh(pd.read_parquet(labels / "labels.parquet"), weighting, top_percent, threshold)
    pairs = pairs.merge(pd.read_parquet(reference / "reference.parquet"), on="pair", validate="one_to_one")
    rows, differ = reader.pairs(pairs, "chosen", "rejected")
    for row, pair in zip(rows, pairs[differ].itertuples(), strict=True):
        logps = (pair.logps_a, pair.logps_b) if pair.prefers_a else (pair.logps_b, pair.logps_a)
        row |= {"ref_chosen_logps": logps[0], "ref_rejected_logps": logps[1], "weight": pair.weight}
    settings = trainer_settings(training, seed, device, out, **execution)
    config = DPOConfig(**settings, beta=beta, label_smoothing=label_smoothing)
    more = {"objective": objective, "batch_tokens": training["batch_tokens"], "peft_config": lora}
    train_and_save(out, WeightedDPOTrainer, model, config, rows, reader.tokenizer, **more)
    reader.save_cuts(out)


class WeightedDPOTrainer(PairTrainer, DPOTrainer):
    """Minimises the mean over pairs of weight · loss: CW-PO ([B]) if that is the confidence, TRL's own if 1."""

    def __init__(self, model, args: DPOConfig, *, objective: str, **rest):
        self.objective = objective
        args.precompute_ref_log_probs = True  # TRL then expects references with the data, and keeps no second model
        super().__init__(model, args, **rest)

    def _precompute_ref_logps(self, dataset, *_):
        return dataset  # computed already, by the reference stage

    def losses(self, batch):
        logps = lm.response_logps(self.model, batch)
        references = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
        settings = {"objective": self.objective, "beta": self.beta, "label_smoothing": self.label_smoothing}
        settings |= zip(("chosen_lengths", "rejected_lengths"), batch["lengths"].view(2, -1))
        losses = preference_loss(*logps, *references, **settings)
        return batch["weight"] * losses, self.beta * (logps[0] - references[0] - logps[1] + references[1])


def weigh(labels: pd.DataFrame, weighting: str, top_percent=None, threshold=None) -> pd.DataFrame:
    """The labels a policy is trained on, with their ``weight``.
    - ``none``: all, weight 1; ``confidence``: all, weighted by it (CW-PO, [B]); ``margin``: by the raw margin;
    - ``rank``: by the rank of the confidence, from 1/n for the least to 1 (equal ones share their mean rank);
    - ``top``: the ``top_percent`` % most confident, weight 1 ([B] Fig. 2); of equally confident ones the first;
    - ``above``: those of a confidence of at least ``threshold``, weight 1; the most confident one if there is none."""
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
