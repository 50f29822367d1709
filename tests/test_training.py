"""Training stages: going on after a stop, adapters, bfloat16."""

import json
import multiprocessing
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from weaklib import graph
from weaklib.parameters import load_profile
from weaklib.scratch import scratch_of
from weaklib.store import Store
from weaklib.training import SameOrder

LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}
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


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_training_ends_with_the_weights_of_one_never_stopped(name, made, store, tmp_path):
    stage = STAGES[name]()
    whole = made(stage)
    again = Store(tmp_path)
    for needed in stage.inputs.values():  # the inputs as they are; the stage itself anew
        again.folder(needed).parent.mkdir(parents=True, exist_ok=True)
        again.folder(needed).symlink_to(store.folder(needed))
    run = multiprocessing.get_context("fork").Process(target=again.compute, args=(stage.describe(),))
    scratch = scratch_of(tmp_path / ".partial" / stage.key)
    logged = json.loads((whole / "training_log.json").read_text(encoding="utf-8"))[-1]
    stop_at = random.randrange(1, round(2 * logged["step"] / logged["epoch"]))
    run.start()
    while run.is_alive() and not list(scratch.glob(f"checkpoint-{stop_at}/{SameOrder.FILE}")):
        time.sleep(0.002)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL and not again.has(stage)

    second = multiprocessing.get_context("fork").Process(target=again.compute, args=(stage.describe(),))
    second.start()
    second.join()
    for file in whole.glob("*.safetensors"):
        expected, weights = load_file(file), load_file(again.folder(stage) / file.name)
        assert all(torch.equal(expected[key], weights[key]) for key in expected), f"stopped at step {stop_at}"
    assert not scratch.exists()
