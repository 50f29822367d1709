"""rewards: the gold reward of each sampled response: the world's program, a scalar head made here, or any reward model."""

from pathlib import Path

import pandas as pd

from weaklib import reward_models
from weaklib.scalar_head import rewards as rewards_of_head
from weaklib.shards import Shards
from weaklib.worlds import WORLDS


def run(
    out: Path,
    *,
    responses: Path,
    world: str | None = None,
    scalar_head: Path | None = None,
    model: dict | None = None,
    shard_batches: int | None = None,
    **scoring,
) -> None:
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``.

    ``world`` names a world, ``scalar_head`` is a model made here, ``model`` is a folder or hub id; ``scoring`` is what
    :func:`weaklib.scalar_head.rewards` or :func:`weaklib.reward_models.rewards` need beside it.
    """
    sampled = pd.read_parquet(responses / "responses.parquet")
    texts = sampled["prompt"].tolist(), sampled["response"].tolist()
    if world is not None:
        rewards = list(map(WORLDS[world].gold_reward, *texts))
    elif scalar_head is not None:
        rewards = rewards_of_head(scalar_head, *texts, **scoring, shards=Shards(out, shard_batches))
    else:
        extra = {"revision": model["revision"], "shards": Shards(out, shard_batches)}
        rewards = reward_models.rewards(model["model"], *texts, **scoring, **extra)
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)
