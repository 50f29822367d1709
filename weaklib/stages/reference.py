"""reference: log-probabilities of every pair under the policy's start, computed once for all arms and objectives."""

from pathlib import Path

import pandas as pd
import torch

from weaklib.language_models import batches_of_pairs, load_causal_lm, load_tokenizer, response_logps, tokenize_pairs

BATCH = 64


@torch.inference_mode()
def run(out: Path, *, task: Path, start: Path, limits: dict, device: str) -> None:
    """Writes ``reference.parquet``: ``pair``, ``logps_a``, ``logps_b`` in nats; no label enters."""
    tokenizer, model = load_tokenizer(start), load_causal_lm(start, device).eval()
    pairs = pd.read_parquet(task / "pairs.parquet")
    rows = tokenize_pairs(tokenizer, pairs, "response_a", "response_b", limits)
    logps = torch.empty(len(rows), 2)
    for numbers, batch in batches_of_pairs(rows, tokenizer, BATCH, device):
        logps[numbers] = torch.stack(response_logps(model, batch).chunk(2), dim=1).cpu()
    frame = pd.DataFrame({"pair": pairs["pair"], "logps_a": logps[:, 0].numpy(), "logps_b": logps[:, 1].numpy()})
    frame.to_parquet(out / "reference.parquet", index=False)
