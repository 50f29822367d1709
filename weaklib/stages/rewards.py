"""rewards: the gold reward of each sampled response: the world's program, or a trained proxy of it."""

from pathlib import Path

import pandas as pd

from weaklib import scalar_head
from weaklib.worlds import WORLDS


def run(
    out: Path,
    *,
    responses: Path,
    world: str | None = None,
    proxy: Path | None = None,
    limits: dict | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
) -> None:
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``."""
    sampled = pd.read_parquet(responses / "responses.parquet")
    prompts, answers = sampled["prompt"].tolist(), sampled["response"].tolist()
    if proxy is None:
        rewards = list(map(WORLDS[world].gold_reward, prompts, answers))
    else:
        rewards = scalar_head.rewards(proxy, prompts, answers, limits, batch_tokens, device)
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)
