"""Labels of a study's annotators beside the human's and the truth's, and what they cost."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from tokenizers import Tokenizer

from weaklib.arms import graph
from weaklib.arms.stage import Stage
from weaklib.study.study import Study, columns


def weak_labels(study: Study, overrides: dict | None = None) -> pd.DataFrame:
    """The annotators' labels of D_u, for each weak model and seed; ``overrides`` are for another annotator than the profile's.

    Returns:
        a row a pair: ``weak, strong, seed, pair, prompt, chosen, rejected, margin, confidence``; its ``decile`` of
        confidence among the labels of its annotator (1 least, 10 most); whether the label is that of the human
        (``human``, without the profile's ``human_noise``) and that of the gold reward (``truth``), and whether the human's is (``human_truth``);
        ``gold_chosen``, ``gold_rejected``, the gold rewards of both responses, and ``gap``, their distance;
        and ``probability``, σ(margin), with which the annotator holds its label to be the human's. ``truth`` and
        ``human_truth`` are missing where no gold reward is known or both responses have the same, margins and
        probabilities where an annotator has none.
    """
    stages = _label_stages(study, overrides)
    if not study.compute(stages.values()):
        return pd.DataFrame()
    pairs = study.read(graph.task(study.profile_with(overrides)), "pairs").set_index("pair")
    human = pairs["human_prefers_a"]
    difference = pairs["gold_reward_a"] - pairs["gold_reward_b"]
    truth = (difference > 0).astype("boolean").mask(difference.isna() | (difference == 0))
    tables = []
    for (weak, strong, seed), stage in stages.items():
        labels = study.read(stage, "labels").set_index("pair")
        labels = labels.assign(weak=weak, strong=strong, seed=seed, **columns(overrides))
        own, chose_a = pairs.loc[labels.index], labels["prefers_a"]
        labels["gold_chosen"] = own["gold_reward_a"].where(chose_a, own["gold_reward_b"])
        labels["gold_rejected"] = own["gold_reward_b"].where(chose_a, own["gold_reward_a"])
        labels["gap"] = (own["gold_reward_a"] - own["gold_reward_b"]).abs()
        labels["decile"] = np.ceil(labels["confidence"].rank(pct=True, method="first") * 10).astype(int)
        labels["human"] = labels["prefers_a"] == human[labels.index]
        labels["truth"] = truth[labels.index] == labels["prefers_a"]
        labels["human_truth"] = truth[labels.index] == human[labels.index]
        labels["probability"] = 1 / (1 + np.exp(-labels["margin"]))
        tables.append(labels.drop(columns="prefers_a").reset_index())
    return pd.concat(tables, ignore_index=True)


def baseline_labels(study: Study) -> pd.DataFrame:
    """Labels of D_u by two rules that learn from D_l and read nothing; one row a seed, rule and pair.

    ``majority``: the response (a or b) that D_l's human labels prefer more often. ``length only``: the longer response,
    or the shorter, whichever they do; of two equally long ones the majority's.

    Returns:
        ``weak`` (the rule), ``seed``, ``pair``, and whether the label is that of the human (``human``).
    """
    p = study.profile
    splits = {seed: graph.split(p, seed) for seed in p.seeds}
    if not study.compute(splits.values()):
        return pd.DataFrame()
    pairs = study.read(graph.task(p), "pairs").set_index("pair")
    words_a, words_b = (pairs[f"response_{side}"].str.split().str.len() for side in ("a", "b"))
    human, longer_a, same = pairs["human_prefers_a"], words_a > words_b, words_a == words_b
    tables = []
    for seed, stage in splits.items():
        labeled = study.read(stage, "split").set_index("pair")["part"] == "labeled"
        majority_a = human[labeled].mean() >= 0.5
        longer = (longer_a == human)[labeled & ~same].mean() >= 0.5
        rules = {"majority": majority_a, "length only": (longer_a == longer).mask(same, majority_a)}
        for rule, prefers_a in rules.items():
            right = (human == prefers_a)[~labeled]
            tables.append(pd.DataFrame({"weak": rule, "seed": seed, "pair": right.index, "human": right.to_numpy()}))
    return pd.concat(tables, ignore_index=True)


def gold_model_labels(study: Study) -> pd.DataFrame:
    """Which response of each of the task's pairs the gold models prefer that are made here.

    Returns:
        a row for each gold model and pair that the truth tells apart: ``gold``, ``pair``, ``margin``, and whether it
        agrees with the truth (``truth``) and with the human (``human``).
    """
    stages = {
        name: graph.gold_labels(study.profile, name) for name in study.profile.gold_models if _made_here(study, name)
    }
    if not study.compute(stages.values()) or not stages:
        return pd.DataFrame()
    pairs = study.read(graph.task(study.profile), "pairs").set_index("pair")
    difference = pairs["gold_reward_a"] - pairs["gold_reward_b"]
    tables = []
    for name, stage in stages.items():
        labels = study.read(stage, "labels").set_index("pair")
        labels["truth"] = labels["prefers_a"] == (difference > 0)
        labels["human"] = labels["prefers_a"] == pairs["human_prefers_a"]
        tables.append(labels.loc[difference != 0, ["margin", "truth", "human"]].assign(gold=name).reset_index())
    return pd.concat(tables, ignore_index=True)


def label_costs(study: Study, overrides: dict | None = None) -> pd.DataFrame:
    """What a thousand labels of :func:`weak_labels` cost once the annotator is there: a row a weak model and seed.

    ``parameters`` of the annotator, ``seconds`` (of this machine, with what loading takes), ``tflop`` (2 · parameters · tokens of the forward passes) and, of a judge,
    ``requests`` and ``usd``; missing where an annotator has no such cost. Of a judge also the share of its replies that were
    ``unreadable``: the labels that rest on them are a coin's.
    """
    stages = _label_stages(study, overrides)
    if not study.compute(stages.values()):
        return pd.DataFrame()
    rows = []
    for (weak, strong, seed), stage in stages.items():
        folder, thousands = study.store.folder(stage), len(study.read(stage, "labels")) / 1000
        row = {"weak": weak, "strong": strong, "seed": seed} | columns(overrides)
        if stage.name != "judge_labels":
            row["parameters"] = parameter_count(study.store.folder(stage.inputs["annotator"]))
            row["tflop"] = _forward_flops(study, stage, row["parameters"]) / 1e12 / thousands
        elif study.profile.judge.base_url is not None:  # who is simulated costs nothing that could be said
            asked, price = study.read(stage, "questions"), study.profile.judge.usd_per_million_tokens
            usd = (asked["input_tokens"].sum() * price.input + asked["output_tokens"].sum() * price.output) / 1e6
            row |= {"requests": asked["requests"].sum() / thousands, "usd": usd / thousands}
            row["unreadable"] = asked["verdict"].isna().mean()
        if "tflop" in row or "usd" in row:
            record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
            row["seconds"] = record["seconds"] / thousands
        rows.append(row)
    return pd.DataFrame(rows).reindex(
        columns=[
            "weak",
            "strong",
            "seed",
            *columns(overrides),
            "parameters",
            "seconds",
            "tflop",
            "requests",
            "usd",
            "unreadable",
        ]
    )


def _label_stages(study: Study, overrides: dict | None) -> dict[tuple, Stage]:
    p = study.profile_with(overrides)
    return {
        (weak, strong, seed): graph.labels(p, "annotator", "unlabeled", seed, weak)
        for (weak, strong), seed in itertools.product(p.models.pairs, p.seeds)
    }


def parameter_counts(study: Study, models: list[str]) -> dict[str, int]:
    """How many parameters each base model has."""
    stages = {model: graph.base(study.profile, model) for model in models}
    if not study.compute(stages.values()):
        return {}
    return {model: parameter_count(study.store.folder(stage)) for model, stage in stages.items()}


def parameter_count(folder: Path) -> int:
    """How many parameters the model in ``folder`` has; tied ones once."""
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())


def _forward_flops(study: Study, stage: Stage, parameters: int) -> float:
    folder, labels = study.store.folder(stage.inputs["annotator"]), study.read(stage, "labels")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = labels["prompt"] + labels["chosen"] + labels["rejected"]
    passes = 2 if "reference" in stage.inputs else 1  # the implicit reward needs the start's, too
    return 2 * passes * parameters * sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts.tolist()))


def _made_here(study: Study, gold: str) -> bool:
    return study.profile.gold_models[gold].model in study.profile.models.pretrained_here
