"""Pairs of responses in a model: two responses to one prompt in one sequence, batches without padding to speak of.

A pair is a row of ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` (:func:`weaklib.training.language_models.tokenize_pairs`); which response is called
chosen has no meaning where there is no label. Training, scoring and the reference pass all come through here.

In the *shared* form a pair is the one sequence [prompt, chosen, rejected], in which the rejected response does not see the chosen one
and its positions go on from the prompt's end; the prompt is computed once. In the *plain* form it is two sequences. Both give the
same numbers; the shared form is taken for the architectures that ``tests/test_pairs.py`` shows equal.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from weaklib.training.language_models import (
    load_causal_lm,
    load_tokenizer,
    token_logps,
    tokenize_pairs,
    without_adapters,
)

# Architectures shown equal in both forms, when they attend to everything before a token and rotate or embed its position alone.
SHARED = ("gpt_neox", "llama", "opt", "qwen2")

Batch = dict[str, torch.Tensor]


def form(model: PreTrainedModel) -> str:
    """``shared`` or ``plain``: how pairs are laid out for ``model``."""
    config = without_adapters(model).config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    equal = (
        config.model_type in SHARED
        and not getattr(config, "sliding_window", None)
        and rope not in ("dynamic", "longrope")  # angles that depend on the longest sequence of the batch
        and config._attn_implementation == "sdpa"  # others read a mask of pairs of tokens differently, or not at all
    )
    return "shared" if equal else "plain"


def length(row: dict, form: str) -> int:
    """Positions of a pair in its sequence (shared), or in the longer of its two (plain)."""
    chosen, rejected = len(row["chosen_ids"]), len(row["rejected_ids"])
    return len(row["prompt_ids"]) + (chosen + rejected if form == "shared" else max(chosen, rejected))


def tokens(row: dict, form: str) -> int:
    """Tokens of a pair that its model computes: in the plain form the prompt counts twice."""
    prompts = 1 if form == "shared" else 2
    return prompts * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def positions(rows: list[dict], form: str, batch_tokens: int) -> int:
    """Positions, padding counted, of the batches of ``rows``."""
    sequences = 1 if form == "shared" else 2
    batches = batches_of_pairs(rows, form, batch_tokens)
    return sum(len(batch) * sequences * max(length(rows[i], form) for i in batch) for batch in batches)


def batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of the rows of each batch: neighbours in length, at most ``batch_tokens`` with their padding (but one row at least)."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[number] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def batches_of_pairs(rows: list[dict], form: str, batch_tokens: int) -> Iterator[list[int]]:
    """The numbers of the rows of each batch of pairs."""
    sequences = 1 if form == "shared" else 2
    return batches([sequences * length(row, form) for row in rows], batch_tokens)


def collate(rows: list[dict], form: str) -> Batch:
    """A batch of B pairs.

    Returns:
        ``input_ids`` (R, T), with R = B (shared) or 2B (plain), padded on the right; ``segments`` (R, T): 0 in the prompt, 1 and 2 in
        the responses, −1 in the padding; ``positions`` (R, T), which restart after the prompt; and of the 2B responses, all chosen, then
        all rejected: their ``lengths`` (2B,), ``targets`` (sum of lengths,), their tokens; ``before_targets``, where in the flat (R·T)
        sequence each is predicted; ``ends`` (2B,), where each response ends in it.
    """
    if form == "shared":
        parts = [[row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] for row in rows]
    else:
        parts = [[row["prompt_ids"], row[side]] for side in ("chosen_ids", "rejected_ids") for row in rows]
    longest = max(sum(map(len, sequence)) for sequence in parts)
    ids, segments, positions = (torch.full((len(parts), longest), fill) for fill in (0, -1, 0))
    responses = [[], []]  # chosen and rejected: (tokens, where they are predicted, where the response ends)
    for number, (prompt, *answers) in enumerate(parts):
        tokens = prompt + [token for answer in answers for token in answer]
        ids[number, : len(tokens)] = torch.tensor(tokens)
        segments[number, : len(prompt)] = 0
        positions[number, : len(prompt)] = torch.arange(len(prompt))
        last_of_prompt, start = number * longest + len(prompt) - 1, len(prompt)
        for which, answer in enumerate(answers, start=1):
            end = start + len(answer)
            segments[number, start:end] = which
            positions[number, start:end] = torch.arange(len(prompt), len(prompt) + len(answer))
            first, last = number * longest + start, number * longest + end - 1
            side = which - 1 if form == "shared" else number >= len(rows)
            responses[side].append((answer, [last_of_prompt, *range(first, last)], last))
            start = end
    answers, before, ends = zip(*responses[0], *responses[1])
    batch = {"input_ids": ids, "segments": segments, "positions": positions, "ends": torch.tensor(ends)}
    batch["lengths"] = torch.tensor([len(answer) for answer in answers])
    batch["targets"] = torch.tensor([token for answer in answers for token in answer])
    return batch | {"before_targets": torch.tensor([position for some in before for position in some])}


@torch.inference_mode()
def score(model: PreTrainedModel, rows: list[dict], what: Callable, batch_tokens: int) -> np.ndarray:
    """``what`` (:func:`response_logps` or :func:`response_rewards`) of each row's two responses, float64: (2, len(rows))."""
    layout, result = form(model), np.empty((2, len(rows)))
    for numbers in batches_of_pairs(rows, layout, batch_tokens):
        batch = collate([rows[number] for number in numbers], layout)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        # mixed precision where the weights are bfloat16: as in training
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            result[:, numbers] = what(model, batch).double().cpu()
    return result


def logps_of_pairs(folder: Path, pairs: pd.DataFrame, limits: dict, batch_tokens: int, device: str) -> np.ndarray:
    """log π of ``response_a`` and ``response_b`` of each row under the model in ``folder``: (2, len(pairs))."""
    rows = tokenize_pairs(load_tokenizer(folder), pairs, "response_a", "response_b", limits)
    return score(load_causal_lm(folder, device).eval(), rows, response_logps, batch_tokens)


def response_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """log π(response | prompt) in nats, summed over the response's tokens: shape (2, B), chosen and rejected."""
    logps = token_logps(model, _inputs(batch, model), batch["before_targets"], batch["targets"])
    return torch.segment_reduce(logps, "sum", lengths=batch["lengths"]).view(2, -1)


def response_rewards(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The scalar head's reward at the end of each response: shape (2, B), chosen and rejected."""
    network = without_adapters(model)
    hidden = network.base_model(**_inputs(batch, model)).last_hidden_state.flatten(0, 1)
    return network.score(hidden[batch["ends"]]).float().view(2, -1)


def _inputs(batch: Batch, model: PreTrainedModel) -> dict:
    segments = batch["segments"]
    inputs = {"input_ids": batch["input_ids"], "use_cache": False}
    if form(model) == "plain":
        return inputs | {"attention_mask": (segments >= 0).long()}
    # a token sees itself and what is before it in the prompt and in its own response: (R, 1, T, T)
    seen, sees = segments[:, None, :], segments[:, :, None]
    mask = ((seen == 0) | (seen == sees)).tril()[:, None]
    return inputs | {"position_ids": batch["positions"], "attention_mask": mask}
