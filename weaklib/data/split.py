"""split: which pairs the annotator may learn from (D_l) and which it labels (D_u)."""

from pathlib import Path

import numpy as np
import pandas as pd


def run(out: Path, *, task: Path, labeled_fraction: float, unlabeled_fraction: float | None = None, seed: int) -> None:
    """Writes ``split.parquet``: ``pair`` and ``part`` (``labeled``, ``unlabeled`` or ``unused``), drawn by ``seed``.
    Whole prompts are drawn: the annotator knows none of D_u. Without ``unlabeled_fraction`` D_u is all that D_l leaves;
    with it D_u is the end of the same order, so that one seed has the same D_u whatever the size of D_l.
    """
    pairs = pd.read_parquet(task / "pairs.parquet", columns=["pair", "prompt"])
    prompts = np.random.default_rng(seed).permutation(pairs["prompt"].unique())
    labeled = round(labeled_fraction * len(prompts))
    unlabeled = len(prompts) - labeled if unlabeled_fraction is None else round(unlabeled_fraction * len(prompts))
    part = pd.Series("unused", index=prompts)
    part.iloc[len(prompts) - unlabeled :] = "unlabeled"
    part.iloc[:labeled] = "labeled"
    pairs["part"] = pairs.pop("prompt").map(part)
    pairs.to_parquet(out / "split.parquet", index=False)
