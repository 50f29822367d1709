"""temperature: by what an annotator's margins have to be divided for σ(margin) to be the share of its labels that are right."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from weaklib.supervisors import annotator
from weaklib.supervisors.scalar_head import rewards_of_pairs
from weaklib.training.scratch import scratch

HELD_OUT = 0.2  # of D_l


def run(
    out: Path, *, base: Path, labels: Path, training: dict, limits: dict, seed: int, device: str, **execution
) -> None:
    """Temperature scaling (Guo et al. 2017) without a label more than D_l: a second annotator learns from the rest of D_l, and its
    margins on the held-out fifth, which it has not seen, are fitted to the human labels there by their likelihood.

    Writes ``temperature.json``. ``execution``: see :func:`weaklib.training.trainers.trainer_settings`.
    """
    known = pd.read_parquet(labels / "labels.parquet")
    held_out = known["prompt"].isin(pd.Series(known["prompt"].unique()).sample(frac=HELD_OUT, random_state=seed))
    rest, second = scratch(out) / "labels", scratch(out) / "annotator"
    for folder in (rest, second):
        folder.mkdir(exist_ok=True)
    known[~held_out].to_parquet(rest / "labels.parquet", index=False)
    settings = {"training": training, "limits": limits, "seed": seed, "device": device}
    annotator.run(second, base=base, labels=rest, **settings, **execution)
    shown = known[held_out].rename(columns={"chosen": "response_a", "rejected": "response_b"})
    of_chosen, of_rejected = rewards_of_pairs(second, shown, limits, training["batch_tokens"], device)
    found = {"temperature": fit(of_chosen - of_rejected)}
    (out / "temperature.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def fit(margins: np.ndarray) -> float:
    """The T in [0.05, 20] that makes −Σ log σ(margin/T) least; ``margins`` are positive where the label is the human's."""
    loss = lambda log_t: np.logaddexp(0, -margins / np.exp(log_t)).sum()  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
