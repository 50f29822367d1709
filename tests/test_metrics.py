"""Metrics and intervals against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from weaklib.evaluation.intervals import correct_family, crossed_mean, detectable, nested_mean, pooled
from weaklib.evaluation.metrics import (
    agreement_across_seeds,
    calibration_error,
    contrasts,
    difference,
    label_means,
    mean_of,
    paired_scores,
    rank_agreement,
    reliability_curve,
    wins,
    without_silent_rewards,
)


def results(**arms) -> pd.DataFrame:
    """Gold rewards of two seeds × prompts for each arm, against a start that always has 1."""
    rows = [
        {
            "arm": arm,
            "weak": "w",
            "strong": "s",
            "seed": seed,
            "prompt": f"p{i}",
            "gold_reward": r,
            "sft_gold_reward": 1.0,
            "words": 9,
            "sft_words": 9,
        }  # fmt: skip
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
        mean_of(results(human=[[2.0, np.nan], [2.0, 0.0]]), ["arm"], "gra")


def test_gra():
    row = mean_of(results(human=[[2.0, 1.0, 0.0, 2.0], [2.0, 1.0, 0.0, 0.0]]), ["arm"], "gra").iloc[0]
    assert row["estimate"] == pytest.approx((2.5 + 1.5) / 8)
    assert (row["n_seeds"], row["n_prompts"]) == (2, 4)
    assert 0 <= row["ci_low"] < row["estimate"] < row["ci_high"] <= 1


def test_rewards_that_say_nothing_give_no_estimate():
    """Not one half, and not 0 with an interval of no width."""
    same = results(human=[[1.0] * 3] * 2, cw=[[1.0] * 3] * 2).assign(gold="mine")
    known = results(human=[[1.0, 1.0, 2.0]] * 2).assign(gold="truth")
    silent, reasons = without_silent_rewards(pd.concat([same, known], ignore_index=True))
    assert reasons == ["Missing: mine gives the same reward to all 24 responses."]
    assert silent[silent["gold"] == "truth"].equals(pd.concat([same, known], ignore_index=True)[-6:])
    silent = silent[silent["gold"] == "mine"]
    for metric in ("gra", "gain", "gra_at_equal_length"):
        row = mean_of(silent, ["arm"], metric).iloc[0]
        assert row[["estimate", "ci_low", "ci_high"]].isna().all() and (row["n_seeds"], row["n_prompts"]) == (2, 3)
    found = contrasts(silent, ["arm"], "human")
    assert found[["estimate", "p_value", "p_holm"]].isna().all().all() and set(found["metric"]) == {
        "gra",
        "gold_reward",
    }


def test_gra_refuses_seeds_with_different_prompts():
    rows = results(human=[[2.0, 1.0], [2.0, 1.0]])
    rows.loc[0, "prompt"] = "another"
    with pytest.raises(ValueError, match="different prompts"):
        mean_of(rows, ["arm"], "gra")


def test_difference_is_paired():
    rng = np.random.default_rng(0)
    human = rng.normal(1, 1, (2, 200))
    row = difference(results(human=human, cw=human + 1e-9), ["arm"], "human").iloc[0]
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
    row = label_means(labels, ["weak"], "human").iloc[0]
    assert row["estimate"] == 0.75 and row["ci_low"] < 0.75 < row["ci_high"] and row["n_seeds"] == 2


def test_length_controlled_gra_takes_length_out():
    """Wins that come from length alone are chance at equal length; wins that have nothing to do with it stay."""
    rng = np.random.default_rng(0)
    longer = rng.integers(0, 2, 4000)
    rows = results(human=[np.zeros(4000)])
    rows["words"] = 10 + 5 * (2 * longer - 1) + 3  # on average longer than the start's 10
    rows["sft_words"] = 10
    by_length = rows.assign(gold_reward=np.where(rng.random(4000) < 0.3 + 0.4 * longer, 2.0, 0.0))
    plain, controlled = (mean_of(by_length, ["arm"], m)["estimate"][0] for m in ("gra", "gra_at_equal_length"))
    assert plain == pytest.approx(0.5, abs=0.03) and controlled < plain - 0.05
    unrelated = rows.assign(gold_reward=np.where(rng.random(4000) < 0.7, 2.0, 0.0))
    assert mean_of(unrelated, ["arm"], "gra_at_equal_length")["estimate"][0] == pytest.approx(0.7, abs=0.03)


def test_length_controlled_gra_without_differences_is_gra():
    rows = results(human=[[2.0, 0.0, 2.0, 1.0]])
    assert mean_of(rows, ["arm"], "gra_at_equal_length").equals(mean_of(rows, ["arm"], "gra"))


def test_labels_against_a_rule_on_the_same_pairs():
    """Right where the rule is right, and on one pair more of four: +25 points; order of rows does not matter."""
    labels = pd.DataFrame({"weak": "w", "seed": 0, "pair": [0, 1, 2, 3], "human": [True, True, True, False]})
    rule = pd.Series([False, False, True, True], index=[3, 2, 1, 0], name="rule")
    row = label_means(labels.join(rule, on="pair"), ["weak"], "human", minus="rule").iloc[0]
    assert row["estimate"] == 0.25 and row["ci_low"] < 0 < row["ci_high"]
    with pytest.raises(ValueError, match="missing in 1 of 4"):
        label_means(labels.join(rule.head(3), on="pair"), ["weak"], "human", minus="rule")


def test_calibration_error_by_hand():
    """Ten labels held with probability 0.75, of which 6 are right; ten with 0.9, of which 9 are."""
    margin = [np.log(3)] * 10 + [np.log(9) - 1e-9] * 10
    right = [True] * 6 + [False] * 4 + [True] * 9 + [False]
    labels = pd.DataFrame({"weak": "w", "seed": 0, "margin": margin, "human": right})
    row = calibration_error(labels, ["weak"], "human").iloc[0]
    assert row["estimate"] == pytest.approx(0.5 * 0.15 + 0.5 * 0.0, abs=1e-6)
    assert np.isnan(row["ci_low"])  # one seed tells nothing of its spread


def test_family_correction_by_hand():
    """p of 0.01, 0.02, 0.04 become 0.03, 0.04, 0.04 (Holm)."""
    p = np.array([0.01, 0.04, 0.02])
    rows = pd.DataFrame({"estimate": stats.t.isf(p / 2, 7), "standard_error": 1.0, "freedom": 7.0})
    corrected = correct_family(rows)
    assert corrected["p_value"].tolist() == pytest.approx(p) and corrected["p_holm"].tolist() == pytest.approx(
        [0.03, 0.04, 0.04]
    )


def test_a_difference_without_any_spread():
    rows = pd.DataFrame({"estimate": [0.0, 0.1], "standard_error": 0.0, "freedom": 5.0})
    assert correct_family(rows)["p_value"].tolist() == [1.0, 0.0]


def test_what_is_detectable_is_detected_as_often_as_said():
    """A true difference of the detectable size, measured with that error many times: 80% of the t values are significant."""
    rows = pd.DataFrame({"estimate": [0.0], "standard_error": [0.02], "freedom": [30.0]})
    size = detectable(rows)[0]
    rng = np.random.default_rng(0)
    errors = 0.02 * np.sqrt(rng.chisquare(30, 20000) / 30)
    found = np.abs(rng.normal(size, 0.02, 20000)) / errors > stats.t.ppf(0.975, 30)
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_intervals_cover():
    """A short form of ``make coverage``; it fails if the seeds are ignored (all prompts of all seeds as one sample)."""
    import sys

    from weaklib.arms.folders import ROOT

    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    from coverage import coverage, random_effects

    def pooled(scores):
        flat = crossed_mean(scores.reshape(1, -1), (-9, 9))
        return flat.ci_low, flat.ci_high

    table = coverage(300, {"random effects": random_effects, "seeds ignored": pooled}, [(5, 3, 500), (5, 6, 500)])
    found = table.pivot(index="seed_sd", columns="method", values="coverage")
    assert (found["random effects"] >= 91).all() and (found["seeds ignored"] < 80).all()


def test_the_kept_simulation_covers_in_every_cell():
    from weaklib.arms.folders import ROOT

    table = pd.read_csv(ROOT / "tests" / "bench" / "coverage.csv")
    chosen = table[table["method"] == "random effects"]
    assert len(chosen) == 27 and chosen["coverage"].between(93, 97).all() and (chosen["repetitions"] >= 2000).all()


def test_gap_and_win_rate_are_of_the_same_seed_and_prompt():
    rows = results(human=[[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]], cw=[[2.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, -1.0]])
    gaps = paired_scores(rows, ["weak", "strong"], "human", "gold_reward").sort_values(["seed", "prompt"])["score"]
    assert gaps.tolist() == [1.0, 0.0, -3.0, 1.0, 1.0, 1.0, 1.0, -1.0]
    row = difference(rows, ["weak", "strong"], "human", "win_rate").iloc[0]
    assert row["estimate"] == pytest.approx((2.5 + 3) / 8)


def test_a_mean_is_over_seeds_and_prompts_and_may_be_negative():
    row = mean_of(results(human=[[-3.0, 1.0], [-1.0, 1.0]]), ["arm"], "gold_reward").iloc[0]
    assert row["estimate"] == pytest.approx(-0.5)
    assert row["ci_low"] < -0.5 < row["ci_high"]


def test_rank_agreement():
    """Of four arms whose shares of wins the other reward turns over, swaps, and keeps."""
    rng = np.random.default_rng(0)

    def arms(*shares):
        return results(**{f"arm{i}": 1 + np.sign(share - rng.random((3, 400))) for i, share in enumerate(shares)})

    truth = arms(0.2, 0.4, 0.6, 0.8).assign(gold="truth")
    same, turned = arms(0.3, 0.4, 0.5, 0.9).assign(gold="same"), arms(0.8, 0.6, 0.4, 0.2).assign(gold="turned")
    swapped = arms(0.4, 0.2, 0.6, 0.8).assign(gold="swapped")
    rows, names = pd.concat([truth, same, turned, swapped]), [f"arm{i}" for i in range(4)]
    found = {gold: rank_agreement(rows, names, "truth", gold, draws=200) for gold in ("same", "turned", "swapped")}
    assert [round(found[gold].estimate, 6) for gold in found] == [1.0, -1.0, 0.8]
    assert all(e.ci_low <= e.estimate <= e.ci_high for e in found.values())
    close = arms(0.50, 0.51, 0.52, 0.53).assign(gold="close")
    unsure = rank_agreement(pd.concat([truth, close]), names, "truth", "close", draws=200)
    assert unsure.ci_high - unsure.ci_low > 0.3


def test_agreement_across_seeds_is_over_pairs_that_both_have():
    rows = [(0, 1, "x"), (0, 2, "x"), (0, 3, "y"), (1, 2, "x"), (1, 3, "x"), (1, 4, "y"), (2, 1, "x"), (2, 4, "x")]
    labels = pd.DataFrame(rows, columns=["seed", "pair", "chosen"]).assign(weak="w")
    row = agreement_across_seeds(labels, ["weak"]).iloc[0]
    assert row["estimate"] == pytest.approx((1 / 2 + 1 / 1 + 0 / 1) / 3) and row["n_seeds"] == 3
    assert np.isnan(agreement_across_seeds(labels[labels["seed"] == 0], ["weak"]).iloc[0]["estimate"])


def test_reliability_curve_leaves_thin_bins_out():
    rng = np.random.default_rng(0)
    probability = np.concatenate([np.full(60, 0.55), np.full(60, 0.95), np.full(4, 0.75)])
    labels = pd.concat(
        pd.DataFrame({"weak": "w", "seed": seed, "probability": probability, "human": rng.random(124) < probability})
        for seed in range(3)
    )
    curve = reliability_curve(labels, ["weak"], "human")
    assert curve["bin"].tolist() == [0, 4] and curve["probability"].tolist() == pytest.approx([0.55, 0.95])
    assert curve["estimate"].tolist() == pytest.approx([0.55, 0.95], abs=0.1)


def test_a_pooled_estimate_is_a_mean_of_independent_ones():
    rows = pd.DataFrame({"arm": "cw", "estimate": [0.1, 0.3], "standard_error": [0.03, 0.04], "freedom": [4.0, 9.0]})
    (row,) = pooled(rows.assign(n_seeds=5, n_prompts=100), ["arm"]).to_dict("records")
    assert row["estimate"] == pytest.approx(0.2) and row["n_settings"] == 2
    assert row["standard_error"] == pytest.approx(0.05 / 2)
    freedom = 0.05**4 / (0.03**4 / 4 + 0.04**4 / 9)  # Welch and Satterthwaite
    assert row["freedom"] == pytest.approx(freedom)
    assert row["ci_high"] - 0.2 == pytest.approx(stats.t.ppf(0.975, freedom) * 0.025)
    (alone,) = pooled(rows.head(1).assign(n_seeds=5, n_prompts=100), ["arm"]).to_dict("records")
    assert (alone["standard_error"], alone["freedom"]) == pytest.approx((0.03, 4))
    unknown = pooled(rows.assign(n_seeds=5, n_prompts=100, freedom=np.nan), ["arm"]).iloc[0]
    assert unknown["ci_high"] - 0.2 == pytest.approx(1.96 * 0.025, rel=1e-3)  # as if it were normal


def test_a_difference_to_a_setting_is_paired_within_the_others():
    """To one value of a column that is no arm, on the same seeds and prompts, for each value of the others."""
    rng = np.random.default_rng(0)
    base = pd.DataFrame(
        [(weak, seed, prompt) for weak in ("small", "large") for seed in range(3) for prompt in range(20)],
        columns=["weak", "seed", "prompt"],
    ).assign(arm="weak", strong="s")
    noise = rng.normal(size=60)
    base["gold_reward"] = np.where(base["weak"] == "small", 0.0, 0.25) + np.tile(noise, 2)
    base["sft_gold_reward"] = 0.0
    (row,) = difference(base, ["arm", "weak", "strong"], {"weak": "small"}, "gold_reward").to_dict("records")
    assert row["weak"] == "large" and row["estimate"] == pytest.approx(0.25)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(0, abs=1e-9)  # the noise is shared
    with pytest.raises(ValueError, match="missing"):
        difference(base[(base["weak"] == "large") | (base["seed"] > 0)], ["arm", "weak", "strong"], {"weak": "small"})


def test_seeds_that_draw_from_the_same_pairs_are_not_more_pairs():
    """Coverage of the interval when every seed sees 70% of the same 500 pairs, whose labels are what they are."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        right = (rng.random(500) < 0.6).astype(float)
        estimate = nested_mean([right[rng.permutation(500)[:350]] for _ in range(5)], (0, 1))
        covered += estimate.ci_low <= 0.6 <= estimate.ci_high
    assert 0.93 <= covered / 300
