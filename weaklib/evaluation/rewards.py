"""rewards: the gold reward of each response: the world's program, a scalar head made here, or any reward model."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.conversations import chat
from weaklib.data.files import save_json
from weaklib.data.world import WORLDS
from weaklib.training.language_models import batches


def run(out: Path, *, responses: Path, world: str = "", scalar_head=None, model: str = "", **scoring) -> None:
    """Writes ``rewards.parquet``: the responses with their ``gold_reward``, by a world's name, the folder of a scalar
    head made here, or a ``model`` (folder, or hub id, and revision); ``scoring`` is what the last two need beside it.
    """
    sampled, cuts = pd.read_parquet(responses / "responses.parquet"), {}
    if world:
        rewards = np.array(list(map(WORLDS[world].gold_reward, sampled["prompt"], sampled["response"])))
    elif scalar_head is not None:
        from weaklib.supervisors.scalar_head import rewards as rewards_of_head  # torch, which the world does without
        from weaklib.training.tokens import Reader, load_tokenizer

        reader = Reader(load_tokenizer(scalar_head), scoring.pop("limits"))
        rewards, cuts = rewards_of_head(reader, scalar_head, sampled, **scoring), reader.cuts
    else:
        rewards, cuts = rewards_of_model(model, sampled, **scoring)
    if cuts:
        save_json(cuts, out / "cuts.json")
    sampled.assign(gold_reward=rewards).to_parquet(out / "rewards.parquet", index=False)


def rewards_of_model(
    model, sampled: pd.DataFrame, format, output: int, batch_tokens: int, device, revision=None
) -> tuple[np.ndarray, dict]:
    """Logit ``output`` of a sequence-classification model (folder, or hub id at its commit) of each ``response`` to its
    ``prompt`` (and ``messages``), float64; and how many prompts were cut: from their left, to what the model can read.
    ``format``: ``text``, prompt and response as one text; ``text_pair``, as the two segments of an encoder; ``chat``,
    as messages through the model's own chat template. Padding is on the right, where neither an encoder's positions
    nor what a decoder sees depend on it. Raises ValueError where the model has no such logit, or no chat template, or
    where a response alone is longer than what it can read: of responses nothing is cut.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from weaklib.training.language_models import load_whole
    from weaklib.training.tokens import Reader

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, truncation_side="left")
    network = load_whole(AutoModelForSequenceClassification, model, revision=revision).to(device).eval()
    if output >= network.config.num_labels:
        raise ValueError(f"{model}: output {output} was asked for, it has {network.config.num_labels}")
    if format == "chat" and tokenizer.chat_template is None:
        raise ValueError(f"{model}: format chat was asked for, its tokenizer has no chat template")
    apart = Reader(tokenizer, {}).apart
    prompts, responses = sampled["prompt"].map(apart).tolist(), sampled["response"].map(apart).tolist()
    # without a limit of its own a tokenizer says a huge number; RoBERTa's positions begin after that of its padding
    positions = getattr(network.config, "max_position_embeddings", None) or 1 << 30
    positions -= network.config.pad_token_id + 1 if "roberta" in network.config.model_type else 0
    longest = min(limit for limit in (tokenizer.model_max_length, positions) if limit > 0)
    pair, how = format == "text_pair", {}
    if format == "chat":
        dialogues = (chat(apart(messages), said) for messages, said in zip(sampled["messages"], responses, strict=True))
        rendered = tokenizer.apply_chat_template(list(dialogues), tokenize=False)
        texts, how = [rendered], {"add_special_tokens": False}
        ends = [text[text.rfind(said.strip()) :] for text, said in zip(rendered, responses, strict=True)]
    else:
        both = [[p.strip() for p in prompts], [r.strip() for r in responses]]
        texts, ends = both if pair else [[p + r for p, r in zip(prompts, responses, strict=True)]], both[1]
    whole = tokenizer(*texts, **how)
    too_long = [len(ids) > longest for ids in whole["input_ids"]]
    if any(too_long):
        alone = tokenizer([end for end, long in zip(ends, too_long) if long], **how)["input_ids"]
        most = max(map(len, alone)) + (0 if how else tokenizer.num_special_tokens_to_add(pair=pair))
        if most > longest:
            raise ValueError(f"{model}: it reads {longest} tokens, and a response alone has {most}")
        whole = tokenizer(*texts, **how, truncation="only_first" if pair else True, max_length=longest)
        for ids, long in zip(whole["input_ids"], too_long):
            if how and long and tokenizer.bos_token_id is not None:  # a template's beginning was cut with the rest
                ids[0] = tokenizer.bos_token_id
    pads = tokenizer.pad_token_id is not None  # without a padding token texts cannot share a batch
    network.config.pad_token_id = tokenizer.pad_token_id
    result = np.empty(len(prompts))
    for numbers in batches([len(ids) for ids in whole["input_ids"]], batch_tokens if pads else 1):
        rows = {name: [values[i] for i in numbers] for name, values in whole.items()}
        batch = tokenizer.pad(rows, padding=pads, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            result[numbers] = network(**batch.to(device)).logits[:, output].double().cpu()
    return result, {"prompts_cut": sum(too_long)}
