"""gold_pairs: pairs of the controlled world for training a gold reward model; no part of the task has their prompts."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.task import world_pairs
from weaklib.data.world import WORLDS


def run(out: Path, *, task: Path, name: str, prompts: str, pairs: int, seed: int) -> None:
    """Writes ``pairs.parquet``, as the task's."""
    tables = [pd.read_parquet(task / f"{part}.parquet") for part in ("pairs", "demonstrations", "prompts")]
    taken = set().union(*(table["prompt"] for table in tables))
    world, rng = WORLDS[name], np.random.default_rng([seed, 1])
    fresh = [prompt for prompt in world.sample_prompts(rng, pairs + len(taken), prompts) if prompt not in taken]
    world_pairs(rng, world, fresh[:pairs], world.HUMAN).to_parquet(out / "pairs.parquet", index=False)
