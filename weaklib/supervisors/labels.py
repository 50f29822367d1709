"""labels: who prefers what. Each pair of a part gets a chosen and a rejected response from one labeller.
A labeller is a function of the pairs, and of what its kind needs, that returns of each the margin, the reward of a
minus that of b, or, if it has no rewards, whether it prefers a. A new annotator is one in ANNOTATORS."""

import json
from pathlib import Path

import numpy as np
import pandas as pd


def run(out: Path, *, task: Path, by: str, part: str, split=None, weak=None, confidently_wrong=0.0, **needed) -> None:
    """Writes ``labels.parquet``: ``pair``, the task's ``prompt, messages``, TRL's ``chosen, rejected``, ``prefers_a``;
    ``margin, confidence`` by rewards. ``by``: one of LABELLERS, given what is ``needed``; or ``matched`` or
    ``mismatched``, those labels ``weak`` on which the human agrees, or does not ([A] Sec. 4). Of others a share,
    ``confidently_wrong``, is flipped."""
    if by in ("matched", "mismatched"):
        labels = pd.read_parquet(weak / "labels.parquet")
        human = pairs_of(task, "all", None).set_index("pair")["human_prefers_a"][labels["pair"]].to_numpy()
        labels[(labels["prefers_a"] == human) == (by == "matched")].to_parquet(out / "labels.parquet", index=False)
        return
    pairs = pairs_of(task, part, split)
    said = LABELLERS[by](pairs, **needed)
    if by in ANNOTATORS:  # two responses that are equal once cut have no label
        pairs, said = pairs[~np.isnan(said)].reset_index(drop=True), said[~np.isnan(said)]
    prefers_a, margin = (said, np.full(len(said), np.nan)) if said.dtype == bool else (said > 0, np.abs(said))
    most_confident = np.argsort(-margin, kind="stable")[: round(confidently_wrong * len(pairs))]
    write(out, pairs, prefers_a ^ np.isin(np.arange(len(pairs)), most_confident), margin, confidence(margin))


def confidence(margin):
    """C = 2·(σ(|margin|) − ½), in [0, 1], of a weak label ([B], the weight of CW-PO): a number, array or tensor.
    ``margin``: the reward of one response minus that of the other. tanh(|margin|/2) is equal and loses no digits."""
    half = abs(margin) / 2
    return half.tanh() if hasattr(half, "tanh") else np.tanh(half)  # the first: a torch tensor


def pairs_of(task: Path, part: str, split: Path | None) -> pd.DataFrame:
    """The pairs of a part: ``labeled``, ``unlabeled``, ``all`` or ``proxy``."""
    pairs = pd.read_parquet(task / ("proxy_pairs.parquet" if part == "proxy" else "pairs.parquet"))
    if part in ("labeled", "unlabeled"):
        parts = pd.read_parquet(split / "split.parquet").set_index("pair")["part"]
        pairs = pairs[pairs["pair"].map(parts) == part].reset_index(drop=True)
    return pairs


def write(out: Path, pairs: pd.DataFrame, prefers_a, margin, confidence) -> None:
    """The last three have one value a pair."""
    a, b = pairs["response_a"], pairs["response_b"]
    said = {"chosen": a.where(prefers_a, b), "rejected": b.where(prefers_a, a), "prefers_a": prefers_a}
    said |= {"margin": margin, "confidence": confidence}
    pairs[["pair", "prompt", "messages"]].assign(**said).to_parquet(out / "labels.parquet", index=False)


def _human(pairs, noise=0.0, seed=None):
    """The task's human labels; a share ``noise`` of them is a coin's."""
    prefers_a = pairs["human_prefers_a"].to_numpy()
    if noise:  # drawn by the pair's number: the same in every part
        tossed, coin = np.random.default_rng(seed).random((2, pairs["pair"].max() + 1))[:, pairs["pair"]]
        prefers_a = np.where(tossed < noise, coin < 0.5, prefers_a)
    return prefers_a


def _scalar_head(pairs, annotator, temperature=None, **scoring):
    """By the annotator's rewards ([B]), their difference over the ``temperature`` if there is one."""
    from weaklib.supervisors.scalar_head import rewards_of_pairs  # torch takes seconds; a profile needs only the names

    reward_a, reward_b = rewards_of_pairs(annotator, pairs, **scoring)
    known = json.loads((temperature / "temperature.json").read_text(encoding="utf-8")) if temperature else {}
    return (reward_a - reward_b) / known.get("temperature", 1.0)


def _implicit_reward(pairs, annotator, reference, beta, **scoring):
    """By β·[log π(y|x) − log π_sft(y|x)] of a policy ([A]); ``reference`` are its start's log-probabilities."""
    from weaklib.training.language_models import logps_of_pairs

    of_start = pd.read_parquet(reference / "reference.parquet").set_index("pair")[["logps_a", "logps_b"]]
    of_policy = logps_of_pairs(annotator, pairs, **scoring)
    reward_a, reward_b = beta * (of_policy - of_start.loc[pairs["pair"]].to_numpy().T)
    return reward_a - reward_b


# Those with a model of their own are given it (weaklib.arms.graph.annotator); any other gets ``labeled``, D_l's labels.
TRAINED: dict = {"scalar_head": _scalar_head, "implicit_reward": _implicit_reward}
ANNOTATORS = {**TRAINED}
LABELLERS: dict = {
    "human": _human,
    "oracle": lambda pairs: (pairs["gold_reward_a"] - pairs["gold_reward_b"]).to_numpy(),
    "random": lambda pairs, seed: np.random.default_rng(seed).random(len(pairs)) < 0.5,
    **ANNOTATORS,
}
