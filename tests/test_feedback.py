"""Matched and mismatched labels: how groups of them are compared, and what a judge says of them twice."""

import numpy as np
import pandas as pd
import pytest

from weaklib.evaluation.judging import repeated_verdicts
from weaklib.evaluation.metrics import influence, label_means


def labels(match: list[list[bool]], **columns) -> pd.DataFrame:
    """Labels of some seeds: whether each is the human's, and other columns, all pairs' values in one row."""
    human = np.array(match)
    seeds, pairs = human.shape
    frame = pd.DataFrame({"seed": np.repeat(range(seeds), pairs), "pair": np.tile(range(pairs), seeds)})
    return frame.assign(weak="w", human=human.ravel(), **columns)


def test_what_a_judge_repeats():
    first = pd.DataFrame({"a_first": [1.0, 1.0, 1.0, 0.5], "b_first": [1.0, 0.0, 0.0, np.nan]})
    second = pd.DataFrame({"a_first": [1.0, 0.0, 1.0, 0.5], "b_first": [0.0, 1.0, 0.0, 1.0]})
    found = repeated_verdicts(first, second)
    assert found["verdict_again"].tolist() == [0.5, 0.0, 1.0, 1.0]  # of what could be read
    assert found["label_again"][:3].tolist() == [0.0, 1.0, 1.0]  # undecided twice is the same label
    assert np.isnan(found["label_again"][3])
    assert found["for_a"].tolist() == [1.0, 0.5, 0.5, 0.5]


def test_a_difference_of_two_groups_has_its_variance():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, 1, 50), rng.normal(0, 3, 150)
    scores = influence(one, other)
    variance = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)
    assert scores.mean() == pytest.approx(one.mean() - other.mean())
    assert scores.var(ddof=1) / len(scores) == pytest.approx(variance, rel=0.03)


def test_difference_of_two_groups():
    match = [[True] * 4 + [False] * 4] * 2
    rows = labels(match, verdict_again=[1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0] * 2)
    row = label_means(rows, ["weak"], "verdict_again", where="human").iloc[0]
    assert row["estimate"] == pytest.approx(0.5) and -1 <= row["ci_low"] < 0.5 < row["ci_high"] <= 1
    assert (row["n_seeds"], row["n_prompts"]) == (2, 8)


def test_groups_that_are_too_small_are_left_out():
    rows = labels([[True, True, True, False], [True, True, False, False]])
    assert label_means(rows, ["human"], "pair", largest=np.inf)["human"].tolist() == [True]
    assert label_means(rows, ["weak"], "pair", where="human").empty
