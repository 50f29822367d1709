"""sft: supervised fine-tuning on demonstrations; every policy's start and reference."""

from pathlib import Path

import pandas as pd
from trl import SFTConfig

from weaklib.training import language_models as lm
from weaklib.training.tokens import Reader, load_tokenizer
from weaklib.training.trainers import TextTrainer, adapters, train_and_save, trainer_settings


def run(out: Path, *, base: Path, training, limits, seed, device, task=None, labels=None, **execution) -> None:
    """Writes a model folder. The loss is on responses only: the demonstrations of ``task`` or, for the annotators of
    [A], the chosen responses of ``labels``. ``execution``: of :func:`weaklib.training.trainers.trainer_settings`."""
    dtype, lora = adapters(training, "CAUSAL_LM")
    reader, model = Reader(load_tokenizer(base), limits), lm.load_causal_lm(base, device, dtype)
    shown = pd.read_parquet(task / "demonstrations.parquet" if task else labels / "labels.parquet")
    both = zip(reader.prompts(shown), reader.responses(shown["completion" if task else "chosen"].tolist()), strict=True)
    rows = [{"input_ids": prompt + response, "labels": [-100] * len(prompt) + response} for prompt, response in both]
    config = SFTConfig(**trainer_settings(training, seed, device, out, **execution))
    train_and_save(out, TextTrainer, model, config, rows, reader.tokenizer, peft_config=lora)
    reader.save_cuts(out)
