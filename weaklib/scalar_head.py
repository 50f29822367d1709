"""Rewards by a model with a scalar head: an annotator's, or those of a proxy of the gold reward."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from weaklib.language_models import load_tokenizer, prompt_ids, response_ids

BATCH = 128


@torch.inference_mode()
def rewards(folder: Path, prompts: list[str], responses: list[str], limits: dict, device: str) -> np.ndarray:
    """The model's reward of each response to its prompt, float64, shape (len(prompts),)."""
    tokenizer = load_tokenizer(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    ids = [
        prompt + response
        for prompt, response in zip(
            prompt_ids(tokenizer, prompts, limits["max_prompt_tokens"]),
            response_ids(tokenizer, responses, limits["max_response_tokens"]),
            strict=True,
        )
    ]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result = np.empty(len(ids))
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in numbers]}, padding_side="right", return_tensors="pt")
        result[numbers] = model(**batch.to(device)).logits.squeeze(-1).double().cpu().numpy()
    return result
