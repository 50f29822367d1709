"""One look for the whole study: colours and names of arms, and how they and their intervals are drawn."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from ruamel.yaml import YAML

from weaklib.arms.folders import NOTEBOOKS

LOOK = YAML(typ="safe", pure=True).load(NOTEBOOKS / "look.yaml")  # of arms, of columns, of matplotlib
PALETTE = ["#E69F00", "#D55E00", "#0072B2", "#009E73", "#CC79A7"]  # for what is no arm
REFERENCE = {"color": "0.6", "linewidth": 0.8, "linestyle": ":"}  # of a line where nothing is gained


def use_style() -> None:
    """The study's style and nothing of the user's own matplotlibrc."""
    mpl.rcdefaults()
    sns.set_theme(style="ticks", rc=LOOK["style"])


def arm_style(arm: str) -> dict:
    """Colour, line and label of ``arm``; one that the look does not know is drawn in grey by its own name."""
    name, colour = LOOK["arms"].get(arm, (arm, "#777777"))
    return {"color": colour, "linestyle": "--" if arm == "human_all" else "-", "label": name}


def arm_name(arm: str) -> str:
    return arm_style(arm)["label"]


def by_arm(rows: pd.DataFrame) -> list[tuple[pd.DataFrame, dict]]:
    """The rows and the style of each arm, in the order of the look, any other at the end."""
    known = {arm: place for place, arm in enumerate(LOOK["arms"])}
    arms = sorted(set(rows["arm"]), key=lambda arm: (known.get(arm, len(known)), arm))
    return [(rows[rows["arm"] == arm], arm_style(arm)) for arm in arms]


def errors(rows: pd.DataFrame, end: str = "") -> np.ndarray:
    """Lengths of the error bars below and above the estimates, (2, rows); ``end`` is that of the columns' names."""
    estimate, low, high = (rows[f"{name}{end}"].to_numpy(float) for name in ("estimate", "ci_low", "ci_high"))
    return np.stack([estimate - low, high - estimate])


def line_with_interval(ax, rows: pd.DataFrame, x: str, **style) -> None:
    """``estimate`` against column ``x`` with error bars of ``ci_low`` to ``ci_high``, in percent."""
    rows = rows.sort_values(x)
    ax.errorbar(rows[x], rows["estimate"] * 100, yerr=100 * errors(rows), **{"marker": "o", "capsize": 2} | style)


def level(ax, row: pd.DataFrame, place: int, label: str, **style) -> None:
    """A line across at the ``estimate`` of one row, in percent, its interval as a bar right of it, the ``place``-th."""
    ax.axhline(100 * row["estimate"].iloc[0], label=label, **style)
    bar = {"marker": "_", "linestyle": "none", "transform": ax.get_yaxis_transform(), "clip_on": False}
    line_with_interval(ax, row.assign(place=1.0 + 0.03 * place), "place", **bar | style)


def arms_over(ax, rows: pd.DataFrame, x: str, categories=()) -> None:
    """Each arm's ``estimate`` in percent against the numbers of column ``x``, or side by side at its ``categories``."""
    arms = by_arm(rows)
    for number, (part, look) in enumerate(arms):
        if categories:
            shift = (number - (len(arms) - 1) / 2) * 0.7 / len(arms)
            part, look["linestyle"] = part.assign(**{x: part[x].map(list(categories).index) + shift}), "none"
        line_with_interval(ax, part, x, **look)
    ax.axhline(50, **REFERENCE)
    if categories:
        ax.set_xticks(range(len(categories)), categories)


def gain_against_kl(ax, rows: pd.DataFrame) -> None:
    """Each arm's gain (``estimate``) against its distance from the start (``estimate_kl``), its settings joined."""
    for part, look in by_arm(rows):
        bars = {"xerr": errors(part, "_kl"), "yerr": errors(part)}
        ax.errorbar(part["estimate_kl"], part["estimate"], marker="o", capsize=2, **bars, **look)
    ax.axhline(0, **REFERENCE)
    ax.set_xlabel("KL from the start (nats a response)")


def reliability(ax, rows: pd.DataFrame, **style) -> None:
    """Shares that are right against the ``probability`` with which they are held to be, and where both are equal."""
    if not ax.lines:
        ax.plot([50, 100], [50, 100], **REFERENCE)
    line_with_interval(ax, rows.assign(percent=100 * rows["probability"]), "percent", **style)
    ax.set(xlabel="probability that the label is the human's (%)", ylabel="labels that are the human's (%)")


def shared_legend(figure, axes, columns: int) -> None:
    """One legend above the figure for what the given ``axes`` draw."""
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns)
