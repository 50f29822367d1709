"""Rewards of a language model with a scalar head, as :mod:`weaklib.supervisors.annotator` trains it."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from weaklib.training import language_models as lm
from weaklib.training.tokens import Reader, load_tokenizer


def rewards_of_pairs(folder: Path, pairs: pd.DataFrame, limits: dict, batch_tokens: int, device: str) -> np.ndarray:
    """The model's rewards of ``response_a`` and ``response_b`` of each row, float64, shape (2, len(pairs))."""
    return lm.score_pairs(
        Reader(load_tokenizer(folder), limits), _load(folder, device), pairs, lm.response_rewards, batch_tokens
    )


@torch.inference_mode()
def rewards(reader: Reader, folder: Path, sampled: pd.DataFrame, batch_tokens: int, device: str) -> np.ndarray:
    """The model's reward of each ``response`` to its ``prompt``, float64, shape (len(sampled),)."""
    tokenizer, model = reader.tokenizer, _load(folder, device)
    both = reader.prompts(sampled), reader.responses(sampled["response"].tolist())
    ids = [prompt + response for prompt, response in zip(*both, strict=True)]
    result = np.empty(len(ids))
    for numbers in lm.batches(list(map(len, ids)), batch_tokens):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in numbers]}, padding_side="right", return_tensors="pt")
        every = model.score(model.base_model(**batch.to(device)).last_hidden_state)[:, :, 0]
        # at the end of the response: the model's own forward looks for padding, which may be the token of the end
        ends = batch["attention_mask"].sum(1, keepdim=True) - 1
        result[numbers] = every.gather(1, ends)[:, 0].double().cpu()
    return result


def _load(folder: Path, device: str) -> PreTrainedModel:
    model = lm.load(AutoModelForSequenceClassification, folder, num_labels=1)
    model.score.to(model.dtype)  # one that was trained beside adapters is float32
    return model.to(device).eval()
