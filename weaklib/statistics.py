"""Estimates with 95% intervals over seeds and test prompts."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and prompts with its interval."""

    estimate: float
    ci_low: float
    ci_high: float
    n_seeds: int
    n_prompts: int


def crossed_mean(scores: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Mean of ``scores`` (seeds × prompts) with a two-way random-effects interval.

    Seeds and prompts are both samples, and the prompts are the same for every seed, so
    Var(mean) = (MS_seeds + MS_prompts − MS_residual)/(S·P), with Satterthwaite's degrees of freedom for the t quantile.
    (Searle, Casella & McCulloch 1992, ch. 4). The variance is at least that of the prompts alone and
    of the seeds alone, whatever the residual's noise subtracts. With one seed it covers prompts only.

    Args:
        scores: shape (S, P), P at least 2, no missing value; a share is a mean of 0, ½ and 1.
        bounds: what the mean can be at all, (0, 1) for a share; the interval keeps to it.
    """
    seeds, prompts = scores.shape
    mean = scores.mean()
    if seeds == 1:
        variance, freedom = scores.var(ddof=1) / prompts, prompts - 1
    else:
        by_seed, by_prompt = scores.mean(axis=1), scores.mean(axis=0)
        residual = scores - by_seed[:, None] - by_prompt[None, :] + mean
        ms = np.array(
            [prompts * by_seed.var(ddof=1), seeds * by_prompt.var(ddof=1), (residual**2).sum() / (seeds - 1) / (prompts - 1)]
        )
        df = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
        variance = max(ms[0] + ms[1] - ms[2], ms[0], ms[1]) / (seeds * prompts)
        parts = ms**2 / df
        freedom = (variance * seeds * prompts) ** 2 / parts.sum() if parts.sum() else prompts - 1
    return _estimate(mean, variance, max(freedom, 1), seeds, prompts, bounds)


def nested_mean(groups: list[np.ndarray], bounds: tuple[float, float]) -> Estimate:
    """Mean of scores whose units differ from seed to seed (the pairs of D_u), with a t interval on the seeds' means.

    The variance is at least that of the units alone. With one seed the interval covers the units only.
    ``n_prompts`` is the mean number of units a seed.

    Args:
        groups: the scores of each seed, no missing value, at least two a seed.
        bounds: as for :func:`crossed_mean`.
    """
    means = np.array([group.mean() for group in groups])
    units = np.mean([group.var(ddof=1) / len(group) for group in groups])
    between = means.var(ddof=1) if len(groups) > 1 else 0.0
    size = round(np.mean([len(group) for group in groups]))
    freedom = len(groups) - 1 if len(groups) > 1 else size - 1
    return _estimate(means.mean(), max(units, between) / len(groups), freedom, len(groups), size, bounds)


def _estimate(mean, variance, freedom, n_seeds, n_prompts, bounds) -> Estimate:
    half = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, freedom) * np.sqrt(variance)
    low, high = np.clip([mean - half, mean + half], *bounds)
    return Estimate(mean, low, high, n_seeds, n_prompts)
