"""annotator: the weak LLM with a scalar head, trained on human-labelled pairs ([B], Bradley-Terry loss)."""

from pathlib import Path

import pandas as pd
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from weaklib.training.language_models import load_tokenizer, tokenize_pairs
from weaklib.training.pair_trainer import PairTrainer
from weaklib.training.pairs import response_rewards
from weaklib.training.trainers import trainable, trainer_settings, weights_dtype


def run(
    out: Path, *, base: Path, labels: Path, training: dict, limits: dict, seed: int, device: str, **execution
) -> None:
    """Writes a sequence-classification folder with one output: the reward π_w(x, y).

    ``execution``: see :func:`weaklib.training.trainers.trainer_settings`.
    """
    settings = trainer_settings(training, seed, device, out, **execution)  # seeds the new head, too
    tokenizer = load_tokenizer(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=weights_dtype(training))
    rows = tokenize_pairs(tokenizer, pd.read_parquet(labels / "labels.parquet"), "chosen", "rejected", limits)
    trainer = BradleyTerryTrainer(
        trainable(model, training, "SEQ_CLS").to(device),
        RewardConfig(**settings),
        batch_tokens=training["batch_tokens"],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train_and_save(out)


class BradleyTerryTrainer(PairTrainer, RewardTrainer):
    """Minimises −log σ(π_w(x, y⁺) − π_w(x, y⁻)) ([B]), as TRL's own trainer does."""

    def compute_loss(self, model, batch, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = response_rewards(self.model, batch)
        self._note(chosen - rejected)
        return -logsigmoid(chosen - rejected).sum() * batch["share"]
