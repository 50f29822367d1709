"""The judge's verdicts on a study's arms, and on the pairs that its annotators have labelled."""

import itertools

import numpy as np
import pandas as pd

from weaklib.arms import graph
from weaklib.data.world import WORLDS
from weaklib.evaluation.judging import repeated_verdicts
from weaklib.study.checks import check_judge
from weaklib.study.profile import Profile
from weaklib.study.study import Study
from weaklib.supervisors import judge


def judge_verdicts(study: Study, *names: str, baseline: str, overrides: dict | None = None) -> pd.DataFrame:
    """The judge's verdicts on the responses of the named arms against those of ``baseline`` to the same prompts and seeds.

    Each pair is asked in both orders and ``judge.repeats`` times, of the first ``judge.prompts`` test prompts. Two responses that are
    the same text are a tie that nobody is asked about.

    Returns:
        a row a question: ``annotator.kind, arm, weak, strong, seed, prompt, arm_first, repeat, asked, verdict`` (``first``, ``second``, ``tie``, missing
        where the replies could not be read), ``requests, input_tokens, output_tokens``, and ``truth``, which of the two has
        the higher gold reward (missing where it is unknown).
    """
    p = study.profile_with(overrides)
    check_judge(p)
    runs = {(run.weak, run.strong, run.seed, run.arm): run for run in study.arms(*names, baseline, overrides=overrides)}
    if not study.compute([run.rewards for run in runs.values()]):
        return pd.DataFrame()
    rows = []
    for weak, strong, seed, arm in runs:
        if arm == baseline:
            continue
        ours, theirs = (
            study.read(runs[weak, strong, seed, which].rewards, "rewards").head(p.judge.prompts)
            for which in (arm, baseline)
        )
        setting = {"annotator.kind": p.annotator.kind, "arm": arm, "weak": weak, "strong": strong, "seed": seed}
        for one, other in zip(ours.itertuples(), theirs.itertuples(), strict=True):
            truth = np.sign(one.gold_reward - other.gold_reward) if study.own_gold == "truth" else np.nan
            for arm_first, repeat in itertools.product((True, False), range(p.judge.repeats)):
                shown = (one.response, other.response) if arm_first else (other.response, one.response)
                question = judge.Question(one.prompt, *shown, repeat)
                rows.append(
                    setting | vars(question) | {"arm_first": arm_first, "truth": truth if arm_first else -truth}
                )
    frame = pd.DataFrame(rows)
    asked = frame["first"] != frame["second"]
    questions = [
        judge.Question(**row) for row in frame.loc[asked, ["prompt", "first", "second", "repeat"]].to_dict("records")
    ]
    records = pd.DataFrame(_ask(study, questions), index=frame.index[asked])
    same = {"verdict": "tie", "requests": 0, "input_tokens": 0, "output_tokens": 0}
    records = pd.concat([records, pd.DataFrame([same] * int((~asked).sum()), index=frame.index[~asked])])
    names_of_truth = {1.0: "first", -1.0: "second", 0.0: "tie"}
    return frame.join(records[list(same)]).assign(truth=frame["truth"].map(names_of_truth), asked=asked)


def _ask(study: Study, questions: list[judge.Question]) -> list[dict]:
    settings = study.profile.judge
    if settings.base_url is not None:
        return judge.ask(settings, judge.form_text(settings.form), questions, study.store.root / "verdicts")
    world = WORLDS[study.profile.task.name]
    return judge.simulate(settings, questions, world.gold_reward, study.profile.seeds[0])


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
        tables.append(repeated_verdicts(*scores).assign(seed=seed, pair=judged["pair"], a=a))
    both = labels.merge(pd.concat(tables), how="left", on=["seed", "pair"], validate="many_to_one")
    both["for_weak"] = both["for_a"].where(both["chosen"] == both["a"], 1 - both["for_a"])
    return both.drop(columns=["for_a", "a"])


def _affordable(study: Study) -> Profile | None:
    """The profile with a D_u that its judge can be asked about; None while a plan is made and its size is not known."""
    p = study.profile
    check_judge(p)
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
