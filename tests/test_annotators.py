"""Annotators beside the scalar head: [A]'s implicit reward, and a judge without and with examples."""

import numpy as np
import pandas as pd
import pytest
import torch

from weaklib.arms import graph
from weaklib.arms.stage import upstream
from weaklib.study.parameters import load_profile
from weaklib.supervisors.judge_labels import examples_of
from weaklib.training.language_models import load_causal_lm
from weaklib.training.tokens import load_tokenizer

ONE_PAIR = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}


def profile(**overrides):
    return load_profile("smoke", ONE_PAIR | overrides)


def test_the_implicit_reward_is_the_log_ratio_to_its_own_start(made, exactly):
    """Against a plain loop over single sequences."""
    p = profile(**{"annotator.kind": "implicit_reward", "beta": 0.3})
    stage = graph.labels(p, "annotator", "unlabeled", 0, "opt-tiny")
    reference = stage.inputs["reference"]
    labels = pd.read_parquet(exactly(stage, reference=exactly(reference)) / "labels.parquet").head(5)
    policy, start = made(stage.inputs["annotator"]), made(reference.inputs["start"])
    tokenizer = load_tokenizer(start)

    def logp(folder, prompt, response):
        before = tokenizer(prompt)["input_ids"]
        ids = torch.tensor([before + tokenizer(response)["input_ids"] + [tokenizer.eos_token_id]])
        with torch.inference_mode():
            logps = load_causal_lm(folder, "cpu").eval()(ids).logits.log_softmax(-1)[0, :-1]
        return logps.gather(1, ids[0, 1:, None])[len(before) - 1 :].sum().item()

    def reward(pair, response):
        return p.beta * (logp(policy, pair.prompt, response) - logp(start, pair.prompt, response))

    margins = [reward(pair, pair.chosen) - reward(pair, pair.rejected) for pair in labels.itertuples()]
    assert labels["margin"].tolist() == pytest.approx(margins, rel=1e-9, abs=1e-9)
    assert (labels["margin"] > 0).all() and labels["margin"].nunique() == 5


def test_an_implicit_annotator_sees_human_labels_of_the_labeled_part_only():
    trained = graph.annotator(profile(**{"annotator.kind": "implicit_reward"}), "opt-tiny", 0)
    labels = [stage for stage in upstream([trained]) if stage.name == "labels"]
    assert [stage.parameters["part"] for stage in labels] == ["labeled"]
    assert trained.inputs["reference"].inputs["start"].key == trained.inputs["start"].key


def test_a_policy_can_be_trained_on_each_annotators_labels():
    """Each kind is another policy, and only the judge needs no weak model."""
    keys = set()
    for kind in ("scalar_head", "implicit_reward", "judge"):
        policy = graph.policy(profile(**{"annotator.kind": kind}), graph.ARMS["weak"], "opt-tiny", "opt-small", 0)
        bases = {stage.key for stage in upstream([policy]) if stage.name == "base"}
        assert len(bases) == (1 if kind == "judge" else 2)
        keys.add(policy.key)
    assert len(keys) == 3


def test_a_judges_labels(made, pairs):
    p = profile(**{"annotator.kind": "judge", "judge.simulated.noise": 0.2, "judge.simulated.position_bias": 1.0})
    labels = pd.read_parquet(made(graph.labels(p, "annotator", "unlabeled", 0)) / "labels.parquet").set_index("pair")
    assert set(labels["confidence"]) == {0.0, 1.0} and labels["margin"].isna().all()
    truth = (pairs["gold_reward_a"] > pairs["gold_reward_b"])[labels.index]
    right = labels["prefers_a"] == truth
    assert right[labels["confidence"] == 1].mean() > 0.9
    assert (
        labels["chosen"]
        == pairs["response_a"][labels.index].where(labels["prefers_a"], pairs["response_b"][labels.index])
    ).all()


def test_examples_are_of_the_labeled_part_and_show_the_persons_choice(made):
    p = profile(**{"annotator.kind": "judge", "judge.examples": 3})
    stage = graph.labels(p, "annotator", "unlabeled", 0)
    assert stage.inputs["labels"].parameters == {"by": "human", "part": "labeled"}
    labels = pd.read_parquet(made(stage.inputs["labels"]) / "labels.parquet")
    text = examples_of(labels, 3, np.random.default_rng(0))
    assert text.count("A person preferred answer") == 3
    shown = [pair for pair in labels.itertuples() if pair.prompt.strip() in text and pair.chosen.strip() in text]
    assert len(shown) >= 3
    for part in text.split("[Prompt]")[1:]:
        preferred = part.partition("preferred answer ")[2][0]
        answer = part.partition(f"[Answer {preferred}]\n")[2].partition("\n\n")[0]
        assert any(answer == pair.chosen.strip() and pair.prompt.strip() in part for pair in labels.itertuples())


def test_kl_is_zero_of_the_start_itself_and_not_of_a_policy(exactly):
    p = profile()
    start, policy = graph.sft(p, "opt-small", 0), graph.policy(p, graph.ARMS["human"], "opt-tiny", "opt-small", 0)
    of_start, of_policy = (
        pd.read_parquet(exactly(graph.kl(p, model, start, 0)) / "kl.parquet") for model in (start, policy)
    )
    assert of_start["log_ratio"].abs().max() < 1e-9
    assert of_policy["log_ratio"].mean() > 0 > of_policy["start_log_ratio"].mean()


def test_gold_pairs_have_prompts_of_their_own(made):
    p = profile()
    gold = pd.read_parquet(made(graph.gold_model(p, "learned-opt").inputs["labels"].inputs["task"]) / "pairs.parquet")
    task = made(graph.task(p))
    taken = {
        prompt
        for part in ("pairs", "demonstrations", "prompts")
        for prompt in pd.read_parquet(task / f"{part}.parquet")["prompt"]
    }
    assert len(gold) == 200 and not set(gold["prompt"]) & taken
