"""The papers' equations against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

import weaklib


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0.0, 0.0),  # σ(0) = ½
        (math.log(3), 0.5),  # σ(ln 3) = ¾, 2·(¾ − ½)
        (-math.log(3), 0.5),  # the label has been turned: the margin's sign does not matter
        (math.log(9), 0.8),  # σ(ln 9) = 0.9
        (math.log(199), 0.99),
        (1e4, 1.0),
    ],
)
def test_confidence_by_hand(margin, expected):
    assert weaklib.confidence(margin) == pytest.approx(expected, abs=1e-12)


def test_confidence_keeps_shapes():
    margins = [[0.0, math.log(3)], [-math.log(9), 2.0]]
    by_array = weaklib.confidence(np.array(margins))
    assert by_array.shape == (2, 2) and by_array[1, 0] == pytest.approx(0.8)
    by_tensor = weaklib.confidence(torch.tensor(margins, dtype=torch.float64))
    assert torch.allclose(torch.as_tensor(by_tensor), torch.from_numpy(by_array))


def loss(objective, **settings):
    """h = (−1 − −2) − (−5 − −4) = 2 for pair one; −2 for pair two, which is pair one turned round."""
    logps = [torch.tensor(values) for values in ([-1.0, -5.0], [-5.0, -1.0], [-2.0, -4.0], [-4.0, -2.0])]
    return weaklib.preference_loss(*logps, objective=objective, beta=0.5, **settings).tolist()


def test_dpo_by_hand():
    # β·h = ±1: −log σ(1) = log(1 + e⁻¹), −log σ(−1) = log(1 + e)
    assert loss("dpo") == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.e)])


def test_rdpo_by_hand():
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    expected = [(0.9 * right - 0.1 * wrong) / 0.8, (0.9 * wrong - 0.1 * right) / 0.8]
    assert loss("rdpo", label_smoothing=0.1) == pytest.approx(expected)
    assert loss("rdpo") == pytest.approx(loss("dpo"))  # no smoothing, no difference


def test_ipo_by_hand():
    # log-ratios +1 and −1 over 2 and 4 tokens: h̄ = 1/2 + 1/4 = 0.75; target 1/(2β) = 1
    lengths = {"chosen_lengths": torch.tensor([2, 2]), "rejected_lengths": torch.tensor([4, 4])}
    assert loss("ipo", **lengths) == pytest.approx([(0.75 - 1) ** 2, (-0.75 - 1) ** 2])
    with pytest.raises(ValueError, match="lengths"):
        loss("ipo")


def test_unknown_objective_is_named():
    with pytest.raises(ValueError, match="'kto'"):
        loss("kto")
