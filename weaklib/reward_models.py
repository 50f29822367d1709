"""Gold rewards by any sequence-classification reward model: encoder or decoder, one logit or several, text or chat."""

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding

from weaklib.dialogue import messages
from weaklib.pairs import batches
from weaklib.shards import AT_ONCE, Shards


@torch.inference_mode()
def rewards(
    model: str,
    prompts: list[str],
    responses: list[str],
    format: str,
    output: int,
    batch_tokens: int,
    device: str,
    revision: str | None = None,
    shards: Shards = AT_ONCE,
) -> np.ndarray:
    """Logit ``output`` of ``model`` (local folder, or hub id at its commit ``revision``) for each response to its prompt, float64, shape (len(prompts),).

    ``format``: ``text``, prompt and response as one text; ``text_pair``, as the two segments of an encoder; ``chat``, as messages
    through the model's own chat template. Padding is on the right, where neither an encoder's positions nor what a decoder
    sees depend on it.

    Raises:
        ValueError: the model has no such logit, or no chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    network = AutoModelForSequenceClassification.from_pretrained(model, revision=revision).to(device).eval()
    if output >= network.config.num_labels:
        raise ValueError(f"{model}: output {output} was asked for, it has {network.config.num_labels}")
    encoded = _encode(tokenizer, prompts, responses, format)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    # without a padding token texts cannot share a batch
    budget = batch_tokens if tokenizer.pad_token_id is not None else 1
    network.config.pad_token_id = tokenizer.pad_token_id

    def scores_of(numbers: list[int]) -> list[float]:
        rows = {name: [values[i] for i in numbers] for name, values in encoded.items()}
        padded = tokenizer.pad(rows, padding_side="right", return_tensors="pt") if budget > 1 else _tensors(rows)
        return network(**padded.to(device)).logits[:, output].double().tolist()

    result = np.empty(len(prompts))
    every = list(batches(lengths, budget))
    for numbers, scores in zip(every, shards.map(scores_of, every), strict=True):
        result[numbers] = scores
    return result


def _encode(tokenizer, prompts: list[str], responses: list[str], format: str) -> dict[str, list[list[int]]]:
    cut = {"truncation": True} if tokenizer.model_max_length < 1e6 else {}  # without a limit it is a huge number
    if format == "text":
        return dict(tokenizer([p + r for p, r in zip(prompts, responses, strict=True)], **cut))
    if format == "text_pair":
        return dict(tokenizer([p.strip() for p in prompts], [r.strip() for r in responses], **cut))
    if tokenizer.chat_template is None:
        raise ValueError(f"{tokenizer.name_or_path}: format chat was asked for, its tokenizer has no chat template")
    dialogues = [messages(p, r) for p, r in zip(prompts, responses, strict=True)]
    return dict(tokenizer.apply_chat_template(dialogues, tokenize=True, return_dict=True, **cut))


def _tensors(rows: dict[str, list[list[int]]]):
    return BatchEncoding({name: torch.tensor(values) for name, values in rows.items()})
