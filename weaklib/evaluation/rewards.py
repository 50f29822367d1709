"""rewards: the gold reward of each response: the world's program, a scalar head made here, or any reward model."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.preference_datasets import messages
from weaklib.data.world import WORLDS
from weaklib.training.language_models import batches


def run(out: Path, *, responses: Path, world: str = "", scalar_head=None, model: str = "", **scoring) -> None:
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``, by a world's name, the folder of a scalar
    head made here, or a ``model`` (folder, or hub id, and revision); ``scoring`` is what the last two need beside it.
    """
    sampled = pd.read_parquet(responses / "responses.parquet")
    texts = sampled["prompt"].tolist(), sampled["response"].tolist()
    if world:
        rewards = np.array(list(map(WORLDS[world].gold_reward, *texts)))
    elif scalar_head is not None:
        from weaklib.supervisors.scalar_head import rewards as rewards_of_head  # torch, which the world does without

        rewards = rewards_of_head(scalar_head, *texts, **scoring)
    else:
        rewards = rewards_of_model(model, *texts, **scoring)
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)


def rewards_of_model(
    model, prompts, responses, format, output: int, batch_tokens: int, device, revision=None
) -> np.ndarray:
    """Logit ``output`` of a sequence-classification model (folder, or hub id at its commit) of each response, float64.
    ``format``: ``text``, prompt and response as one text; ``text_pair``, as the two segments of an encoder; ``chat``,
    as messages through the model's own chat template. Padding is on the right, where neither an encoder's positions
    nor what a decoder sees depend on it. Raises ValueError where the model has no such logit, or no chat template.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    network = AutoModelForSequenceClassification.from_pretrained(model, revision=revision).to(device).eval()
    if output >= network.config.num_labels:
        raise ValueError(f"{model}: output {output} was asked for, it has {network.config.num_labels}")
    if format == "chat" and tokenizer.chat_template is None:
        raise ValueError(f"{model}: format chat was asked for, its tokenizer has no chat template")
    cut = {"truncation": True} if tokenizer.model_max_length < 1e6 else {}  # without a limit it is a huge number
    if format == "chat":
        encoded = tokenizer.apply_chat_template(list(map(messages, prompts, responses)), return_dict=True, **cut)
    elif format == "text_pair":
        encoded = tokenizer([p.strip() for p in prompts], [r.strip() for r in responses], **cut)
    else:
        encoded = tokenizer([p + r for p, r in zip(prompts, responses, strict=True)], **cut)
    pads = tokenizer.pad_token_id is not None  # without a padding token texts cannot share a batch
    network.config.pad_token_id = tokenizer.pad_token_id
    result = np.empty(len(prompts))
    for numbers in batches([len(ids) for ids in encoded["input_ids"]], batch_tokens if pads else 1):
        rows = {name: [values[i] for i in numbers] for name, values in encoded.items()}
        batch = tokenizer.pad(rows, padding=pads, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            result[numbers] = network(**batch.to(device)).logits[:, output].double().cpu()
    return result
