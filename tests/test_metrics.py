"""Metrics and intervals against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from weaklib.metrics import gra, gra_difference, share_correct, wins
from weaklib.statistics import crossed_mean


def results(**arms) -> pd.DataFrame:
    """Gold rewards of two seeds × prompts for each arm, against a start that always has 1."""
    rows = [
        {"arm": arm, "weak": "w", "strong": "s", "seed": seed, "prompt": f"p{i}", "gold_reward": r, "sft_gold_reward": 1.0,
         "words": 9, "sft_words": 9}  # fmt: skip
        for arm, seeds in arms.items()
        for seed, rewards in enumerate(seeds)
        for i, r in enumerate(rewards)
    ]
    return pd.DataFrame(rows)


def test_ties_count_one_half():
    assert wins([2.0, 0.0, 1.0], [1.0, 1.0, 1.0]).tolist() == [1.0, 0.0, 0.5]


def test_a_missing_reward_is_not_a_loss():
    assert np.isnan(wins([np.nan], [0.0])[0])
    with pytest.raises(ValueError, match="missing in 1 of 4"):
        gra(results(human=[[2.0, np.nan], [2.0, 0.0]]), ["arm"])


def test_gra():
    row = gra(results(human=[[2.0, 1.0, 0.0, 2.0], [2.0, 1.0, 0.0, 0.0]]), ["arm"]).iloc[0]
    assert row["estimate"] == pytest.approx((2.5 + 1.5) / 8)
    assert (row["n_seeds"], row["n_prompts"]) == (2, 4)
    assert 0 <= row["ci_low"] < row["estimate"] < row["ci_high"] <= 1


def test_gra_refuses_seeds_with_different_prompts():
    rows = results(human=[[2.0, 1.0], [2.0, 1.0]])
    rows.loc[0, "prompt"] = "another"
    with pytest.raises(ValueError, match="different prompts"):
        gra(rows, ["arm"])


def test_difference_is_paired():
    rng = np.random.default_rng(0)
    human = rng.normal(1, 1, (2, 200))
    row = gra_difference(results(human=human, cw=human + 1e-9), ["arm"], "human").iloc[0]
    # the same wins on every prompt: no uncertainty is left, however wide each arm's own interval
    assert row["estimate"] == pytest.approx(0) and row["ci_high"] - row["ci_low"] == pytest.approx(0)


def test_one_seed_covers_prompts_only():
    scores = np.array([[1.0, 0.0, 1.0, 1.0]])
    half = stats.t.ppf(0.975, 3) * scores.std(ddof=1) / 2
    estimate = crossed_mean(scores, (-9, 9))
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.75 - half, 0.75 + half))


def test_seeds_that_differ_widen_the_interval():
    """Two seeds with one score each on every prompt: only the seeds vary, so it is the t interval of their means."""
    scores = np.array([[0.0] * 10, [1.0] * 10, [0.5] * 10])
    half = stats.t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    estimate = crossed_mean(scores, (-9, 9))
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((0.5 - half, 0.5 + half))


def test_more_seeds_do_not_shrink_what_prompts_leave_open():
    """The same prompts with the same scores in every seed: as uncertain as one seed."""
    one = np.random.default_rng(0).random((1, 100))
    three = crossed_mean(np.repeat(one, 3, axis=0), (0, 1))
    assert three.ci_high - three.ci_low == pytest.approx(np.ptp([*_bounds(crossed_mean(one, (0, 1)))]), rel=1e-6)


def _bounds(estimate):
    return estimate.ci_low, estimate.ci_high


def test_label_accuracy():
    labels = pd.DataFrame({"weak": "w", "seed": [0] * 4 + [1] * 4, "human": [True, True, True, False] * 2})
    row = share_correct(labels, ["weak"], "human").iloc[0]
    assert row["estimate"] == 0.75 and row["ci_low"] < 0.75 < row["ci_high"] and row["n_seeds"] == 2
