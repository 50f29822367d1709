"""What the stages that touch language models share: loading, tokens, log-probabilities."""

import json
from pathlib import Path

import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from weaklib.data.dialogue import messages

# Settings of architectures whose forward does more to the logits than apply the output embeddings.
_RESCALED_LOGITS = {"final_logit_softcapping", "logit_scale", "logits_scaling"}
_RESCALED_LOGITS |= {"lm_head_multiplier", "output_multiplier"}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def load_causal_lm(folder: Path, device: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    return load(AutoModelForCausalLM, folder, dtype=dtype or "auto").to(device)


def load(auto, folder: Path, **settings) -> PreTrainedModel:
    """A model of the store by ``auto.from_pretrained``; adapters (:func:`weaklib.training.trainers.trainable`) are put into
    theirs, unmerged: bfloat16 rounds small changes of a weight away.
    """
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return auto.from_pretrained(folder, **settings)
    from peft import PeftModel  # slow to import

    start = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    model = auto.from_pretrained((folder / start).resolve(), **settings)
    return PeftModel.from_pretrained(model, folder).get_base_model()


def save(out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A folder that ``from_pretrained`` loads."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def prompt_ids(tokenizer, prompts: list[str], limits: dict) -> list[list[int]]:
    """Tokens of each prompt, one at least; of a long one the end is kept, where the question is.

    A prompt is text in HH-RLHF's plain form, or goes through the model's chat template (``limits["dialogue"]`` is ``chat``).

    Raises:
        ValueError: a chat template is asked for, and the tokenizer has none.
    """
    if limits.get("dialogue") == "chat":
        if tokenizer.chat_template is None:
            raise ValueError(
                f"{tokenizer.name_or_path}: dialogue chat was asked for, its tokenizer has no chat template"
            )
        encoded = tokenizer.apply_chat_template(
            [messages(prompt) for prompt in prompts], add_generation_prompt=True, return_dict=True
        )
    else:
        encoded = tokenizer(prompts)
    first = [tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
    return [(ids or first)[-limits["max_prompt_tokens"] :] for ids in encoded["input_ids"]]


def response_ids(tokenizer, responses: list[str], limits: dict) -> list[list[int]]:
    """Tokens of each response with the end-of-text token; of a long one the beginning is kept."""
    if limits.get("dialogue") == "chat":
        responses = [response.strip() for response in responses]  # the template has set the space before it
    encoded = tokenizer(responses, add_special_tokens=False)["input_ids"]
    return [(ids + [tokenizer.eos_token_id])[: limits["max_response_tokens"]] for ids in encoded]


def tokenize_pairs(tokenizer, pairs: pd.DataFrame, first: str, second: str, limits: dict) -> list[dict]:
    """Prompt and two response columns of ``pairs`` → ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` of each row.

    This is the only place where a pair is truncated, so that every stage sees the same tokens.
    """
    prompts = prompt_ids(tokenizer, pairs["prompt"].tolist(), limits)
    chosen, rejected = (response_ids(tokenizer, pairs[side].tolist(), limits) for side in (first, second))
    return [
        {"prompt_ids": p, "chosen_ids": a, "rejected_ids": b} for p, a, b in zip(prompts, chosen, rejected, strict=True)
    ]


def token_logps(model: PreTrainedModel, inputs: dict, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p in nats of tokens that follow in a model's sequences: shape (K,).

    Args:
        inputs: what the model's forward takes, R sequences of T tokens.
        positions: of each token, where in the flat (R·T) sequences it is predicted; only there are logits computed, (K,).
        targets: the tokens, (K,).
    """
    network = without_adapters(model)
    if _RESCALED_LOGITS & {name for name, value in network.config.to_dict().items() if value is not None}:
        logits = network(**inputs).logits.flatten(0, 1)[positions]
        return -cross_entropy(logits.float(), targets, reduction="none")
    hidden = network.base_model(**inputs).last_hidden_state.flatten(0, 1)[positions]
    return -cross_entropy(network.get_output_embeddings()(hidden).float(), targets, reduction="none")


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """The model that LoRA's layers were put into, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
