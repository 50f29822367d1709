"""policy: preference training of the student on labelled pairs, from its supervised start."""

import math
from pathlib import Path

import pandas as pd
from datasets import Dataset
from trl import DPOConfig

from weaklib.language_models import load_causal_lm, load_tokenizer, tokenize_pairs
from weaklib.preference_trainer import WeightedDPOTrainer
from weaklib.training import trainable, trainer_settings, weights_dtype


def run(
    out: Path,
    *,
    start: Path,
    labels: Path,
    reference: Path,
    weighting: str,
    top_percent: float | None = None,
    threshold: float | None = None,
    objective: str,
    beta: float,
    label_smoothing: float,
    training: dict,
    limits: dict,
    seed: int,
    device: str,
    **execution,
) -> None:
    """Writes a model folder: the policy. ``execution``: see :func:`weaklib.training.trainer_settings`."""
    tokenizer, model = load_tokenizer(start), load_causal_lm(start, device, weights_dtype(training))
    pairs = weigh(pd.read_parquet(labels / "labels.parquet"), weighting, top_percent, threshold)
    pairs = pairs.merge(pd.read_parquet(reference / "reference.parquet"), on="pair", validate="one_to_one")
    rows = tokenize_pairs(tokenizer, pairs, "chosen", "rejected", limits)
    for row, pair in zip(rows, pairs.itertuples(), strict=True):
        logps = (pair.logps_a, pair.logps_b) if pair.prefers_a else (pair.logps_b, pair.logps_a)
        row |= {"ref_chosen_logps": logps[0], "ref_rejected_logps": logps[1], "weight": pair.weight}
    config = DPOConfig(
        **trainer_settings(training, seed, device, out, **execution), beta=beta, label_smoothing=label_smoothing
    )
    trainer = WeightedDPOTrainer(
        trainable(model, training, "CAUSAL_LM"),
        config,
        objective=objective,
        batch_tokens=training["batch_tokens"],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train_and_save(out)


def weigh(
    labels: pd.DataFrame, weighting: str, top_percent: float | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """The labels a policy is trained on, with their ``weight``.

    - ``none``: all, weight 1;
    - ``confidence``: all, weighted by confidence (CW-PO, [B]); ``margin``: by the raw margin; ``rank``: by the rank of the confidence, from
      1/n for the least to 1 for the most confident (equal ones share their mean rank);
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
    weights = {
        "none": 1.0,
        "confidence": confidence,
        "margin": labels["margin"],
        "rank": confidence.rank(pct=True),
    }
    if weighting not in weights:
        raise ValueError(f"unknown weighting {weighting!r}: top, above, {', '.join(weights)}")
    return labels.assign(weight=weights[weighting])
