"""How arms and their intervals are drawn."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from weaklib.figures.style import arm_style, order_of


def half(*axes) -> None:
    """The line of 50%: the supervised start itself, or a coin."""
    for ax in axes:
        ax.axhline(50, color="0.6", linewidth=0.8, linestyle=":")


def line_with_interval(ax, rows: pd.DataFrame, x: str, **style) -> None:
    """``estimate`` against column ``x`` with error bars of ``ci_low`` to ``ci_high``, in percent."""
    rows = rows.sort_values(x)
    ax.errorbar(rows[x], rows["estimate"] * 100, yerr=100 * errors(rows), marker="o", capsize=2, **style)


def errors(rows: pd.DataFrame, end: str = ""):
    """Lengths of the error bars below and above the estimates, (2, rows); ``end`` is that of the columns' names."""
    estimate, low, high = (rows[f"{name}{end}"].to_numpy() for name in ("estimate", "ci_low", "ci_high"))
    return pd.DataFrame([estimate - low, high - estimate]).to_numpy()


def level(ax, rows: pd.DataFrame, place: int, **style) -> None:
    """A horizontal line at the ``estimate`` of one row, in percent, with its interval as a bar right of the axes, the ``place``-th."""
    height = 100 * rows["estimate"].iloc[0]
    ax.axhline(height, **style)
    style.pop("label", None)
    at = {"transform": ax.get_yaxis_transform(), "clip_on": False}
    ax.errorbar(1.0 + 0.03 * place, height, yerr=100 * errors(rows), capsize=2, fmt="_", **at, **style)


def arms_over(ax, rows: pd.DataFrame, x: str, categories: Sequence | None = None) -> None:
    """Each arm's ``estimate`` in percent against the numbers of column ``x``, or side by side at each of its ``categories``."""
    arms = order_of(rows["arm"])
    for number, arm in enumerate(arms):
        part, line = rows[rows["arm"] == arm], {}
        if categories is not None:
            shift = (number - (len(arms) - 1) / 2) * 0.7 / len(arms)
            part, line = part.assign(**{x: part[x].map(list(categories).index) + shift}), {"linestyle": "none"}
        line_with_interval(ax, part, x, **arm_style(arm) | line)
    half(ax)
    if categories is not None:
        ax.set_xticks(range(len(categories)), categories)


def gain_against_kl(ax, gain: pd.DataFrame, kl: pd.DataFrame, by: Sequence[str]) -> None:
    """Each arm's ``estimate`` of gain against that of its distance from the start, both with intervals; settings of an arm are joined.

    Args:
        gain, kl: a row an arm and setting, named by the columns ``by``.
    """
    both = gain.merge(kl, on=list(by), suffixes=("", "_kl"))
    for arm in order_of(both["arm"]):
        rows = both[both["arm"] == arm]
        bars = {"xerr": errors(rows, "_kl"), "yerr": errors(rows)}
        ax.errorbar(rows["estimate_kl"], rows["estimate"], marker="o", capsize=2, **bars, **arm_style(arm))
    ax.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    ax.set_xlabel("KL from the start (nats a response)")


def reliability(ax, rows: pd.DataFrame, **style) -> None:
    """Shares that are right against the ``probability`` with which they are held to be, and the diagonal, where both are equal."""
    if not ax.lines:
        ax.plot([50, 100], [50, 100], color="0.6", linewidth=0.8, linestyle=":")
    line_with_interval(ax, rows.assign(percent=100 * rows["probability"]), "percent", **style)
    ax.set(xlabel="probability that the label is the human's (%)", ylabel="labels that are the human's (%)")


def shared_legend(figure: Figure, axes, columns: int) -> None:
    """One legend above the figure for what the given ``axes`` draw."""
    handles: dict = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns)
