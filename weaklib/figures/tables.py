"""Numbers as text, and tables and sentences that several notebooks share: arms, and annotators, beside each other."""

import pandas as pd

from weaklib.evaluation import metrics
from weaklib.evaluation.intervals import LEVEL, correct_family, detectable
from weaklib.figures.draw import LOOK, arm_name

SETTING = ["arm", "weak", "strong", "top_percent"]
HEADINGS = LOOK["headings"]


def text(values: pd.Series | pd.DataFrame, form: str = ".2f") -> pd.Series:
    """Numbers as text, rows of estimates with the intervals that they have; what is missing is a dash, never 0."""
    if isinstance(values, pd.Series):
        return values.map(f"{{:{form}}}".format, na_action="ignore").astype(object).where(values.notna(), "–")
    estimate, low, high = (text(values[column], form) for column in ("estimate", "ci_low", "ci_high"))
    return (estimate + " [" + low + ", " + high + "]").where(values["ci_low"].notna(), estimate)


def percent(rows: pd.DataFrame, sign: str = "") -> pd.Series:
    """Estimates as text, in percent with their intervals: "61.2 [58.0, 64.4]"; ``sign="+"`` for differences."""
    return text(100 * rows.reindex(columns=["estimate", "ci_low", "ci_high"]).astype(float), f"{sign}.1f")


def readable(frame: pd.DataFrame):
    """A table that a notebook shows whole, long texts in lines; what is missing is a dash."""
    style = frame.reset_index(drop=True).style.hide(axis="index")
    style = style.format(lambda v: f"{v:.4g}" if isinstance(v, float) else v, na_rep="–")
    style = style.set_table_styles([{"selector": "th", "props": [("text-align", "left")]}])
    return style.set_properties(**{"text-align": "left", "white-space": "pre-wrap"})


def arm_table(results: pd.DataFrame, baseline: str, sweep=(), kl: pd.DataFrame | None = None) -> pd.DataFrame:
    """Each arm's GRA, difference to ``baseline`` (Holm's p) and GRA at equal length; with ``kl`` also gain and KL."""
    by = [*SETTING, *sweep]
    table = metrics.mean_of(results, by, "gra")
    minus = correct_family(metrics.difference(results, by, baseline))
    table = table.merge(minus[[*by, "p_holm"]].assign(minus=percent(minus, "+")), how="left", on=by)
    shown = {"weak → strong": table["weak"] + " → " + table["strong"]}
    shown |= {HEADINGS.get(column, column): table[column] for column in sweep}
    shown["arm"] = table["arm"].map(arm_name)
    if table["top_percent"].notna().any():
        shown["N (%)"] = text(table["top_percent"], "g")
    shown["GRA (%)"] = percent(table)
    shown[f"minus {arm_name(baseline)} (points)"] = table["minus"].fillna("–")
    shown["p (Holm)"] = text(table["p_holm"], ".3f").replace("0.000", "<0.001")
    shown["GRA at equal length (%)"] = percent(metrics.mean_of(results, by, "gra_at_equal_length"))
    shown["words a response"] = text(results.groupby(by, dropna=False, sort=False)["words"].mean(), ".1f").to_numpy()
    if kl is not None:
        shown["gain in gold reward"] = text(metrics.mean_of(results, by, "gain"))
        shown["KL (nats)"] = text(table[by].merge(metrics.mean_of(kl, by, "log_ratio"), how="left", on=by))
    return pd.DataFrame(shown).sort_values("weak → strong", kind="stable", ignore_index=True)


def arm_findings(results: pd.DataFrame, baseline: str, sweep=()) -> list[str]:
    """A sentence on each arm's difference to ``baseline``, and one on what this run could have found."""
    differences = correct_family(metrics.difference(results, [*SETTING, *sweep], baseline))
    sentences = []
    for minus, row in zip(percent(differences, "+"), differences.to_dict("records")):
        verdict = "above" if row["estimate"] > 0 else "below"
        verdict = verdict if row["p_holm"] < 1 - LEVEL else "not distinguishable from"
        arm = arm_name(row["arm"]) if pd.isna(row["top_percent"]) else f"top {row['top_percent']:g}%"
        where = ", ".join([f"{row['weak']} → {row['strong']}", *(f"{HEADINGS.get(c, c)} {row[c]}" for c in sweep)])
        sentences.append(f"{where}: {arm} is {verdict} {arm_name(baseline)}, {minus} points.")
    smallest = f"{100 * detectable(differences).median():.1f} points (median of the above)."
    return [*sentences, f"Four times in five this run would have found a difference of {smallest}"]


def annotators_table(labels: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Annotators beside each other, a line a kind (``annotator``) and weak model: their labels and what these cost."""
    by = ["annotator", "weak"]
    columns = {f"as the {who} (%)": metrics.label_means(labels, by, who) for who in ("human", "truth")}
    columns["ECE (points)"] = metrics.calibration_error(labels.dropna(subset=["margin"]), by, "human")
    columns["seeds agree (%)"] = metrics.agreement_across_seeds(labels, by)
    table = labels[by].drop_duplicates()
    for name, rows in columns.items():
        table = table.merge(rows[by].assign(**{name: percent(rows)}), how="left", on=by)
    units = {"seconds": "s", "tflop": "TFLOP", "requests": "requests", "usd": "USD"}
    each = costs.groupby(by, as_index=False)[["unreadable", *units]].mean()
    each = table[by].merge(each, how="left", on=by)
    table["unreadable (%)"] = text(100 * each["unreadable"], ".1f")
    for column, unit in units.items():
        table[f"{unit} per 1,000"] = text(each[column], ".3g")
    return table.fillna("–")
