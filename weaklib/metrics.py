"""What is measured: gold reward accuracy of policies, accuracy of labels."""

import dataclasses

import numpy as np
import pandas as pd

from weaklib.statistics import crossed_mean, nested_mean


def wins(reward, reference) -> np.ndarray:
    """1 where ``reward`` is higher than ``reference``, 0 where lower, ½ where they tie; missing stays missing."""
    difference = np.asarray(reward, dtype=float) - np.asarray(reference, dtype=float)
    return (np.sign(difference) + 1) / 2


def gra(results: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Gold reward accuracy ([B]): the share of test prompts where the policy's response beats its SFT start's.

    Args:
        results: a row for each arm, setting, ``seed`` and ``prompt`` with ``gold_reward`` and ``sft_gold_reward``.
        by: the columns that name an arm and its setting.

    Returns:
        one row each with ``estimate, ci_low, ci_high, n_seeds, n_prompts``.
    """
    scored = results.assign(win=wins(results["gold_reward"], results["sft_gold_reward"]))
    return _summarise(scored, by, "win", lambda rows: crossed_mean(_by_seed_and_prompt(rows), (0, 1)))


def gra_difference(results: pd.DataFrame, by: list[str], baseline: str) -> pd.DataFrame:
    """GRA of each arm minus that of the arm ``baseline`` on the same pair of models, seeds and prompts.

    Arguments and result as :func:`gra`; the interval is that of the paired difference.
    """
    scored = results.assign(win=wins(results["gold_reward"], results["sft_gold_reward"]))
    same = ["weak", "strong", "seed", "prompt"]
    base = scored.loc[scored["arm"] == baseline, [*same, "win"]]
    scored = scored[scored["arm"] != baseline].merge(base, on=same, how="left", suffixes=("", "_baseline"))
    scored["win"] -= scored["win_baseline"]
    return _summarise(scored, by, "win", lambda rows: crossed_mean(_by_seed_and_prompt(rows), (-1, 1)))


def share_correct(labels: pd.DataFrame, by: list[str], correct: str) -> pd.DataFrame:
    """The share of labels where column ``correct`` is true, one row for each group of ``by``; pairs differ by seed."""

    def mean(rows):
        return nested_mean([group[correct].to_numpy(float) for _, group in rows.groupby("seed")], (0, 1))

    return _summarise(labels, by, correct, mean)


def _summarise(rows: pd.DataFrame, by: list[str], value: str, estimate) -> pd.DataFrame:
    if rows[value].isna().any():
        raise ValueError(f"{value} is missing in {rows[value].isna().sum()} of {len(rows)} rows")
    groups = rows.groupby(by, dropna=False, sort=False)
    return pd.DataFrame([dict(zip(by, name)) | dataclasses.asdict(estimate(group)) for name, group in groups])


def _by_seed_and_prompt(rows: pd.DataFrame) -> np.ndarray:
    table = rows.pivot(index="seed", columns="prompt", values="win").to_numpy()
    if np.isnan(table).any():
        raise ValueError("the seeds of an arm were tested on different prompts")
    return table
