"""Sampling by vLLM, where it is installed: token ids in, token ids out, as with transformers' ``generate``."""

from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoModelForCausalLM

from weaklib.language_models import load, load_tokenizer, save


def sampler(model: Path, sampling: dict, limits: dict, scratch: Path):
    """A function of prompts (lists of token ids) and a seed that gives a response to each, with the end if it came to it.

    The weights are used in the precision they are stored in. Each prompt has a seed of its own, drawn by the given one, so
    that what it is answered does not depend on what vLLM batches it with.
    """
    from vllm import LLM, SamplingParams  # no requirement of the study: it needs a GPU

    if (model / "adapter_config.json").is_file():
        model = merged(model, scratch / "merged")
    engine = LLM(
        model=str(model),
        dtype=str(AutoConfig.from_pretrained(model).dtype).removeprefix("torch."),  # "auto" would halve float32
        max_model_len=limits["max_prompt_tokens"] + sampling["max_new_tokens"],
        generation_config="vllm",  # no settings that lie with the model
    )
    settings = {"temperature": sampling["temperature"], "top_p": 1.0, "top_k": 0}
    settings |= {"max_tokens": sampling["max_new_tokens"], "detokenize": False}

    def answers(prompts: list[list[int]], seed: int) -> list[list[int]]:
        seeds = np.random.SeedSequence(seed).generate_state(len(prompts)).tolist()
        outputs = engine.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            [SamplingParams(**settings, seed=one) for one in seeds],
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    return answers


def merged(model: Path, out: Path) -> Path:
    """A folder with the weights of a LoRA folder's model, its adapters merged into them."""
    save(out, load(AutoModelForCausalLM, model, merge=True), load_tokenizer(model))
    return out
