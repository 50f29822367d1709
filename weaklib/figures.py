"""Figures and tables that can be cited: one style, byte-stable files, and the provenance beside them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from weaklib.files import aside

STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,
    "svg.hashsalt": "weaklib",  # or element ids are random
}

# One colour, one name and one kind of line an arm, in every figure of the study (Wong's palette, and Tol's muted one for the rest;
# readable by the colour-blind).
ARMS = {
    "human": ("human", "#000000"),
    "human_all": ("human, all labels", "#999999"),
    "labeled_only": ("labeled only", "#56B4E9"),
    "weak": ("weak", "#E69F00"),
    "top": ("weak, top N%", "#D55E00"),
    "cw": ("CW", "#0072B2"),
    "oracle": ("oracle", "#009E73"),
    "random": ("random", "#CC79A7"),
    "matched": ("weak, as the human", "#44AA99"),
    "mismatched": ("weak, not as the human", "#882255"),
    "margin": ("weak, by margin", "#117733"),
    "rank": ("weak, by rank", "#332288"),
    "above": ("weak, sure enough", "#AA4499"),
}
ARM_NAMES = {arm: name for arm, (name, _) in ARMS.items()}
ARM_COLOURS = {arm: colour for arm, (_, colour) in ARMS.items()}
PALETTE = ["#E69F00", "#D55E00", "#0072B2", "#009E73", "#CC79A7"]  # for what is no arm
ARM_LINES = {"human_all": "--"}  # the others are solid


def arm_style(arm: str) -> dict:
    """Colour, line and label of ``arm``."""
    return {"color": ARM_COLOURS[arm], "linestyle": ARM_LINES.get(arm, "-"), "label": ARM_NAMES[arm]}


def use_style() -> None:
    """The study's style and nothing of the user's own matplotlibrc."""
    mpl.rcdefaults()
    sns.set_theme(style="ticks", rc=STYLE)


def line_with_interval(ax, rows: pd.DataFrame, x: str, **style) -> None:
    """``estimate`` against column ``x`` with error bars of ``ci_low`` to ``ci_high``, in percent."""
    rows = rows.sort_values(x)
    errors = [(rows["estimate"] - rows["ci_low"]) * 100, (rows["ci_high"] - rows["estimate"]) * 100]
    ax.errorbar(rows[x], rows["estimate"] * 100, yerr=errors, marker="o", capsize=2, **style)


def level(ax, row: pd.Series, place: int, **style) -> None:
    """A horizontal line at ``estimate``, in percent, with its interval as a bar right of the axes, the ``place``-th."""
    ax.axhline(row["estimate"] * 100, **style)
    x, at = 1.0 + 0.03 * place, ax.get_yaxis_transform()
    error = [[(row["estimate"] - row["ci_low"]) * 100], [(row["ci_high"] - row["estimate"]) * 100]]
    style.pop("label", None)
    ax.errorbar(x, row["estimate"] * 100, yerr=error, transform=at, clip_on=False, capsize=2, fmt="_", **style)


def arms_over(ax, rows: pd.DataFrame, x: str, categories: Sequence | None = None) -> None:
    """Each arm's ``estimate`` in percent against the numbers of column ``x``, or side by side at each of its ``categories``."""
    arms = [arm for arm in ARMS if (rows["arm"] == arm).any()]
    for number, arm in enumerate(arms):
        part, line = rows[rows["arm"] == arm], {}
        if categories is not None:
            shift = (number - (len(arms) - 1) / 2) * 0.7 / len(arms)
            part, line = part.assign(**{x: part[x].map(list(categories).index) + shift}), {"linestyle": "none"}
        line_with_interval(ax, part, x, **arm_style(arm) | line)
    ax.axhline(50, color="0.6", linewidth=0.8, linestyle=":")
    if categories is not None:
        ax.set_xticks(range(len(categories)), categories)


def gain_against_kl(ax, gain: pd.DataFrame, kl: pd.DataFrame, by: Sequence[str]) -> None:
    """Each arm's ``estimate`` of gain against that of its distance from the start, both with intervals; settings of an arm are joined.

    Args:
        gain, kl: a row an arm and setting, named by the columns ``by``.
    """
    both = gain.merge(kl, on=list(by), suffixes=("", "_kl"))
    for arm in [arm for arm in ARMS if (both["arm"] == arm).any()]:
        rows = both[both["arm"] == arm]
        y, x = (
            [rows[f"estimate{end}"] - rows[f"ci_low{end}"], rows[f"ci_high{end}"] - rows[f"estimate{end}"]]
            for end in ("", "_kl")
        )
        ax.errorbar(rows["estimate_kl"], rows["estimate"], xerr=x, yerr=y, marker="o", capsize=2, **arm_style(arm))
    ax.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    ax.set_xlabel("KL from the start (nats a response)")


def shared_legend(figure: Figure, axes, columns: int) -> None:
    """One legend above the figure for what the given ``axes`` draw."""
    handles = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=columns)


def percent(rows: pd.DataFrame, sign: str = "") -> pd.Series:
    """Estimates as text, in percent with their intervals: "61.2 [58.0, 64.4]"; ``sign="+"`` for differences."""
    estimate, low, high = (
        (100 * rows[column]).map(f"{{:{sign}.1f}}".format) for column in ("estimate", "ci_low", "ci_high")
    )
    return (estimate + " [" + low + ", " + high + "]").where(rows["ci_low"].notna(), estimate)


def readable(frame: pd.DataFrame):
    """A table that a notebook shows whole, long texts in lines; what is missing is a dash."""
    style = (
        frame.reset_index(drop=True)
        .style.hide(axis="index")
        .format(lambda v: f"{v:.4g}" if isinstance(v, float) else v, na_rep="–")
    )
    style = style.set_table_styles([{"selector": "th", "props": [("text-align", "left")]}])
    return style.set_properties(**{"text-align": "left", "white-space": "pre-wrap"})


def save_figure(figure: Figure, folder: Path, name: str, title: str, key: str) -> list[Path]:
    """Writes ``name.svg``, ``.pdf`` and ``.png``, the same bytes each time; ``title`` and ``key`` are in their metadata."""
    empty_dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    subject = {"svg": "Description", "pdf": "Subject", "png": "Description"}
    with aside(folder) as place:
        for kind, metadata in empty_dates.items():
            metadata |= {"Title": title, subject[kind]: f"store key {key}"}
            figure.savefig(place / f"{name}.{kind}", dpi=200, metadata=metadata)
    return [folder / f"{name}.{kind}" for kind in empty_dates]


def save_csv(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    with aside(folder) as place:
        frame.to_csv(place / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return folder / f"{name}.csv"


# Characters that pdflatex does not know as they are.
LATEX = str.maketrans({"→": r"$\rightarrow$", "β": r"$\beta$", "–": "--", "−": "$-$", "“": "``", "”": "''"})


def save_table(frame: pd.DataFrame, folder: Path, name: str, caption: str) -> list[Path]:
    """Writes ``frame`` (cells as they shall be read) as Markdown, LaTeX (booktabs) and CSV."""
    latex = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    escaped = caption.translate(str.maketrans({c: f"\\{c}" for c in "%&_#$"}))
    table = latex.to_latex(hrules=True, caption=escaped, label=f"tab:{name}", position_float="centering")
    with aside(folder) as place:
        (place / f"{name}.md").write_text(f"{caption}\n\n{frame.to_markdown(index=False)}\n", encoding="utf-8")
        (place / f"{name}.tex").write_text(table.translate(LATEX), encoding="utf-8")
        frame.to_csv(place / f"{name}.csv", index=False, lineterminator="\n")
    return [folder / f"{name}.{kind}" for kind in ("md", "tex", "csv")]
