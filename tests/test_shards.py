"""Sampling and scoring in shards: a stopped stage goes on after the last finished shard, to the same result."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from weaklib.arms import graph
from weaklib.training import pairs
from weaklib.study import checks as preflight
from weaklib import vllm_engine
from weaklib.study.parameters import RequestError, load_profile
from weaklib.training.scratch import scratch
from weaklib.shards import Shards
from weaklib.arms.stage import PACKAGE, Stage
from weaklib.training import reference
from weaklib.evaluation import responses
from weaklib.arms.store import Store

SAMPLING = {"temperature": 0.95, "max_new_tokens": 12, "batch_tokens": 400}
LIMITS = {"max_prompt_tokens": 64, "max_response_tokens": 24}


@pytest.fixture(scope="module")
def start(made, smoke) -> Path:
    """A small model that the study has made, with its task beside."""
    made(graph.task(smoke))
    return made(graph.base(smoke, "opt-tiny"))


def sampled(smoke, **sampling) -> Stage:
    parameters = {"part": "test", "sampling": SAMPLING | sampling, "limits": LIMITS, "seed": 3, "device": "cpu"}
    return Stage("responses", {"model": graph.base(smoke, "opt-tiny"), "task": graph.task(smoke)}, parameters)


KILLED_AFTER_TWO = """
    import json, os, pathlib, signal, sys
    from weaklib import shards
    from weaklib.arms.store import Store

    class Killed(shards.Shards):
        def map(self, compute, items):
            def until_two(item):
                if item == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return compute(item)
            return super().map(until_two, items)

    from weaklib.evaluation import responses
    responses.Shards = Killed
    Store(pathlib.Path(sys.argv[1])).compute(json.loads(sys.argv[2]))
"""


def test_sampling_that_was_killed_goes_on_to_the_same_bytes(start, smoke, store, monkeypatch):
    stage = sampled(smoke, shard_prompts=16)
    arguments = [str(store.root), json.dumps(stage.describe())]
    script = [sys.executable, "-c", textwrap.dedent(KILLED_AFTER_TWO), *arguments]
    killed = subprocess.run(script, cwd=PACKAGE.parent, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)})
    assert killed.returncode == -signal.SIGKILL and not store.has(stage)
    kept = store.root / ".partial" / f"{stage.key}.scratch"
    assert len(list(kept.glob("shards/*.json"))) == 2

    prompts, generate = [], responses.generate
    monkeypatch.setattr(responses, "generate", lambda *a, **k: prompts.extend(a[2]) or generate(*a, **k))
    store.compute(stage.describe())
    assert len(prompts) == 60 - 2 * 16 and not kept.exists()

    never_stopped = Store(store.root.parent / f"{store.root.name}-again")
    for needed in stage.inputs.values():
        never_stopped.folder(needed).parent.mkdir(parents=True)
        never_stopped.folder(needed).symlink_to(store.folder(needed))
    never_stopped.compute(stage.describe())
    first, second = (s.folder(stage) / "responses.parquet" for s in (store, never_stopped))
    assert len(prompts) == 60 - 2 * 16 + 60
    assert first.read_bytes() == second.read_bytes()


def test_shards_have_draws_of_their_own_and_prompts_keep_their_order(start, smoke, store):
    plain, sharded = stages = sampled(smoke), sampled(smoke, shard_prompts=16)
    for stage in stages:
        store.compute(stage.describe())
    plain, sharded = (pd.read_parquet(store.folder(stage) / "responses.parquet") for stage in stages)
    assert plain["prompt"].equals(sharded["prompt"])
    assert (plain["response"] != sharded["response"]).mean() > 0.5


def test_scores_are_the_same_in_shards_and_finished_ones_are_not_computed_again(
    start, smoke, store, tmp_path, monkeypatch
):
    said = {"task": store.folder(graph.task(smoke)), "start": start, "limits": LIMITS, "batch_tokens": 1500}
    once, stopped = tmp_path / "once", tmp_path / "stopped"
    once.mkdir()
    stopped.mkdir()

    class Stopped(Exception):
        pass

    batches, collate, limit = [], pairs.collate, 5

    def until_limit(*batch):
        if len(batches) == limit:
            raise Stopped
        batches.append(batch)
        return collate(*batch)

    monkeypatch.setattr(pairs, "collate", until_limit)
    with pytest.raises(Stopped):
        reference.run(stopped, **said, device="cpu", shard_batches=2)
    assert len(list(scratch(stopped).glob("shards/*.json"))) == 2  # the fifth batch is of a shard that is not finished
    limit = None
    reference.run(stopped, **said, device="cpu", shard_batches=2)
    with_a_stop, batches = len(batches), []
    reference.run(once, **said, device="cpu")
    assert with_a_stop == len(batches) + 1 > 6
    assert (once / "reference.parquet").read_bytes() == (stopped / "reference.parquet").read_bytes()


def test_shards_of_another_size_are_not_taken_for_these(tmp_path):
    out = tmp_path / "out"
    assert Shards(out, every=2).map(lambda n: n * 0.1, [1, 2, 3]) == [0.1, 0.2, 3 * 0.1]
    assert Shards(out, every=3).map(lambda n: n + 1, [1, 2, 3]) == [2, 3, 4]


def test_only_sampling_shards_change_a_key():
    small = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}
    plain = load_profile("smoke", small)
    scoring = load_profile("smoke", small | {"hardware.shard_batches": 8})
    sampling = load_profile("smoke", small | {"sampling.shard_prompts": 8})

    def stages(profile):
        start = graph.sft(profile, "opt-small", 0)
        return graph.reference(profile, "opt-small", 0), graph.responses(profile, start, 0)

    assert [s.key for s in stages(plain)] == [s.key for s in stages(scoring)]
    assert stages(scoring)[0].execution == {"shard_batches": 8} and stages(plain)[0].execution == {}
    assert stages(plain)[0].key == stages(sampling)[0].key and stages(plain)[1].key != stages(sampling)[1].key
    assert stages(plain)[1].parameters["sampling"].keys() == {"temperature", "max_new_tokens", "batch_tokens"}


@pytest.mark.parametrize(
    ("key", "package", "instead"),
    [("sampling.engine", "vllm", "engine: transformers"), ("hardware.strategy", "deepspeed", "strategy: fsdp")],
)
def test_a_package_that_is_not_there_is_one_line(key, package, instead):
    line = f"^{key}: {package} is not installed in this environment: pip install {package}, or {instead}$"
    with pytest.raises(RequestError, match=line):
        preflight.check(load_profile("smoke", {key: package}), [], [])


def test_adapters_are_merged_for_vllm(start, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(start),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    ).eval()
    adapted.save_pretrained(tmp_path / "lora")
    AutoTokenizer.from_pretrained(start).save_pretrained(tmp_path / "lora")
    plain = AutoModelForCausalLM.from_pretrained(vllm_engine.merged(tmp_path / "lora", tmp_path / "merged")).eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-5, atol=1e-5)
        with adapted.disable_adapter():
            assert not torch.allclose(plain(ids).logits, adapted(ids).logits, atol=1e-3)
