"""Training stages: going on after a stop, adapters, bfloat16."""

import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from weaklib.arms import graph, running
from weaklib.arms.stage import Store
from weaklib.data.conversations import pair_of_row
from weaklib.study.parameters import load_profile
from weaklib.training.base import train_tokenizer
from weaklib.training.language_models import load_causal_lm
from weaklib.training.tokens import Reader
from weaklib.training.trainers import SameOrder

LORA = {"r": 2, "lora_alpha": 4.0, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
# dropout, two epochs and checkpoints: each draws from, or must give back, a generator's state
BASE = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}
STOPPED = BASE | {"models.pretrained_here.opt-tiny.dropout": 0.1, "models.pretrained_here.opt-small.dropout": 0.1}
STOPPED |= {"sft.epochs": 2, "annotator.epochs": 2, "policy.epochs": 2, "hardware.checkpoint_steps": 1}


def profile(**more):
    return load_profile("smoke", STOPPED | more)


STAGES = {
    "sft": lambda: graph.sft(profile(), "opt-small", 0),
    "annotator": lambda: graph.annotator(profile(**{"annotator.kind": "scalar_head"}), "opt-tiny", 0),
    "policy": lambda: graph.policy(profile(), graph.ARMS["human"], "opt-tiny", "opt-small", 0),
    "LoRA policy": lambda: graph.policy(
        profile(**{"policy.lora": LORA}), graph.ARMS["human"], "opt-tiny", "opt-small", 0
    ),
}


def in_a_process(store: Store, stage, stop_at: int = -1, whole_checkpoint: bool = True) -> int:
    """Computes a stage as a worker does; the process kills itself with the checkpoint of a step, before it is whole or after."""

    def compute():
        on_save = SameOrder.on_save

        def killed(self, args, state, control, **rest):
            if whole_checkpoint or state.global_step != stop_at:
                on_save(self, args, state, control, **rest)
            if state.global_step == stop_at:
                os.kill(os.getpid(), signal.SIGKILL)

        SameOrder.on_save = killed
        running._compute(store, stage.record, [])

    process = multiprocessing.get_context("fork").Process(target=compute)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_training_ends_with_the_weights_of_one_never_stopped(name, made, store, tmp_path):
    stage = STAGES[name]()
    whole = made(stage)
    again = Store(tmp_path)
    for needed in stage.inputs.values():  # the inputs as they are; the stage itself anew
        again.folder(needed).parent.mkdir(parents=True, exist_ok=True)
        again.folder(needed).symlink_to(store.folder(needed))
    logged = json.loads((whole / "training_log.json").read_text(encoding="utf-8"))[-1]
    steps = round(2 * logged["step"] / logged["epoch"])
    first, second = sorted(random.sample(range(1, steps), 2))
    for stop_at, whole_checkpoint in ((first, False), (second, True)):
        assert (
            in_a_process(again, stage, stop_at, whole_checkpoint) == -signal.SIGKILL
            and not again.folder(stage).exists()
        )
    assert in_a_process(again, stage) == 0
    for file in whole.glob("*.safetensors"):
        expected, weights = load_file(file), load_file(again.folder(stage) / file.name)
        assert all(torch.equal(expected[key], weights[key]) for key in expected), f"stopped at {first} and {second}"
    assert not (tmp_path / ".partial" / f"{stage.key}.scratch").exists()


def test_adapters_are_loaded_as_they_were_trained(made, float64):
    """A LoRA policy's folder holds adapters alone, and loads as its start with them in it."""
    p = load_profile(
        "smoke", BASE | {"policy.lora": LORA | {"lora_dropout": 0.0}, "policy.epochs": 3, "learning_rate": 0.05}
    )
    stage = graph.policy(p, graph.ARMS["human"], "opt-tiny", "opt-small", 0)
    folder, start = made(stage), made(stage.inputs["start"])
    assert not (folder / "model.safetensors").exists()
    adapters = load_file(folder / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapters} == set(LORA["target_modules"])
    ids = torch.arange(12)[None]
    trained, before = (load_causal_lm(f, "cpu").eval() for f in (folder, start))
    with torch.inference_mode():
        logits = trained(ids).logits
        assert (logits - before(ids).logits).abs().max() > 0.01
        for name, module in before.named_modules():  # W + B·A·α/r, by hand
            if name.endswith(("q_proj", "v_proj")):
                a, b = (adapters[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
                module.weight += b @ a * LORA["lora_alpha"] / LORA["r"]
        torch.testing.assert_close(before(ids).logits, logits, rtol=1e-9, atol=1e-9)


def test_in_bfloat16_a_start_stays_near_that_of_float32(made):
    """Mixed precision trains float32 weights and stores them rounded."""
    one = BASE | {"sft.epochs": 2}
    full = made(graph.sft(load_profile("smoke", one), "opt-small", 0))
    half = made(graph.sft(load_profile("smoke", one | {"hardware.precision": "bfloat16"}), "opt-small", 0))
    weights, rounded = (load_file(folder / "model.safetensors") for folder in (full, half))
    assert {tensor.dtype for tensor in rounded.values()} == {torch.bfloat16}
    losses = [json.loads((folder / "training_log.json").read_text())[-1]["loss"] for folder in (full, half)]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], abs=0.02)
    moved = max((weights[key] - rounded[key].float()).abs().max() for key in weights)
    assert moved < 0.02


def test_in_bfloat16_a_policy_begins_where_its_reference_is(made):
    """Its references are computed in the precision that it is trained in: before the first step every margin is 0."""
    p = load_profile("smoke", BASE | {"hardware.precision": "bfloat16", "policy.lora": LORA | {"lora_dropout": 0.0}})
    policy = made(graph.policy(p, graph.ARMS["human"], "opt-tiny", "opt-small", 0))
    first = json.loads((policy / "training_log.json").read_text())[0]
    assert first["step"] == 1 and first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert not (policy / "ref").exists()
    adapters = load_file(policy / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapters.values()} == {torch.float32}


def test_a_step_of_texts_in_parts_is_the_same_step(made, exactly):
    whole, parts = (
        load_file(exactly(graph.sft(load_profile("smoke", BASE | change), "opt-small", 0)) / "model.safetensors")
        for change in ({}, {"sft.gradient_accumulation_steps": 4})
    )
    start = load_file(made(graph.base(load_profile("smoke", BASE), "opt-small")) / "model.safetensors")
    assert max((whole[key] - start[key]).abs().max() for key in start) > 1e-3
    for key in whole:  # Adam divides by the size of a gradient: where that is rounding, so is its direction
        assert (whole[key] - parts[key]).abs().max() < 1e-8


def test_a_chat_template_frames_the_prompt(tmp_path):
    tokenizer = train_tokenizer(["Human and Assistant say hello, gladly"] * 3, 300)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    limits = {"max_prompt_tokens": 200, "max_response_tokens": 200, "dialogue": "chat"}
    said = "\n\nSystem: Be\n\nHuman: Hi\n\nAssistant: Yes?\n\nAssistant: So?\n\nHuman: Go\n\nAssistant:"
    pair, _ = pair_of_row({"prompt": said, "chosen": " Gladly.", "rejected": " No."})
    reader = Reader(tokenizer, limits)
    (prompt,) = reader.prompts(pd.DataFrame([pair]))
    assert tokenizer.decode(prompt) == "<system>Be<user>Hi<assistant>Yes?\n\nSo?<user>Go<assistant>"
    assert tokenizer.decode(reader.responses([" Gladly."])[0]) == "Gladly." + tokenizer.eos_token
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        Reader(tokenizer, limits)


def test_an_import_sets_no_threads():
    """It is the worker that says how many there are."""
    modules = "weaklib.training.language_models, weaklib.training.policy, weaklib.evaluation.responses"
    code = f"import torch; torch.set_num_threads(3); import {modules}; assert torch.get_num_threads() == 3"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
