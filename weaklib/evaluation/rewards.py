"""rewards: the gold reward of each sampled response: the world's program, a scalar head made here, or any reward model."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.dialogue import messages
from weaklib.data.world import WORLDS
from weaklib.training.pairs import batches


def run(
    out: Path, *, responses: Path, world: str | None = None, scalar_head: Path | None = None, model: dict | None = None,
    **scoring,
) -> None:  # fmt: skip
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``.

    ``world`` names a world, ``scalar_head`` is a model made here, ``model`` a folder or hub id at its commit (``revision``); ``scoring`` is
    what :func:`weaklib.supervisors.scalar_head.rewards` or :func:`rewards_of_model` need beside it.
    """
    sampled = pd.read_parquet(responses / "responses.parquet")
    texts = sampled["prompt"].tolist(), sampled["response"].tolist()
    if world is not None:
        rewards = np.array(list(map(WORLDS[world].gold_reward, *texts)))
    elif scalar_head is not None:
        from weaklib.supervisors.scalar_head import rewards as rewards_of_head  # torch, which the world does without

        rewards = rewards_of_head(scalar_head, *texts, **scoring)
    else:
        rewards = rewards_of_model(**model, prompts=texts[0], responses=texts[1], **scoring)
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)


def rewards_of_model(
    model: str, prompts: list[str], responses: list[str], format: str, output: int, batch_tokens: int, device: str,
    revision: str | None = None,
) -> np.ndarray:  # fmt: skip
    """Logit ``output`` of any sequence-classification model (local folder, or hub id at its commit ``revision``) for each response to its
    prompt, float64, shape (len(prompts),).

    ``format``: ``text``, prompt and response as one text; ``text_pair``, as the two segments of an encoder; ``chat``, as messages
    through the model's own chat template. Padding is on the right, where neither an encoder's positions nor what a decoder
    sees depend on it.

    Raises:
        ValueError: the model has no such logit, or no chat template.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    network = AutoModelForSequenceClassification.from_pretrained(model, revision=revision).to(device).eval()
    if output >= network.config.num_labels:
        raise ValueError(f"{model}: output {output} was asked for, it has {network.config.num_labels}")
    encoded = _encode(tokenizer, prompts, responses, format)
    # without a padding token texts cannot share a batch
    budget = batch_tokens if tokenizer.pad_token_id is not None else 1
    network.config.pad_token_id = tokenizer.pad_token_id
    result = np.empty(len(prompts))
    for numbers in batches([len(ids) for ids in encoded["input_ids"]], budget):
        rows = {name: [values[i] for i in numbers] for name, values in encoded.items()}
        if budget > 1:
            batch = tokenizer.pad(rows, padding_side="right", return_tensors="pt")
        else:
            batch = BatchEncoding({name: torch.tensor(values) for name, values in rows.items()})
        with torch.inference_mode():
            result[numbers] = network(**batch.to(device)).logits[:, output].double().cpu()
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
