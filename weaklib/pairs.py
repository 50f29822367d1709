"""Pairs of responses in a model: two responses to one prompt in one sequence, batches without padding to speak of.

A pair is a row of ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` (:func:`weaklib.language_models.tokenize_pairs`); which response is called
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
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from weaklib.language_models import load_causal_lm, load_tokenizer, token_logps, tokenize_pairs, without_adapters
from weaklib.shards import AT_ONCE, Shards

# Architectures shown equal in both forms, when they attend to everything before a token and rotate or embed its position alone.
SHARED = ("gpt_neox", "llama", "opt", "qwen2")

# Attention that reads a mask of pairs of tokens alike; others read it differently, or not at all.
MASKED = ("sdpa", "flex_attention")

Batch = dict[str, torch.Tensor]


def form(model: PreTrainedModel) -> str:
    """``shared`` or ``plain``: how pairs are laid out for ``model``."""
    config = without_adapters(model).config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    equal = (
        config.model_type in SHARED
        and not getattr(config, "sliding_window", None)
        and rope not in ("dynamic", "longrope")  # angles that depend on the longest sequence of the batch
        and config._attn_implementation in MASKED
    )
    return "shared" if equal else "plain"


def use_block_masks(model: PreTrainedModel) -> None:
    """On a GPU, has a model whose pairs are shared read their mask in blocks (FlexAttention), where its kernel can.

    A dense mask takes a slower kernel and T² memory. FlexAttention knows no dropout, no heads of fewer than 16 dimensions, and
    no backward pass on a CPU.
    """
    network = without_adapters(model)
    config = network.config
    dimensions = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if network.device.type == "cuda" and form(model) == "shared" and dimensions >= 16 and not config.attention_dropout:
        # it is compiled anew for each size of model and for batches of one row; past the limit a slow one is taken silently
        torch._dynamo.config.recompile_limit = 64
        network.set_attn_implementation("flex_attention")


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
    lengths = [sequences * length(row, form) for row in rows]
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches(lengths, batch_tokens))


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


def batches_of_pairs(rows: list[dict], form: str, batch_tokens: int) -> Iterator[tuple[list[int], Batch]]:
    """The numbers of the rows of each batch, and the batch."""
    for numbers in numbers_of_batches(rows, form, batch_tokens):
        yield numbers, collate([rows[number] for number in numbers], form)


def numbers_of_batches(rows: list[dict], form: str, batch_tokens: int) -> Iterator[list[int]]:
    """The numbers of the rows of each batch of pairs."""
    sequences = 1 if form == "shared" else 2
    return batches([sequences * length(row, form) for row in rows], batch_tokens)


def collate(rows: list[dict], form: str, multiple: int = 1) -> Batch:
    """A batch of B pairs, padded to a ``multiple`` of positions.

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
    longest += -longest % multiple
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
    return {
        "input_ids": ids,
        "segments": segments,
        "positions": positions,
        "lengths": torch.tensor([len(answer) for answer in answers]),
        "targets": torch.tensor([token for answer in answers for token in answer]),
        "before_targets": torch.tensor([position for some in before for position in some]),
        "ends": torch.tensor(ends),
    }


@torch.inference_mode()
def score(
    model: PreTrainedModel, rows: list[dict], what: Callable, batch_tokens: int, shards: Shards = AT_ONCE
) -> torch.Tensor:
    """``what`` (:func:`response_logps` or :func:`response_rewards`) of each row's two responses, float64 on the CPU: (len(rows), 2)."""
    use_block_masks(model)

    def values(numbers: list[int]) -> list[list[float]]:
        batch = collate([rows[number] for number in numbers], form(model))
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        # mixed precision where the weights are bfloat16: as in training
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            return what(model, batch).T.double().tolist()

    result = torch.empty(len(rows), 2, dtype=torch.float64)
    every = list(numbers_of_batches(rows, form(model), batch_tokens))
    for numbers, scores in zip(every, shards.map(values, every), strict=True):
        result[numbers] = torch.tensor(scores, dtype=torch.float64)
    return result


def logps_of_pairs(
    folder: Path, pairs: pd.DataFrame, limits: dict, batch_tokens: int, device: str, shards: Shards = AT_ONCE
) -> np.ndarray:
    """log π of ``response_a`` and ``response_b`` of each row under the model in ``folder``: (2, len(pairs))."""
    rows = tokenize_pairs(load_tokenizer(folder), pairs, "response_a", "response_b", limits)
    return score(load_causal_lm(folder, device).eval(), rows, response_logps, batch_tokens, shards).T.numpy()


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
    blocks = without_adapters(model).config._attn_implementation == "flex_attention"
    mask = _block_mask(segments) if blocks else _dense_mask(segments)
    return inputs | {"position_ids": batch["positions"], "attention_mask": mask}


def _dense_mask(segments: torch.Tensor) -> torch.Tensor:
    """A token sees itself and what is before it in the prompt and in its own response: (R, 1, T, T)."""
    seen, sees = segments[:, None, :], segments[:, :, None]
    return ((seen == 0) | (seen == sees)).tril()[:, None]


def _block_mask(segments: torch.Tensor) -> BlockMask:
    """The same as blocks, of which those that nobody sees are skipped."""

    def visible(row, head, sees, seen):
        return (seen <= sees) & ((segments[row, seen] == 0) | (segments[row, seen] == segments[row, sees]))

    rows, longest = segments.shape
    return create_block_mask(visible, rows, None, longest, longest, segments.device)
