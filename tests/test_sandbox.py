"""What the sandbox promises of its models, and the sanity checks that keep it honest; run by ``make test-sandbox``.

It trains what the store lacks (the ``oracle`` and ``random`` arms, beside those of notebook 05): minutes, not seconds.
"""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from weaklib.arms import graph
from weaklib.data.world import WORLDS
from weaklib.evaluation.intervals import LEVEL, correct_family
from weaklib.evaluation.metrics import difference, label_means, mean_of
from weaklib.figures.tables import SETTING
from weaklib.study.labels import weak_labels
from weaklib.study.study import Study
from weaklib.training.language_models import load_causal_lm
from weaklib.training.tokens import load_tokenizer

pytestmark = pytest.mark.sandbox
CHANCE = 0.5


@pytest.fixture(scope="module")
def study(cluster) -> Study:
    return Study("05_top_confidence", "sandbox")


@pytest.fixture(scope="module", params=WORLDS)
def study_of_task(request, cluster) -> Study:
    return Study("05_top_confidence", "sandbox", {"task.name": request.param})


@pytest.fixture(scope="module")
def results(study):
    names = ("human", "human_all", "labeled_only", "weak", "cw", "oracle", "random")
    return study.run(study.arms(*names) + study.arms("top", top_percents=study.sweep("top_percents")))


def test_weak_and_human_labels_agree_as_published(study_of_task):
    """[A] reports 60.6%."""
    agreement = label_means(weak_labels(study_of_task), ["weak"], "human").set_index("weak")["estimate"]
    print(agreement.to_string())
    assert agreement.between(0.57, 0.64).all(), agreement


@pytest.mark.parametrize("number", [0, 1])
def test_a_student_knows_more_than_word_pairs(study_of_task, number):
    """Nats a token on text that it was not trained on, against a unigram and a bigram model of the same training text."""
    study, p = study_of_task, study_of_task.profile
    strong = p.models.strong[number]
    study.compute([graph.base(p, strong)])
    folder, task = study.store.folder(graph.base(p, strong)), study.store.folder(graph.task(p))
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder, "cpu").eval()

    def encode(texts):
        return [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]

    train = encode(pd.read_parquet(task / "corpus.parquet")["text"].tolist())
    shown = pd.read_parquet(task / "pairs.parquet").head(300)
    test = encode((shown["prompt"] + shown["response_a"]).tolist())

    size = len(tokenizer)
    unigrams = Counter(token for ids in train for token in ids[1:])
    bigrams = Counter(pair for ids in train for pair in zip(ids, ids[1:]))
    firsts = Counter(token for ids in train for token in ids[:-1])
    total = sum(unigrams.values())

    def unigram(token):
        return (unigrams[token] + 1) / (total + size)

    def bigram(first, token):  # interpolated with the unigram, which is better than adding one
        return (bigrams[first, token] + unigram(token)) / (firsts[first] + 1)

    pairs = [pair for ids in test for pair in zip(ids, ids[1:])]
    nats_unigram = -np.mean([np.log(unigram(token)) for _, token in pairs])
    nats_bigram = -np.mean([np.log(bigram(*pair)) for pair in pairs])
    with torch.inference_mode():
        losses = [model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() * (len(ids) - 1) for ids in test]
    nats = sum(losses) / len(pairs)
    print(f"{p.task.name}, {strong}: {nats:.2f} nats a token, bigram {nats_bigram:.2f}, unigram {nats_unigram:.2f}")
    assert nats < nats_bigram < nats_unigram


def test_a_second_sample_of_the_start_is_no_better(study):
    """SFT against SFT: 50% within its interval."""
    p, tables = study.profile, []
    for (_, strong), seed in [(models, seed) for models in p.models.pairs for seed in p.seeds]:
        start = graph.sft(p, strong, seed)
        stages = [graph.rewards(p, start, seed), graph.rewards(p, start, seed + 1000)]
        study.compute(stages)
        first, second = (study.read(stage, "rewards").set_index("prompt")["gold_reward"] for stage in stages)
        table = pd.DataFrame({"gold_reward": second, "sft_gold_reward": first}).reset_index()
        tables.append(table.assign(strong=strong, seed=seed))
    rows = mean_of(pd.concat(tables), ["strong"], "gra")
    print(rows.to_string())
    assert ((rows["ci_low"] <= CHANCE) & (CHANCE <= rows["ci_high"])).all()


def test_random_labels_are_not_above_chance(results):
    rows = mean_of(results[results["arm"] == "random"], SETTING, "gra")
    print(rows.to_string())
    assert (rows["ci_low"] <= CHANCE).all()


def test_no_arm_beats_the_oracle(results):
    """After correction for the number of arms."""
    differences = correct_family(difference(results, SETTING, "oracle"))
    print(differences.to_string())
    above = differences[(differences["estimate"] > 0) & (differences["p_holm"] < 1 - LEVEL)]
    assert above.empty
