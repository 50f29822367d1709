"""Matched and mismatched labels: what is compared, and what happens where there is nothing to compare."""

import numpy as np
import pandas as pd
import pytest

from weaklib.study import feedback


def labels(match: list[list[bool]], **columns) -> pd.DataFrame:
    """Labels of some seeds: whether each is the human's, and other columns, all pairs' values in one row."""
    human = np.array(match)
    seeds, pairs = human.shape
    frame = pd.DataFrame({"seed": np.repeat(range(seeds), pairs), "pair": np.tile(range(pairs), seeds)})
    frame = frame.assign(weak="w", strong="s", human=human.ravel(), decile=1 + np.tile(range(pairs), seeds) % 10)
    frame = frame.assign(truth=pd.array([pd.NA] * len(frame), dtype="boolean"))
    frame = frame.assign(**dict.fromkeys(("gap", "for_weak", "verdict_again", "label_again"), np.nan))
    return frame.assign(**columns)


def test_what_a_judge_repeats():
    first = pd.DataFrame({"a_first": [1.0, 1.0, 1.0, 0.5], "b_first": [1.0, 0.0, 0.0, np.nan]})
    second = pd.DataFrame({"a_first": [1.0, 0.0, 1.0, 0.5], "b_first": [0.0, 1.0, 0.0, 1.0]})
    found = feedback.compare(first, second)
    assert found["verdict_again"].tolist() == [0.5, 0.0, 1.0, 1.0]  # of what could be read
    assert found["label_again"][:3].tolist() == [0.0, 1.0, 1.0]  # undecided twice is the same label
    assert np.isnan(found["label_again"][3])
    assert found["for_a"].tolist() == [1.0, 0.5, 0.5, 0.5]


def test_a_difference_of_two_groups_has_its_variance():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, 1, 50), rng.normal(0, 3, 150)
    scores = feedback.influence(one, other)
    variance = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)
    assert scores.mean() == pytest.approx(one.mean() - other.mean())
    assert scores.var(ddof=1) / len(scores) == pytest.approx(variance, rel=0.03)


def test_mean_difference():
    match = [[True] * 4 + [False] * 4] * 2
    rows = labels(match, verdict_again=[1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0] * 2)
    row = feedback.mean_difference(rows, ["weak"], "verdict_again", "human").iloc[0]
    assert row["estimate"] == pytest.approx(0.5) and -1 <= row["ci_low"] < 0.5 < row["ci_high"] <= 1
    assert (row["n_seeds"], row["n_prompts"]) == (2, 8)


def test_groups_that_are_too_small_are_left_out():
    rows = labels([[True, True, True, False], [True, True, False, False]])
    assert feedback.group_means(rows, ["human"], "pair", (0, np.inf))["human"].tolist() == [True]
    assert feedback.mean_difference(rows, ["weak"], "pair", "human").empty


def test_shares_of_matched_and_mismatched():
    found = feedback.by_match(labels([[True, True, True, False], [True, True, False, False]]))
    assert found.set_index("pairs")["estimate"].to_dict() == {"matched": 0.625, "mismatched": 0.375}
    assert found["measure"].unique().tolist() == ["share"]  # nothing else is known
    table = feedback.match_table(found, "judge")
    assert table.columns.tolist() == ["pairs", "matched", "mismatched"] and len(table) == 1


def test_nothing_differs_and_nothing_is_known():
    rows = labels([[True] * 4] * 2)
    assert feedback.label_findings(rows) == ["Weak and human labels agree on 100.0 [100.0, 100.0]% of pairs."]
    alike = pd.DataFrame({"estimate": [np.nan]})
    assert feedback.consistency_findings(rows, alike, "judge") == [
        "It was asked about, and could be understood on, 0 of 8 weak labels."
    ]


def test_examples_are_the_surest_the_middle_and_the_least_sure():
    texts = {name: [f"{name}\n\n{i}" for i in range(7)] for name in ("prompt", "chosen", "rejected")}
    rows = labels([[True] * 5 + [False] * 2], confidence=[0.1, 0.5, 0.3, 0.2, 0.4, 0.6, 0.6], **texts)
    shown = feedback.examples(rows.assign(gold_chosen=1.5, gold_rejected=np.nan))
    assert shown["pairs"].tolist() == ["matched"] * 3 + ["mismatched"] * 2
    assert shown["confidence"].tolist() == ["0.50", "0.30", "0.10", "0.60", "0.60"]
    assert shown["prompt"].tolist() == [f"prompt {i}" for i in (1, 2, 0, 5, 6)]
    assert set(shown["gold rewards"]) == {"1.50 and –"}


def results(**arms) -> pd.DataFrame:
    rows = [
        {"arm": arm, "weak": "w", "strong": "s", "seed": seed, "prompt": i, "gold_reward": gain, "sft_gold_reward": 0.0}
        for arm, gains in arms.items()
        for seed in (0, 1)
        for i, gain in enumerate(gains)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "mismatched, verdict", [([1.0, 1.1, 0.9, 1.0], "holds"), ([-1.0, -1.1, -0.9, -1.0], "lower"), ([1.0, -1.0], "not")]
)
def test_whether_mismatched_labels_help(mismatched, verdict):
    others = {arm: [0.0] * len(mismatched) for arm in ("weak", "matched", "random")}
    said = feedback.arm_findings(results(mismatched=mismatched, **others))
    assert verdict in said[0].split(";")[1] and len(said) == 3
