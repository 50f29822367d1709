"""temperature: what an annotator's margins are divided by for σ(margin) to be the share of labels that are right."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from weaklib.supervisors import annotator
from weaklib.supervisors.scalar_head import rewards_of_pairs


def run(out: Path, *, labels: Path, seed: int, **how) -> None:
    """Writes ``temperature.json``: temperature scaling (Guo et al. 2017) without a label more than D_l. An annotator
    learns from four fifths of it; its margins on the rest are fitted to the human labels there by their likelihood."""
    known = pd.read_parquet(labels / "labels.parquet")
    held_out = known["prompt"].isin(pd.Series(known["prompt"].unique()).sample(frac=0.2, random_state=seed))
    second = out.with_suffix(".scratch") / "annotator"  # its labels lie beside it
    second.mkdir(parents=True, exist_ok=True)
    known[~held_out].to_parquet(second.parent / "labels.parquet", index=False)
    annotator.run(second, labels=second.parent, seed=seed, **how)
    shown = known[held_out].rename(columns={"chosen": "response_a", "rejected": "response_b"})
    scoring = how["limits"], how["training"]["batch_tokens"], how["device"]
    right, wrong = rewards_of_pairs(second, shown, *scoring)
    (out / "temperature.json").write_text(json.dumps({"temperature": fit(right - wrong)}) + "\n", encoding="utf-8")


def fit(margins: np.ndarray) -> float:
    """The T in [0.05, 20] that makes −Σ log σ(margin/T) least; ``margins`` are positive where a label is right."""
    loss = lambda log_t: np.logaddexp(0, -margins / np.exp(log_t)).sum()  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
