"""rewards: the gold reward of each sampled response: the world's program, or a trained proxy of it."""

from pathlib import Path

import pandas as pd

from weaklib import scalar_head, world


def run(out: Path, *, responses: Path, proxy: Path | None = None, limits: dict | None = None, device: str = "cpu") -> None:
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``."""
    sampled = pd.read_parquet(responses / "responses.parquet")
    prompts, answers = sampled["prompt"].tolist(), sampled["response"].tolist()
    if proxy is None:
        rewards = [world.gold_reward(prompt, answer) for prompt, answer in zip(prompts, answers)]
    else:
        rewards = scalar_head.rewards(proxy, prompts, answers, limits, device)
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)
