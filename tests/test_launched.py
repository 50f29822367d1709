"""Stages that several processes share, started by accelerate: here with gloo on the CPU, in place of GPUs."""

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from weaklib.arms import graph
from weaklib import launched
from weaklib.study.parameters import load_profile
from weaklib.arms.stage import Stage

LIMITS = {"max_prompt_tokens": 64, "max_response_tokens": 24}


@pytest.fixture(scope="module")
def inputs(made, smoke):
    """Of a policy that starts from a base model."""
    start, task = graph.base(smoke, "opt-tiny"), graph.task(smoke)
    scoring = {"limits": LIMITS, "batch_tokens": 4000, "device": "cpu"}
    stages = {
        "start": start,
        "labels": graph.labels(smoke, "human", "labeled", 0),
        "reference": Stage("reference", {"task": task, "start": start}, scoring),
    }
    for stage in stages.values():
        made(stage)
    return stages


def test_two_processes_train_the_policy_that_one_does(inputs, store):
    """On 21 pairs in steps of 5: the last step has fewer pairs than processes, and a step several batches."""
    pairs = len(pd.read_parquet(store.folder(inputs["labels"]) / "labels.parquet"))

    def policy(**launch) -> tuple[dict[str, torch.Tensor], dict]:
        training = {"epochs": 2, "batch_size": 5, "learning_rate": 1e-3, "batch_tokens": 150} | launch
        selection = {"weighting": "top", "top_percent": 100 * 20.5 / pairs}
        rest = {"objective": "dpo", "beta": 0.1, "label_smoothing": 0.0, "limits": LIMITS, "seed": 0, "device": "cpu"}
        stage = Stage("policy", inputs, {**selection, **rest, "training": training})
        store.compute(stage.describe())
        entry = json.loads((store.folder(stage) / "training_log.json").read_text())[-1]
        return load_file(store.folder(stage) / "model.safetensors"), entry

    (one, log_of_one), (two, log_of_two) = policy(), policy(launch={"processes": 2, "strategy": "ddp"})
    start = load_file(store.folder(inputs["start"]) / "model.safetensors")
    assert one.keys() == two.keys() == start.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert max((one[name] - start[name]).abs().max() for name in one) > 1e-3
    for what in ("loss", "grad_norm"):  # to which Adam's steps are blind when all are scaled
        assert log_of_two[what] == pytest.approx(log_of_one[what], rel=1e-3)
    assert not list(store.root.glob(".partial/*.scratch"))


def test_only_several_gpus_are_launched():
    small = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}
    one = load_profile("smoke", small)
    four = load_profile("smoke", small | {"hardware.gpus": 4, "hardware.strategy": "fsdp"})
    launch = {"processes": 4, "strategy": "fsdp"}

    def training(profile):
        policy = graph.policy(profile, graph.ARMS["cw"], "opt-tiny", "opt-small", 0)
        stages = (policy, policy.inputs["start"], policy.inputs["labels"].inputs["annotator"])
        return [stage.parameters["training"].get("launch") for stage in stages]

    assert training(one) == [None] * 3 and training(four) == [launch] * 3
    assert "launch" not in graph.temperature(four, "opt-tiny", 0).parameters["training"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampling": {}}, "lower sampling.batch_tokens ("),
        ({"training": {"epochs": 1}}, "raise hungry.gradient_accumulation_steps, or use"),
        ({"training": {"batch_tokens": 9}}, "lower batch_tokens, or use hardware.gradient_checkpointing or LoRA ("),
    ],
)
def test_a_batch_that_does_not_fit_names_what_to_lower(arguments, words, tmp_path, monkeypatch):
    """Only a GPU runs out of memory in this way; the stage stands for one that does."""

    def run(out, **_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setitem(sys.modules, "weaklib.stages.hungry", SimpleNamespace(run=run))
    with pytest.raises(RuntimeError, match="does not fit the GPU's memory") as error:
        launched.run("hungry", tmp_path, arguments)
    assert words in str(error.value) and "CUDA out of memory." in str(error.value)
