"""responses: one sampled response of a model to each prompt of a part."""

from pathlib import Path

import pandas as pd
import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from weaklib.training.language_models import load_causal_lm, load_tokenizer, prompt_ids
from weaklib.training.pairs import batches

# Tokens after which responses that have ended leave the batch.
STRIDE = 8


def run(out: Path, *, model: Path, task: Path, part: str, sampling: dict, limits: dict, seed: int, device: str) -> None:
    """Writes ``responses.parquet``: ``prompt``, ``response``, ``token_ids`` (with the end), ``ended`` by itself; one seed draws all."""
    tokenizer, network = load_tokenizer(model), load_causal_lm(model, device).eval()
    network.generation_config = GenerationConfig()  # nothing but what is said here: samples are to be the model's own
    prompts = pd.read_parquet(task / "prompts.parquet").query("part == @part")["prompt"].tolist()
    ids, longest = prompt_ids(tokenizer, prompts, limits), sampling["max_new_tokens"]
    responses: list = [[]] * len(prompts)
    torch.manual_seed(seed)
    for numbers in batches([len(i) + longest for i in ids], sampling["batch_tokens"]):
        sampled = generate(network, tokenizer, [ids[i] for i in numbers], longest, sampling["temperature"])
        for i, response in zip(numbers, sampled, strict=True):
            responses[i] = response
    end = tokenizer.eos_token_id
    responses = [ids[: ids.index(end) + 1] if end in ids else ids for ids in responses]
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    ended = [ids[-1] == end for ids in responses]
    frame = pd.DataFrame({"prompt": prompts, "response": texts, "token_ids": responses, "ended": ended})
    frame.to_parquet(out / "responses.parquet", index=False)


@torch.inference_mode()
def generate(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """A sampled continuation of each prompt by transformers' ``generate``, in which whoever has ended leaves the batch."""
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(network.device)
    sequences, mask, cache = padded["input_ids"], padded["attention_mask"], None
    start, running = sequences.shape[1], list(range(len(prompts)))
    responses: list[list[int]] = [[]] * len(prompts)
    while running:
        generated = network.generate(
            input_ids=sequences,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=min(STRIDE, start + max_new_tokens - sequences.shape[1]),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            return_dict_in_generate=True,
            logits_processor=[Draw(temperature)],
        )
        sequences, cache = generated.sequences, generated.past_key_values
        mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)
        for i, response in zip(running, sequences[:, start:].tolist(), strict=True):
            responses[i] = response
        goes_on = (sequences[:, start:] != tokenizer.eos_token_id).all(dim=1)
        if sequences.shape[1] == start + max_new_tokens:
            break
        running = [i for i, more in zip(running, goes_on.tolist()) if more]
        sequences, mask = sequences[goes_on], mask[goes_on]
        cache.batch_select_indices(goes_on.nonzero()[:, 0])
    return responses


class Draw(LogitsProcessor):
    """Leaves each row one token, drawn from the softmax of its scores / ``temperature`` by inversion: one random number a row.

    ``torch.multinomial``, by which ``generate`` samples, draws one for every token of the vocabulary; on a CPU that is half of all sampling.
    """

    def __init__(self, temperature: float):
        self.temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        cumulative = (scores / self.temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        # cumulative ends near 1, not at it
        numbers = cumulative[:, -1:] * torch.rand(len(scores), 1, dtype=torch.float64, device=scores.device)
        drawn = torch.searchsorted(cumulative, numbers, right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
