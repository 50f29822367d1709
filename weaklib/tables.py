"""Tables and sentences that notebooks share: arms beside each other, annotators beside each other."""

from collections.abc import Sequence

import pandas as pd

from weaklib.figures import ARM_NAMES, percent
from weaklib.metrics import (
    agreement_across_seeds,
    calibration_error,
    difference,
    gain,
    gra,
    mean_of,
    share_correct,
    share_difference,
)
from weaklib.sections import Judge
from weaklib.statistics import LEVEL, correct_family, detectable
from weaklib.verdicts import reliability

SETTING = ["arm", "weak", "strong", "top_percent"]

# How a sweep's column is headed where people read it.
HEADINGS = {
    "labeled_fraction": "D_l, share of all pairs",
    "design": "design",
    "task": "task",
    "beta": "β",
    "policy.epochs": "epochs",
    "human_noise": "human labels replaced by a coin",
    "annotator.kind": "annotator",
    "annotator.confidently_wrong": "confidently wrong",
}


def arm_table(results: pd.DataFrame, baseline: str, sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Each arm's GRA, its paired difference to ``baseline``, and what length has to do with it, as text to be read.

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
            **{HEADINGS[column]: table[column] for column in sweep},
            "arm": table["arm"].map(ARM_NAMES),
            "N (%)": _text(table["top_percent"], "{:g}"),
            "GRA (%)": percent(table),
            f"minus {ARM_NAMES[baseline]} (points)": table["minus"].fillna("–"),
            "p (Holm)": _text(table["p_holm"], "{:.3f}").replace("0.000", "<0.001"),
            "GRA at equal length (%)": percent(controlled),
            "words a response": _text(table["words"], "{:.1f}"),
        }
    )
    if table["top_percent"].isna().all():
        shown = shown.drop(columns="N (%)")
    return shown.sort_values("weak → strong", kind="stable", ignore_index=True)


def arm_findings(results: pd.DataFrame, baseline: str, sweep: Sequence[str] = ()) -> list[str]:
    """A sentence on each arm's difference to ``baseline``, and one on what this run could have found."""
    differences = correct_family(difference(results, [*SETTING, *sweep], baseline))
    sentences = []
    for text, row in zip(percent(differences, "+"), differences.to_dict("records")):
        verdict = "not told apart from"
        if row["p_holm"] < 1 - LEVEL:
            verdict = "above" if row["estimate"] > 0 else "below"
        arm = ARM_NAMES[row["arm"]] if pd.isna(row["top_percent"]) else f"top {row['top_percent']:g}%"
        where = ", ".join([f"{row['weak']} → {row['strong']}", *(f"{HEADINGS[c]} {row[c]}" for c in sweep)])
        sentences.append(f"{where}: {arm} is {verdict} {ARM_NAMES[baseline]}, {text} points.")
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
    better = share_difference(labels, rules[rules["weak"] == best], ["weak"], "human")
    sentences = []
    for text, row in zip(percent(better, "+"), better.to_dict("records")):
        verdict = "better than" if row["ci_low"] > 0 else "not shown to be better than"
        sentences.append(f"{row['weak']} is {verdict} the rule “{best}”, which reads nothing: {text} points.")
    return sentences


def annotators_table(labels: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Annotators of several kinds beside each other, as text; a line a kind and weak model.

    Args:
        labels, costs: ``annotations.weak_labels`` and ``annotations.label_costs`` of each kind, named in the column ``annotator``.
    """
    by = ["annotator", "weak"]
    known = labels.dropna(subset=["truth"])
    table = share_correct(labels, by, "human")[by]
    columns = {
        "as the human (%)": share_correct(labels, by, "human"),
        "as the truth (%)": share_correct(known, by, "truth"),
    }
    columns["ECE (points)"] = calibration_error(labels.dropna(subset=["margin"]), by, "human")
    for name, rows in columns.items():
        table = table.merge(rows[by].assign(**{name: percent(rows)}), how="left", on=by)
    alike = agreement_across_seeds(labels, by)
    table = table.merge(alike[by].assign(**{"seeds agree (%)": _text(100 * alike["estimate"], "{:.1f}")}), on=by)
    units = {"seconds": "s", "tflop": "TFLOP", "requests": "requests", "usd": "USD"}
    each = costs.groupby(by, sort=False)[[*units, "unreadable"]].mean().reset_index()
    each["unreadable (%)"] = _text(100 * each["unreadable"], "{:.1f}")
    for column, unit in units.items():
        each[f"{unit} per 1,000"] = _text(each[column], "{:.3g}")
    return table.merge(each.drop(columns=[*units, "unreadable"]), on=by).fillna("–")


def gold_table(labels: pd.DataFrame, agreement: pd.DataFrame) -> pd.DataFrame:
    """How often each gold model is right about a pair, and how alike each two gold rewards rank the arms, as text.

    Args:
        labels: ``annotations.gold_model_labels``; gold models that are not made here are not in it.
        agreement: ``metrics.rank_agreement`` of each two gold rewards (``gold``, ``other``) and pair of models.
    """
    if agreement.empty:
        return pd.DataFrame({"gold reward": ["one only in this profile"]})
    ranks = agreement.assign(pair="ranks arms alike, " + agreement["weak"] + " → " + agreement["strong"])
    ranks["gold reward"] = ranks["gold"] + " and " + ranks["other"]
    ranks["text"] = [f"{r.estimate:+.2f} [{r.ci_low:+.2f}, {r.ci_high:+.2f}]" for r in ranks.itertuples()]
    table = (
        ranks.pivot(index="gold reward", columns="pair", values="text").rename_axis(None, axis="columns").reset_index()
    )
    if labels.empty:
        return table
    right = {name: gold_accuracy(labels, name) for name in ("truth", "human")}
    quality = pd.DataFrame({"gold reward": right["truth"]["gold"]})
    quality = quality.assign(**{f"as the {name} (%)": percent(rows) for name, rows in right.items()})
    return pd.concat([quality, table], ignore_index=True).fillna("–")


def gold_accuracy(labels: pd.DataFrame, correct: str) -> pd.DataFrame:
    """How often each gold model prefers what the ``truth`` or the ``human`` prefers, with an interval over the pairs."""
    return share_correct(labels.assign(seed=0), ["gold"], correct)


def gain_and_kl(results: pd.DataFrame, kl: pd.DataFrame, sweep: Sequence[str] = ()) -> tuple[pd.Series, pd.Series]:
    """Mean gain in gold reward over SFT and mean KL from it, in the order of :func:`arm_table`, as text with intervals."""
    by = [*SETTING, *sweep]
    both = gain(results, by).merge(mean_of(kl, by, "log_ratio"), on=by, suffixes=("", "_kl"))
    both = both.assign(pair=both["weak"] + " → " + both["strong"]).sort_values("pair", kind="stable", ignore_index=True)

    def text(end: str) -> pd.Series:
        columns = (both[f"{name}{end}"].map("{:.2f}".format) for name in ("estimate", "ci_low", "ci_high"))
        estimate, low, high = columns
        return estimate + " [" + low + ", " + high + "]"

    return text(""), text("_kl")


def gold_findings(labels: pd.DataFrame, agreement: pd.DataFrame, wins: pd.DataFrame) -> list[str]:
    """How right and how alike the gold models are, and how often CW beats human labels prompt by prompt."""
    sentences = []
    if len(labels):
        for row, truth, human in zip(
            gold_accuracy(labels, "truth").itertuples(),
            *(percent(gold_accuracy(labels, name)) for name in ("truth", "human")),
        ):
            sentences.append(
                f"{row.gold} prefers what the truth prefers in {truth}% of pairs, what the human prefers in {human}%."
            )
    for row in agreement.to_dict("records"):
        interval = f"{row['estimate']:+.2f} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"
        sentences.append(
            f"{row['weak']} → {row['strong']}: {row['gold']} and {row['other']} rank the arms with a correlation of {interval}."
        )
    for text, row in zip(percent(wins), wins.to_dict("records")):
        verdict = "not told apart from human labels"
        if row["ci_low"] > 0.5 or row["ci_high"] < 0.5:
            verdict = "better than human labels" if row["ci_low"] > 0.5 else "worse than human labels"
        sentences.append(f"{row['weak']} → {row['strong']}, {row['gold']}: CW is {verdict}, win rate {text}%.")
    return sentences


def judge_table(judged: pd.DataFrame, settings: Judge) -> pd.DataFrame:
    """How far the judge can be trusted and what it was asked, as text to be read; a line a pair of models and one for all."""
    groups = [(" → ".join(name), rows) for name, rows in judged.groupby(["weak", "strong"], sort=False)]
    names = {
        "unreadable": "unreadable (%)",
        "first_position": "for the first position (%)",
        "flips": "turn over with the order (%)",
        "consistency": "repeats alike (%)",
        "right": "right, of those that choose (%)",
    }
    lines = []
    for name, rows in [*groups, ("all", judged)]:
        price = settings.usd_per_million_tokens
        cost = (rows["input_tokens"].sum() * price.input + rows["output_tokens"].sum() * price.output) / 1e6
        asked = {"requests": int(rows["requests"].sum()), "cost (USD)": f"{cost:.2f}"}
        if settings.base_url is None:  # nobody was asked
            asked = dict.fromkeys(asked, "–")
        counts = {"questions": len(rows), **asked}
        shares = {names[key]: value for key, value in reliability(rows).items()}
        lines.append(
            {"weak → strong": name} | {k: "–" if pd.isna(v) else f"{100 * v:.1f}" for k, v in shares.items()} | counts
        )
    return pd.DataFrame(lines)


def win_rate_table(rates: pd.DataFrame) -> pd.DataFrame:
    """Win rates as text: a line an arm, annotator and pair of models, a column each way of judging; what could not be judged is a dash."""
    line = ["pair", "annotator.kind", "arm"]
    shown = rates.assign(pair=rates["weak"] + " → " + rates["strong"], arm=rates["arm"].map(ARM_NAMES))
    shown["text"] = percent(shown).mask(shown["estimate"].isna(), "–")
    table = shown.pivot(index=line, columns="by", values="text")[list(dict.fromkeys(rates["by"]))]
    left_out = shown[shown["by"].str.endswith("both orders")].set_index(line)["left_out"].astype(int)
    table = table.assign(**{"prompts left out": left_out}).rename_axis(None, axis="columns").reset_index()
    return table.rename(columns={"pair": "weak → strong"} | HEADINGS)


def judge_findings(rates: pd.DataFrame, judged: pd.DataFrame, judge_name: str) -> list[str]:
    """What the judge prefers, and how much of it would have been position."""
    sentences = []
    both = rates[rates["by"].str.endswith("both orders")]
    for text, row in zip(percent(both), both.to_dict("records")):
        verdict = "could not be judged"
        if pd.notna(row["estimate"]):
            verdict = f"is not told apart from human labels, win rate {text}%"
            if row["ci_low"] > 0.5 or row["ci_high"] < 0.5:
                verdict = (
                    f"is {'preferred' if row['ci_low'] > 0.5 else 'not preferred'} to human labels, win rate {text}%"
                )
        sentences.append(
            f"{row['weak']} → {row['strong']}, annotator {row['annotator.kind']}: {ARM_NAMES[row['arm']]} {verdict}."
        )
    first, second = (
        rates.loc[rates["by"].str.endswith(f"arm {where}"), "estimate"].mean() for where in ("first", "second")
    )
    if pd.notna(first) and pd.notna(second):
        sentences.append(
            f"Asked in one order only, the arms would have won {100 * first:.1f}% shown first and {100 * second:.1f}% shown second "
            f"(means of all arms): {100 * (first - second):+.1f} points of position."
        )
    shares = reliability(judged)
    sentences.append(
        f"Of {len(judged)} questions the {judge_name} left {100 * shares['unreadable']:.1f}% without a readable verdict."
    )
    return sentences


def _text(values: pd.Series, form: str) -> pd.Series:
    """Numbers as text; what is missing is a dash, never 0."""
    return values.map(form.format, na_action="ignore").astype(object).where(values.notna(), "–")
