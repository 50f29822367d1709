"""What a judge's verdicts say of policies, and how far the judge itself can be trusted."""

import dataclasses

import numpy as np
import pandas as pd

from weaklib.evaluation.intervals import crossed_mean

# What names the two responses that a question shows, in verdicts of :func:`weaklib.judge_verdicts`.
PAIR = ["annotator.kind", "arm", "weak", "strong", "seed", "prompt"]


def win_rates(verdicts: pd.DataFrame, by: list[str], asked: str) -> pd.DataFrame:
    """The share of prompts on which the arm's response is judged better, a tie counted half; one row for each group of ``by``.

    Args:
        verdicts: :func:`weaklib.judge_verdicts`; the first repeat counts.
        asked: ``both orders``: a verdict that turns over with the order is a tie; ``arm first`` or ``arm second``: as if the pair had been
            asked in that order only.

    Returns:
        ``estimate, ci_low, ci_high, n_seeds, n_prompts, …``; prompts without a readable verdict in some seed are left out of all seeds,
        and ``left_out`` counts them.
    """
    scores = _scores(verdicts[verdicts["repeat"] == 0])
    pairs = scores.pivot(index=PAIR, columns="arm_first", values="score")
    if asked == "both orders":
        agree = pairs[True] == pairs[False]
        score = pairs[True].where(agree, 0.5).mask(pairs.isna().any(axis=1))
    else:
        score = pairs[{"arm first": True, "arm second": False}[asked]]
    rows = score.rename("score").reset_index()
    found = []
    for name, group in rows.groupby(by, sort=False):
        table = group.pivot(index="seed", columns="prompt", values="score")
        judged = table.dropna(axis="columns")
        if judged.shape[1] < 2:
            empty = dict.fromkeys(("estimate", "ci_low", "ci_high"), np.nan) | {
                "n_seeds": len(table),
                "n_prompts": judged.shape[1],
            }
            found.append(dict(zip(by, name)) | empty | {"left_out": table.shape[1] - judged.shape[1]})
            continue
        estimate = dataclasses.asdict(crossed_mean(judged.to_numpy(), (0, 1)))
        found.append(dict(zip(by, name)) | estimate | {"left_out": table.shape[1] - judged.shape[1]})
    return pd.DataFrame(found)


def judge_reliability(verdicts: pd.DataFrame) -> dict[str, float]:
    """How far the judge can be trusted, as shares of what it was ``asked``; missing where there is nothing to take a share of.

    ``unreadable``: questions without a verdict after two replies. ``first_position``: of those that name one, verdicts for the first; a judge
    without a position bias has one half. ``flips``: pairs whose verdict turns over with the order. ``consistency``: pairs of
    repeats of one question that agree ([A] Sec. 4). ``right``: verdicts that name the response with the higher gold reward.
    """
    verdicts = verdicts[verdicts["asked"]]
    read = verdicts.dropna(subset=["verdict"])
    named = read[read["verdict"] != "tie"]
    scores = _scores(verdicts[verdicts["repeat"] == 0]).pivot(index=PAIR, columns="arm_first", values="score").dropna()
    repeats = read.pivot(index=[*PAIR, "arm_first"], columns="repeat", values="verdict")
    later = [repeats[column] == repeats[0] for column in repeats.columns[1:]]
    both = [repeats[[0, column]].notna().all(axis=1) for column in repeats.columns[1:]]
    again = pd.concat(later)[pd.concat(both)] if later else pd.Series(dtype=bool)
    told = named[named["truth"].isin(["first", "second"])]
    return {
        "unreadable": verdicts["verdict"].isna().mean(),
        "first_position": (named["verdict"] == "first").mean() if len(named) else np.nan,
        "flips": (scores[True] != scores[False]).mean() if len(scores) else np.nan,
        "consistency": again.mean() if len(again) else np.nan,
        "right": (told["verdict"] == told["truth"]).mean() if len(told) else np.nan,
    }


def repeated_verdicts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """What a judge says of pairs and what it says again: ``verdict_again``, ``label_again`` (:func:`weaklib.judged_twice`) and ``for_a``.

    Args:
        first, second: a row a pair, a column an order; 1 where the verdict is for response a, 0 for b, ½ for a tie.
    """
    read = first.notna() & second.notna()
    # not the stages' labels: a pair left undecided twice gets the same coin twice
    label, again = (scores.mean(axis=1).where(scores.nunique(axis=1) == 1, 0.5) for scores in (first, second))
    return pd.DataFrame(
        {
            "verdict_again": (first == second).astype(float).where(read).mean(axis=1),
            "label_again": (label == again).astype(float).where(read.all(axis=1)),
            "for_a": first.mean(axis=1),
        }
    )


def _scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """1 where the verdict is for the arm, 0 where it is for the baseline, ½ for a tie; missing stays missing."""
    for_first = verdicts["verdict"].map({"first": 1.0, "second": 0.0, "tie": 0.5})
    return verdicts.assign(score=for_first.where(verdicts["arm_first"], 1 - for_first))
