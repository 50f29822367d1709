"""Tables and sentences that several notebooks share, as text to be read: arms beside each other, annotators beside each other."""

from collections.abc import Sequence

import pandas as pd

from weaklib.evaluation import label_metrics
from weaklib.evaluation.intervals import LEVEL, correct_family, detectable
from weaklib.evaluation.metrics import difference, gain, gra, mean_of
from weaklib.figures.style import arm_name, percent, text, with_interval

SETTING = ["arm", "weak", "strong", "top_percent"]

# How a setting's column is headed where people read it; any other by its name.
HEADINGS = {
    "labeled_fraction": "D_l, share of all pairs",
    "beta": "β",
    "policy.epochs": "epochs",
    "human_noise": "human labels replaced by a coin",
    "annotator.kind": "annotator",
    "annotator.confidently_wrong": "confidently wrong",
}


def heading(column: str) -> str:
    return HEADINGS.get(column, column)


def arm_table(results: pd.DataFrame, baseline: str, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Each arm's GRA, its paired difference to ``baseline``, and what length has to do with it.

    p values are corrected (Holm) for the number of differences in the table. ``sweep`` names the columns of the results' settings.
    """
    by = [*SETTING, *sweep]
    table = gra(results, by)
    minus = correct_family(difference(results, by, baseline))
    minus["minus"] = percent(minus, "+")
    controlled = gra(results, by, length_controlled=True)
    words = results.groupby(by, dropna=False, sort=False)["words"].mean().rename("words").reset_index()
    table = table.merge(minus[[*by, "minus", "p_holm"]], how="left", on=by).merge(words, on=by)
    shown = pd.DataFrame(
        {
            "weak → strong": table["weak"] + " → " + table["strong"],
            **{heading(column): table[column] for column in sweep},
            "arm": table["arm"].map(arm_name),
            "N (%)": text(table["top_percent"], "{:g}"),
            "GRA (%)": percent(table),
            f"minus {arm_name(baseline)} (points)": table["minus"].fillna("–"),
            "p (Holm)": text(table["p_holm"], "{:.3f}").replace("0.000", "<0.001"),
            "GRA at equal length (%)": percent(controlled),
            "words a response": text(table["words"], "{:.1f}"),
        }
    )
    if table["top_percent"].isna().all():
        shown = shown.drop(columns="N (%)")
    return shown.sort_values("weak → strong", kind="stable", ignore_index=True)


def arm_findings(results: pd.DataFrame, baseline: str, sweep: Sequence[str] = ()) -> list[str]:
    """A sentence on each arm's difference to ``baseline``, and one on what this run could have found."""
    differences = correct_family(difference(results, [*SETTING, *sweep], baseline))
    sentences = []
    for minus, row in zip(percent(differences, "+"), differences.to_dict("records")):
        verdict = "not distinguishable from"
        if row["p_holm"] < 1 - LEVEL:
            verdict = "above" if row["estimate"] > 0 else "below"
        arm = arm_name(row["arm"]) if pd.isna(row["top_percent"]) else f"top {row['top_percent']:g}%"
        where = ", ".join([f"{row['weak']} → {row['strong']}", *(f"{heading(c)} {row[c]}" for c in sweep)])
        sentences.append(f"{where}: {arm} is {verdict} {arm_name(baseline)}, {minus} points.")
    smallest = 100 * detectable(differences).median()
    found = f"Four times in five this run would have found a difference of {smallest:.1f} points (median of the above)."
    return [*sentences, found]


def gain_and_kl(results: pd.DataFrame, kl: pd.DataFrame, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Mean gain in gold reward over SFT and mean KL from it, in the order of :func:`arm_table`: two columns with intervals."""
    by = [*SETTING, *sweep]
    columns = {"gain in gold reward": gain(results, by), "KL (nats)": mean_of(kl, by, "log_ratio")}
    gains, distances = (rows.assign(**{name: with_interval(rows)})[[*by, name]] for name, rows in columns.items())
    both = gains.merge(distances, on=by)
    both = both.assign(pair=both["weak"] + " → " + both["strong"]).sort_values("pair", kind="stable", ignore_index=True)
    return both[list(columns)]


def annotators_table(labels: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Annotators of several kinds beside each other; a line a kind and weak model.

    Args:
        labels, costs: ``weaklib.weak_labels`` and ``weaklib.label_costs`` of each kind, named in the column ``annotator``.
    """
    by = ["annotator", "weak"]
    columns = {f"as the {who} (%)": labels.dropna(subset=[who]) for who in ("human", "truth")}
    columns = {name: label_metrics.share_correct(rows, by, name.split()[2]) for name, rows in columns.items()}
    columns["ECE (points)"] = label_metrics.calibration_error(labels.dropna(subset=["margin"]), by, "human")
    table = columns["as the human (%)"][by]
    for name, rows in columns.items():
        table = table.merge(rows[by].assign(**{name: percent(rows)}), how="left", on=by)
    alike = label_metrics.agreement_across_seeds(labels, by)
    table = table.merge(alike[by].assign(**{"seeds agree (%)": text(100 * alike["estimate"], "{:.1f}")}), on=by)
    units = {"seconds": "s", "tflop": "TFLOP", "requests": "requests", "usd": "USD"}
    each = costs.groupby(by, sort=False)[[*units, "unreadable"]].mean().reset_index()
    each["unreadable (%)"] = text(100 * each["unreadable"], "{:.1f}")
    for column, unit in units.items():
        each[f"{unit} per 1,000"] = text(each[column], "{:.3g}")
    return table.merge(each.drop(columns=[*units, "unreadable"]), on=by).fillna("–")
