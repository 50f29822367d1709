"""Rewards by a model with a scalar head: an annotator's, or those of a proxy of the gold reward."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from weaklib.training.language_models import load, load_tokenizer, prompt_ids, response_ids, tokenize_pairs
from weaklib.training.pairs import batches, response_rewards, score


def rewards_of_pairs(folder: Path, pairs: pd.DataFrame, limits: dict, batch_tokens: int, device: str) -> np.ndarray:
    """The model's rewards of ``response_a`` and ``response_b`` of each row, float64, shape (2, len(pairs))."""
    rows = tokenize_pairs(load_tokenizer(folder), pairs, "response_a", "response_b", limits)
    return score(_load(folder, device), rows, response_rewards, batch_tokens)


@torch.inference_mode()
def rewards(
    folder: Path, prompts: list[str], responses: list[str], limits: dict, batch_tokens: int, device: str
) -> np.ndarray:
    """The model's reward of each response to its prompt, float64, shape (len(prompts),)."""
    tokenizer, model = load_tokenizer(folder), _load(folder, device)
    both = prompt_ids(tokenizer, prompts, limits), response_ids(tokenizer, responses, limits)
    ids = [prompt + response for prompt, response in zip(*both, strict=True)]
    result = np.empty(len(ids))
    for numbers in batches(list(map(len, ids)), batch_tokens):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in numbers]}, padding_side="right", return_tensors="pt")
        every = model.score(model.base_model(**batch.to(device)).last_hidden_state)[:, :, 0]
        # at the end of the response: the model's own forward looks for padding, which may be the token of the end, too
        ends = torch.tensor([len(ids[i]) - 1 for i in numbers], device=device)
        result[numbers] = every[torch.arange(len(numbers)), ends].double().cpu()
    return result


def _load(folder: Path, device: str) -> PreTrainedModel:
    model = load(AutoModelForSequenceClassification, folder, num_labels=1)
    model.score.to(model.dtype)  # one that was trained beside adapters is float32
    return model.to(device).eval()
