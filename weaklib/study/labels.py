"""What a study's annotators and its judge say, beside the human's choice and the truth, and what it costs."""

import itertools

import numpy as np
import pandas as pd
from safetensors import safe_open
from tokenizers import Tokenizer

from weaklib.arms import graph
from weaklib.arms.stage import Stage
from weaklib.data.world import WORLDS
from weaklib.evaluation.judging import repeated_verdicts
from weaklib.study import checks
from weaklib.study.study import Study, columns
from weaklib.supervisors import judge
from weaklib.supervisors.verdicts import form_text


def weak_labels(study: Study, overrides: dict | None = None, stages: list | None = None) -> pd.DataFrame:
    """The annotators' labels of D_u, of each weak model and seed; ``overrides`` are for another annotator than the
    profile's, ``stages`` other labels altogether, each with the columns that name it. Returns a row a pair.
    ``decile``: of confidence in its stage (10: most). ``human``, ``truth``: is the label the human's (without
    ``human_noise``), the gold reward's? ``human_truth``: is the human's? ``gap``: how far the two gold rewards are
    apart. ``probability``: σ(margin), with which the annotator holds its label to be the human's. Truths are missing
    where no gold reward is known or both responses have the same, margins where an annotator has none.
    """
    stages = _label_stages(study, overrides) if stages is None else stages
    if not stages or not study.compute(stage for _, stage in stages):
        return pd.DataFrame()
    labels = study.tables(stages, "labels")
    pairs = study.read(stages[0][1].inputs["task"], "pairs").set_index("pair").loc[labels["pair"]].reset_index()
    human, chose_a, a, b = pairs["human_prefers_a"], labels["prefers_a"], pairs["gold_reward_a"], pairs["gold_reward_b"]
    truth = (a > b).astype("boolean").mask(a.isna() | b.isna() | (a == b))
    of_one = labels.groupby([name for name in ("gold", "weak", "strong", "seed") if name in labels])["confidence"]
    return labels.assign(
        gold_chosen=a.where(chose_a, b),
        gold_rejected=b.where(chose_a, a),
        gap=(a - b).abs(),
        decile=np.ceil(of_one.rank(pct=True, method="first") * 10).astype(int),
        human=chose_a == human,
        truth=truth == chose_a,
        human_truth=truth == human,
        probability=1 / (1 + np.exp(-labels["margin"])),
    )


def _label_stages(study: Study, overrides: dict | None) -> list[tuple[dict, Stage]]:
    p, stages = study.profile_with(overrides), []
    for (weak, strong), seed in itertools.product(p.models.pairs, p.seeds):
        named = {"weak": weak, "strong": strong, "seed": seed} | columns(overrides)
        stages.append((named, graph.labels(p, "annotator", "unlabeled", seed, weak)))
    return stages


def baseline_labels(study: Study) -> pd.DataFrame:
    """Labels of D_u by two rules (``weak``) that learn from D_l and read nothing, and whether they are the ``human``'s.
    ``majority``: the response (a or b) that D_l's human labels prefer more often. ``length only``: the longer one, or
    the shorter, whichever they do; of two equally long ones the majority's.
    """
    splits = [({"seed": seed}, graph.split(study.profile, seed)) for seed in study.profile.seeds]
    if not study.compute(stage for _, stage in splits):
        return pd.DataFrame()
    pairs, tables = study.read(graph.task(study.profile), "pairs"), []
    longer_by = pairs["response_a"].str.split().str.len() - pairs["response_b"].str.split().str.len()
    pairs = study.tables(splits, "split").merge(pairs.assign(longer_by=longer_by), on="pair")
    for _, rows in pairs.groupby("seed", sort=False):
        human, longer_a, labeled = rows["human_prefers_a"], rows["longer_by"] > 0, rows["part"] == "labeled"
        same, majority_a = rows["longer_by"] == 0, human[labeled].mean() >= 0.5
        longer = (longer_a == human)[labeled & ~same].mean() >= 0.5
        for rule, a in {"majority": majority_a, "length only": (longer_a == longer).mask(same, majority_a)}.items():
            tables.append(rows[["seed", "pair"]].assign(weak=rule, human=human == a)[~labeled])
    return pd.concat(tables, ignore_index=True)


def label_costs(study: Study, overrides: dict | None = None) -> pd.DataFrame:
    """What a thousand labels of :func:`weak_labels` cost once the annotator is there: ``seconds`` (here, with loading),
    ``tflop`` (2 · ``parameters`` · tokens of the forward passes); of a judge ``requests``, ``usd`` and which share of
    its replies is ``unreadable``: the labels that rest on them are a coin's. What does not apply is missing.
    """
    stages, rows, settings = _label_stages(study, overrides), [], study.profile.judge
    if not study.compute(stage for _, stage in stages):
        return pd.DataFrame()
    for named, stage in stages:
        labels, row, costs = study.read(stage, "labels"), dict(named), {}
        if stage.name != "judge_labels":
            annotator, texts = stage.inputs["annotator"], labels["prompt"] + labels["chosen"] + labels["rejected"]
            tokenizer = Tokenizer.from_file(str(study.store.folder(annotator) / "tokenizer.json"))
            tokens = sum(map(len, tokenizer.encode_batch(texts.tolist())))
            passes = 2 if "reference" in stage.inputs else 1  # the implicit reward needs the start's, too
            row["parameters"] = parameter_count(study, annotator)
            costs["tflop"] = 2 * passes * row["parameters"] * tokens / 1e12
        elif settings.base_url is not None:  # who is simulated costs nothing that could be said
            asked, price = study.read(stage, "questions"), settings.usd_per_million_tokens
            row["unreadable"], costs["requests"] = asked["verdict"].isna().mean(), asked["requests"].sum()
            micro_usd = asked["input_tokens"].sum() * price.input + asked["output_tokens"].sum() * price.output
            costs["usd"] = micro_usd / 1e6
        if costs:
            costs["seconds"] = study.record(stage, "stage")["seconds"]
        rows.append(row | {name: cost / (len(labels) / 1000) for name, cost in costs.items()})
    known = ["parameters", "seconds", "tflop", "requests", "usd", "unreadable"]
    return pd.DataFrame(rows).reindex(columns=[*stages[0][0], *known])


def parameter_count(study: Study, model: Stage) -> int:
    """How many parameters a stored model has; tied ones once."""
    with safe_open(study.store.folder(model) / "model.safetensors", framework="numpy") as weights:
        return int(sum(np.prod(weights.get_slice(name).get_shape()) for name in weights.keys()))


def judge_verdicts(study: Study, questions: pd.DataFrame) -> pd.DataFrame:
    """``questions`` (``prompt``, its ``first`` and ``second`` response, ``repeat``) with the judge's ``verdict``
    (``first``, ``second``, ``tie``, missing where its replies could not be read), what it took, and whether it was
    ``asked``: two responses that are the same text are a tie.
    """
    p, settings, differ = study.profile, study.profile.judge, questions["first"] != questions["second"]
    asked = [judge.Question(row.prompt, row.first, row.second, row.repeat) for row in questions[differ].itertuples()]
    if settings.base_url is not None:
        answers = judge.ask(settings, form_text(settings.form), asked, study.store.root / "verdicts")
    else:
        answers = judge.simulate(settings, asked, WORLDS[p.task.name].gold_reward, p.seeds[0])
    tie, left = {"verdict": "tie", "requests": 0, "input_tokens": 0, "output_tokens": 0}, iter(answers)
    said = pd.DataFrame([next(left) if new else tie for new in differ], questions.index)
    return questions.assign(asked=differ).join(said[list(tie)])


def judged_twice(study: Study, labels: pd.DataFrame) -> pd.DataFrame:
    """``labels`` beside the judge, asked twice about each pair in both orders; a simulated one about all of D_u, a real
    one about ``judge.prompts`` prompts a seed. ``verdict_again``: the share of orders in which it says the same again;
    ``label_again``: is its label (what it prefers in both orders, or neither) the same again; ``for_weak``: the share
    of first verdicts for the annotator's choice, a tie counted half. Missing where not asked or not readable.
    """
    p = study.profile
    checks.check_judge(p)
    if p.judge.base_url is not None:
        if not study.compute([graph.task(p)]):  # a plan does not know how many prompts there are
            return labels
        share = p.judge.prompts / study.read(graph.task(p), "pairs")["prompt"].nunique()
        share = min(share, p.unlabeled_fraction or 1 - p.labeled_fraction)
        p = study.profile_with({"unlabeled_fraction": share})  # the end of the same D_u
    named = [{"seed": seed, "repeat": repeat} for seed in p.seeds for repeat in (0, 1)]
    stages = [(each, graph.labels(p, "judge", "unlabeled", **each)) for each in named]
    if not study.compute(stage for _, stage in stages):
        return labels
    questions = study.tables(stages, "questions")
    for_first = questions["verdict"].map({"first": 1.0, "second": 0.0, "tie": 0.5}).to_numpy(float)
    scores = pd.DataFrame({"a_first": for_first[::2], "b_first": 1 - for_first[1::2]})  # those of a: each pair has two
    pairs = questions[::2].reset_index(drop=True)
    first, second = (scores[pairs["repeat"] == repeat].reset_index(drop=True) for repeat in (0, 1))
    asked = pairs[pairs["repeat"] == 0][["seed", "pair"]].reset_index(drop=True).join(repeated_verdicts(first, second))
    both = labels.merge(asked, how="left", on=["seed", "pair"], validate="many_to_one")
    return both.assign(for_weak=both["for_a"].where(both["prefers_a"], 1 - both["for_a"]))
