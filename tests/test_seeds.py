"""A seed draws the split, the annotator, the policy and the sampling: each is shown to use it, everything else equal."""

import dataclasses
import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from weaklib.arms import graph
from weaklib.arms.stage import upstream
from weaklib.study.study import Study


def with_seed(stage, seed):
    """The same stage on the same inputs with another seed."""
    return dataclasses.replace(stage, parameters=stage.parameters | {"seed": seed})


def weights(folder):
    return torch.cat([tensor.flatten() for tensor in load_file(folder / "model.safetensors").values()])


def test_split(made, smoke):
    split = graph.split(smoke, 0)
    parts = [pd.read_parquet(made(with_seed(split, seed)) / "split.parquet")["part"] for seed in (0, 1)]
    assert (parts[0] != parts[1]).any()


@pytest.mark.parametrize(
    "stage",
    [
        lambda p: graph.annotator(p, "opt-tiny", 0),
        lambda p: graph.sft(p, "opt-small", 0),
        lambda p: graph.policy(p, graph.ARMS["human"], "opt-tiny", "opt-small", 0),
    ],
    ids=["annotator", "sft", "policy"],
)
def test_training(made, smoke, stage):
    trained = stage(smoke)
    first, other = (weights(made(with_seed(trained, seed))) for seed in (0, 1))
    assert (first != other).any()


def test_sampling(made, smoke):
    rewards = graph.rewards(smoke, graph.sft(smoke, "opt-small", 0), 0)
    sampled = [
        pd.read_parquet(made(with_seed(rewards.inputs["responses"], seed)) / "responses.parquet") for seed in (0, 1)
    ]
    assert (sampled[0]["prompt"] == sampled[1]["prompt"]).all()
    assert (sampled[0]["response"] != sampled[1]["response"]).mean() > 0.5


def test_a_studys_seed_reaches_every_stage(smoke):
    """From the arm down: nothing but the task and the base models is shared by two seeds."""
    stages = []
    for seed in (0, 1):
        rewards = graph.rewards(smoke, graph.policy(smoke, graph.ARMS["weak"], "opt-tiny", "opt-small", seed), seed)
        stages.append({(stage.name, stage.key) for stage in upstream([rewards])})
    assert {name for name, _ in stages[0] & stages[1]} == {"task", "base"}


@pytest.mark.parametrize("arm", ["weak", "random"])
def test_every_stage_of_an_arm_is_given_the_studys_seed(smoke, arm):
    """Its own, not only by way of its inputs."""
    rewards = graph.rewards(smoke, graph.policy(smoke, graph.ARMS[arm], "opt-tiny", "opt-small", 7), 7)
    given = {stage.name: stage.parameters["seed"] for stage in upstream([rewards]) if "seed" in stage.parameters}
    shared = {"task": 0, "base": 0}
    drawn = {name: 7 for name in ("split", "sft", "policy", "responses", "annotator" if arm == "weak" else "labels")}
    assert given == shared | drawn


def test_gra_is_against_the_start_of_the_same_model_and_seed(cluster, store, monkeypatch):
    monkeypatch.setenv("WEAKLIB_STORE", str(store.root))
    study = Study("05_top_confidence", "smoke", {"models.weak": "opt-tiny"})
    runs = study.arms("human")
    results = study.run(runs)
    curves = study.loss_curves(runs)
    assert curves.groupby(["stage", "strong", "seed"]).ngroups == 2 * len(runs) and curves["loss"].gt(0).all()
    first = curves[(curves["stage"] == "policy") & (curves["step"] == 1)]
    assert first["loss"].sub(math.log(2)).abs().max() < 1e-3  # at the start every margin is 0
    for (strong, seed), rows in results.groupby(["strong", "seed"]):
        start = graph.rewards(study.profile, graph.sft(study.profile, strong, seed), seed)
        policy = graph.rewards(
            study.profile, graph.policy(study.profile, graph.ARMS["human"], "opt-tiny", strong, seed), seed
        )
        for stage, column in ((start, "sft_gold_reward"), (policy, "gold_reward")):
            rewards = pd.read_parquet(store.folder(stage) / "rewards.parquet").set_index("prompt")["gold_reward"]
            assert (rows.set_index("prompt")[column] == rewards[rows["prompt"]].to_numpy()).all()
    assert results.groupby(["strong", "seed"]).ngroups == 4


def test_no_prompt_is_in_both_parts_of_a_split(made, smoke, pairs):
    part = pd.read_parquet(made(graph.split(smoke, 0)) / "split.parquet").set_index("pair")["part"]
    labeled, unlabeled = (set(pairs.loc[part.index[part == name], "prompt"]) for name in ("labeled", "unlabeled"))
    assert labeled and unlabeled and not labeled & unlabeled


def test_prompts_that_repeat_stay_together(tmp_path):
    from weaklib.data import split

    (tmp_path / "task").mkdir()
    pd.DataFrame({"pair": range(60), "prompt": [f"p{i // 3}" for i in range(60)]}).to_parquet(
        tmp_path / "task" / "pairs.parquet"
    )
    split.run(tmp_path, task=tmp_path / "task", labeled_fraction=0.3, seed=0)
    parts = pd.read_parquet(tmp_path / "split.parquet")
    assert (parts.groupby(parts["pair"] // 3)["part"].nunique() == 1).all() and (parts["part"] == "labeled").sum() == 18
