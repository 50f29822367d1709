"""responses: one sampled response of a model to each prompt of a part."""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from transformers import GenerationConfig

from weaklib.training.language_models import batches, load_causal_lm
from weaklib.training.tokens import Reader, load_tokenizer

# Tokens after which responses that have ended leave the batch.
STRIDE = 8


def run(out: Path, *, model: Path, task: Path, part: str, sampling: dict, limits: dict, seed: int, device: str) -> None:
    """Writes ``responses.parquet``: ``prompt, messages, response``, ``token_ids`` with the end, ``ended`` by itself."""
    reader, network = Reader(load_tokenizer(model), limits), load_causal_lm(model, device).eval()
    network.generation_config = GenerationConfig()  # nothing but what is said here: samples are to be the model's own
    prompts = pd.read_parquet(task / "prompts.parquet").query("part == @part")[["prompt", "messages"]]
    ids, longest = reader.prompts(prompts), sampling["max_new_tokens"]
    responses: list[list[int]] = [[]] * len(prompts)
    torch.manual_seed(seed)
    for numbers in batches([len(i) + longest for i in ids], sampling["batch_tokens"]):
        sampled = generate(network, reader, [ids[i] for i in numbers], longest, sampling["temperature"])
        for i, response in zip(numbers, sampled, strict=True):
            responses[i] = response
    texts = reader.tokenizer.batch_decode(responses, skip_special_tokens=True)
    ended = [ids[-1] in reader.ends for ids in responses]
    said = prompts.assign(response=texts, token_ids=responses, ended=ended)
    said.to_parquet(out / "responses.parquet", index=False)
    reader.save_cuts(out)


@torch.inference_mode()
def generate(network, reader: Reader, prompts: list[list[int]], longest: int, temperature: float) -> list[list[int]]:
    """Sampled continuations by transformers' ``generate``, with their end; whoever has ended leaves the batch."""
    tokenizer, ends = reader.tokenizer, reader.ends
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(network.device)
    sequences, mask, cache = padded["input_ids"], padded["attention_mask"], None
    start, running = sequences.shape[1], torch.arange(len(prompts), device=network.device)
    said, stops = sequences.new_full((len(prompts), longest), ends[0]), torch.tensor(ends, device=network.device)
    settings = {"eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id, "return_dict_in_generate": True}
    settings["logits_processor"] = [partial(draw, temperature=temperature)]
    while len(running):
        new = min(STRIDE, start + longest - sequences.shape[1])
        step = network.generate(sequences, attention_mask=mask, past_key_values=cache, max_new_tokens=new, **settings)
        sequences, cache = step.sequences, step.past_key_values
        mask = torch.cat([mask, mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])], dim=1)
        said[running, : sequences.shape[1] - start] = sequences[:, start:]
        if sequences.shape[1] == start + longest:
            break
        goes_on = ~torch.isin(sequences[:, start:], stops).any(dim=1)
        running, sequences, mask = running[goes_on], sequences[goes_on], mask[goes_on]
        cache.batch_select_indices(goes_on.nonzero()[:, 0])
    first = ((i for i, token in enumerate(response) if token in ends) for response in said.tolist())
    return [response[: next(end, longest) + 1] for response, end in zip(said.tolist(), first, strict=True)]


def draw(input_ids: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Leaves each row one token, drawn from the softmax of its scores / ``temperature`` by inversion: one number a row.
    ``torch.multinomial``, by which ``generate`` samples, draws one for every token: on a CPU half of all sampling.
    """
    cumulative = (scores / temperature).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    # cumulative ends near 1, not at it
    numbers = cumulative[:, -1:] * torch.rand(len(scores), 1, dtype=torch.float64, device=scores.device)
    drawn = torch.searchsorted(cumulative, numbers, right=True)
    return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
