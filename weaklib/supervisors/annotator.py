"""annotator: the weak LLM with a scalar head, trained on human-labelled pairs ([B]: Bradley-Terry)."""

from pathlib import Path

import pandas as pd
from peft import get_peft_model
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

from weaklib.training import language_models as lm
from weaklib.training.tokens import Reader, load_tokenizer
from weaklib.training.trainers import PairTrainer, adapters, train_and_save, trainer_settings


def run(out: Path, *, base: Path, labels: Path, training: dict, limits: dict, seed: int, device: str, **how) -> None:
    """Writes a sequence-classification folder with one output, the reward π_w(x, y); ``how``: trainer_settings."""
    config = RewardConfig(**trainer_settings(training, seed, device, out, **how))  # seeds the new head, too
    reader, (dtype, lora) = Reader(load_tokenizer(base), limits), adapters(training, "SEQ_CLS")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    model.score.float()  # learns in full beside adapters
    model = (get_peft_model(model, lora) if lora else model).to(device)
    rows, _ = reader.pairs(pd.read_parquet(labels / "labels.parquet"), "chosen", "rejected")
    batches = training["batch_tokens"]
    train_and_save(out, BradleyTerryTrainer, model, config, rows, reader.tokenizer, batch_tokens=batches)
    reader.save_cuts(out)


class BradleyTerryTrainer(PairTrainer, RewardTrainer):
    """Minimises −log σ(π_w(x, y⁺) − π_w(x, y⁻)) ([B]), as TRL's own trainer does."""

    def losses(self, batch):
        chosen, rejected = lm.response_rewards(self.model, batch)
        return -logsigmoid(chosen - rejected), chosen - rejected
