"""Estimates over seeds and prompts, with intervals that cover in simulation (``make coverage``), and their tests."""

from collections import namedtuple
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95
_quantile = partial(stats.t.ppf, (1 + LEVEL) / 2)  # of the t distribution with some degrees of freedom

# A mean over seeds and prompts, its interval, and what that rests on; ``freedom`` is that of its t distribution.
Estimate = namedtuple("Estimate", "estimate ci_low ci_high n_seeds n_prompts standard_error freedom")
COLUMNS = Estimate._fields
MEASURED = (*COLUMNS, "p_value", "p_holm")


def crossed_mean(scores: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Mean of ``scores``, (S, P) for S seeds and P > 1 prompts, with a two-way random-effects interval in ``bounds``.
    Seeds and prompts are both samples, and the prompts are the same for every seed, so Var(mean) is
    (MS_seeds + MS_prompts − MS_residual)/(S·P). Each part is known from its own number of draws: the half-width is
    √(t²_{S−1}·(MS_seeds − MS_residual/2) + t²_{P−1}·(MS_prompts − MS_residual/2))/√(S·P)
    (Howe 1974), with the residual that both contain taken half from each. It is at least
    t_{P−1}·√(MS_prompts/(S·P)), as of seeds that do not differ: few look alike by chance. One seed: prompts only.
    """
    seeds, prompts = scores.shape
    mean, freedom = scores.mean(), prompts - 1
    if seeds == 1:
        return interval(mean, scores.var(ddof=1) / prompts, freedom, scores.shape, bounds)
    by_seed, by_prompt = scores.mean(axis=1), scores.mean(axis=0)
    residual = scores - by_seed[:, None] - by_prompt[None, :] + mean
    of_prompts = seeds * by_prompt.var(ddof=1) / (seeds * prompts)
    half_residual = (residual**2).sum() / (seeds - 1) / (prompts - 1) / 2 / (seeds * prompts)
    seeds_part = max(prompts * by_seed.var(ddof=1) / (seeds * prompts) - half_residual, 0.0)
    prompts_part = max(of_prompts - half_residual, 0.0)
    variance = max(seeds_part + prompts_part, of_prompts)
    if variance:
        half = np.hypot(_quantile(seeds - 1) * np.sqrt(seeds_part), _quantile(prompts - 1) * np.sqrt(prompts_part))
        quantile = max(half, _quantile(prompts - 1) * np.sqrt(of_prompts)) / np.sqrt(variance)
        freedom = brentq(lambda freedom: _quantile(freedom) - quantile, 0.9, 1e9)
    return interval(mean, variance, freedom, scores.shape, bounds)


def nested_mean(groups: list[np.ndarray], bounds: tuple[float, float]) -> Estimate:
    """Mean of the scores of each seed, two or more, whose units differ (pairs of D_u), by a t interval on seeds' means.
    Seeds draw their units from the same pairs, so those of two seeds are mostly the same, and more seeds are not more
    pairs: the variance is at least that of one seed's units. With one seed the interval covers the units only.
    """
    means = np.array([group.mean() for group in groups])
    units = np.mean([group.var(ddof=1) / len(group) for group in groups])
    between = means.var(ddof=1) / len(groups) if len(groups) > 1 else 0.0
    size = round(np.mean([len(group) for group in groups]))
    freedom = len(groups) - 1 if between > units else size - 1
    return interval(means.mean(), max(units, between), freedom, (len(groups), size), bounds)


def interval(mean, variance, freedom, sizes: tuple[int, int], bounds: tuple[float, float]) -> Estimate:
    """The t interval of a mean with this variance, in ``bounds``; ``sizes`` are the numbers of seeds and prompts."""
    error = np.sqrt(variance)
    low, high = np.clip([mean - _quantile(freedom) * error, mean + _quantile(freedom) * error], *bounds)
    return Estimate(mean, low, high, *sizes, error, freedom)


def pooled(estimates: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean ``estimate`` of several tasks, whose prompts and models share no draw, one row for each group of ``by``.
    Its standard error is that of a mean of independent estimates, its degrees of freedom Welch and Satterthwaite's.
    """
    rows = []
    for name, group in estimates.groupby(by, sort=False):
        parts = (group["standard_error"] / len(group)) ** 2
        spread = (parts**2 / group["freedom"].fillna(np.inf)).sum()
        freedom = parts.sum() ** 2 / spread if spread else np.inf
        sizes = int(group["n_seeds"].min()), int(group["n_prompts"].sum())
        mean = interval(group["estimate"].mean(), parts.sum(), freedom, sizes, (-np.inf, np.inf))
        rows.append(dict(zip(by, name)) | mean._asdict() | {"n_settings": len(group)})
    return pd.DataFrame(rows)


def correct_family(differences: pd.DataFrame) -> pd.DataFrame:
    """Adds ``p_value`` (two-sided, that a difference is 0) and ``p_holm``, corrected for the family of all rows.
    Holm (1979): the chance of even one false finding among the rows stays below 1 − ``LEVEL``.
    """
    t = (differences["estimate"] / differences["standard_error"]).abs().fillna(0.0)  # 0/0: certainly no difference
    p = 2 * stats.t.sf(t.astype(float), differences["freedom"].astype(float))
    return differences.assign(p_value=p, p_holm=multipletests(p, method="holm")[1] if len(p) else p)


def detectable(rows: pd.DataFrame, power: float = 0.8) -> pd.Series:
    """The smallest true difference that runs with these errors would have found with probability ``power``."""
    return (_quantile(rows["freedom"]) + stats.t.ppf(power, rows["freedom"])) * rows["standard_error"]
