"""What sharing saves: the sandbox study as it is, and as scripts without a store would run it. Run by ``make bench-study``.

The first is the sum of timed stages of the store at hand (run ``make reproduce`` before). The second is *estimated* from the same
timed stages: every arm, seed and setting is trained and scored by itself from its base models, each notebook alone, with TRL's trainers at the ratios
of ``tests/bench/speed.json``; base models alone are made once a notebook. Also measured: one worker against two on a small part of the study,
the floor of notebook 05, the time that the matrix products of its models alone take, and whole commands: all of the sandbox from the store at hand,
all of ``smoke`` from an empty one. Writes ``tests/bench/study.json``.
"""

import json
import os
import sys
import time
from datetime import date
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from cold import cold_seconds, timed

from weaklib.arms.folders import ROOT, store_folder
from weaklib.arms.stage import Stage, Store, upstream
from weaklib.reproduce.run import stages_asked_for
from weaklib.study.parameters import load_profile
from weaklib.training import language_models as pairs
from weaklib.training.language_models import load_causal_lm
from weaklib.training.policy import weigh
from weaklib.training.tokens import Reader, load_tokenizer

HERE = Path(__file__).parent
# Whose time a script with plain TRL would spend instead: (row of speed.json, its side).
PLAIN = {
    "policy": ("policy step", "TRL as it comes"),
    "annotator": ("annotator step", "TRL's RewardTrainer"),
    "labels": ("labelling", "TRL's evaluation"),
    "sft": ("text step", "TRL's SFTTrainer"),
    "base": ("text step", "TRL's SFTTrainer"),
    "responses": ("sampling", "transformers, in the given order"),
}
# A part of the study, for one worker against two.
PART = ["seeds=[0, 1, 2]", "models.weak=opt-tiny", "models.strong=opt-small", "top_percents=[10, 30, 50, 100]"]


def plain_ratios() -> dict[str, float]:
    rows = json.loads((HERE / "speed.json").read_text())["rows"]
    ratios = {(row["what"], row["side"]): row["ratio"] for row in rows if row["data"] == "sandbox"}
    return {stage: ratios[key] for stage, key in PLAIN.items()} | {"reference": 0.0}  # TRL's is within its policy step


def seconds_of(store: Store, stage: Stage) -> float:
    return json.loads((store.folder(stage) / "stage.json").read_text())["seconds"]


def shared_and_naive(profile: str, store: Store) -> dict:
    notebooks = {name: stages_asked_for(name, profile, {}) for name in load_profile(profile).notebooks}
    everything = upstream(stage for stages in notebooks.values() for stage in stages)
    if missing := [stage for stage in everything if not store.folder(stage).is_dir()]:
        sys.exit(f"{len(missing)} stages are not stored: make reproduce first")
    seconds, ratios = {stage.key: seconds_of(store, stage) for stage in everything}, plain_ratios()
    naive = 0.0
    for stages in notebooks.values():
        sampled = {
            stage.inputs["responses"].key: stage.inputs["responses"] for stage in stages if stage.name == "rewards"
        }
        of_start = {each.inputs["model"].key: each for each in sampled.values() if each.inputs["model"].name == "sft"}
        # a script is an arm, a setting and a seed: all that its policy needs, and the responses of policy and start
        for each in (each for each in sampled.values() if each.inputs["model"].name == "policy"):
            script = [stage for stage in upstream([each]) if stage.name != "base"]
            script.append(of_start[each.inputs["model"].inputs["start"].key])
            naive += sum(seconds[stage.key] * ratios.get(stage.name, 1.0) for stage in script)
        bases = [stage for stage in upstream(stages) if stage.name == "base"]
        naive += sum(seconds[stage.key] * ratios["base"] for stage in bases)
    shared = sum(seconds.values())
    return {
        "stages_asked_for": sum(len(upstream(stages)) for stages in notebooks.values()),
        "stages_run": len(everything),
        "shared_seconds": round(shared, 1),
        "naive_seconds_estimated": round(naive),
        "ratio": round(naive / shared, 2),
    }


def floor(notebook: str, profile: str, store: Store) -> dict:
    """Seconds that the matrix products of a notebook's models alone need on two threads, at the best rate this machine multiplies.

    6 FLOPs a weight and token in training, 2 in a forward pass; heads at the tokens that are predicted only. Attention, softmax, norms,
    optimizer, sampling's draws, loading and start-up come on top.
    """
    flops: dict[str, float] = {}
    stages = upstream(stages_asked_for(notebook, profile, {}))
    for stage in (stage for stage in stages if stage.name in _FLOPS):
        flops[stage.name] = flops.get(stage.name, 0.0) + _FLOPS[stage.name](stage, store)
    rate = rate_of_products()
    return {
        "notebook": notebook,
        "seeds": len(load_profile(profile).seeds),
        "tflop": {name: round(value / 1e12, 2) for name, value in flops.items()},
        "gflops_one_thread": round(rate / 1e9, 1),
        "floor_seconds_two_workers": round(sum(flops.values()) / rate / 2, 1),
        "stage_seconds_two_workers": round(sum(seconds_of(store, stage) for stage in stages) / 2, 1),
    }


def rate_of_products(_=None) -> float:
    """FLOPs a second of one thread in the largest product of the default models, at its best tenth."""
    torch.set_num_threads(1)
    a, b = torch.randn(2048, 64), torch.randn(256, 64)
    times = []
    for _ in range(2000):
        started = time.perf_counter()
        a @ b.T
        times.append(time.perf_counter() - started)
    return 2 * a.shape[0] * a.shape[1] * b.shape[0] / sorted(times)[200]


@cache
def _weights(folder: Path) -> tuple[int, int]:
    """Of the layers, which every token passes, and of the head."""
    model = load_causal_lm(folder, "cpu")
    layers = sum(
        w.numel() for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n and "lm_head" not in n
    )
    return layers, model.get_output_embeddings().weight.numel()


@cache
def _tokens_of_pairs(task: Path, model: Path) -> tuple[float, float]:
    """Tokens of a pair, and of its two responses, on average."""
    frame = pd.read_parquet(task / "pairs.parquet")
    limits = {"max_prompt_tokens": 10**6, "max_response_tokens": 10**6}
    rows = Reader(load_tokenizer(model), limits).pairs(frame, "response_a", "response_b")[0]
    responses = [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows]
    return sum(pairs.length(row, "shared") for row in rows) / len(rows), sum(responses) / len(rows)


def _of_policy(stage: Stage, store: Store) -> float:
    start, labels = (store.folder(stage.inputs[name]) for name in ("start", "labels"))
    table = pd.read_parquet(labels / "labels.parquet")
    count = len(weigh(table, stage.parameters["weighting"], stage.parameters.get("top_percent")))
    return 6 * count * stage.parameters["training"]["epochs"] * _of_pair(stage.inputs["reference"], start, store)


def _of_reference(stage: Stage, store: Store) -> float:
    count = len(pd.read_parquet(store.folder(stage.inputs["task"]) / "pairs.parquet", columns=["pair"]))
    return 2 * count * _of_pair(stage, store.folder(stage.inputs["start"]), store)


def _of_pair(reference: Stage, model: Path, store: Store) -> float:
    layers, head = _weights(model)
    tokens, responses = _tokens_of_pairs(store.folder(reference.inputs["task"]), model)
    return layers * tokens + head * responses


def _of_text(stage: Stage, store: Store) -> float:
    """Base models on the corpus, starts on the demonstrations."""
    folder, task = store.folder(stage), store.folder(stage.inputs["task"])
    (layers, head), tokenizer = _weights(folder), load_tokenizer(folder)
    if stage.name == "base":
        texts, epochs = pd.read_parquet(task / "corpus.parquet")["text"], stage.parameters["training"]["epochs"]
        tokens = sum(map(len, tokenizer(texts.tolist())["input_ids"]))
        return 6 * epochs * tokens * (layers + head)
    shown, epochs = pd.read_parquet(task / "demonstrations.parquet"), stage.parameters["training"]["epochs"]
    prompts, answers = (sum(map(len, tokenizer(shown[c].tolist())["input_ids"])) for c in ("prompt", "completion"))
    return 6 * epochs * (layers * (prompts + answers) + head * answers)


def _of_responses(stage: Stage, store: Store) -> float:
    layers, head = _weights(store.folder(stage.inputs["model"]))
    sampled = pd.read_parquet(store.folder(stage) / "responses.parquet")
    prompts = sum(
        map(len, load_tokenizer(store.folder(stage.inputs["model"]))(sampled["prompt"].tolist())["input_ids"])
    )
    answers = sampled["token_ids"].map(len).sum()
    return 2 * (layers * (prompts + answers) + head * answers)


_FLOPS = {
    "policy": _of_policy,
    "reference": _of_reference,
    "base": _of_text,
    "sft": _of_text,
    "responses": _of_responses,
}


def one_worker_against_two() -> dict:
    seconds = {
        workers: cold_seconds("sandbox", "05_top_confidence", "--workers", str(workers), "--set", *PART)
        for workers in (2, 1)
    }
    with get_context("spawn").Pool(2) as pool:
        together = sum(pool.map(rate_of_products, range(2)))
    return {
        "one_worker_seconds": round(seconds[1], 1),
        "two_workers_seconds": round(seconds[2], 1),
        "ratio": round(seconds[1] / seconds[2], 2),
        "ratio_of_products_alone": round(together / rate_of_products(), 2),
    }


def whole(store: Store, shared: dict) -> dict:
    """All notebooks of a profile by one command, with the stages that it ran and those that it found stored.

    A cold run of the sandbox takes more than an hour: it is what its stages took, shared by two workers, and a warm run.
    """
    warm, smoke = timed("sandbox", store=store.root), timed("smoke")
    asked = upstream(s for name in load_profile("smoke").notebooks for s in stages_asked_for(name, "smoke", {}))
    return {
        "sandbox_cold_seconds_estimated": round(shared["shared_seconds"] / 2 + warm["seconds"], 1),
        "sandbox_warm": warm | {"stages_reused": shared["stages_run"] - warm["stages_run"]},
        "smoke_cold": smoke | {"stages_reused": len(asked) - smoke["stages_run"]},
    }


def main() -> None:
    os.chdir(ROOT)
    store = Store(store_folder())
    record = {"date": date.today().isoformat(), "machine": json.loads((HERE / "speed.json").read_text())["machine"]}
    record |= {"sharing": shared_and_naive("sandbox", store)}
    record |= {
        "whole": whole(store, record["sharing"]),
        "floor": floor("05_top_confidence", "sandbox", store),
        "workers": one_worker_against_two(),
    }
    (HERE / "study.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
