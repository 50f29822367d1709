"""responses: one sampled response of a model to each prompt of a part."""

from pathlib import Path

import pandas as pd
import torch

from weaklib.language_models import load_causal_lm, load_tokenizer, prompt_ids
from weaklib.pairs import batches


@torch.inference_mode()
def run(out: Path, *, model: Path, task: Path, part: str, sampling: dict, limits: dict, seed: int, device: str) -> None:
    """Writes ``responses.parquet``: ``prompt``, ``response``, ``tokens`` (without the end), ``ended`` by itself."""
    tokenizer, network = load_tokenizer(model), load_causal_lm(model, device).eval()
    prompts = pd.read_parquet(task / "prompts.parquet").query("part == @part")["prompt"].tolist()
    ids = prompt_ids(tokenizer, prompts, limits["max_prompt_tokens"])
    responses: list[list[int]] = [[]] * len(ids)
    torch.manual_seed(seed)
    for numbers in batches([len(i) + sampling["max_new_tokens"] for i in ids], sampling["batch_tokens"]):
        batch = tokenizer.pad({"input_ids": [ids[i] for i in numbers]}, padding_side="left", return_tensors="pt")
        generated = network.generate(
            **batch.to(device),
            do_sample=True,
            temperature=sampling["temperature"],
            top_k=0,
            top_p=1.0,
            max_new_tokens=sampling["max_new_tokens"],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for i, sequence in zip(numbers, generated[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            responses[i] = sequence
    ends = [r.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in r else len(r) for r in responses]
    pd.DataFrame(
        {
            "prompt": prompts,
            "response": tokenizer.batch_decode([r[:end] for r, end in zip(responses, ends)], skip_special_tokens=True),
            "tokens": ends,
            "ended": [end < len(r) for r, end in zip(responses, ends)],
        }
    ).to_parquet(out / "responses.parquet", index=False)
