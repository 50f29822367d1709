"""annotator: the weak LLM with a scalar head, trained on human-labelled pairs ([B], Bradley-Terry loss)."""

from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig

from weaklib.language_models import load_tokenizer, tokenize_pairs, trainer_settings
from weaklib.preference_trainer import BradleyTerryTrainer


def run(out: Path, *, base: Path, labels: Path, training: dict, limits: dict, seed: int, device: str) -> None:
    """Writes a sequence-classification folder with one output: the reward π_w(x, y)."""
    settings = trainer_settings(training, seed, device)  # seeds the new head, too
    tokenizer = load_tokenizer(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).to(device)
    rows = tokenize_pairs(tokenizer, pd.read_parquet(labels / "labels.parquet"), "chosen", "rejected", limits)
    trainer = BradleyTerryTrainer(
        model,
        RewardConfig(**settings),
        batch_tokens=training["batch_tokens"],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train_and_save(out)
