"""kl: how far a policy has gone from its start, by the log-probabilities of what each of them says."""

from pathlib import Path

import pandas as pd

from weaklib.language_models import load_causal_lm, load_tokenizer, prompt_ids
from weaklib.pairs import response_logps, score
from weaklib.shards import Shards


def run(
    out: Path,
    *,
    policy: Path,
    start: Path,
    responses: Path,
    start_responses: Path,
    limits: dict,
    batch_tokens: int,
    device: str,
    shard_batches: int | None = None,
) -> None:
    """Writes ``kl.parquet``: ``prompt``, ``log_ratio`` = log π(y|x)/π_sft(y|x) of the policy's response y, and
    ``start_log_ratio``, the same of the start's response; in nats. The mean of the first estimates KL(π‖π_sft) from samples of π,
    the mean of the second −KL(π_sft‖π).
    """
    tokenizer = load_tokenizer(start)
    both = pd.read_parquet(responses / "responses.parquet").merge(
        pd.read_parquet(start_responses / "responses.parquet"),
        on="prompt",
        validate="one_to_one",
        suffixes=("", "_start"),
    )
    prompts = prompt_ids(tokenizer, both["prompt"].tolist(), limits)
    rows = [
        {"prompt_ids": prompt, "chosen_ids": list(sampled), "rejected_ids": list(of_start)}
        for prompt, sampled, of_start in zip(prompts, both["token_ids"], both["token_ids_start"], strict=True)
    ]
    logps = [
        score(
            load_causal_lm(model, device).eval(), rows, response_logps, batch_tokens, Shards(out, shard_batches, name)
        ).numpy()
        for name, model in (("policy", policy), ("start", start))
    ]
    log_ratio, start_log_ratio = (logps[0] - logps[1]).T
    frame = pd.DataFrame({"prompt": both["prompt"], "log_ratio": log_ratio, "start_log_ratio": start_log_ratio})
    frame.to_parquet(out / "kl.parquet", index=False)
