"""How fast: ours against TRL and transformers, both sides in one process, alternating, on the same pairs.

Run by ``make bench``; prints a table and writes ``tests/bench/speed.json``. Real lengths come from a preference file in the HH form that
``WEAKLIB_HH_FILE`` names (without one those rows are left out and said to be missing) and from the controlled world.
"""

import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer, pipeline
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from weaklib.data.preference_datasets import read_pairs
from weaklib.data.task import world_pairs
from weaklib.data.world import WORLDS
from weaklib.evaluation import responses
from weaklib.study.parameters import load_profile
from weaklib.supervisors.annotator import BradleyTerryTrainer
from weaklib.training import language_models as pairs
from weaklib.training.base import train_tokenizer
from weaklib.training.policy import WeightedDPOTrainer
from weaklib.training.tokens import Reader
from weaklib.training.trainers import TextTrainer
from weaklib.training.trainers import trainer_settings as settings_of

RESULTS = Path(__file__).with_suffix(".json")
THREADS = 2
LIMITS = {"max_prompt_tokens": 2000, "max_response_tokens": 2000}  # nothing is cut, on either side
BATCH_TOKENS = 4096
POSITIONS = 2200
TEN_MILLION = {"model_type": "opt", "hidden_size": 320, "word_embed_proj_dim": 320, "ffn_dim": 1280}
TEN_MILLION |= {"num_hidden_layers": 6, "num_attention_heads": 8, "dropout": 0.0}


def trainer_settings(batch: int) -> dict:
    training = {"epochs": 1, "batch_size": batch, "learning_rate": 1e-5}
    return settings_of(training, 0, "cpu", Path(tempfile.gettempdir(), "bench"))  # nothing is written there


class Data:
    """Pairs of one source, a tokenizer for them, and models of random weights (speed does not depend on them)."""

    def __init__(self, name: str, frame: pd.DataFrame, configuration: dict, vocabulary: int):
        self.name, self.frame, self.configuration = name, frame, configuration
        texts = (frame["prompt"] + frame["response_a"]).tolist() + frame["response_b"].tolist()
        self.tokenizer = train_tokenizer(texts, vocabulary)
        self.texts = frame.rename(columns={"response_a": "chosen", "response_b": "rejected"})
        self.texts = self.texts[["prompt", "chosen", "rejected"]]
        self.rows = Reader(self.tokenizer, LIMITS).pairs(self.texts, "chosen", "rejected")[0]
        for row in self.rows:
            row |= {"weight": 1.0, "ref_chosen_logps": -50.0, "ref_rejected_logps": -50.0}

    def model(self, auto=AutoModelForCausalLM, **more):
        torch.manual_seed(0)
        tokens = {"pad_token_id": self.tokenizer.pad_token_id, "eos_token_id": self.tokenizer.eos_token_id}
        settings = self.configuration | {"max_position_embeddings": POSITIONS, "vocab_size": len(self.tokenizer)}
        return auto.from_config(AutoConfig.for_model(**settings, **tokens, bos_token_id=tokens["eos_token_id"], **more))

    def first(self, count: int) -> "Data":
        """The same with its first pairs only."""
        return self.take(list(range(len(self.rows)))[:count])

    def take(self, numbers: list[int]) -> "Data":
        """The same with some of its pairs."""
        part = object.__new__(Data)
        part.__dict__ |= self.__dict__ | {
            "texts": self.texts.iloc[numbers],
            "frame": self.frame.iloc[numbers],
            "rows": [self.rows[number] for number in numbers],
        }
        return part


def from_file(path: str, count: int) -> Data:
    pairs, _ = read_pairs(Path(path))
    frame = pairs.rename(columns={"chosen": "response_a", "rejected": "response_b"})
    whole = (frame["prompt"] != "") & (frame["response_a"] != "") & (frame["response_b"] != "")
    return Data("HH", frame[whole].sample(count, random_state=0).reset_index(drop=True), TEN_MILLION, 8000)


def from_world(count: int) -> Data:
    p, world, rng = load_profile("sandbox"), WORLDS["dialogue"], np.random.default_rng(0)
    frame = world_pairs(rng, world, world.sample_prompts(rng, count), world.HUMAN)
    return Data("sandbox", frame, p.models.pretrained_here["opt-small"], p.pretraining.vocabulary)


def alternating(sides: dict[str, Callable[[], None]], rounds: int = 3, warm: int = 1) -> dict[str, float]:
    """Median seconds of each side, in turn; the first, ``warm`` rounds of each are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _, (name, run) in itertools.product(range(rounds + warm), sides.items()):
        started = time.perf_counter()
        run()
        times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds[warm:]) for name, seconds in times.items()}


def training(data: Data, batch: int) -> dict[str, Callable]:
    settings = trainer_settings(batch)
    theirs = {
        "processing_class": data.tokenizer,
        "train_dataset": Dataset.from_pandas(data.texts, preserve_index=False),
    }
    plain = settings | {"train_sampling_strategy": "random"}  # TRL's default
    trl = DPOTrainer(data.model(), data.model(), DPOConfig(**plain), **theirs)
    known = DPOTrainer(data.model(), data.model(), DPOConfig(**plain, precompute_ref_log_probs=True), **theirs)
    sides = {"ours": our_trainer(data, batch), "TRL as it comes": trl, "TRL, references precomputed": known}
    return {name: train(trainer) for name, trainer in sides.items()}


def our_trainer(data: Data, batch: int, weights: bool = False) -> WeightedDPOTrainer:
    settings = trainer_settings(batch)
    rows = (
        [row | {"weight": 0.5 + 0.5 * (number % 2)} for number, row in enumerate(data.rows)] if weights else data.rows
    )
    return WeightedDPOTrainer(
        data.model(),
        DPOConfig(**settings),
        objective="dpo",
        batch_tokens=BATCH_TOKENS,
        train_dataset=Dataset.from_list(rows),
        processing_class=data.tokenizer,
    )


def annotators(data: Data, batch: int) -> dict[str, Callable]:
    settings = trainer_settings(batch)
    heads = [data.model(AutoModelForSequenceClassification, num_labels=1) for _ in range(2)]
    common = {"args": RewardConfig(**settings), "processing_class": data.tokenizer}
    ours = BradleyTerryTrainer(
        heads[0], batch_tokens=BATCH_TOKENS, train_dataset=Dataset.from_list(data.rows), **common
    )
    common["args"] = RewardConfig(**settings | {"train_sampling_strategy": "random"})
    trl = RewardTrainer(heads[1], train_dataset=Dataset.from_list(whole_dialogues(data)), **common)
    return {"ours": train(ours), "TRL's RewardTrainer": train(trl)}


def text_training(data: Data, batch: int) -> dict[str, Callable]:
    ids = [row["prompt_ids"] + row["chosen_ids"] for row in data.rows]
    dataset = Dataset.from_list([{"input_ids": i, "labels": i, "length": len(i)} for i in ids])
    config = SFTConfig(**trainer_settings(batch))
    sides = {"ours": TextTrainer, "TRL's SFTTrainer": SFTTrainer}
    return {
        name: train(kind(data.model(), config, train_dataset=dataset, processing_class=data.tokenizer))
        for name, kind in sides.items()
    }


def whole_dialogues(data: Data) -> list[dict]:
    sides = ("chosen_ids", "rejected_ids")
    return [{side: row["prompt_ids"] + row[side] for side in sides} for row in data.rows]


def train(trainer: Trainer) -> Callable:
    trainer.remove_callback(PrinterCallback)
    return trainer.train


def reference(data: Data, batch: int) -> dict[str, Callable]:
    model, collate = data.model().eval(), DataCollatorForPreference(data.tokenizer.pad_token_id)
    config = DPOConfig(**trainer_settings(batch))
    texts = Dataset.from_pandas(data.texts, preserve_index=False)
    trl = DPOTrainer(data.model(), data.model(), config, train_dataset=texts, processing_class=data.tokenizer)

    def theirs():
        for start in range(0, len(data.rows), batch):
            trl.compute_ref_log_probs(trl.ref_model, collate(data.rows[start : start + batch]))

    return {"ours": lambda: pairs.score(model, data.rows, pairs.response_logps, BATCH_TOKENS), "TRL": theirs}


def labelling(data: Data, batch: int) -> dict[str, Callable]:
    model = data.model(AutoModelForSequenceClassification, num_labels=1).eval()
    classify = pipeline("text-classification", model=model, tokenizer=data.tokenizer, function_to_apply="none")
    whole = whole_dialogues(data)
    settings = trainer_settings(batch)
    settings |= {"train_sampling_strategy": "random", "per_device_eval_batch_size": batch}
    config = RewardConfig(**settings)
    both = {"train_dataset": Dataset.from_list(whole), "eval_dataset": Dataset.from_list(whole)}
    trl = RewardTrainer(model, config, processing_class=data.tokenizer, **both)
    trl.remove_callback(PrinterCallback)
    texts = [
        prompt + answer
        for side in ("chosen", "rejected")
        for prompt, answer in zip(data.texts["prompt"], data.texts[side])
    ]

    def ours():
        rows = Reader(data.tokenizer, LIMITS).pairs(data.texts, "chosen", "rejected")[0]
        pairs.score(model, rows, pairs.response_rewards, BATCH_TOKENS)

    return {
        "ours": ours,
        "TRL's evaluation": trl.evaluate,
        "transformers' pipeline": lambda: classify(texts, batch_size=batch),
    }


def sampling(data: Data, count: int, new_tokens: int) -> dict[str, Callable]:
    """Random weights hardly ever end a response by themselves; the ends are drawn by a rule with the world's mean length."""
    model, tokenizer = data.model().eval(), data.tokenizer
    with torch.no_grad():  # a response of random weights ends with probability 1/24 a token
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        model.lm_head.bias[tokenizer.eos_token_id] = float(np.log((len(tokenizer) - 1) / 23))
    ids = [row["prompt_ids"] for row in data.rows[:count]]
    budget, rows = 20_000, 200

    def in_buckets():
        for numbers in pairs.batches([len(i) + new_tokens for i in ids], budget):
            responses.generate(model, Reader(tokenizer, {}), [ids[i] for i in numbers], new_tokens, 1.0)

    @torch.inference_mode()
    def as_they_come():
        for start in range(0, len(ids), rows):
            batch = tokenizer.pad({"input_ids": ids[start : start + rows]}, padding_side="left", return_tensors="pt")
            model.generate(
                **batch, do_sample=True, top_k=0, max_new_tokens=new_tokens, pad_token_id=tokenizer.pad_token_id
            )

    return {"ours": in_buckets, "transformers, in the given order": as_they_come}


def weights(data: Data, batch: int) -> dict[str, Callable]:
    weighted, unweighted = our_trainer(data, batch, weights=True), our_trainer(data, batch)
    return {"ours, no weights": train(unweighted), "ours, weighted": train(weighted)}


def of_lengths(data: Data, count: int, tokens: int, prompt_share: float) -> Data:
    """Pairs of random tokens: ``tokens`` in both sequences of a pair together, of which the two prompts have a share."""
    made, rng = data.first(0), np.random.default_rng(0)
    prompt = round(tokens * prompt_share / 2)
    lengths = {"prompt_ids": prompt, "chosen_ids": tokens // 2 - prompt, "rejected_ids": tokens // 2 - prompt}
    more = {"weight": 1.0, "ref_chosen_logps": -50.0, "ref_rejected_logps": -50.0}
    made.rows = [
        {name: rng.integers(5, len(data.tokenizer), size).tolist() for name, size in lengths.items()} | more
        for _ in range(count)
    ]
    return made


def growth(data: Data, batch: int) -> dict[str, Callable]:
    """One TRL step function and ours on the same token rows."""
    settings = trainer_settings(batch)
    tokenised = [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in data.rows]

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset, *_):
            return dataset

    config = DPOConfig(**settings | {"train_sampling_strategy": "random"})
    dataset = Dataset.from_list(tokenised)
    trl = OnTokens(data.model(), data.model(), config, train_dataset=dataset, processing_class=data.tokenizer)
    return {"ours": train(our_trainer(data, batch)), "TRL as it comes": train(trl)}


def padding(data: Data, batch: int) -> dict[str, float]:
    """Share of positions that are padding: steps of ``batch`` pairs in the trainers, whole passes in the others."""
    trainer = our_trainer(data, batch)
    for step in torch.tensor(list(trainer._get_train_sampler())).split(batch):
        trainer.data_collator([data.rows[row] for row in step.tolist()])
    order = np.random.default_rng(0).permutation(len(data.rows))
    collate, filled, all_positions = DataCollatorForPreference(data.tokenizer.pad_token_id), 0, 0
    for start in range(0, len(order), batch):
        mask = collate([data.rows[row] for row in order[start : start + batch]])["attention_mask"]
        filled, all_positions = filled + mask.sum().item(), all_positions + mask.numel()
    return {"ours": trainer.padding_share(), "TRL as it comes": 1 - filled / all_positions}


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].partition(": ")[2] if names else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}"


def machine() -> str:
    return f"{processor()}, {THREADS} threads, no GPU; torch {torch.__version__}"


def main() -> None:
    torch.set_num_threads(THREADS)
    disable_progress_bars()
    table: list[dict] = []

    def measure(what: str, data: Data, sides: dict[str, Callable], rounds: int = 3, pads: dict | None = None) -> None:
        seconds = alternating(sides, rounds)
        ours = next(iter(seconds.values()))
        for side, median in seconds.items():
            row = {"what": what, "data": data.name, "pairs": len(data.rows), "side": side, "seconds": round(median, 3)}
            row |= {"pairs_a_second": round(len(data.rows) / median, 1), "ratio": round(median / ours, 3)}
            table.append(row | {"padding": round(pads[side], 3) if pads and side in pads else None})
            print("  ".join(f"{name} {value}" for name, value in table[-1].items() if value is not None), flush=True)

    world, file = from_world(4000), os.environ.get("WEAKLIB_HH_FILE")
    for data, batch, few, many in [(world, 32, 256, 1024)] + ([(from_file(file, 256), 8, 24, 48)] if file else []):
        measure("policy step", data.first(few), training(data.first(few), batch), 2, padding(data, batch))
        measure("reference pass", data.first(few), reference(data.first(few), batch))
        measure("labelling", data.first(many), labelling(data.first(many), 32))
    measure("weights", world.first(1024), weights(world.first(1024), 32), 5)
    measure("annotator step", world.first(256), annotators(world.first(256), 16))
    measure("text step", world.first(512), text_training(world.first(512), 16))
    measure("sampling", world.first(800), sampling(world, 800, 60))
    for pairs_count in (64, 256, 1024):
        some = of_lengths(world, pairs_count, 96, 0.5)
        measure(f"growth: {pairs_count} pairs", some, growth(some, 32), 1 if pairs_count > 500 else 2)
    for share in (0.25, 0.5, 0.75):
        some = of_lengths(world, 128, 192, share)
        measure(f"prompts are {share:.0%} of tokens", some, growth(some, 32), 2)

    missing = None if file else "the HH sample: WEAKLIB_HH_FILE names no file"
    record = {"date": date.today().isoformat(), "machine": machine(), "missing": missing, "rows": table}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n" + pd.DataFrame(table).to_markdown(index=False))
    print(f"\n{record['date']}, {record['machine']}" + (f"; missing: {missing}" if missing else ""))


if __name__ == "__main__":
    main()
