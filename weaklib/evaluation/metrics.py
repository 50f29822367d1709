"""What is measured of policies: gold reward accuracy, gains, and their differences between arms."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from weaklib.evaluation.intervals import COLUMNS, LEVEL, Estimate, correct_family, crossed_mean


def wins(reward, reference) -> np.ndarray:
    """1 where ``reward`` is higher than ``reference``, 0 where lower, ½ where they tie; missing stays missing."""
    difference = np.asarray(reward, dtype=float) - np.asarray(reference, dtype=float)
    return (np.sign(difference) + 1) / 2


def gra(results: pd.DataFrame, by: list[str], length_controlled: bool = False) -> pd.DataFrame:
    """Gold reward accuracy ([B]): the share of test prompts where the policy's response beats its SFT start's.

    Args:
        results: a row for each arm, setting, ``seed`` and ``prompt`` with ``gold_reward`` and ``sft_gold_reward``,
            ``words`` and ``sft_words``.
        by: the columns that name an arm and its setting.
        length_controlled: what it would be if both responses were of one length (:func:`without_length`).

    Returns:
        one row each with ``estimate, ci_low, ci_high, n_seeds, n_prompts, standard_error, freedom``.
    """

    def mean(rows):
        scores = without_length(rows) if length_controlled else rows["win"]
        return crossed_mean(_by_seed_and_prompt(rows.assign(score=scores)), (0, 1))

    return summarise(_with_wins(results), by, "win", mean)


def over_start(results: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """GRA less one half, as the ledger of claims reads it: above 0 the policy beats its start. Arguments as :func:`gra`."""
    bounds = ["estimate", "ci_low", "ci_high"]
    rows = gra(results, by).assign(metric="gra_over_start", baseline="sft")
    return rows.assign(**{column: rows[column] - 0.5 for column in bounds})


def paired_scores(
    results: pd.DataFrame, by: Sequence[str], baseline: str | dict, metric: str = "gra"
) -> tuple[pd.DataFrame, tuple[float, float]]:
    """The rows of ``results`` that are no baseline, with ``score``: theirs minus the baseline's on the same seed and prompt.

    Arguments as :func:`difference`. Returns the rows and the bounds of a mean of scores.
    """
    fixed = {"arm": baseline} if isinstance(baseline, str) else baseline
    same = [column for column in by if column not in ("top_percent", *fixed)] + ["seed", "prompt"]
    scored, value = (_with_wins(results), "win") if metric == "gra" else (results, metric)
    is_base = np.logical_and.reduce([scored[column] == wanted for column, wanted in fixed.items()])
    base = scored.loc[is_base, [*same, value]].rename(columns={value: "base"})
    both = scored[~is_base].merge(base, on=same, how="left", validate="many_to_one")
    both["score"] = both[value] - both.pop("base")
    return both, (-1, 1) if metric == "gra" else (-np.inf, np.inf)


def difference(
    results: pd.DataFrame, by: Sequence[str], baseline: str | dict, metric: str = "gra", over: Sequence[str] = ()
) -> pd.DataFrame:
    """GRA, or the mean of another column, of each arm and setting minus that of a baseline on the same seeds and prompts.

    Args:
        baseline: the name of an arm, to be compared within each setting; or ``{column: value}``, to be compared with one value of those
            columns within each setting of the others.
        metric: ``gra``, or a column such as ``gold_reward``.
        over: columns of further settings that the mean goes over. What is averaged shares its seeds and prompts, so it is averaged
            seed by seed and prompt by prompt.

    Returns:
        as :func:`gra`; the interval is that of the paired difference.
    """
    scored, bounds = paired_scores(results, [*by, *over], baseline, metric)
    if over:
        scored = scored.groupby([*by, "seed", "prompt"], dropna=False, sort=False, as_index=False)["score"].mean()
    return summarise(scored, by, "score", lambda rows: crossed_mean(_by_seed_and_prompt(rows), bounds))


def contrasts(results: pd.DataFrame, by: Sequence[str], baseline: str | dict, over: Sequence[str] = ()) -> pd.DataFrame:
    """:func:`difference` in both metrics, as the ledger of claims reads them.

    Returns:
        a row each with ``metric``, ``baseline`` (``arm=human``, say), the columns of ``by``, those of ``over`` (which say ``mean``), the
        difference, and its p value corrected (Holm) for the number of differences in that metric.
    """
    fixed = {"arm": baseline} if isinstance(baseline, str) else baseline
    name = ", ".join(f"{column}={value}" for column, value in fixed.items())
    both = [
        correct_family(difference(results, by, baseline, metric, over)).assign(metric=metric)
        for metric in ("gra", "gold_reward")
    ]
    return pd.concat(both, ignore_index=True).assign(baseline=name, **dict.fromkeys(over, "mean"))


def win_rate(results: pd.DataFrame, by: list[str], arm: str, baseline: str) -> pd.DataFrame:
    """The share of test prompts where the response of ``arm`` has a higher gold reward than that of ``baseline`` ([B] Fig. 5).

    Arguments and result as :func:`gra`; ``by`` names the settings that both arms have.
    """
    return gra(gold_gap(results, by, arm, baseline), by)


def gold_gap(results: pd.DataFrame, by: list[str], arm: str, baseline: str) -> pd.DataFrame:
    """R*(arm) − R*(baseline) of each seed and prompt in column ``gap`` ([B] Fig. 5); ``sft_gold_reward`` is the baseline's."""
    same = [*by, "seed", "prompt"]
    base = results.loc[results["arm"] == baseline, [*same, "gold_reward"]].rename(
        columns={"gold_reward": "sft_gold_reward"}
    )
    both = results[results["arm"] == arm].drop(columns="sft_gold_reward").merge(base, on=same, validate="one_to_one")
    return both.assign(gap=both["gold_reward"] - both["sft_gold_reward"])


def gain(results: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean gain in gold reward over the supervised start, [A]'s untrained policy. Arguments and result as :func:`gra`."""
    return mean_of(results.assign(gain=results["gold_reward"] - results["sft_gold_reward"]), by, "gain")


def mean_of(rows: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """The mean of ``column`` over seeds and prompts, one row for each group of ``by``; result as :func:`gra`."""
    anything = (-np.inf, np.inf)
    return summarise(
        rows, by, column, lambda part: crossed_mean(_by_seed_and_prompt(part.assign(score=part[column])), anything)
    )


def rank_agreement(results: pd.DataFrame, arms: list[str], one: str, other: str, draws: int = 2000) -> Estimate:
    """Spearman's rank correlation of the ``arms``' GRA under the gold rewards ``one`` and ``other``, for one pair of models.

    The interval is a percentile bootstrap over seeds and prompts, the same draws for all arms and both rewards. With few arms and
    seeds it is coarse: a correlation of some ten arms has few values to take.
    """
    scored = _with_wins(results).rename(columns={"win": "score"})

    def table(gold: str) -> np.ndarray:  # arms × seeds × prompts
        rows = scored[scored["gold"] == gold]
        return np.stack([_by_seed_and_prompt(rows[rows["arm"] == arm]) for arm in arms])

    both, rng = (table(one), table(other)), np.random.default_rng(0)
    _, seeds, prompts = both[0].shape

    def correlation(of_seeds: np.ndarray, of_prompts: np.ndarray) -> float:
        means = [np.einsum("asp,s,p->a", scores, of_seeds, of_prompts) for scores in both]
        return spearmanr(*means).statistic

    drawn = [
        correlation(rng.multinomial(seeds, [1 / seeds] * seeds), rng.multinomial(prompts, [1 / prompts] * prompts))
        for _ in range(draws)
    ]
    low, high = (float(np.nanquantile(drawn, (1 + side * LEVEL) / 2)) for side in (-1, 1))
    whole, spread = correlation(np.ones(seeds), np.ones(prompts)), float(np.nanstd(drawn))
    return Estimate(whole, low, high, seeds, prompts, spread, np.nan)


def without_length(rows: pd.DataFrame) -> pd.Series:
    """Wins less what the difference in length explains of them, in one arm's rows.

    As in length-controlled AlpacaEval (Dubois et al. 2024) length enters as tanh of the standardised difference
    in words and is set to 0; the model is linear, so that each prompt keeps a score and the intervals are those of GRA.
    """
    difference = (rows["words"] - rows["sft_words"]).to_numpy(float)
    if not difference.any():
        return rows["win"]
    length = np.tanh(difference / difference.std())
    slope = np.polyfit(length, rows["win"], deg=1)[0]
    return rows["win"] - slope * length


def _with_wins(results: pd.DataFrame) -> pd.DataFrame:
    return results.assign(win=wins(results["gold_reward"], results["sft_gold_reward"]))


def _by_seed_and_prompt(rows: pd.DataFrame) -> np.ndarray:
    table = rows.pivot(index="seed", columns="prompt", values="score").to_numpy()
    if np.isnan(table).any():
        raise ValueError("the seeds of an arm were tested on different prompts")
    return table


def summarise(rows: pd.DataFrame, by: Sequence[str], value: str, estimate) -> pd.DataFrame:
    """A row for each group of ``by`` with the ``estimate`` (a function of its rows) of column ``value``, which may not be missing."""
    if rows[value].isna().any():
        raise ValueError(f"{value} is missing in {rows[value].isna().sum()} of {len(rows)} rows")
    groups = rows.groupby(list(by), dropna=False, sort=False)
    found = [dict(zip(by, name)) | dataclasses.asdict(estimate(group)) for name, group in groups]
    return pd.DataFrame(found, columns=[*by, *COLUMNS])
