"""Estimates over seeds and test prompts: means with 95% intervals, corrections, and what could have been detected.

The interval method is the one that covers in simulation (``make coverage``, ``tests/bench/coverage.csv``): crossed
bootstraps and t intervals on seed means, the usual choices, do not, with few seeds.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and prompts, its interval, and what that rests on."""

    estimate: float
    ci_low: float
    ci_high: float
    n_seeds: int
    n_prompts: int
    standard_error: float
    freedom: float  # degrees of freedom of the t distribution behind the interval


# Columns of tables of estimates; their other columns name a row.
COLUMNS = tuple(field.name for field in dataclasses.fields(Estimate))
MEASURED = (*COLUMNS, "p_value", "p_holm")


def crossed_mean(scores: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Mean of ``scores`` (seeds × prompts) with a two-way random-effects interval.

    Seeds and prompts are both samples, and the prompts are the same for every seed, so
    Var(mean) = (MS_seeds + MS_prompts − MS_residual)/(S·P). Each part is known from its own number of draws: the half-width is
    √(t²_{S−1}·(MS_seeds − MS_residual/2) + t²_{P−1}·(MS_prompts − MS_residual/2))/√(S·P), after Howe (1974),
    with the residual that both mean squares contain taken half from each. It is at least t_{P−1}·√(MS_prompts/(S·P)), what
    seeds that do not differ at all would leave: few seeds can look alike by chance. With one seed it covers prompts only.

    Args:
        scores: shape (S, P), P at least 2, no missing value; a share is a mean of 0, ½ and 1.
        bounds: what the mean can be at all, (0, 1) for a share; the interval keeps to it.
    """
    seeds, prompts = scores.shape
    mean = scores.mean()
    if seeds == 1:
        return _estimate(mean, scores.var(ddof=1) / prompts, prompts - 1, seeds, prompts, bounds)
    by_seed, by_prompt = scores.mean(axis=1), scores.mean(axis=0)
    residual = scores - by_seed[:, None] - by_prompt[None, :] + mean
    of_prompts = seeds * by_prompt.var(ddof=1) / (seeds * prompts)
    half_residual = (residual**2).sum() / (seeds - 1) / (prompts - 1) / 2 / (seeds * prompts)
    seeds_part = max(prompts * by_seed.var(ddof=1) / (seeds * prompts) - half_residual, 0.0)
    prompts_part = max(of_prompts - half_residual, 0.0)
    variance = max(seeds_part + prompts_part, of_prompts)
    if not variance:
        return _estimate(mean, 0.0, prompts - 1, seeds, prompts, bounds)
    half = np.hypot(_quantile(seeds - 1) * np.sqrt(seeds_part), _quantile(prompts - 1) * np.sqrt(prompts_part))
    half = max(half, _quantile(prompts - 1) * np.sqrt(of_prompts))
    return _estimate(mean, variance, _freedom(half / np.sqrt(variance)), seeds, prompts, bounds)


def nested_mean(groups: list[np.ndarray], bounds: tuple[float, float]) -> Estimate:
    """Mean of scores whose units differ from seed to seed (the pairs of D_u), with a t interval on the seeds' means.

    Seeds draw their units from the same pairs, so those of two seeds are mostly the same, and more seeds are not more pairs: the
    variance is at least that of one seed's units. With one seed the interval covers the units only.
    ``n_prompts`` is the mean number of units a seed.

    Args:
        groups: the scores of each seed, no missing value, at least two a seed.
        bounds: as for :func:`crossed_mean`.
    """
    means = np.array([group.mean() for group in groups])
    units = np.mean([group.var(ddof=1) / len(group) for group in groups])
    between = means.var(ddof=1) / len(groups) if len(groups) > 1 else 0.0
    size = round(np.mean([len(group) for group in groups]))
    freedom = len(groups) - 1 if between > units else size - 1
    return _estimate(means.mean(), max(units, between), freedom, len(groups), size, bounds)


def mean_of_seeds(values: list[float], size: int) -> Estimate:
    """Mean of one statistic a seed (not a mean itself) with a t interval; with one seed its bounds are missing."""
    each = np.asarray(values)
    if len(each) == 1:
        return Estimate(each[0], np.nan, np.nan, 1, size, np.nan, np.nan)
    return _estimate(each.mean(), each.var(ddof=1) / len(each), len(each) - 1, len(each), size, (0, np.inf))


def pooled(estimates: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean of the ``estimate`` of several tasks, one row for each group of ``by``: their prompts and models share no draw.

    (What shares seeds and prompts is averaged by :func:`weaklib.evaluation.metrics.difference`.)

    Its standard error is that of a mean of independent estimates, its degrees of freedom Welch and Satterthwaite's.
    """
    rows = []
    for name, group in estimates.groupby(by, sort=False):
        parts = (group["standard_error"] / len(group)) ** 2
        variance = parts.sum()
        spread = (parts**2 / group["freedom"].fillna(np.inf)).sum()
        freedom = variance**2 / spread if spread else np.inf
        sizes = int(group["n_seeds"].min()), int(group["n_prompts"].sum())
        mean = _estimate(group["estimate"].mean(), variance, freedom, *sizes, (-np.inf, np.inf))
        rows.append(dict(zip(by, name)) | dataclasses.asdict(mean) | {"n_settings": len(group)})
    return pd.DataFrame(rows)


def correct_family(differences: pd.DataFrame) -> pd.DataFrame:
    """Adds ``p_value`` (two-sided, that a difference is 0) and ``p_holm``, corrected for the family of all rows.

    Holm (1979): the chance of even one false finding among the rows stays below 1 − ``LEVEL``.
    """
    t = (differences["estimate"] / differences["standard_error"]).abs()
    t = t.where(differences["standard_error"] > 0, np.where(differences["estimate"] == 0, 0.0, np.inf))
    p = pd.Series(2 * stats.t.sf(t, differences["freedom"]), index=differences.index, dtype=float)
    if p.empty:
        return differences.assign(p_value=p, p_holm=p)
    return differences.assign(p_value=p, p_holm=multipletests(p, method="holm")[1])


def detectable(estimate: pd.DataFrame, power: float = 0.8) -> pd.Series:
    """The smallest true difference that a run with these standard errors would have found with probability ``power``."""
    quantiles = _quantile(estimate["freedom"]) + stats.t.ppf(power, estimate["freedom"])
    return quantiles * estimate["standard_error"]


def _estimate(mean, variance, freedom, n_seeds, n_prompts, bounds) -> Estimate:
    error = np.sqrt(variance)
    low, high = np.clip([mean - _quantile(freedom) * error, mean + _quantile(freedom) * error], *bounds)
    return Estimate(mean, low, high, n_seeds, n_prompts, error, freedom)


def _quantile(freedom: float) -> float:
    return stats.t.ppf((1 + LEVEL) / 2, freedom)


def _freedom(quantile: float) -> float:
    """The degrees of freedom whose t distribution has this two-sided quantile."""
    return brentq(lambda freedom: _quantile(freedom) - quantile, 0.9, 1e9)
