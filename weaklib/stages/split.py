"""split: which pairs the annotator may learn from (D_l) and which it labels (D_u)."""

from pathlib import Path

import numpy as np
import pandas as pd


def run(out: Path, *, task: Path, labeled_fraction: float, seed: int) -> None:
    """Writes ``split.parquet``: ``pair`` and ``part`` (``labeled`` or ``unlabeled``), drawn by ``seed``.

    Whole prompts are drawn, so that no prompt of D_u is known to the annotator.
    """
    pairs = pd.read_parquet(task / "pairs.parquet", columns=["pair", "prompt"])
    prompts = np.random.default_rng(seed).permutation(pairs["prompt"].unique())
    labeled = pairs["prompt"].isin(prompts[: round(labeled_fraction * len(prompts))])
    part = labeled.map({True: "labeled", False: "unlabeled"})
    pd.DataFrame({"pair": pairs["pair"], "part": part}).to_parquet(out / "split.parquet", index=False)
