"""Language models: loading, tokens, log-probabilities of texts and of pairs of responses in batches of like length.
A pair is a row of ``prompt_ids``, ``chosen_ids``, ``rejected_ids``; without a label the last two names mean nothing.
In the *shared* form it is one sequence, [prompt, chosen, rejected]: the rejected response does not see the chosen one,
its positions go on from the prompt's end, and the prompt is computed once. In the *plain* form it is two sequences."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel

from weaklib.training.tokens import Reader, load_tokenizer

# Settings of architectures whose forward does more to the logits than apply the output embeddings.
_RESCALED = {"final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier"}

# Both forms give the same numbers (tests/test_pairs.py) where other tokens touch one by its mask and position alone.
SHARED = ("gpt_neox", "llama", "opt", "qwen2")


def load_causal_lm(folder: Path, device: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    return load(AutoModelForCausalLM, folder, dtype=dtype or "auto").to(device)


def load(auto, folder: Path, **settings) -> PreTrainedModel:
    """A model of the store; adapters are put into theirs, unmerged: bfloat16 rounds small changes of a weight away."""
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return auto.from_pretrained(folder, **settings)
    from peft import PeftModel  # slow to import

    start = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    model = auto.from_pretrained((folder / start).resolve(), **settings)
    return PeftModel.from_pretrained(model, folder).get_base_model()


def load_whole(auto, source, **settings) -> PreTrainedModel:
    """A model from outside. Raises ValueError where it lacks a weight, which would be drawn at random."""
    model, found = auto.from_pretrained(source, output_loading_info=True, **settings)
    if lacking := sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"])):
        kind = type(model).__name__
        raise ValueError(f"{source}: as a {kind} it lacks {len(lacking)} weights, {lacking[0]} for one")
    return model


def token_logps(model: PreTrainedModel, inputs: dict, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p in nats of ``targets`` (K,) in R sequences of T tokens, ``inputs`` of the model's forward: shape (K,).
    ``positions`` (K,): where in the flat (R*T) sequences each is predicted; only there are logits computed."""
    network = without_adapters(model)
    if _RESCALED & {name for name, value in network.config.to_dict().items() if value is not None}:
        return -cross_entropy(network(**inputs).logits.flatten(0, 1)[positions].float(), targets, reduction="none")
    hidden = network.base_model(**inputs).last_hidden_state.flatten(0, 1)[positions]
    return -cross_entropy(network.get_output_embeddings()(hidden).float(), targets, reduction="none")


def without_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """The model that LoRA's layers were put into, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def form(model: PreTrainedModel) -> str:
    """``shared`` or ``plain``: how pairs are laid out for ``model``."""
    config = without_adapters(model).config
    equal = config.model_type in SHARED and not getattr(config, "sliding_window", None)
    equal &= config._attn_implementation == "sdpa"  # others read a mask of pairs of tokens differently, or not at all
    rope = getattr(config, "rope_parameters", None) or {}
    equal &= rope.get("rope_type") not in ("dynamic", "longrope")  # angles by the longest sequence of the batch
    return "shared" if equal else "plain"


def sequences(row: dict, form: str) -> list[list[list[int]]]:
    """The sequences of a pair, each as its parts: the prompt and one response or both."""
    prompt, *both = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
    return [[prompt, *both]] if form == "shared" else [[prompt, response] for response in both]


def length(row: dict, form: str) -> int:
    """Positions of a pair in its sequence (shared), or in the longer of its two (plain)."""
    return max(sum(map(len, parts)) for parts in sequences(row, form))


def batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of each batch: neighbours in length, at most ``batch_tokens`` with their padding (but one row at least)."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[number] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def batches_of_pairs(rows: list[dict], form: str, batch_tokens: int) -> Iterator[tuple[list[int], dict]]:
    """The numbers of the rows of each batch of pairs, and the batch (:func:`collate`)."""
    for numbers in batches([len(sequences(row, form)) * length(row, form) for row in rows], batch_tokens):
        yield numbers, collate([rows[number] for number in numbers], form)


def collate(rows: list[dict], form: str) -> dict[str, torch.Tensor]:
    """A batch of B pairs: ``input_ids`` (R, T), R = B or, in the plain form (all chosen, then all rejected), 2B, padded
    on the right; ``segments`` (R, T): 0 in prompts, 1 and 2 in responses, -1 in the padding; ``positions`` (R, T).
    Of the 2B responses, all chosen, then all rejected, ``lengths`` (2B,) and ``targets`` (their sum,), the tokens; in
    the flat (R*T) sequences ``before_targets``, where each is predicted, and ``ends`` (2B,), where a response ends."""
    laid_out = [parts for side in zip(*(sequences(row, form) for row in rows)) for parts in side]
    ids = pad_sequence([torch.tensor(sum(parts, [])) for parts in laid_out], batch_first=True)
    segments = [torch.tensor([segment for segment, part in enumerate(parts) for _ in part]) for parts in laid_out]
    segments = pad_sequence(segments, batch_first=True, padding_value=-1)
    first, second = segments == 1, segments == 2  # in the plain form there is no second
    positions = torch.arange(ids.shape[1]) - second * first.sum(1, keepdim=True)
    where = torch.cat([response.flatten().nonzero()[:, 0] for response in (first, second)])
    lengths = torch.cat([first.sum(1), second.sum(1)])
    lengths = lengths[lengths > 0]
    ends, before = lengths.cumsum(0) - 1, where - 1
    starts = where[ends - lengths + 1]  # a response's first token is predicted at the prompt's end
    before[ends - lengths + 1] += positions.flatten()[starts] - starts % ids.shape[1]
    batch = {"input_ids": ids, "segments": segments, "positions": positions * (segments >= 0), "lengths": lengths}
    return batch | {"targets": ids.flatten()[where], "before_targets": before, "ends": where[ends]}


@torch.inference_mode()
def score(model: PreTrainedModel, rows: list[dict], what: Callable, batch_tokens: int) -> np.ndarray:
    """``what``, response_logps or response_rewards, of the rows, float64 (2, len(rows)), as precise as in training."""
    result = np.empty((2, len(rows)))
    for numbers, batch in batches_of_pairs(rows, form(model), batch_tokens):
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            result[:, numbers] = what(model, batch).double().cpu()
    return result


def score_pairs(reader: Reader, model: PreTrainedModel, pairs: pd.DataFrame, what: Callable, batch_tokens: int):
    """``what`` of ``response_a`` and ``response_b``, (2, len(pairs)); missing where both are equal once cut."""
    rows, differ = reader.pairs(pairs, "response_a", "response_b")
    result = np.full((2, len(pairs)), np.nan)
    result[:, differ] = score(model.eval(), rows, what, batch_tokens)
    return result


def logps_of_pairs(folder: Path, pairs: pd.DataFrame, limits: dict, batch_tokens: int, device: str) -> np.ndarray:
    """log π of ``response_a`` and ``response_b`` of each row under the model in ``folder``: (2, len(pairs))."""
    return score_pairs(
        Reader(load_tokenizer(folder), limits), load_causal_lm(folder, device), pairs, response_logps, batch_tokens
    )


def response_logps(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """log π(response | prompt) in nats, summed over the response's tokens: shape (2, B), chosen and rejected."""
    logps = token_logps(model, _inputs(batch, model), batch["before_targets"], batch["targets"])
    return torch.segment_reduce(logps, "sum", lengths=batch["lengths"]).view(2, -1)


def response_rewards(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The scalar head's reward at the end of each response: shape (2, B), chosen and rejected."""
    network = without_adapters(model)
    hidden = network.base_model(**_inputs(batch, model)).last_hidden_state.flatten(0, 1)
    return network.score(hidden[batch["ends"]]).float().view(2, -1)


def _inputs(batch: dict, model: PreTrainedModel) -> dict:
    segments, inputs = batch["segments"], {"input_ids": batch["input_ids"], "use_cache": False}
    if form(model) == "plain":
        return inputs | {"attention_mask": (segments >= 0).long()}
    # a token sees itself and what is before it in the prompt and in its own response: (R, 1, T, T)
    mask = ((segments == 0)[:, None] | (segments[:, None] == segments[:, :, None])).tril()[:, None]
    return inputs | {"position_ids": batch["positions"], "attention_mask": mask}
