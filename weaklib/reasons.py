"""Why a contrast came out as it did, as far as the data of its notebook can tell."""

import pandas as pd

from weaklib.graph import ARMS
from weaklib.statistics import MEASURED


def reasons(row: dict, rows: pd.DataFrame, decided: str) -> list[str]:
    """Sentences without a full stop on the contrast ``row``, one of ``rows``, a notebook's contrasts; none if the data say nothing.

    - A baseline that is not shown to beat its own start teaches nothing that an arm could miss: said of every verdict.
    - A claim about weak labels that fails against human ones: whether the weak labels are right less often.
    - One against other weak labels: that both learn from the same ones.
    - One about mismatched labels: how many of them are right.
    """
    baseline = str(row["baseline"]).removeprefix("arm=")
    found = []
    start = _like(row, rows[(rows["metric"] == "gra_over_start") & (rows["arm"] == baseline)])
    unshown = start[start["ci_low"] <= 0]
    if len(unshown):
        where = "" if len(start) == 1 else f" in {len(unshown)} of {len(start)} settings"
        found.append(
            f"the baseline itself is not shown to beat its start{where} (GRA {_span(50 + 100 * unshown['estimate'])}%)"
        )
    if decided != "fails":
        return found
    if row["arm"] == "mismatched":
        right = _like(row, rows[rows["metric"] == "right_where_they_differ"])
        found += [f"of these labels {_span(50 + 100 * right['estimate'])}% are right"] * bool(len(right))
    elif _weak(row["arm"]) and _weak(baseline):
        found.append(
            "both learn from labels of the same annotator, so it is how they are weighted or chosen that costs"
        )
    elif _weak(row["arm"]) and baseline.startswith("human"):
        labels = _like(row, rows[rows["metric"] == "labels_right"])
        found += [_less_often(labels)] * bool(len(labels))
    return found


def _less_often(labels: pd.DataFrame) -> str:
    less = labels[labels["ci_high"] < 0]
    if len(less) == len(labels):
        return f"the weak labels are right less often than the human's of the same pairs, by {_span(-100 * less['estimate'])} points"
    difference = f"({_span(100 * labels['estimate'], '+')} points)"
    if len(less):
        return f"the weak labels are right less often than the human's in {len(less)} of {len(labels)} settings {difference}"
    return f"the weak labels are not shown to be right less often than the human's {difference}: the number of errors does not explain it"


def _weak(arm: str) -> bool:
    return arm in ARMS and ARMS[arm].labels == "annotator"


def _like(row: dict, rows: pd.DataFrame) -> pd.DataFrame:
    """The ``rows`` of the row's setting; of a mean, those that it goes over."""
    for column in rows.columns.difference([*MEASURED, "arm", "baseline", "metric"]):
        wanted = row.get(column)
        if pd.notna(wanted) and wanted != "mean":
            rows = rows[rows[column].isna() | (rows[column].astype(str) == str(wanted))]
    return rows


def _span(values: pd.Series, sign: str = "") -> str:
    low, high = (f"{value:{sign}.1f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
