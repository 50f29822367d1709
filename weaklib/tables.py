"""Tables and sentences that notebooks share: arms beside each other, annotators beside each other."""

import pandas as pd

from weaklib.figures import ARM_NAMES, percent
from weaklib.metrics import calibration_error, gra, gra_difference, share_correct, share_difference
from weaklib.statistics import LEVEL, correct_family, detectable

SETTING = ["arm", "weak", "strong", "top_percent"]


def arm_table(results: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each arm's GRA, its paired difference to ``baseline``, and what length has to do with it, as text to be read.

    p values are corrected (Holm) for the number of differences in the table.
    """
    table = gra(results, SETTING)
    difference = correct_family(gra_difference(results, SETTING, baseline))
    difference["minus"] = percent(difference, "+")
    controlled = gra(results, SETTING, length_controlled=True)
    words = results.groupby(SETTING, dropna=False, sort=False)["words"].mean().rename("words").reset_index()
    table = table.merge(difference[[*SETTING, "minus", "p_holm"]], how="left", on=SETTING).merge(words, on=SETTING)
    shown = pd.DataFrame(
        {
            "weak → strong": table["weak"] + " → " + table["strong"],
            "arm": table["arm"].map(ARM_NAMES),
            "N (%)": _text(table["top_percent"], "{:g}"),
            "GRA (%)": percent(table),
            f"minus {ARM_NAMES[baseline]} (points)": table["minus"].fillna("–"),
            "p (Holm)": _text(table["p_holm"], "{:.3f}").replace("0.000", "<0.001"),
            "GRA at equal length (%)": percent(controlled),
            "words a response": _text(table["words"], "{:.1f}"),
        }
    )
    return shown.sort_values("weak → strong", kind="stable", ignore_index=True)


def arm_findings(results: pd.DataFrame, baseline: str) -> list[str]:
    """A sentence on each arm's difference to ``baseline``, and one on what this run could have found."""
    differences = correct_family(gra_difference(results, SETTING, baseline))
    sentences = []
    for text, row in zip(percent(differences, "+"), differences.to_dict("records")):
        verdict = "not told apart from"
        if row["p_holm"] < 1 - LEVEL:
            verdict = "above" if row["estimate"] > 0 else "below"
        arm = ARM_NAMES[row["arm"]] if pd.isna(row["top_percent"]) else f"top {row['top_percent']:g}%"
        sentences.append(f"{row['weak']} → {row['strong']}: {arm} is {verdict} {ARM_NAMES[baseline]}, {text} points.")
    smallest = 100 * detectable(differences).median()
    return [
        *sentences,
        f"Four times in five this run would have found a difference of {smallest:.1f} points (median of the above).",
    ]


def annotator_table(labels: pd.DataFrame, rules: pd.DataFrame) -> pd.DataFrame:
    """How often annotators, and rules that read nothing, label a pair of D_u as the human does; and ECE, as text."""
    quality = share_correct(pd.concat([labels, rules]), ["weak"], "human")
    error = calibration_error(labels, ["weak"], "human")
    table = pd.DataFrame({"labeller": quality["weak"], "as the human (%)": percent(quality)})
    return table.assign(**{"ECE (points)": table["labeller"].map(dict(zip(error["weak"], percent(error)))).fillna("–")})


def annotator_findings(labels: pd.DataFrame, rules: pd.DataFrame) -> list[str]:
    """Whether each annotator is better than the best rule that reads nothing, on the same pairs."""
    best = share_correct(rules, ["weak"], "human").nlargest(1, "estimate").iloc[0]["weak"]
    difference = share_difference(labels, rules[rules["weak"] == best], ["weak"], "human")
    sentences = []
    for text, row in zip(percent(difference, "+"), difference.to_dict("records")):
        verdict = "better than" if row["ci_low"] > 0 else "not shown to be better than"
        sentences.append(f"{row['weak']} is {verdict} the rule “{best}”, which reads nothing: {text} points.")
    return sentences


def _text(values: pd.Series, form: str) -> pd.Series:
    """Numbers as text; what is missing is a dash, never 0."""
    return values.map(form.format, na_action="ignore").astype(object).where(values.notna(), "–")
