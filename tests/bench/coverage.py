"""Which interval covers: simulated studies whose true GRA is known, and how often each method's interval holds it.

A win of seed s on prompt p is a coin of probability q_p + u_s: prompts differ in difficulty (q_p, a Beta distribution),
seeds differ by u_s (normal, standard deviation in points). New seeds and new prompts are drawn in every repetition. Run by
``make coverage``; writes ``tests/bench/coverage.csv``.
"""

import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from weaklib.evaluation.intervals import crossed_mean

SEEDS, SEED_SD, PROMPTS = (3, 5, 10), (1, 3, 6), (500, 1000, 2000)
MEAN = 0.6
# Share of a win's variance that lies in its prompt: 0.3, as between responses to prompts of very unequal difficulty.
PROMPT_SHARE = 0.3


def random_effects(scores):
    estimate = crossed_mean(scores, (-np.inf, np.inf))
    return estimate.ci_low, estimate.ci_high


def seed_means(scores):
    means = scores.mean(axis=1)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    return means.mean() - half, means.mean() + half


def crossed_bootstrap(scores, draws=200):
    """Percentiles of the mean over resampled seeds and resampled prompts."""
    rng = np.random.default_rng(0)
    seeds, prompts = scores.shape
    weights_of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    weights_of_prompts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), draws) / prompts
    means = ((weights_of_seeds @ scores) * weights_of_prompts).sum(axis=1)
    return tuple(np.percentile(means, [2.5, 97.5]))


METHODS = {"random effects": random_effects, "t on seed means": seed_means, "crossed bootstrap": crossed_bootstrap}

MOST = {"crossed bootstrap": 500}  # it is slow, and misses by far


def simulate(rng: np.random.Generator, seeds: int, prompts: int, seed_sd: float) -> np.ndarray:
    """Wins of one study, (seeds, prompts); their expectation is ``MEAN``."""
    strength = (1 - PROMPT_SHARE) / PROMPT_SHARE
    difficulty = rng.beta(MEAN * strength, (1 - MEAN) * strength, prompts)
    effect = rng.normal(0, seed_sd / 100, (seeds, 1))
    # with probability |u| the coin is replaced by a sure win (or loss): the mean moves by u and no more is clipped
    sure, draws = rng.random((seeds, prompts)), rng.random((seeds, prompts))
    shift = np.where(effect > 0, effect / (1 - MEAN), -effect / MEAN)
    return np.where(sure < shift, effect > 0, draws < difficulty).astype(float)


def coverage(repetitions: int, methods=METHODS, cells=None) -> pd.DataFrame:
    """One row a method and cell: coverage and mean half-width in percent."""
    rows = []
    for seeds, seed_sd, prompts in cells or itertools.product(SEEDS, SEED_SD, PROMPTS):
        rng = np.random.default_rng([seeds, seed_sd, prompts])
        studies = [simulate(rng, seeds, prompts, seed_sd) for _ in range(repetitions)]
        for name, method in methods.items():
            bounds = np.array([method(study) for study in studies[: MOST.get(name)]])
            covered = (bounds[:, 0] <= MEAN) & (MEAN <= bounds[:, 1])
            row = {
                "method": name,
                "seeds": seeds,
                "seed_sd": seed_sd,
                "prompts": prompts,
                "coverage": 100 * covered.mean(),
            }
            rows.append(row | {"half_width": 50 * np.diff(bounds, axis=1).mean(), "repetitions": len(bounds)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    table = coverage(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.1f")
    print(table.pivot(index=["seeds", "seed_sd", "prompts"], columns="method", values="coverage").round(1).to_string())
