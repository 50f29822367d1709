"""What an annotator's labels are worth where they match the human's and where they do not ([A] Sec. 4)."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from weaklib import graph
from weaklib.figures import ARM_NAMES, percent
from weaklib.metrics import difference, gain
from weaklib.profile import Profile
from weaklib.statistics import COLUMNS, nested_mean
from weaklib.study import Study

PAIR = ["weak", "strong"]
GROUPS = {True: "matched", False: "mismatched"}  # whether a weak label is the human's

# What matched and mismatched pairs are compared by, columns of :func:`with_gold` and :func:`judged_twice`; "judge" stands for its name.
MEASURES = {
    "share": "of all pairs (%)",
    "truth": "the weak choice has the higher gold reward (%)",
    "gap": "distance between the two gold rewards",
    "for_weak": "the judge names the weak choice (%)",
    "verdict_again": "the judge says the same again, asked in one order (%)",
    "label_again": "the judge gives the same label again, asked in both orders (%)",
}


def judged_twice(study: Study, labels: pd.DataFrame) -> pd.DataFrame:
    """``annotations.weak_labels`` beside the judge, asked twice about each pair and each time in both orders.

    A simulated judge is asked about all of D_u, a real one about ``judge.prompts`` of its prompts for each seed.

    Returns:
        ``labels`` with three columns, missing for pairs that were not asked about and replies that could not be read:

        - ``verdict_again``: the share of the two orders in which the judge's second verdict is its first;
        - ``label_again``: whether its second label is its first: what it prefers in both orders, or neither;
        - ``for_weak``: the share of its first verdicts that name the annotator's choice, a tie counted half.
    """
    if (p := _affordable(study)) is None:
        return labels
    stages = {seed: [graph.judge_labels(p, "unlabeled", seed, repeat) for repeat in (0, 1)] for seed in p.seeds}
    if not study.compute(itertools.chain(*stages.values())):
        return labels
    tables = []
    for seed, (first, second) in stages.items():
        judged = study.read(first, "labels")
        a = judged["chosen"].where(judged["prefers_a"], judged["rejected"])
        scores = (_scores_of_a(study.read(stage, "questions")["verdict"]) for stage in (first, second))
        tables.append(compare(*scores).assign(seed=seed, pair=judged["pair"], a=a))
    both = labels.merge(pd.concat(tables), how="left", on=["seed", "pair"], validate="many_to_one")
    both["for_weak"] = both["for_a"].where(both["chosen"] == both["a"], 1 - both["for_a"])
    return both.drop(columns=["for_a", "a"])


def compare(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """What a judge says of pairs and what it says again: ``verdict_again``, ``label_again`` (:func:`judged_twice`) and ``for_a``.

    Args:
        first, second: a row a pair, a column an order; 1 where the verdict is for response a, 0 for b, ½ for a tie.
    """
    read = first.notna() & second.notna()
    # not the stages' labels: a pair left undecided twice gets the same coin twice
    label, again = (scores.mean(axis=1).where(scores.nunique(axis=1) == 1, 0.5) for scores in (first, second))
    return pd.DataFrame(
        {
            "verdict_again": (first == second).astype(float).where(read).mean(axis=1),
            "label_again": (label == again).astype(float).where(read.all(axis=1)),
            "for_a": first.mean(axis=1),
        }
    )


def with_gold(study: Study, labels: pd.DataFrame) -> pd.DataFrame:
    """``labels`` with the gold rewards of both responses and their distance, ``gap``; missing where no truth is known."""
    pairs = study.read(graph.task(study.profile), "pairs").set_index("pair").loc[labels["pair"]].set_index(labels.index)
    a, b, chose_a = pairs["gold_reward_a"], pairs["gold_reward_b"], labels["chosen"] == pairs["response_a"]
    return labels.assign(gold_chosen=a.where(chose_a, b), gold_rejected=b.where(chose_a, a), gap=(a - b).abs())


def group_means(rows: pd.DataFrame, by: list[str], column: str, bounds: tuple[float, float] = (0, 1)) -> pd.DataFrame:
    """The mean of ``column`` over pairs, which differ by seed, with its interval: a row for each group of ``by``.

    Pairs without a value are left out, and so are groups with less than two pairs in some seed.
    """

    def mean(group):
        return nested_mean([part.to_numpy(float) for _, part in group.groupby("seed")[column]], bounds)

    return _summarise(rows, by, column, ["seed"], rows["seed"].nunique(), mean)


def mean_difference(rows: pd.DataFrame, by: list[str], column: str, group: str) -> pd.DataFrame:
    """The mean of the share ``column`` where ``group`` is true, minus that of the other pairs; result as :func:`group_means`."""

    def minus(part):
        seeds = [(seed[seed[group]], seed[~seed[group]]) for _, seed in part.groupby("seed")]
        return nested_mean([influence(*(half[column].to_numpy(float) for half in seed)) for seed in seeds], (-1, 1))

    return _summarise(rows, by, column, ["seed", group], 2 * rows["seed"].nunique(), minus)


def influence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A score a unit: their mean is mean(one) − mean(other), and their variance over their number that of this difference."""
    minus, size = one.mean() - other.mean(), len(one) + len(other)
    centred = (one - one.mean()) / len(one), (other.mean() - other) / len(other)
    return minus + size * np.concatenate(centred)


def by_match(labels: pd.DataFrame) -> pd.DataFrame:
    """Each of the ``MEASURES`` of matched and of mismatched pairs (``pairs``), with its interval."""
    shares = pd.concat(labels.assign(human=group, share=labels["human"] == group) for group in GROUPS)
    tables = []
    for measure in MEASURES:
        rows, bounds = (shares if measure == "share" else labels), (0, np.inf if measure == "gap" else 1)
        tables.append(group_means(rows, [*PAIR, "human"], measure, bounds).assign(measure=measure))
    found = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return found.assign(pairs=found.pop("human").map(GROUPS))


def match_table(found: pd.DataFrame, judge_name: str) -> pd.DataFrame:
    """:func:`by_match` of one pair of models as text."""
    text = percent(found).where(found["measure"] != "gap", [plain(row) for row in found.to_dict("records")])
    table = found.assign(text=text).pivot(index="measure", columns="pairs", values="text")
    table = table.reindex(index=[m for m in MEASURES if m in table.index], columns=GROUPS.values()).fillna("–")
    names = {measure: name.replace("the judge", f"the {judge_name}") for measure, name in MEASURES.items()}
    return table.rename(index=names).rename_axis(index="pairs", columns=None).reset_index()


def examples(labels: pd.DataFrame) -> pd.DataFrame:
    """The most, the middle and the least confident label of the first annotator, of matched and of mismatched pairs, as text.

    Args:
        labels: of :func:`with_gold`.
    """
    one = labels.groupby([*PAIR, "seed"], sort=False).ngroup() == 0
    ordered = labels[one].sort_values(["confidence", "pair"], ascending=[False, True])
    groups = [ordered[ordered["human"] == group] for group in GROUPS]
    shown = pd.concat(rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})] for rows in groups if len(rows))
    prompt, chosen, rejected = (shown[name].str.split().str.join(" ") for name in ("prompt", "chosen", "rejected"))
    gold = [
        shown[name].map("{:.2f}".format).where(shown[name].notna(), "–") for name in ("gold_chosen", "gold_rejected")
    ]
    return pd.DataFrame(
        {
            "pairs": shown["human"].map(GROUPS),
            "prompt": prompt,
            "the weak choice": chosen,
            "the other": rejected,
            "confidence": shown["confidence"].map("{:.2f}".format),
            "the human's choice": shown["human"].map({True: "the weak one", False: "the other"}),
            "gold rewards": gold[0] + " and " + gold[1],
        }
    ).reset_index(drop=True)


def label_findings(labels: pd.DataFrame) -> list[str]:
    """Sentences on who is right where weak and human labels differ, and whether confidence tells."""
    sentences = [
        f"Weak and human labels agree on {text}% of pairs." for text in percent(group_means(labels, PAIR, "human"))
    ]
    differ = labels[~labels["human"]]
    for row, text in _with_text(group_means(differ, PAIR, "truth")):
        verdict = _verdict(
            row,
            "the weak choice is right more often",
            "the human is right more often",
            "neither is shown to be right more often",
            0.5,
        )
        sentences.append(f"Where they differ, the weak choice has the higher gold reward in {text}%: {verdict}.")
    surer = mean_difference(differ.assign(sure=differ["decile"] > 5), PAIR, "truth", "sure")
    for row, text in _with_text(surer, "+"):
        verdict = _verdict(
            row, "confidence tells who is right", "confidence misleads", "confidence is not shown to tell"
        )
        sentences.append(f"There, the more confident half of D_u minus the less confident: {text} points; {verdict}.")
    return sentences


def arm_findings(results: pd.DataFrame) -> list[str]:
    """Sentences on [A]'s claim that even mismatched labels help, and on what matched ones gain by leaving those out."""
    start = gain(results, ["arm", *PAIR])
    verdicts = "this holds here", "here they lower it", "this is not shown here"
    sentences = [
        f"[A]: even mismatched labels raise the gold reward over the untrained policy; {_verdict(row, *verdicts)}: {plain(row, '+')}."
        for row in start[start["arm"] == "mismatched"].to_dict("records")
    ]
    for arm, baseline in (("mismatched", "random"), ("matched", "weak")):
        both = results[results["arm"].isin([arm, baseline])]
        for row in difference(both, ["arm", *PAIR], baseline, "gold_reward").to_dict("records"):
            verdict = _verdict(row, "above", "below", "not told apart from")
            sentences.append(
                f"In gold reward “{ARM_NAMES[arm]}” is {verdict} “{ARM_NAMES[baseline]}”: {plain(row, '+')}."
            )
    return sentences


def consistency_findings(labels: pd.DataFrame, alike: pd.DataFrame, judge_name: str) -> list[str]:
    """Sentences on how steady the judge and the annotators are; ``alike`` is of ``metrics.agreement_across_seeds``."""
    sentences, heard = [], labels["verdict_again"].count()
    for row, text in _with_text(mean_difference(labels, PAIR, "verdict_again", "human"), "+"):
        verdict = _verdict(row, "steadier", "less steady", "not shown to be steadier")
        sentences.append(
            f"Asked again, the {judge_name} is {verdict} on matched than on mismatched pairs: {text} points."
        )
    if heard < len(labels):
        sentences.append(f"It was asked about, and could be understood on, {heard} of {len(labels)} weak labels.")
    return sentences + [
        f"Annotators of two seeds label {100 * row['estimate']:.1f}% of the pairs alike that neither has learnt from."
        for row in alike.dropna(subset=["estimate"]).to_dict("records")
    ]


def plain(row: dict, sign: str = "") -> str:
    """An estimate with its interval as text, not in percent."""
    estimate, low, high = (f"{row[name]:{sign}.2f}" for name in ("estimate", "ci_low", "ci_high"))
    return f"{estimate} [{low}, {high}]"


def _affordable(study: Study) -> Profile | None:
    """The profile with a D_u that its judge can be asked about; None while a plan is made and its size is not known."""
    p = study.profile
    if p.judge.base_url is None:
        return p
    if not study.compute([graph.task(p)]):
        return None
    # the end of the same D_u: weaklib.stages.split
    prompts = study.read(graph.task(p), "pairs")["prompt"].nunique()
    share = min(p.judge.prompts / prompts, p.unlabeled_fraction or 1 - p.labeled_fraction)
    return study.profile_with({"unlabeled_fraction": share})


def _scores_of_a(verdicts: pd.Series) -> pd.DataFrame:
    """``questions.parquet`` of the judge's labels has two rows a pair: a shown first, b shown first."""
    for_first = verdicts.map({"first": 1.0, "second": 0.0, "tie": 0.5}).to_numpy(float).reshape(-1, 2)
    return pd.DataFrame({"a_first": for_first[:, 0], "b_first": 1 - for_first[:, 1]})


def _summarise(
    rows: pd.DataFrame, by: list[str], column: str, cells: list[str], count: int, estimate: Callable
) -> pd.DataFrame:
    found = []
    for name, group in rows.dropna(subset=[column]).groupby(by):
        sizes = group.groupby(cells).size()
        if len(sizes) == count and sizes.min() >= 2:
            found.append(dict(zip(by, name)) | dataclasses.asdict(estimate(group)))
    return pd.DataFrame(found, columns=[*by, *COLUMNS])


def _with_text(rows: pd.DataFrame, sign: str = "") -> zip:
    return zip(rows.to_dict("records"), percent(rows, sign))


def _verdict(row: dict, above: str, below: str, neither: str, nothing: float = 0.0) -> str:
    """Which of three sentences an interval allows, seen from ``nothing``."""
    if row["ci_low"] > nothing:
        return above
    return below if row["ci_high"] < nothing else neither
