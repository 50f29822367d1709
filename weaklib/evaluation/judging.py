"""What a judge's verdicts say of policies, and how far the judge itself can be trusted."""

import numpy as np
import pandas as pd

from weaklib.evaluation.intervals import Estimate, crossed_mean

# What names the two responses that a question shows, in verdicts of :func:`weaklib.judge_verdicts`.
PAIR = ["annotator.kind", "arm", "weak", "strong", "seed", "prompt"]


def win_rates(verdicts: pd.DataFrame, by: list[str], asked: str) -> pd.DataFrame:
    """The share of prompts on which the arm's response is judged better, a tie counted half, for each group of ``by``.
    ``asked``: ``both orders``, where a verdict that turns over is a tie (if all are, nothing can be read from them, and
    the estimate is missing), or ``arm first`` or ``arm second`` alone. The
    first repeat counts; prompts without a readable verdict in some seed are left out, and ``left_out`` counts them.
    """
    scores = _scores(verdicts)
    score = scores[asked != "arm second"]
    if asked == "both orders":
        score = score.where(scores[True] == scores[False], 0.5).mask(scores.isna().any(axis=1))
    found = []
    for name, group in score.rename("score").reset_index().groupby(by, sort=False):
        table = group.pivot(index="seed", columns="prompt", values="score")
        judged = table.dropna(axis="columns")
        unknown = Estimate._make([np.nan] * 3 + list(judged.shape) + [np.nan] * 2)
        silent = judged.shape[1] < 2 or (judged == 0.5).all(axis=None)  # a judge that always says the same
        estimate = unknown if silent else crossed_mean(judged.to_numpy(), (0, 1))
        found.append(dict(zip(by, name)) | estimate._asdict() | {"left_out": table.shape[1] - judged.shape[1]})
    return pd.DataFrame(found)


def judge_reliability(verdicts: pd.DataFrame) -> dict[str, float]:
    """How far the judge can be trusted, as shares of what it was ``asked``; missing where there is nothing to share.
    ``unreadable``: without a verdict after two replies. ``first_position``: verdicts for the first, of those that name
    one; without a position bias one half. ``flips``: pairs whose verdict turns over with the order. ``consistency``:
    repeats that agree ([A] Sec. 4). ``right``: verdicts that name the response with the higher gold reward.
    """
    verdicts = verdicts[verdicts["asked"]]
    read = verdicts.dropna(subset=["verdict"])
    named = read[read["verdict"] != "tie"]
    scores, question = _scores(verdicts).dropna(), [*PAIR, "arm_first"]
    once, later = read[read["repeat"] == 0], read[read["repeat"] > 0]
    again = later.merge(once[[*question, "verdict"]], on=question, suffixes=("", "_once"))
    return {
        "unreadable": verdicts["verdict"].isna().mean(),
        "first_position": (named["verdict"] == "first").mean(),
        "flips": (scores[True] != scores[False]).mean(),
        "consistency": (again["verdict"] == again["verdict_once"]).mean(),
        "right": (named["verdict"] == named["truth"])[named["truth"].isin(["first", "second"])].mean(),
    }


def repeated_verdicts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """What a judge says twice of pairs: ``verdict_again``, ``label_again``, ``for_a`` (:func:`weaklib.judged_twice`).
    Frames have a row a pair and a column an order; 1 where the verdict is for response a, 0 for b, ½ for a tie.
    """
    read = first.notna() & second.notna()
    # not the stages' labels: a pair left undecided twice gets the same coin twice
    label, again = (scores.mean(axis=1).where(scores.nunique(axis=1) == 1, 0.5) for scores in (first, second))
    found = {
        "verdict_again": (first == second).astype(float).where(read).mean(axis=1),
        "label_again": (label == again).astype(float).where(read.all(axis=1)),
        "for_a": first.mean(axis=1),
    }
    return pd.DataFrame(found)


def _scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """First verdicts: 1 for the arm, 0 for the baseline, ½ for a tie; a row a pair, a column an ``arm_first``."""
    verdicts = verdicts[verdicts["repeat"] == 0]
    for_first = verdicts["verdict"].map({"first": 1.0, "second": 0.0, "tie": 0.5})
    verdicts = verdicts.assign(score=for_first.where(verdicts["arm_first"], 1 - for_first))
    return verdicts.pivot(index=PAIR, columns="arm_first", values="score").reindex(columns=[True, False])
