"""kl: how far a policy has gone from its start, by the log-probabilities of what each of them says."""

from pathlib import Path

import pandas as pd

from weaklib.training.language_models import load_causal_lm, load_tokenizer, prompt_ids
from weaklib.training.pairs import response_logps, score


def run(
    out: Path, *, policy: Path, start: Path, responses: Path, start_responses: Path, limits: dict, batch_tokens: int,
    device: str,
) -> None:  # fmt: skip
    """Writes ``kl.parquet``: ``prompt``, ``log_ratio`` = log π(y|x)/π_sft(y|x) of the policy's response y, and
    ``start_log_ratio``, the same of the start's response; in nats. The mean of the first estimates KL(π‖π_sft) from samples of π,
    the mean of the second −KL(π_sft‖π).
    """
    tables = [pd.read_parquet(folder / "responses.parquet") for folder in (responses, start_responses)]
    both = tables[0].merge(tables[1], on="prompt", validate="one_to_one", suffixes=("", "_start"))
    prompts = prompt_ids(load_tokenizer(start), both["prompt"].tolist(), limits)
    rows = [
        {"prompt_ids": prompt, "chosen_ids": list(sampled), "rejected_ids": list(of_start)}
        for prompt, sampled, of_start in zip(prompts, both["token_ids"], both["token_ids_start"], strict=True)
    ]
    logps = [
        score(load_causal_lm(model, device).eval(), rows, response_logps, batch_tokens) for model in (policy, start)
    ]
    log_ratio, start_log_ratio = logps[0] - logps[1]
    frame = pd.DataFrame({"prompt": both["prompt"], "log_ratio": log_ratio, "start_log_ratio": start_log_ratio})
    frame.to_parquet(out / "kl.parquet", index=False)
