"""One look for the whole study: colours and names of arms, numbers as text."""

import matplotlib as mpl
import pandas as pd
import seaborn as sns

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
_ARMS = {
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
ARM_NAMES = {arm: name for arm, (name, _) in _ARMS.items()}
PALETTE = ["#E69F00", "#D55E00", "#0072B2", "#009E73", "#CC79A7"]  # for what is no arm


def arm_style(arm: str) -> dict:
    """Colour, line and label of ``arm``; one that has no line above is drawn in grey by its own name."""
    name, colour = _ARMS.get(arm, (arm, "#777777"))
    return {"color": colour, "linestyle": "--" if arm == "human_all" else "-", "label": name}


def arm_name(arm: str) -> str:
    return arm_style(arm)["label"]


def order_of(arms: pd.Series) -> list[str]:
    """The arms in the order of the list above, any other at the end."""
    return [arm for arm in [*_ARMS, *sorted(set(arms) - set(_ARMS))] if (arms == arm).any()]


def use_style() -> None:
    """The study's style and nothing of the user's own matplotlibrc."""
    mpl.rcdefaults()
    sns.set_theme(style="ticks", rc=STYLE)


def percent(rows: pd.DataFrame, sign: str = "") -> pd.Series:
    """Estimates as text, in percent with their intervals: "61.2 [58.0, 64.4]"; ``sign="+"`` for differences."""
    return with_interval(rows.assign(**{c: 100 * rows[c] for c in ("estimate", "ci_low", "ci_high")}), f"{sign}.1f")


def with_interval(rows: pd.DataFrame, form: str = ".2f") -> pd.Series:
    """Estimates as text with their intervals; without one the estimate alone."""
    estimate, low, high = (rows[column].map(f"{{:{form}}}".format) for column in ("estimate", "ci_low", "ci_high"))
    return (estimate + " [" + low + ", " + high + "]").where(rows["ci_low"].notna(), estimate)


def text(values: pd.Series, form: str) -> pd.Series:
    """Numbers as text; what is missing is a dash, never 0."""
    return values.map(form.format, na_action="ignore").astype(object).where(values.notna(), "–")


def readable(frame: pd.DataFrame):
    """A table that a notebook shows whole, long texts in lines; what is missing is a dash."""
    style = frame.reset_index(drop=True).style.hide(axis="index")
    style = style.format(lambda v: f"{v:.4g}" if isinstance(v, float) else v, na_rep="–")
    style = style.set_table_styles([{"selector": "th", "props": [("text-align", "left")]}])
    return style.set_properties(**{"text-align": "left", "white-space": "pre-wrap"})
