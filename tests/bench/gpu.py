"""How fast on a GPU: stages at the true sizes of OPT-125M and OPT-1.3B, with random weights, in bf16, ours against TRL.

Run by ``make bench-gpu``; prints tables and writes ``tests/bench/gpu.json``. Lengths come from the preference file in the HH form that
``WEAKLIB_HH_FILE`` names, or from the controlled world. What fails (no memory, no kernel) is a row that says why. ``--tiny --out FILE``
runs every part on the CPU, at a size at which the numbers mean nothing.
"""

import argparse
import gc
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from cold import cold_seconds
from datasets import Dataset, disable_progress_bars
from speed import Data, alternating, from_file, from_world, processor, whole_dialogues
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer, pipeline
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from weaklib.evaluation import responses
from weaklib.supervisors.annotator import BradleyTerryTrainer
from weaklib.training import language_models as pairs
from weaklib.training.language_models import token_logps
from weaklib.training.losses import preference_loss
from weaklib.training.policy import WeightedDPOTrainer
from weaklib.training.tokens import Reader
from weaklib.training.trainers import TextTrainer, train_and_save, trainer_settings

RESULTS = Path(__file__).with_suffix(".json")
LONGEST = 512  # tokens of a prompt with its response, as the papers filter
SECONDS = 480  # after which no part is begun
COUNTED = """\
Training keeps float32 weights and computes in bf16 (autocast), inference has bf16 weights; dropout is 0. tokens: of the sequences of \
each side's own form (shared: prompt, a, b; separate: the prompt twice), without padding, once. FLOPs: 2 a weight of the layers and \
token, 4·hidden a layer for each token that a token sees, 2·hidden·vocabulary a response token; three times that in training, and \
once more where the reference model runs in every step. peak GiB: weights, gradients, optimizer and activations of that side alone (of attention \
without the weights, which its sides share). \
ratio: seconds by those of the part's first side. TRL's precomputed references are computed before the clock starts."""


@dataclass
class Scale:
    """Sizes of the models and of the work."""

    device: str
    weak: dict
    strong: dict
    pairs: int
    step_pairs: int
    batch_tokens: int  # of ours at a time
    micro_pairs: int  # of TRL's at a time
    prompts: int
    new_tokens: int
    matrix: int
    rounds: int


# Zhang et al. 2022 (OPT), Table 1; the vocabulary and the positions of the published configurations.
_OPT = {"vocab_size": 50272, "max_position_embeddings": 2048, "dropout": 0.0}
OPT_125M = _OPT | {"hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072}
OPT_125M |= {"num_hidden_layers": 12, "num_attention_heads": 12}
OPT_1300M = _OPT | {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192}
OPT_1300M |= {"num_hidden_layers": 24, "num_attention_heads": 32}
TINY = {"vocab_size": 2000, "max_position_embeddings": 600, "dropout": 0.0, "hidden_size": 32}
TINY |= {"word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 2}

FULL_SCALE = Scale("cuda", OPT_125M, OPT_1300M, 768, 64, 8192, 8, 64, 512, 8192, 2)
TINY_SCALE = Scale("cpu", TINY, TINY, 4, 2, 256, 1, 2, 8, 64, 1)


@dataclass
class Side:
    """What is timed, and what it works through."""

    run: Callable[[], None]
    tokens: int
    flops: float


def work(size: dict, rows: list[dict], form: str, passes: int) -> tuple[int, float]:
    """Tokens of a pass over ``rows`` and the FLOPs of ``passes`` of them; ``form`` is shared, plain, or text (prompt and chosen)."""
    hidden, layers = size["hidden_size"], size["num_hidden_layers"]
    tokens = answered = seen = 0
    for row in rows:
        prompt, *answers = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        answers = answers[:1] if form == "text" else answers
        prompts = 1 if form == "shared" else len(answers)
        tokens += prompts * prompt + sum(answers)
        answered += sum(answers)
        seen += prompts * _causal(prompt) + sum(prompt * answer + _causal(answer) for answer in answers)
    weights = layers * (4 * hidden**2 + 2 * hidden * size["ffn_dim"])
    forward = 2 * weights * tokens + 4 * hidden * layers * seen + 2 * hidden * size["vocab_size"] * answered
    return tokens, float(passes * forward)


def _causal(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


class Bench:
    """The parts, and the rows they leave."""

    def __init__(self, scale: Scale, data: Data):
        self.scale, self.data, self.started = scale, data, time.monotonic()
        self.rows: list[dict] = []
        self.checks: list[dict] = []
        self.rate = self.matrix_rate()

    def network(self, size: dict, auto=AutoModelForCausalLM, dtype=torch.float32, **more):
        torch.manual_seed(0)
        end, pad = self.data.tokenizer.eos_token_id, self.data.tokenizer.pad_token_id
        config = AutoConfig.for_model("opt", **size, pad_token_id=pad, eos_token_id=end, bos_token_id=end, **more)
        with torch.device(self.scale.device):
            return auto.from_config(config, dtype=dtype)

    def settings(self, theirs: bool = False) -> dict:
        """Of a trainer; TRL's own order of the pairs, and its micro-batches, as large as ours."""
        scale = self.scale
        training = {"epochs": 1, "batch_size": scale.step_pairs, "learning_rate": 1e-5}
        settings = trainer_settings(training, 0, scale.device, Path(tempfile.gettempdir(), "bench")) | {"bf16": True}
        if theirs:
            steps = {"gradient_accumulation_steps": scale.step_pairs // scale.micro_pairs}
            settings |= {"train_sampling_strategy": "random", "per_device_train_batch_size": scale.micro_pairs} | steps
        return settings

    def matrix_rate(self) -> float:
        """FLOPs a second of a product of two large matrices."""
        size, products = self.scale.matrix, 20
        a, b = torch.randn(2, size, size, dtype=torch.bfloat16, device=self.scale.device)

        def multiply():
            for _ in range(products):
                a @ b

        return products * 2 * size**3 / alternating({"": self.synchronised(multiply)}, 5)[""]

    def synchronised(self, run: Callable) -> Callable:
        def synchronised():
            run()
            if self.scale.device == "cuda":
                torch.cuda.synchronize()

        return synchronised

    def measure(self, what: str, count: int, sides: dict[str, Callable[[], Side]]) -> None:
        """A row for each side; ``sides`` make them, so that one that cannot be made is a row, too."""
        ready, peaks, failed = {}, {}, {}
        for name, make in sides.items():
            if time.monotonic() - self.started > SECONDS:
                failed[name] = f"not run: {SECONDS} s were over"
                continue
            try:
                ready[name], peaks[name] = self.made_and_run(make)
            except Exception as error:  # one that fails must not take the others with it
                failed[name] = _reason(error)
            self.clean()
        seconds = alternating({name: self.synchronised(side.run) for name, side in ready.items()}, self.scale.rounds, 0)
        first = next(iter(sides))
        for name in sides:
            row = {"what": what, "side": name, "count": count}
            if name in ready:
                side, median = ready[name], seconds[name]
                row |= {"seconds": median, "a_second": count / median, "tokens_a_second": side.tokens / median}
                row |= {"tflops": side.flops / median / 1e12, "share_of_matrix_rate": side.flops / median / self.rate}
                row |= {"peak_gib": peaks[name], "ratio": median / seconds[first] if first in seconds else None}
            self.rows.append(row | {"failed": failed.get(name)})
            print("  ".join(f"{k} {_short(v)}" for k, v in self.rows[-1].items() if v is not None), flush=True)

    def made_and_run(self, make: Callable[[], Side]) -> tuple[Side, float | None]:
        """The side after its first run, and its peak memory in GiB (on a CPU None)."""
        if self.scale.device == "cpu":
            side = make()
            side.run()
            return side, None
        others = torch.cuda.memory_allocated()
        side = make()
        torch.cuda.reset_peak_memory_stats()
        self.synchronised(side.run)()
        return side, (torch.cuda.max_memory_allocated() - others) / 2**30

    def clean(self) -> None:
        gc.collect()
        if self.scale.device == "cuda":
            torch.cuda.empty_cache()

    def check(self, what: str, tolerance: float, difference: Callable[[], float]) -> None:
        """A row for a relative difference that must be within ``tolerance``."""
        row = {"what": what, "tolerance": tolerance, "difference": None, "holds": None, "failed": None}
        try:
            row["difference"] = difference()
            row["holds"] = row["difference"] <= tolerance
        except Exception as error:
            row["failed"] = _reason(error)
        self.clean()
        self.checks.append(row)
        print("  ".join(f"{k} {_short(v)}" for k, v in row.items() if v is not None), flush=True)

    # the parts

    def annotator(self) -> None:
        size, rows = self.scale.weak, self.data.rows
        head = {"auto": AutoModelForSequenceClassification, "num_labels": 1}

        def ours():
            more = {"batch_tokens": self.scale.batch_tokens, "train_dataset": Dataset.from_list(rows)}
            args = {"args": RewardConfig(**self.settings()), "processing_class": self.data.tokenizer}
            return training(BradleyTerryTrainer(self.network(size, **head), **more, **args))

        def theirs():
            dataset = Dataset.from_list(whole_dialogues(self.data))
            args = {"args": RewardConfig(**self.settings(theirs=True)), "processing_class": self.data.tokenizer}
            return training(RewardTrainer(self.network(size, **head), train_dataset=dataset, **args))

        without_logits = size | {"vocab_size": 0}
        sides = {
            "ours": lambda: Side(ours(), *work(without_logits, rows, "shared", 3)),
            "TRL's RewardTrainer": lambda: Side(theirs(), *work(without_logits, rows, "plain", 3)),
        }
        self.measure("OPT-125M annotator, training", len(rows), sides)

        def score():
            model = self.network(size, dtype=torch.bfloat16, **head).eval()
            return lambda: pairs.score(model, rows, pairs.response_rewards, self.scale.batch_tokens)

        def classify():
            model = self.network(size, dtype=torch.bfloat16, **head).eval()
            tools = {"model": model, "tokenizer": self.data.tokenizer, "device": self.scale.device}
            classifier = pipeline("text-classification", function_to_apply="none", **tools)
            whole = [
                p + r for s in ("chosen", "rejected") for p, r in zip(self.data.texts["prompt"], self.data.texts[s])
            ]
            return lambda: classifier(whole, batch_size=2 * self.scale.micro_pairs)

        sides = {
            "ours": lambda: Side(score(), *work(without_logits, rows, "shared", 1)),
            "transformers' pipeline": lambda: Side(classify(), *work(without_logits, rows, "plain", 1)),
        }
        self.measure("OPT-125M annotator, labelling", len(rows), sides)

    def sft(self) -> None:
        size, rows = self.scale.strong, self.data.rows

        def ours():
            dataset = [
                {
                    "input_ids": row["prompt_ids"] + row["chosen_ids"],
                    "labels": [-100] * len(row["prompt_ids"]) + row["chosen_ids"],
                    "length": len(row["prompt_ids"]) + len(row["chosen_ids"]),
                }
                for row in rows
            ]
            settings = self.settings(theirs=True) | {"train_sampling_strategy": "group_by_length"}
            more = {"train_dataset": Dataset.from_list(dataset), "processing_class": self.data.tokenizer}
            return training(TextTrainer(self.network(size), SFTConfig(**settings), **more))

        self.measure("OPT-1.3B SFT, training", len(rows), {"ours": lambda: Side(ours(), *work(size, rows, "text", 3))})

    def reference(self) -> None:
        size, rows = self.scale.strong, self.data.rows

        def ours():
            model = self.network(size, dtype=torch.bfloat16).eval()
            return lambda: pairs.score(model, rows, pairs.response_logps, self.scale.batch_tokens)

        def theirs():
            trl = self.trl(precomputed=True, dtype=torch.bfloat16)
            collate = DataCollatorForPreference(self.data.tokenizer.pad_token_id)

            def run():
                for start in range(0, len(rows), self.scale.micro_pairs):
                    batch = collate(rows[start : start + self.scale.micro_pairs])
                    trl.compute_ref_log_probs(trl.model, trl._prepare_inputs(batch))

            return run

        sides = {
            "ours": lambda: Side(ours(), *work(size, rows, "shared", 1)),
            "TRL": lambda: Side(theirs(), *work(size, rows, "plain", 1)),
        }
        self.measure("OPT-1.3B reference log-probs", len(rows), sides)

    def policy(self) -> None:
        size, rows = self.scale.strong, self.data.rows

        sides = {
            "ours": lambda: Side(training(self.cw_dpo(size, self.settings())), *work(size, rows, "shared", 3)),
            "TRL as it comes": lambda: Side(training(self.trl(False)), *work(size, rows, "plain", 4)),
            "TRL, references precomputed": lambda: Side(training(self.trl(True)), *work(size, rows, "plain", 3)),
        }
        self.measure("OPT-1.3B CW-DPO, training", len(rows), sides)

    def cw_dpo(self, size: dict, settings: dict) -> WeightedDPOTrainer:
        more = {"train_dataset": Dataset.from_list(self.weighted()), "processing_class": self.data.tokenizer}
        more |= {"objective": "dpo", "batch_tokens": self.scale.batch_tokens}
        return WeightedDPOTrainer(self.network(size), DPOConfig(**settings), **more)

    def weighted(self) -> list[dict]:
        return [row | {"weight": 0.5 + 0.5 * (number % 2)} for number, row in enumerate(self.data.rows)]

    def trl(self, precomputed: bool, dtype=torch.float32) -> DPOTrainer:
        config = DPOConfig(**self.settings(theirs=True), precompute_ref_log_probs=precomputed)
        dataset = Dataset.from_pandas(self.data.texts, preserve_index=False)
        model = self.network(self.scale.strong, dtype=dtype)
        reference = None if precomputed else self.network(self.scale.strong)
        return DPOTrainer(model, reference, config, train_dataset=dataset, processing_class=self.data.tokenizer)

    def attention(self) -> None:
        """Forms and masks of one policy step without its optimizer, and of a pass without gradients."""
        size, rows = self.scale.strong, self.data.rows[: self.scale.step_pairs]
        # side → form
        variants = {
            "shared, mask of the pairs": "shared",
            "separate, mask of the padding": "plain",
            "separate, no mask": "plain",  # what is padded on the right needs none
        }
        model = self.network(size)

        def step(name: str, gradients: bool) -> Side:
            form = variants[name]
            numbers = [some for some, _ in pairs.batches_of_pairs(rows, form, self.scale.batch_tokens)]
            batches = [self.batch([rows[n] for n in some], form) for some in numbers]

            def run():
                with nullcontext() if gradients else torch.inference_mode():
                    for batch in batches:
                        with torch.autocast(self.scale.device, torch.bfloat16):
                            logps = self.logps(model, batch, form, masked=name != "separate, no mask")
                            loss = preference_loss(*logps, *torch.zeros_like(logps), objective="dpo", beta=0.1).mean()
                        if gradients:
                            loss.backward()
                model.zero_grad()

            return Side(run, *work(size, rows, form, 3 if gradients else 1))

        for gradients in (True, False):
            what = "forward and backward" if gradients else "forward"
            sides = {name: partial(step, name, gradients) for name in variants}
            self.measure(f"OPT-1.3B attention, {what}", len(rows), sides)

    def batch(self, rows: list[dict], form: str) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.scale.device) for name, tensor in pairs.collate(rows, form).items()}

    def logps(self, model, batch: dict[str, torch.Tensor], form: str, masked: bool = True) -> torch.Tensor:
        """As :func:`weaklib.training.language_models.response_logps`, but in the form that is asked for."""
        if form == "shared":
            return pairs.response_logps(model, batch)
        mask = {"attention_mask": (batch["segments"] >= 0).long()} if masked else {}
        inputs = {"input_ids": batch["input_ids"], "use_cache": False} | mask
        logps = token_logps(model, inputs, batch["before_targets"], batch["targets"])
        return torch.segment_reduce(logps, "sum", lengths=batch["lengths"]).view(2, -1)

    def sampling(self) -> None:
        """Random weights hardly ever end a response: each is as long as it may be."""
        size, new = self.scale.strong, self.scale.new_tokens
        prompts = [row["prompt_ids"] for row in self.data.rows[: self.scale.prompts]]

        def ours():
            model = self.network(size, dtype=torch.bfloat16).eval()
            return lambda: responses.generate(model, Reader(self.data.tokenizer, {}), prompts, new, temperature=1.0)

        rows = [{"prompt_ids": ids, "chosen_ids": [0] * new, "rejected_ids": []} for ids in prompts]
        flops = work(size, rows, "text", 1)[1]
        sides = {f"ours, {new} tokens": lambda: Side(ours(), len(prompts) * new, flops)}
        self.measure("OPT-1.3B sampling", len(prompts), sides)

    def hh_file(self) -> None:
        """A notebook on real pairs from end to end, its models from scratch: seconds of the whole command."""
        row = {"what": "profile hh-file, notebook 05, one seed, end to end", "side": "ours", "failed": None}
        settings = ("--set", f"device={self.scale.device}", "seeds=[0]", "hardware.precision=bfloat16")
        left = SECONDS + 100 - (time.monotonic() - self.started)
        try:
            row["seconds"] = cold_seconds("hh-file", "05_top_confidence", *settings, timeout=left)
        except Exception as error:
            row["failed"] = _reason(error)
        self.rows.append(row)
        print("  ".join(f"{k} {_short(v)}" for k, v in row.items() if v is not None), flush=True)

    def correctness(self) -> None:
        rows, size, device = self.data.rows[: self.scale.step_pairs // 2 or 1], self.scale.weak, self.scale.device

        def precision() -> float:
            model = self.network(size).cpu()
            chosen, rejected = pairs.response_logps(model, pairs.collate(rows, "shared")).detach()
            references = chosen - 3, rejected + 3

            def loss(logps) -> float:
                losses = preference_loss(*logps.cpu(), *references, objective="dpo", beta=0.1)
                return (losses * torch.linspace(0.1, 1, len(rows))).mean().item()

            exact = loss(torch.stack([chosen, rejected]))
            model.to(device)
            with torch.no_grad(), torch.autocast(device, torch.bfloat16):
                return abs(loss(pairs.response_logps(model, self.batch(rows, "shared"))) - exact) / exact

        def continued() -> float:
            """Of the losses of a training that was stopped after half of its steps, the largest relative difference to one that was not."""
            half, curves = len(self.data.rows) // self.scale.step_pairs // 2, []
            with tempfile.TemporaryDirectory() as place:
                for out, stop in (("whole", None), ("stopped", half), ("stopped", None)):
                    folder = Path(place, out)
                    training = {"epochs": 1, "batch_size": self.scale.step_pairs, "learning_rate": 1e-4}
                    settings = trainer_settings(training, 0, self.scale.device, folder, checkpoint_steps=half)
                    config = DPOConfig(**settings | {"bf16": True, "logging_steps": 1})
                    kind, model, tokenizer = WeightedDPOTrainer, self.network(self.scale.weak), self.data.tokenizer
                    more = {"objective": "dpo", "batch_tokens": self.scale.batch_tokens}
                    more |= {"callbacks": [StopAfter(stop)] if stop else None}
                    train_and_save(folder, kind, model, config, self.weighted(), tokenizer, **more)
                    curves.append(pd.read_json(folder / "training_log.json")["loss"])
            whole, _, stopped = curves
            assert len(whole) == len(stopped) == 2 * half
            return float((stopped / whole - 1).abs().max())

        self.check("losses of a training that was stopped and went on, against one never stopped", 1e-3, continued)
        self.check("loss of a CW-DPO step, bf16 here against float32 on the CPU", 0.05, precision)


class StopAfter(TrainerCallback):
    def __init__(self, steps: int):
        self.steps = steps

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step == self.steps


def training(trainer: Trainer) -> Callable[[], None]:
    """A run of ``trainer`` that leaves nothing but the weights in memory, or the sides' optimizers would lie side by side."""
    trainer.remove_callback(PrinterCallback)

    def run():
        trainer.train()
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.accelerator.free_memory()
        trainer.model.zero_grad()

    return run


def machine(device: str) -> str:
    if device == "cpu":
        return f"{processor()}; torch {torch.__version__}"
    card = torch.cuda.get_device_properties(0)
    memory = math.floor(card.total_memory / 2**30)
    return f"{card.name} ({memory} GiB), {processor()}; torch {torch.__version__}, CUDA {torch.version.cuda}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _short(value):
    return f"{value:.4g}" if isinstance(value, float) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="every part on the CPU at a tiny size")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.tiny and options.out == RESULTS:
        parser.error("--tiny needs --out: its numbers are not for the repository")
    if not options.tiny and not torch.cuda.is_available():
        print(
            "no GPU: torch.cuda.is_available() is False (--tiny --out FILE runs every part on the CPU)", file=sys.stderr
        )
        return 2
    disable_progress_bars()
    gc.freeze()  # or each collection, of which a training makes several, goes through all that the libraries hold
    scale, file = (TINY_SCALE, None) if options.tiny else (FULL_SCALE, os.environ.get("WEAKLIB_HH_FILE"))
    some = scale.pairs * 4 // 3  # of which a few are too long
    data = from_file(file, some) if file else from_world(some)
    data = data.take([n for n, row in enumerate(data.rows) if pairs.length(row, "plain") <= LONGEST])
    data = data.first(scale.pairs)

    bench = Bench(scale, data)
    for part in ("correctness", "annotator", "policy", "reference", "sft", "sampling", "attention", "hh_file"):
        try:
            getattr(bench, part)()
        except Exception as error:
            bench.rows.append({"what": part, "failed": _reason(error)})
        bench.clean()
    prompt, chosen = (sum(len(row[n]) for row in data.rows) / len(data.rows) for n in ("prompt_ids", "chosen_ids"))
    record = {
        "date": date.today().isoformat(),
        "machine": machine(scale.device) + "; --tiny: the models have not the sizes they are named by" * options.tiny,
        "lengths": f"{data.name}: prompts of {prompt:.0f}, chosen responses of {chosen:.0f} tokens in the mean"
        + ("" if file else " (WEAKLIB_HH_FILE names no file)" * (not options.tiny)),
        "counted": COUNTED,
        "matrix_tflops": bench.rate / 1e12,
        "seconds": round(time.monotonic() - bench.started),
        "checks": bench.checks,
        "rows": bench.rows,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for table in (bench.checks, bench.rows):
        print("\n" + pd.DataFrame(table).to_markdown(index=False, floatfmt=".4g"))
    print(f"\n{COUNTED}\n\n{record['date']}, {record['machine']}: {record['matrix_tflops']:.4g} TFLOP/s measured")
    print(record["lengths"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
