"""What is measured of labels: how often they are right, whether their confidence can be believed, how alike they are."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from weaklib.evaluation.intervals import COLUMNS, mean_of_seeds, nested_mean
from weaklib.evaluation.metrics import summarise


def share_correct(labels: pd.DataFrame, by: list[str], correct: str) -> pd.DataFrame:
    """The share of labels where column ``correct`` is true, one row for each group of ``by``; pairs differ by seed."""

    def mean(rows):
        return nested_mean([group[correct].to_numpy(float) for _, group in rows.groupby("seed")], (0, 1))

    return summarise(labels, by, correct, mean)


def share_difference(labels: pd.DataFrame, rule: pd.DataFrame, by: list[str], correct: str) -> pd.DataFrame:
    """How much more often ``labels`` are right than those of ``rule`` on the same pairs and seeds, one row a group."""
    both = labels.merge(rule[["seed", "pair", correct]], on=["seed", "pair"], how="left", suffixes=("", "_rule"))
    return _more_often(both, by, correct, f"{correct}_rule")


def labels_against_human(labels: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How much more often weak labels are right than the human's of the same pairs: what the ledger of claims explains verdicts by.

    Args:
        labels: ``annotations.weak_labels``; pairs of which nobody knows who is right are left out.
    """
    told = labels.dropna(subset=["truth", "human_truth"])
    return _more_often(told, by, "truth", "human_truth").assign(metric="labels_right", arm="weak", baseline="arm=human")


def _more_often(labels: pd.DataFrame, by: list[str], one: str, other: str) -> pd.DataFrame:
    both = labels.assign(difference=labels[one].astype(float) - labels[other].astype(float))

    def mean(rows):
        return nested_mean([group["difference"].to_numpy() for _, group in rows.groupby("seed")], (-1, 1))

    return summarise(both, by, "difference", mean)


def calibration_error(labels: pd.DataFrame, by: list[str], correct: str, bins: int = 10) -> pd.DataFrame:
    """Expected calibration error of σ(margin) as the probability that a label is right (``correct``), a row a group.

    ECE = Σ_b n_b/n · |share right − mean probability| over ``bins`` bins of equal width (Naeini et al. 2015), one for each
    seed; the interval is a t interval over seeds, and missing with one seed.
    """

    def error(rows: pd.DataFrame) -> float:
        probability = 1 / (1 + np.exp(-rows["margin"].to_numpy()))
        gap = rows[correct].to_numpy(float) - probability
        number = np.minimum((probability * bins).astype(int), bins - 1)
        return np.abs(np.bincount(number, weights=gap, minlength=bins)).sum() / len(rows)

    def mean(rows):
        return mean_of_seeds(
            [error(group) for _, group in rows.groupby("seed")], round(len(rows) / rows["seed"].nunique())
        )

    return summarise(labels, by, correct, mean)


def reliability_curve(labels: pd.DataFrame, by: list[str], correct: str, fewest: int = 10) -> pd.DataFrame:
    """The share of labels that are right in bins of the ``probability`` with which the annotator holds them to be: a row a group and bin.

    Result as :func:`share_correct`, with ``bin`` and the mean ``probability``. Bins with less than ``fewest`` labels in some seed are left out, and
    labels without a probability.
    """
    edges = [0.5, 0.6, 0.7, 0.8, 0.9, 1]
    known = labels.dropna(subset=["probability"])
    binned = known.assign(bin=pd.cut(known["probability"], edges, include_lowest=True, labels=False))
    sizes = binned.groupby([*by, "bin", "seed"]).size().groupby([*by, "bin"]).agg(["min", "size"])
    enough = (sizes["min"] >= fewest) & (sizes["size"] == labels["seed"].nunique())
    binned = binned.merge(sizes[enough].index.to_frame(index=False))
    mean = binned.groupby([*by, "bin"], as_index=False)["probability"].mean()
    return share_correct(binned, [*by, "bin"], correct).merge(mean)


def agreement_across_seeds(labels: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How often annotators of two seeds label a pair alike that is unlabeled in both: the mean over all two seeds, in ``estimate``.

    Missing with one seed.
    """
    rows = []
    for name, group in labels.groupby(by, sort=False):
        table = group.pivot(index="pair", columns="seed", values="chosen")
        alike = [
            (table[one] == table[other])[table[[one, other]].notna().all(axis=1)].mean()
            for one, other in itertools.combinations(table.columns, 2)
        ]
        rows.append(dict(zip(by, name)) | {"estimate": np.mean(alike) if alike else np.nan, "n_seeds": table.shape[1]})
    return pd.DataFrame(rows)


def group_means(rows: pd.DataFrame, by: list[str], column: str, bounds: tuple[float, float] = (0, 1)) -> pd.DataFrame:
    """The mean of ``column`` over pairs, which differ by seed, with its interval: a row for each group of ``by``.

    Pairs without a value are left out, and so are groups with less than two pairs in some seed.
    """

    def mean(group):
        return nested_mean([part.to_numpy(float) for _, part in group.groupby("seed")[column]], bounds)

    return _of_large_groups(rows, by, column, ["seed"], rows["seed"].nunique(), mean)


def mean_difference(rows: pd.DataFrame, by: list[str], column: str, group: str) -> pd.DataFrame:
    """The mean of the share ``column`` where ``group`` is true, minus that of the other pairs; result as :func:`group_means`."""

    def minus(part):
        seeds = [(seed[seed[group]], seed[~seed[group]]) for _, seed in part.groupby("seed")]
        return nested_mean([influence(*(half[column].to_numpy(float) for half in seed)) for seed in seeds], (-1, 1))

    return _of_large_groups(rows, by, column, ["seed", group], 2 * rows["seed"].nunique(), minus)


def influence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A score a unit: their mean is mean(one) − mean(other), and their variance over their number that of this difference."""
    minus, size = one.mean() - other.mean(), len(one) + len(other)
    centred = (one - one.mean()) / len(one), (other.mean() - other) / len(other)
    return minus + size * np.concatenate(centred)


def _of_large_groups(
    rows: pd.DataFrame, by: list[str], column: str, cells: list[str], count: int, estimate: Callable
) -> pd.DataFrame:
    found = []
    for name, group in rows.dropna(subset=[column]).groupby(by):
        sizes = group.groupby(cells).size()
        if len(sizes) == count and sizes.min() >= 2:
            found.append(dict(zip(by, name)) | dataclasses.asdict(estimate(group)))
    return pd.DataFrame(found, columns=[*by, *COLUMNS])
