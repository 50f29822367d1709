"""reference: log-probabilities of every pair under the policy's start, computed once for all arms and objectives."""

from pathlib import Path

import pandas as pd

from weaklib.training.language_models import logps_of_pairs


def run(out: Path, *, task: Path, start: Path, limits: dict, batch_tokens: int, device: str) -> None:
    """Writes ``reference.parquet``: ``pair``, ``logps_a``, ``logps_b`` in nats; no label enters."""
    pairs = pd.read_parquet(task / "pairs.parquet")
    logps_a, logps_b = logps_of_pairs(start, pairs, limits, batch_tokens, device)
    pairs[["pair"]].assign(logps_a=logps_a, logps_b=logps_b).to_parquet(out / "reference.parquet", index=False)
