"""responses: one sampled response of a model to each prompt of a part."""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from transformers import GenerationConfig

from weaklib.training.language_models import batches, load_causal_lm, load_tokenizer, prompt_ids

# Tokens after which responses that have ended leave the batch.
STRIDE = 8


def run(out: Path, *, model: Path, task: Path, part: str, sampling: dict, limits: dict, seed: int, device: str) -> None:
    """Writes ``responses.parquet``: ``prompt``, ``response``, ``token_ids`` with the end, ``ended`` by itself."""
    tokenizer, network = load_tokenizer(model), load_causal_lm(model, device).eval()
    network.generation_config = GenerationConfig()  # nothing but what is said here: samples are to be the model's own
    prompts = pd.read_parquet(task / "prompts.parquet").query("part == @part")["prompt"].tolist()
    ids, longest = prompt_ids(tokenizer, prompts, limits), sampling["max_new_tokens"]
    responses: list[list[int]] = [[]] * len(prompts)
    torch.manual_seed(seed)
    for numbers in batches([len(i) + longest for i in ids], sampling["batch_tokens"]):
        sampled = generate(network, tokenizer, [ids[i] for i in numbers], longest, sampling["temperature"])
        for i, response in zip(numbers, sampled, strict=True):
            responses[i] = response
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    frame = pd.DataFrame({"prompt": prompts, "response": texts, "token_ids": responses})
    frame["ended"] = [ids[-1] == tokenizer.eos_token_id for ids in responses]
    frame.to_parquet(out / "responses.parquet", index=False)


@torch.inference_mode()
def generate(network, tokenizer, prompts: list[list[int]], longest: int, temperature: float) -> list[list[int]]:
    """Sampled continuations by transformers' ``generate``, with their end; whoever has ended leaves the batch."""
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(network.device)
    sequences, mask, cache = padded["input_ids"], padded["attention_mask"], None
    start, end, running = sequences.shape[1], tokenizer.eos_token_id, torch.arange(len(prompts), device=network.device)
    said = sequences.new_full((len(prompts), longest), end)
    settings = {"eos_token_id": end, "pad_token_id": tokenizer.pad_token_id, "return_dict_in_generate": True}
    settings["logits_processor"] = [partial(draw, temperature=temperature)]
    while len(running):
        new = min(STRIDE, start + longest - sequences.shape[1])
        step = network.generate(sequences, attention_mask=mask, past_key_values=cache, max_new_tokens=new, **settings)
        sequences, cache = step.sequences, step.past_key_values
        mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)
        said[running, : sequences.shape[1] - start] = sequences[:, start:]
        if sequences.shape[1] == start + longest:
            break
        goes_on = (sequences[:, start:] != end).all(dim=1)
        running, sequences, mask = running[goes_on], sequences[goes_on], mask[goes_on]
        cache.batch_select_indices(goes_on.nonzero()[:, 0])
    return [response[: response.index(end) + 1] if end in response else response for response in said.tolist()]


def draw(input_ids: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Leaves each row one token, drawn from the softmax of its scores / ``temperature`` by inversion: one number a row.
    ``torch.multinomial``, by which ``generate`` samples, draws one for every token: on a CPU half of all sampling.
    """
    cumulative = (scores / temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    # cumulative ends near 1, not at it
    numbers = cumulative[:, -1:] * torch.rand(len(scores), 1, dtype=torch.float64, device=scores.device)
    drawn = torch.searchsorted(cumulative, numbers, right=True)
    return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
