"""labels: who prefers what. Each pair of a part gets a chosen and a rejected response from one labeller."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.losses import confidence
from weaklib.pairs import logps_of_pairs
from weaklib.scalar_head import rewards_of_pairs
from weaklib.shards import Shards


def run(
    out: Path,
    *,
    task: Path,
    by: str,
    split: Path | None = None,
    part: str = "all",
    annotator: Path | None = None,
    reference: Path | None = None,
    temperature: Path | None = None,
    weak: Path | None = None,
    beta: float | None = None,
    noise: float = 0.0,
    confidently_wrong: float = 0.0,
    limits: dict | None = None,
    batch_tokens: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    shard_batches: int | None = None,
) -> None:
    """Writes ``labels.parquet``: ``pair``, TRL's ``prompt, chosen, rejected``, ``prefers_a``, ``margin``, ``confidence``.

    ``by`` is ``human``, ``oracle`` (the gold reward), ``random``, ``scalar_head`` or ``implicit_reward``: ``annotator`` is then a
    policy, ``reference`` its start's log-probabilities, and the reward of a response is β·[log π(y|x) − log π_sft(y|x)] ([A]).
    ``margin`` is the reward of the chosen response minus that of the rejected one, over the ``temperature`` if there is one; it and
    ``confidence`` are missing where a labeller has none.

    ``matched`` and ``mismatched`` are the labels ``weak`` of another stage on which the human agrees, and does not ([A] Sec. 4).
    A share ``noise`` of human labels is a coin's. The share ``confidently_wrong`` of an annotator's labels, its most confident, is
    turned over: it then errs where it is surest.
    """
    if by in ("matched", "mismatched"):
        labels = pd.read_parquet(weak / "labels.parquet")
        human = pairs_of(task, "all", None).set_index("pair")["human_prefers_a"][labels["pair"]].to_numpy()
        labels[(labels["prefers_a"] == human) == (by == "matched")].to_parquet(out / "labels.parquet", index=False)
        return
    pairs, shards = pairs_of(task, part, split), Shards(out, shard_batches)
    difference = np.full(len(pairs), np.nan)
    if by == "human":
        prefers_a = pairs["human_prefers_a"].to_numpy()
        if noise:  # drawn by the pair's number: the same in every part
            tossed, coin = np.random.default_rng(seed).random((2, pairs["pair"].max() + 1))[:, pairs["pair"]]
            prefers_a = np.where(tossed < noise, coin < 0.5, prefers_a)
    elif by == "oracle":
        difference = (pairs["gold_reward_a"] - pairs["gold_reward_b"]).to_numpy()
        prefers_a = difference > 0
    elif by == "random":
        prefers_a = np.random.default_rng(seed).random(len(pairs)) < 0.5
    elif by == "scalar_head":
        reward_a, reward_b = rewards_of_pairs(annotator, pairs, limits, batch_tokens, device, shards)
        difference = reward_a - reward_b
        if temperature is not None:
            difference /= json.loads((temperature / "temperature.json").read_text(encoding="utf-8"))["temperature"]
        prefers_a = difference > 0
    elif by == "implicit_reward":
        logps = logps_of_pairs(annotator, pairs, limits, batch_tokens, device, shards)
        of_start = pd.read_parquet(reference / "reference.parquet").set_index("pair").loc[pairs["pair"]]
        reward_a, reward_b = beta * (logps - of_start[["logps_a", "logps_b"]].to_numpy().T)
        difference = reward_a - reward_b
        prefers_a = difference > 0
    else:
        raise ValueError(f"unknown labeller {by!r}")
    turned = np.zeros(len(pairs), dtype=bool)
    turned[np.argsort(-np.abs(difference), kind="stable")[: round(confidently_wrong * len(pairs))]] = True
    write(out, pairs, prefers_a ^ turned, np.abs(difference), confidence(difference))


def pairs_of(task: Path, part: str, split: Path | None) -> pd.DataFrame:
    """The pairs of a part: ``labeled``, ``unlabeled``, ``all`` or ``proxy``."""
    pairs = pd.read_parquet(task / ("proxy_pairs.parquet" if part == "proxy" else "pairs.parquet"))
    if part in ("labeled", "unlabeled"):
        parts = pd.read_parquet(split / "split.parquet")
        pairs = pairs[(pairs["pair"].map(parts.set_index("pair")["part"]) == part)].reset_index(drop=True)
    return pairs


def write(out: Path, pairs: pd.DataFrame, prefers_a: np.ndarray, margin: np.ndarray, confidence: np.ndarray) -> None:
    """Each argument beside ``pairs`` has one value a pair."""
    a, b = pairs["response_a"], pairs["response_b"]
    pd.DataFrame(
        {
            "pair": pairs["pair"],
            "prompt": pairs["prompt"],
            "chosen": a.where(prefers_a, b),
            "rejected": b.where(prefers_a, a),
            "prefers_a": prefers_a,
            "margin": margin,
            "confidence": confidence,
        }
    ).to_parquet(out / "labels.parquet", index=False)
