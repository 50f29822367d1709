"""What each arm is made of."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from weaklib.arms import graph
from weaklib.study.parameters import load_profile
from weaklib.supervisors.temperature import fit
from weaklib.training.language_models import load_causal_lm
from weaklib.training.tokens import load_tokenizer

ONE_PAIR = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}


def labels_of(made, smoke, arm):
    policy = graph.policy(smoke, graph.ARMS[arm], "opt-tiny", "opt-small", 0, 50.0 if arm == "top" else None)
    return pd.read_parquet(made(policy.inputs["labels"]) / "labels.parquet").set_index("pair")


@pytest.fixture
def parts(made, smoke):
    return pd.read_parquet(made(graph.split(smoke, 0)) / "split.parquet").set_index("pair")["part"]


@pytest.mark.parametrize("arm", [name for name in graph.ARMS if name not in ("matched", "mismatched")])
def test_an_arm_learns_from_its_part_only(made, smoke, parts, arm):
    part = graph.ARMS[arm].part
    expected = parts.index if part == "all" else parts.index[parts == part]
    assert sorted(labels_of(made, smoke, arm).index) == sorted(expected)


def test_split_is_by_share_and_seed(made, smoke, parts):
    assert (parts == "labeled").mean() == pytest.approx(0.3)
    other = pd.read_parquet(made(graph.split(smoke, 1)) / "split.parquet").set_index("pair")["part"]
    assert (other != parts).any() and (other == "labeled").sum() == (parts == "labeled").sum()


@pytest.mark.parametrize("arm", ["human", "human_all", "labeled_only"])
def test_human_labels_are_the_humans(made, smoke, pairs, arm):
    labels = labels_of(made, smoke, arm)
    assert (labels["prefers_a"] == pairs.loc[labels.index, "human_prefers_a"]).all()
    assert labels["margin"].isna().all() and labels["confidence"].isna().all()  # missing, not 0


def test_oracle_labels_are_the_gold_rewards(made, smoke, pairs):
    labels = labels_of(made, smoke, "oracle")
    gold = pairs.loc[labels.index]
    assert (labels["margin"] == (gold["gold_reward_a"] - gold["gold_reward_b"]).abs()).all()
    higher = gold["response_a"].where(gold["gold_reward_a"] > gold["gold_reward_b"], gold["response_b"])
    assert (labels["chosen"] == higher).all()


def test_random_labels_follow_the_seed_and_nothing_else(made, smoke, pairs):
    labels = labels_of(made, smoke, "random")
    human = pairs.loc[labels.index, "human_prefers_a"]
    assert 0.35 < (labels["prefers_a"] == human).mean() < 0.65
    other = pd.read_parquet(made(graph.labels(smoke, "random", "unlabeled", 1)) / "labels.parquet").set_index("pair")
    both = labels.index.intersection(other.index)
    assert (labels.loc[both, "prefers_a"] != other.loc[both, "prefers_a"]).any()


def test_weak_labels_prefer_the_higher_reward(made, exactly, smoke, pairs):
    """Against a plain loop over single dialogues through the annotator's folder."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = made(graph.annotator(smoke, "opt-tiny", 0))
    tokenizer, model = load_tokenizer(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def reward(prompt, response):
        ids = tokenizer(prompt + response + tokenizer.eos_token, return_tensors="pt")
        with torch.no_grad():
            return model(**ids).logits.item()

    stage = graph.labels(smoke, "annotator", "unlabeled", 0, "opt-tiny")
    labels = pd.read_parquet(exactly(stage) / "labels.parquet").set_index("pair").head(20)
    for number, label in labels.iterrows():
        pair = pairs.loc[number]
        difference = reward(pair["prompt"], pair["response_a"]) - reward(pair["prompt"], pair["response_b"])
        assert label["prefers_a"] == (difference > 0)
        assert label["margin"] == pytest.approx(abs(difference), rel=1e-9)
        assert label["confidence"] == pytest.approx(abs(2 / (1 + math.exp(-difference)) - 1), rel=1e-9)
        chosen = pair["response_a"] if difference > 0 else pair["response_b"]
        assert (label["chosen"] == chosen) and label["rejected"] != chosen


def test_reference_is_the_starts_log_probability(made, exactly, smoke, pairs):
    """Against a single unpadded sequence."""
    import torch

    start = made(graph.sft(smoke, "opt-small", 0))
    tokenizer, model = load_tokenizer(start), load_causal_lm(start, "cpu").eval()
    stage = graph.policy(smoke, graph.ARMS["weak"], "opt-tiny", "opt-small", 0).inputs["reference"]
    reference = pd.read_parquet(exactly(stage) / "reference.parquet").set_index("pair")
    for number, pair in pairs.head(10).iterrows():
        prompt = tokenizer(pair["prompt"])["input_ids"]
        for side in ("a", "b"):
            ids = prompt + tokenizer(pair[f"response_{side}"])["input_ids"] + [tokenizer.eos_token_id]
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(logps[i - 1, ids[i]].item() for i in range(len(prompt), len(ids)))
            assert reference.loc[number, f"logps_{side}"] == pytest.approx(expected, rel=1e-9)


def test_arms_of_one_pair_share_start_and_reference(smoke):
    policies = [graph.policy(smoke, arm, "opt-tiny", "opt-small", 0, 50.0) for arm in graph.ARMS.values()]
    assert len({p.inputs["start"].key for p in policies}) == len({p.inputs["reference"].key for p in policies}) == 1
    assert len({p.key for p in policies}) == len(policies)


def test_the_start_does_not_depend_on_the_labelled_share(smoke):
    other = load_profile("smoke", {"labeled_fraction": 0.5})
    assert graph.sft(other, "opt-small", 0).key == graph.sft(smoke, "opt-small", 0).key
    assert graph.split(other, 0).key != graph.split(smoke, 0).key


def test_the_humans_arm_does_not_depend_on_the_annotator(smoke):
    human = [graph.policy(smoke, graph.ARMS["human"], weak, "opt-small", 0).key for weak in ("opt-tiny", "qwen2-tiny")]
    assert human[0] == human[1]


def test_all_weak_labels_are_the_weak_arm(smoke):
    top, weak = (
        graph.policy(smoke, graph.ARMS[a], "opt-tiny", "opt-small", 0, n) for a, n in (("top", 100), ("weak", None))
    )
    assert top.key == weak.key != graph.policy(smoke, graph.ARMS["top"], "opt-tiny", "opt-small", 0, 99).key


def test_a_local_folder_is_a_base_model_like_any_other(made, smoke, store):
    """In the hub's format: a folder that another library saved; weak and strong by the call that makes them here."""
    folder = made(graph.base(smoke, "opt-small"))
    p = load_profile("smoke", {"seeds": [0], "models.weak": str(folder), "models.strong": str(folder)})
    ((weak, strong),) = p.models.pairs
    base = made(graph.base(p, weak))
    assert (base / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    policy = graph.policy(p, graph.ARMS["cw"], weak, strong, 0)
    rewards = pd.read_parquet(made(graph.rewards(p, policy, 0)) / "rewards.parquet")
    assert len(rewards) == smoke.task.test_prompts and rewards["gold_reward"].notna().all()


def test_a_changed_folder_is_another_model(made, smoke, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(made(graph.base(smoke, "opt-tiny")), folder)
    before = graph.base(smoke, str(folder)).key
    (folder / "generation_config.json").write_text("{}")
    graph._hash.cache_clear()
    assert graph.base(smoke, str(folder)).key != before


@pytest.mark.parametrize("objective", ["dpo", "ipo", "rdpo"])
def test_every_objective_trains_a_policy_of_its_own(made, objective):
    p = load_profile(
        "smoke", {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small", "objective": objective}
    )
    folder = made(graph.policy(p, graph.ARMS["cw"], "opt-tiny", "opt-small", 0))
    start = made(graph.sft(p, "opt-small", 0))
    assert (folder / "model.safetensors").read_bytes() != (start / "model.safetensors").read_bytes()
    assert (folder / "training_log.json").stat().st_size > 10


def test_the_file_of_hh_file_may_be_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("WEAKLIB_HH_FILE", "some/pairs.jsonl")
    assert load_profile("hh-file").task.path == "some/pairs.jsonl"
    assert load_profile("hh-file", {"task.path": "other.jsonl"}).task.path == "other.jsonl"


def test_at_its_start_a_policy_has_no_margin(made):
    """References belong to the responses that the labels name: without a step every margin is 0 and the loss log 2."""
    p = load_profile("smoke", ONE_PAIR | {"learning_rate": 1e-12})
    folder = made(graph.policy(p, graph.ARMS["random"], "opt-tiny", "opt-small", 0))
    curve = json.loads((folder / "training_log.json").read_text())
    assert [entry["loss"] for entry in curve] == pytest.approx([math.log(2)] * len(curve), abs=1e-4)
    assert all(abs(entry["rewards/margins"]) < 1e-4 for entry in curve)


def test_matched_and_mismatched_pairs_share_out_the_weak_labels(made, smoke, pairs):
    weak, matched, mismatched = (labels_of(made, smoke, arm) for arm in ("weak", "matched", "mismatched"))
    assert len(matched) and len(mismatched)
    assert sorted([*matched.index, *mismatched.index]) == sorted(weak.index)
    human = pairs["human_prefers_a"]
    assert (matched["prefers_a"] == human[matched.index]).all()
    assert (mismatched["prefers_a"] != human[mismatched.index]).all()
    assert (mismatched["prefers_a"] == weak.loc[mismatched.index, "prefers_a"]).all()


def test_noise_is_a_coin_for_a_share_of_human_labels_the_same_in_every_part(made, pairs):
    noisy = load_profile("smoke", ONE_PAIR | {"human_noise": 0.5})
    every, part = labels_of(made, noisy, "human_all"), labels_of(made, noisy, "human")
    flipped = (every["prefers_a"] != pairs.loc[every.index, "human_prefers_a"]).mean()
    assert 0.15 < flipped < 0.35  # half of the coins agree
    assert (part["prefers_a"] == every.loc[part.index, "prefers_a"]).all()
    other = pd.read_parquet(made(graph.labels(noisy, "human", "all", 1)) / "labels.parquet").set_index("pair")
    assert (other["prefers_a"] != every["prefers_a"]).any()


def test_the_most_confident_labels_can_be_flipped(made, smoke):
    wrong = labels_of(made, load_profile("smoke", ONE_PAIR | {"annotator.confidently_wrong": 0.25}), "weak")
    right = labels_of(made, smoke, "weak").loc[wrong.index]
    turned = wrong["prefers_a"] != right["prefers_a"]
    assert turned.sum() == round(0.25 * len(right))
    assert right.loc[turned, "confidence"].min() >= right.loc[~turned, "confidence"].max()
    assert (wrong["margin"] == right["margin"]).all()


def test_calibration_divides_the_margins_by_a_temperature_of_d_l(made, smoke):
    calibrated = load_profile("smoke", ONE_PAIR | {"annotator.calibrated": True})
    stage = graph.labels(calibrated, "annotator", "unlabeled", 0, "opt-tiny").inputs["temperature"]
    assert set(stage.inputs) == {"base", "labels"} and stage.inputs["labels"].parameters["part"] == "labeled"
    found = json.loads((made(stage) / "temperature.json").read_text())["temperature"]
    margins, plain = (labels_of(made, p, "weak")["margin"] for p in (calibrated, smoke))
    assert (margins * found).to_numpy() == pytest.approx(plain.to_numpy())


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_what_margins_are_too_large_by(scale):
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 20000)
    right = rng.random(20000) < 1 / (1 + np.exp(-margins))
    assert fit(scale * np.where(right, margins, -margins)) == pytest.approx(scale, rel=0.1)


def test_d_u_is_the_same_for_every_size_of_d_l(made, smoke):
    def parts_for(labeled):
        profile = load_profile("smoke", ONE_PAIR | {"labeled_fraction": labeled, "unlabeled_fraction": 0.5})
        return pd.read_parquet(made(graph.split(profile, 0)) / "split.parquet").set_index("pair")["part"]

    few, many = parts_for(0.1), parts_for(0.5)
    assert (few == "unlabeled").mean() == pytest.approx(0.5) and (few == "labeled").mean() == pytest.approx(0.1)
    assert ((few == "unlabeled") == (many == "unlabeled")).all() and (few == "unused").any()
    assert (many[few == "labeled"] == "labeled").all()
