"""sft: supervised fine-tuning on demonstrations; every policy's start and reference."""

from pathlib import Path

import pandas as pd
from datasets import Dataset
from trl import SFTConfig

from weaklib.training.language_models import load_causal_lm, load_tokenizer, prompt_ids, response_ids
from weaklib.training.trainers import TextTrainer, train_and_save, trainable, trainer_settings, weights_dtype


def run(
    out: Path,
    *,
    base: Path,
    training: dict,
    limits: dict,
    seed: int,
    device: str,
    task: Path | None = None,
    labels: Path | None = None,
    **execution,
) -> None:
    """Writes a model folder. The loss is on the responses only, as in TRL's prompt-completion form.

    What is learned are the demonstrations of ``task`` or, for the annotators of [A], the chosen responses of ``labels``.
    ``execution``: see :func:`weaklib.training.trainers.trainer_settings`.
    """
    tokenizer, model = load_tokenizer(base), load_causal_lm(base, device, weights_dtype(training))
    if labels is None:
        shown = pd.read_parquet(task / "demonstrations.parquet")
    else:
        shown = pd.read_parquet(labels / "labels.parquet").rename(columns={"chosen": "completion"})
    prompts = prompt_ids(tokenizer, shown["prompt"].tolist(), limits)
    responses = response_ids(tokenizer, shown["completion"].tolist(), limits)
    dataset = Dataset.from_list(
        [
            {"input_ids": p + r, "labels": [-100] * len(p) + r, "length": len(p) + len(r)}
            for p, r in zip(prompts, responses, strict=True)
        ]
    )
    config = SFTConfig(**trainer_settings(training, seed, device, out, **execution))
    model = trainable(model, training, "CAUSAL_LM")
    trainer = TextTrainer(model, config, train_dataset=dataset, processing_class=tokenizer)
    train_and_save(trainer, out, merge=True)  # adapters of policies belong to a whole model
