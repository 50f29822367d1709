"""The study of real models, on model folders in the hub's format made here: true architectures, true file formats, small numbers.

One architecture runs in every test; all of them, with all weights and with LoRA, by ``make test-slow``.
"""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from weaklib.training.base import train_tokenizer

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256}
SIZES |= {"hidden_size": 16, "intermediate_size": 32}
GROUPED = {"num_key_value_heads": 1}
ARCHITECTURES = {
    "opt": {"word_embed_proj_dim": 16, "ffn_dim": 32, "dropout": 0.1},
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 64},
    "gemma": GROUPED | {"head_dim": 8},
}
LORA = "{r: 2, lora_alpha: 4.0, target_modules: [q_proj, v_proj]}"
NOTEBOOKS = ("05_top_confidence", "06_cw_po")
SETTINGS = (
    "device=cpu",
    "seeds=[0]",
    "dialogue=plain",
    "task.revision=null",
    "task.parts=[harmless-base]",
    "task.max_pairs=60",
    "task.test_prompts=8",
    "task.max_tokens=120",
    "max_prompt_tokens=100",
    "max_response_tokens=40",
    "hardware.checkpoint_steps=2",
    "annotator.calibrated=true",
    "sampling={temperature: 0.95, max_new_tokens: 6, batch_tokens: 4096}",
    "annotator.batch_size=8",
    "sft.batch_size=8",
    "policy.batch_size=8",
    "top_percents=[50,100]",
    "objectives=[dpo,ipo]",
)


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected, in HH-RLHF's form, with what is odd in the real data."""
    draw = random.Random(0)
    words = "help me find the best way to cook rice and beans at home with no oil".split()
    say = lambda count: " ".join(draw.choices(words, k=count))  # noqa: E731
    rows = [(f"\n\nHuman: {number} {say(6)}?\n\nAssistant:", f" {say(9)}.", f" {say(5)}!") for number in range(100)]
    rows[3] = (rows[3][0], "", " no\u2028really")  # an empty turn, an odd line end
    rows[4] = (f"\n\nHuman: 4 {say(200)}?\n\nAssistant:", " far", " too long")
    return rows


@pytest.fixture(scope="module")
def dataset(texts, tmp_path_factory) -> Path:
    """A copy of the dataset's repository."""
    folder = tmp_path_factory.mktemp("hh-rlhf") / "harmless-base"
    folder.mkdir()
    for split, rows in (("train", texts[:80]), ("test", texts[80:])):
        lines = [json.dumps({"chosen": p + c, "rejected": p + r}, ensure_ascii=False) for p, c, r in rows]
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder.parent


def model_folder(folder: Path, architecture: str, texts, auto=AutoModelForCausalLM, **more) -> Path:
    """As ``save_pretrained`` writes it. The tokenizer has no padding token of its own, like most of the real ones."""
    tokenizer = train_tokenizer(["".join(row) for row in texts], 400)
    tokenizer.pad_token = None
    ends = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = SIZES | ARCHITECTURES[architecture] | ends | {"bos_token_id": tokenizer.bos_token_id} | more
    auto.from_config(AutoConfig.for_model(architecture, **config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def study(tmp_path, architecture: str, texts, dataset: Path, lora: bool) -> Path:
    weak, strong = (
        model_folder(tmp_path / f"{architecture}-{size}", architecture, texts, hidden_size=width)
        for size, width in (("weak", 16), ("strong", 32))
    )
    gold = model_folder(tmp_path / "gold", "opt", texts, AutoModelForSequenceClassification, num_labels=1)
    settings = [
        *SETTINGS,
        f"task.source={dataset}",
        f"task.tokenizer={strong}",
        f"models={{weak: ['{weak}'], strong: ['{strong}'], gold: ours}}",
        f"gold_models={{ours: {{model: '{gold}', format: text}}}}",
        f"policy.lora={LORA if lora else 'null'}",
        f"sft.lora={LORA if lora else 'null'}",
        f"annotator.lora={LORA if lora else 'null'}",
    ]
    folders = {f"WEAKLIB_{name}": str(tmp_path / name.lower()) for name in ("STORE", "FIGURES", "RUNS")}
    command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", "single-gpu", "--only", *NOTEBOOKS]
    done = subprocess.run(
        [*command, "--set", *settings],
        env={name: value for name, value in os.environ.items() if name != "WEAKLIB_SCHEDULER"}
        | folders
        | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return tmp_path


def check(folder: Path, lora: bool) -> None:
    for notebook, name in zip(NOTEBOOKS, ("top_confidence", "cw_po")):
        data = pd.read_csv(folder / "figures" / "single-gpu" / notebook / f"{name}.csv")
        assert {"human", "cw"} <= set(data["arm"]) and data["estimate"].dropna().between(0, 1).all()
    (counts,) = (json.loads(path.read_text()) for path in (folder / "store" / "task").glob("*/counts.json"))
    assert counts["train"]["pairs_within_max_tokens"] == counts["train"]["pairs"] - 1 == 79
    policies = list((folder / "store" / "policy").iterdir())
    assert policies and all((policy / "adapter_config.json").is_file() == lora for policy in policies)
    forms = {json.loads((policy / "pairs.json").read_text())["form"] for policy in policies}
    assert forms == {"plain" if "mistral" in folder.name or "gemma" in folder.name else "shared"}
    assert not list((folder / "store" / ".partial").glob("*.scratch"))


def test_a_study_of_real_models(tmp_path, texts, dataset):
    check(study(tmp_path, "opt", texts, dataset, lora=True), lora=True)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "LoRA"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture, lora, tmp_path, texts, dataset):
    folder = tmp_path / architecture
    folder.mkdir()
    check(study(folder, architecture, texts, dataset, lora), lora)
