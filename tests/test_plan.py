"""The plan of a study on real models, made where there are none: costs by hand, sharing, what is unknown, what does not fit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from weaklib.amounts import WORLD_TOKENS
from weaklib.costs import GPUS, Costs
from weaklib.study.annotations import parameter_count

from weaklib import stages
from weaklib.__main__ import main
from weaklib.arms import graph
from weaklib.data.world import WORLDS
from weaklib.reproduce.plan import as_text
from weaklib.study import parameters
from weaklib.study.parameters import load_profile, read_profile

NOTEBOOKS = ["02_student_size", "05_top_confidence", "06_cw_po"]
OPT, LARGE = "facebook/opt-125m", "facebook/opt-13b"
PINNED = {
    name: f"{name}@{40 * '1'}" for name in (OPT, *(f"facebook/opt-{size}b" for size in ("1.3", "2.7", "6.7", "13")))
}
LORA = {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]}
# The sandbox's, but on published models and a dataset, with bfloat16 and LoRA students.
REAL = {
    "title": "real models",
    "notebooks": NOTEBOOKS,
    "task": {
        "kind": "dataset",
        "name": "hh-rlhf",
        "parts": ["harmless-base", "helpful-base"],
        "source": "Anthropic/hh-rlhf",
        "revision": 40 * "0",
        "max_tokens": 512,
        "tokenizer": OPT,
        "demonstrations": "chosen",
        "proxy_share": 0.1,
        "test_prompts": 1000,
        "expected": {"pairs": 100000, "prompt_tokens": 100.0, "response_tokens": 50.0},
    },
    "models": {"weak": OPT, "strong": LARGE, "proxy": "facebook/opt-1.3b", "published": PINNED},
    "device": "cuda",
    "annotator": {"kind": "scalar_head", "epochs": 1, "batch_size": 16, "learning_rate": 1e-5},
    "hardware": {"precision": "bfloat16", "gradient_checkpointing": True, "checkpoint_steps": 200},
    "seeds": [0, 1],
    "max_prompt_tokens": 384,
    "max_response_tokens": 128,
    "batch_tokens": 8192,
    "policy": {"epochs": 1, "batch_size": 64, "lora": LORA},
    "sampling": {"temperature": 0.95, "max_new_tokens": 512, "batch_tokens": 65536},
    "students": ["facebook/opt-1.3b", "facebook/opt-2.7b", "facebook/opt-6.7b", LARGE],
    "supervisors": None,
    "families": None,
    "gold_models": {},
    "judge": None,
}


@pytest.fixture
def real(tmp_path, monkeypatch):
    """Loads the profile ``real``, which lies in a folder of its own, with overrides."""
    sandbox = read_profile(parameters.PARAMS / "sandbox.yaml")
    monkeypatch.setattr(parameters, "PARAMS", tmp_path)
    monkeypatch.setenv("WEAKLIB_STORE", str(tmp_path / "store"))
    (tmp_path / "real.yaml").write_text(json.dumps(sandbox | REAL))
    return lambda **overrides: load_profile("real", overrides)


def cost(profile, stage, gpu="a100-80gb"):
    return Costs(profile, GPUS[gpu], 0.4).of(stage)


def test_an_annotator_by_hand(real):
    p = real()
    spent = cost(p, graph.annotator(p, OPT, 0))
    # 90,000 pairs are D_l and D_u, 30% of them D_l; a prompt of 100 tokens and two responses of 50 in one sequence
    assert spent.tokens == 27_000 * 200
    # OPT-125M without its embeddings has 85,056,000 parameters; forward, backward twice, and forward again for the checkpoints
    weights, attention = 4 * 2 * 85_056_000 * 5.4e6, 4 * 4 * 12 * 768 * 200 * 5.4e6
    assert spent.flops == pytest.approx(weights + attention)
    assert spent.flops == pytest.approx(3.834e15, rel=1e-3)
    assert spent.gpu_hours == pytest.approx(3.834e15 / (0.4 * 312e12) / 3600, rel=1e-3)
    # weights, gradients and two moments in float32 and a bfloat16 copy: 18 bytes of each of 125.24M; 8,192 tokens of 12 widths that are
    # kept and of one whole layer, 18 widths, that is computed again: 0.38 GB
    assert spent.parameters == 125_240_064
    assert spent.peak_gib == pytest.approx((18 * 125_240_064 + 8192 * (12 + 18) * 768 * 2) / 2**30, rel=1e-4)
    assert spent.disk_gib == pytest.approx(0.2333, rel=1e-3)
    assert spent.scratch_gib == pytest.approx(24 * 0.12524 / 1.0737, rel=1e-3)


def test_a_large_student_with_lora_by_hand(real):
    p = real()
    spent = cost(p, graph.policy(p, graph.ARMS["cw"], OPT, LARGE, 0))
    assert spent.tokens == 63_000 * 200
    # 4 and 2 for the checkpoints times parameters times tokens, the rule of thumb
    assert spent.flops == pytest.approx(6 * 12.85e9 * 63_000 * 200, rel=0.01)
    # frozen weights of 2 bytes, 25.7 GB; 40 layers' inputs of 5,120 and one layer of 18 times that, of 8,192 tokens: 4.9 GB;
    # their logits in tiles of 8,192 columns: 0.27 GB; adapters and their moments: 0.1 GB
    assert spent.peak_gib == pytest.approx((25.7 + 4.87 + 0.27 + 0.1) / 1.0737, rel=0.005)
    adapters = 40 * 2 * 8 * (5120 + 5120)
    assert spent.disk_gib == pytest.approx(adapters * 4 / 2**30)
    assert spent.scratch_gib == pytest.approx(adapters * 24 / 2**30)


def test_what_settings_cost(real):
    plain = real()
    of = lambda p: cost(p, graph.sft(p, LARGE, 0))  # noqa: E731
    assert of(real(**{"hardware.gradient_checkpointing": False})).peak_gib > 1.4 * of(plain).peak_gib
    assert of(real(**{"hardware.gradient_checkpointing": False})).flops == pytest.approx(3 / 4 * of(plain).flops)
    assert of(real(**{"hardware.precision": "float32"})).disk_gib == 2 * of(plain).disk_gib
    assert of(real(**{"hardware.checkpoint_steps": None})).scratch_gib == 0
    sharded = of(real(**{"hardware.gpus": 4, "hardware.strategy": "fsdp", "policy.lora": None}))
    assert sharded.peak_gib < of(plain).peak_gib / 3 and sharded.gpu_hours == of(plain).gpu_hours
    assert of(real(**{"task.demonstrations": "separate", "task.demonstrations_share": 0.3})).tokens == pytest.approx(
        of(plain).tokens / 3
    )
    top = [cost(plain, graph.policy(plain, graph.ARMS["top"], OPT, LARGE, 0, percent)).tokens for percent in (30, 100)]
    assert top[0] == pytest.approx(0.3 * top[1])


def test_two_sequences_where_a_window_slides(real):
    p = real()
    shared, plain = (
        cost(p, graph.annotator(p, model, 0)) for model in ("meta-llama/Llama-2-7b-hf", "mistralai/Mistral-7B-v0.1")
    )
    assert plain.tokens == 1.5 * shared.tokens  # the prompt of 100 twice


def test_decoding_takes_as_long_as_reading_the_weights_and_the_cache(real):
    p = real(**{"sampling.batch_tokens": 612})  # one response at a time
    spent = cost(p, graph.responses(p, graph.sft(p, LARGE, 0), 0))
    cache = 612 * 2 * 40 * 5120 * 2
    assert spent.gpu_hours == pytest.approx(1000 * 512 * (25.7e9 + cache) / (0.4 * 2039e9) / 3600, rel=1e-3)
    assert cost(p, graph.responses(p, graph.sft(p, LARGE, 0), 0), "h100").gpu_hours < 0.7 * spent.gpu_hours


OFFLINE = """
import socket, sys
from pathlib import Path
from weaklib.study import parameters
from weaklib.__main__ import main

def connect(*_):
    raise AssertionError("the plan asked the network")

socket.socket.connect = connect
parameters.PARAMS = Path(sys.argv[1])
status = main(["plan", "--profile", "real", "--json", *sys.argv[2:]])
print({"torch", "transformers"} & set(sys.modules), file=sys.stderr)
sys.exit(status)
"""


def run_plan(folder: Path, *arguments: str) -> dict:
    done = subprocess.run([sys.executable, "-c", OFFLINE, folder, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "set()", "what takes seconds to import"
    return json.loads(done.stdout)


def test_the_plan_of_real_models_offline(real, tmp_path):
    planned = run_plan(tmp_path)
    shared, alone = planned["total"], planned["total_without_sharing"]
    for name in ("tokens", "flops", "disk_gib", "gpu_hours"):
        assert 0 < shared[name] < alone[name], name
        assert shared[name] == pytest.approx(sum(row[name] for row in planned["by_stage"].values()), rel=1e-4)
        assert alone[name] == pytest.approx(sum(row[name] for row in planned["by_notebook"].values()), rel=1e-4)
    assert planned["total_to_run"] == planned["total"], "the store is empty"
    assert planned["unknown_models"] == []
    for row in planned["by_notebook"].values():
        assert 0 < row["shared"]["gpu_hours"] < row["gpu_hours"]
    too_large = {(row["stage"], row["model"]) for row in planned["do_not_fit"]}
    assert ("sft", LARGE) in too_large and ("policy", LARGE) not in too_large
    text = as_text(planned)
    assert "a100-80gb (312 TFLOP/s in bfloat16, 79 GiB) at a utilisation of 0.4" in text
    assert "does not fit on one a100-80gb: sft of facebook/opt-6.7b (118 GiB), " in text
    assert "unknown:" not in text


def test_another_gpu_and_utilisation(real, capsys):
    hours = []
    for options in (["--utilisation", "0.4"], ["--utilisation", "0.2"], ["--gpu", "h200"]):
        assert main(["plan", "--profile", "real", "--only", NOTEBOOKS[1], "--json", *options]) == 0
        hours.append(json.loads(capsys.readouterr().out)["total"]["gpu_hours"])
    assert hours[1] == pytest.approx(2 * hours[0])
    assert 1 / 3.3 < hours[2] / hours[0] < 1 / 2


def test_what_is_unknown_is_not_zero(real, capsys):
    arguments = [
        "plan",
        "--profile",
        "real",
        "--only",
        NOTEBOOKS[1],
        "--set",
        f"models.strong=somebody/new@{40 * '1'}",
        "seeds=[0]",
    ]
    assert main([*arguments, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["unknown_models"] == ["somebody/new"]
    for name in ("parameters", "flops", "gpu_hours", "peak_gib", "disk_gib"):
        assert planned["by_stage"]["policy"][name] is None and planned["total"][name] is None, name
    assert planned["by_stage"]["policy"]["tokens"] > 0 and planned["by_stage"]["annotator"]["flops"] > 0
    assert main(arguments) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "unknown" in lines["policy"] and "unknown" in lines["total"] and "unknown" not in lines["annotator"]
    assert lines["sizes"] == "sizes unknown, and so what they cost: somebody/new"


def test_the_tokens_of_a_file_are_unknown_but_not_its_models(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("not read\n")
    p = load_profile("hh-file", {"task.path": str(tmp_path / "pairs.jsonl")})
    spent = cost(p, graph.sft(p, "opt-strong", 0))
    assert np.isnan([spent.tokens, spent.flops, spent.gpu_hours]).all()
    assert spent.parameters > 5e5 and spent.peak_gib > 0 and spent.disk_gib > 0


def test_parameters_are_those_of_a_model_made_here(made, smoke):
    base = graph.base(smoke, "opt-tiny")
    assert cost(smoke, base).parameters == pytest.approx(parameter_count(made(base)), rel=0.02)


@pytest.mark.parametrize("name", WORLD_TOKENS)
def test_tokens_of_the_worlds(name):
    from weaklib.training.base import train_tokenizer

    rng = np.random.default_rng(1)
    prompts = list(WORLDS[name].sample_prompts(rng, 500, "both"))
    responses = [WORLDS[name].write_response(rng, prompt) for prompt in prompts]
    tokenizer = train_tokenizer([p + r for p, r in zip(prompts, responses)], 1200)
    lengths = [np.mean([len(ids) for ids in tokenizer(texts)["input_ids"]]) for texts in (prompts, responses)]
    assert (lengths[0], lengths[1] + 1) == pytest.approx(WORLD_TOKENS[name], rel=0.15)


def test_every_stage_has_a_rule():
    names = {path.stem for path in Path(stages.__file__).parent.glob("*.py")} - {"__init__"}
    assert {name for name in names if not hasattr(Costs, f"_cost_of_{name}")} == set()


def test_too_little_disk_is_told_before_anything_runs(tmp_path, capsys):
    # layers of 16 TiB; were they begun, the first of their matrices could not be had
    huge = "{model_type: opt, hidden_size: 1048576, word_embed_proj_dim: 2, ffn_dim: 16, num_hidden_layers: 1, "
    huge += "num_attention_heads: 2, max_position_embeddings: 160}"
    arguments = ["--only", "05_top_confidence", "--set", f"models.pretrained_here.opt-small={huge}"]
    folders = [word for kind in ("store", "runs", "figures") for word in (f"--{kind}", str(tmp_path / kind))]
    assert main(["reproduce", "--profile", "smoke", *folders, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"weaklib: store {tmp_path}/store: the plan needs ")
    assert " GiB of disk, " in line and " GiB are free" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--gpu=abacus", "argument --gpu: invalid choice: 'abacus'"),
        ("--utilisation=2", "argument --utilisation: a number above 0 and at most 1 is needed, not '2'"),
        ("--utilisation=nan", "argument --utilisation: a number above 0 and at most 1 is needed, not 'nan'"),
    ],
)
def test_a_wrong_gpu_is_one_line(option, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", option])
    assert capsys.readouterr().err.startswith(f"weaklib: {line}")
