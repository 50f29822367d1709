"""annotator: the weak LLM with a scalar head, trained on human-labelled pairs ([B], Bradley-Terry loss)."""

from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from weaklib.language_models import load_tokenizer, tokenize_pairs, train_and_save, trainer_settings


def run(out: Path, *, base: Path, labels: Path, training: dict, limits: dict, seed: int, device: str) -> None:
    """Writes a sequence-classification folder with one output: the reward π_w(x, y)."""
    settings = trainer_settings(training, seed, device)  # seeds the new head, too
    tokenizer = load_tokenizer(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).to(device)
    rows = tokenize_pairs(tokenizer, pd.read_parquet(labels / "labels.parquet"), "chosen", "rejected", limits)
    # TRL's reward trainer takes whole dialogues
    dataset = Dataset.from_list(
        [
            {
                "chosen_ids": row["prompt_ids"] + row["chosen_ids"],
                "rejected_ids": row["prompt_ids"] + row["rejected_ids"],
                "length": row["length"],
            }
            for row in rows
        ]
    )
    trainer = RewardTrainer(model, RewardConfig(**settings), train_dataset=dataset, processing_class=tokenizer)
    train_and_save(trainer, out)
