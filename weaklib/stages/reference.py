"""reference: log-probabilities of every pair under the policy's start, computed once for all arms and objectives."""

from pathlib import Path

import pandas as pd

from weaklib.language_models import load_causal_lm, load_tokenizer, tokenize_pairs
from weaklib.pairs import response_logps, score


def run(out: Path, *, task: Path, start: Path, limits: dict, batch_tokens: int, device: str) -> None:
    """Writes ``reference.parquet``: ``pair``, ``logps_a``, ``logps_b`` in nats; no label enters."""
    tokenizer, model = load_tokenizer(start), load_causal_lm(start, device).eval()
    pairs = pd.read_parquet(task / "pairs.parquet")
    rows = tokenize_pairs(tokenizer, pairs, "response_a", "response_b", limits)
    logps_a, logps_b = score(model, rows, response_logps, batch_tokens).T.numpy()
    frame = pd.DataFrame({"pair": pairs["pair"], "logps_a": logps_a, "logps_b": logps_b})
    frame.to_parquet(out / "reference.parquet", index=False)
