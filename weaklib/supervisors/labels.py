"""labels: who prefers what. Each pair of a part gets a chosen and a rejected response from one labeller.

A labeller is a function of the pairs (and of what its kind needs, see :func:`run`) that returns whether it prefers response a of each,
and its margin: the reward of a minus that of b, or NaN. A new annotator is such a function under its name in ``ANNOTATORS``.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.supervisors.confidence import confidence


def run(
    out: Path, *, task: Path, by: str, split: Path | None = None, part: str = "all", weak: Path | None = None,
    confidently_wrong: float = 0.0, **needed,
) -> None:  # fmt: skip
    """Writes ``labels.parquet``: ``pair``, TRL's ``prompt, chosen, rejected``, ``prefers_a``, ``margin``, ``confidence``.

    ``by`` is one of the ``LABELLERS``, which is given what is ``needed``. ``margin`` is the reward of the chosen response minus that of
    the rejected one; it and ``confidence`` are missing where a labeller has none. ``matched`` and ``mismatched`` are the labels ``weak``
    of another stage on which the human agrees, and does not ([A] Sec. 4). The share ``confidently_wrong`` of an annotator's
    labels, its most confident, is flipped: it then errs where it is surest.
    """
    if by in ("matched", "mismatched"):
        labels = pd.read_parquet(weak / "labels.parquet")
        human = pairs_of(task, "all", None).set_index("pair")["human_prefers_a"][labels["pair"]].to_numpy()
        labels[(labels["prefers_a"] == human) == (by == "matched")].to_parquet(out / "labels.parquet", index=False)
        return
    pairs = pairs_of(task, part, split)
    prefers_a, margin = LABELLERS[by](pairs, **needed)
    flipped = np.zeros(len(pairs), dtype=bool)
    flipped[np.argsort(-np.abs(margin), kind="stable")[: round(confidently_wrong * len(pairs))]] = True
    write(out, pairs, prefers_a ^ flipped, np.abs(margin), confidence(margin))


def _human(pairs, noise=0.0, seed=None):
    """The task's human labels; a share ``noise`` of them is a coin's."""
    prefers_a = pairs["human_prefers_a"].to_numpy()
    if noise:  # drawn by the pair's number: the same in every part
        tossed, coin = np.random.default_rng(seed).random((2, pairs["pair"].max() + 1))[:, pairs["pair"]]
        prefers_a = np.where(tossed < noise, coin < 0.5, prefers_a)
    return prefers_a, np.full(len(pairs), np.nan)


def _oracle(pairs):
    """The gold reward's."""
    return _by_reward((pairs["gold_reward_a"] - pairs["gold_reward_b"]).to_numpy())


def _random(pairs, seed):
    return np.random.default_rng(seed).random(len(pairs)) < 0.5, np.full(len(pairs), np.nan)


def _scalar_head(pairs, annotator, limits, batch_tokens, device, temperature=None):
    """By the annotator's rewards ([B]), their difference over the ``temperature`` if there is one."""
    from weaklib.supervisors.scalar_head import (
        rewards_of_pairs,
    )  # torch takes seconds, and a profile needs only the names

    reward_a, reward_b = rewards_of_pairs(annotator, pairs, limits, batch_tokens, device)
    known = temperature and json.loads((temperature / "temperature.json").read_text(encoding="utf-8"))
    return _by_reward((reward_a - reward_b) / (known["temperature"] if known else 1.0))


def _implicit_reward(pairs, annotator, reference, beta, limits, batch_tokens, device):
    """By β·[log π(y|x) − log π_sft(y|x)] of a policy ([A]); ``reference`` are its start's log-probabilities."""
    from weaklib.training.pairs import logps_of_pairs

    logps = logps_of_pairs(annotator, pairs, limits, batch_tokens, device)
    of_start = pd.read_parquet(reference / "reference.parquet").set_index("pair").loc[pairs["pair"]]
    reward_a, reward_b = beta * (logps - of_start[["logps_a", "logps_b"]].to_numpy().T)
    return _by_reward(reward_a - reward_b)


def _by_reward(difference: np.ndarray):
    return difference > 0, difference


# Annotators with a model of their own are given it (weaklib.arms.graph.annotator); any other gets ``labeled``, the labels of D_l.
TRAINED = {"scalar_head": _scalar_head, "implicit_reward": _implicit_reward}
ANNOTATORS = {**TRAINED}
LABELLERS = {"human": _human, "oracle": _oracle, "random": _random, **ANNOTATORS}


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
    texts = {"prompt": pairs["prompt"], "chosen": a.where(prefers_a, b), "rejected": b.where(prefers_a, a)}
    said = {"prefers_a": prefers_a, "margin": margin, "confidence": confidence}
    pd.DataFrame({"pair": pairs["pair"], **texts, **said}).to_parquet(out / "labels.parquet", index=False)
