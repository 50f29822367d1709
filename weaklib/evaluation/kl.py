"""kl: how far a policy has gone from its start, by the log-probabilities of what each of them says."""

from pathlib import Path

import pandas as pd

from weaklib.training.language_models import load_causal_lm, response_logps, score
from weaklib.training.tokens import Reader, load_tokenizer


def run(out: Path, *, policy, start, responses, start_responses, limits: dict, batch_tokens: int, device: str) -> None:
    """Writes ``kl.parquet``: ``prompt``, ``log_ratio`` = log π(y|x)/π_sft(y|x) of the policy's response y, and
    ``start_log_ratio``, the same of the start's; in nats. The mean of the first estimates KL(π‖π_sft), that of the
    second −KL(π_sft‖π).
    """
    tables = [pd.read_parquet(folder / "responses.parquet") for folder in (responses, start_responses)]
    both = tables[0].merge(tables[1], on="prompt", validate="one_to_one", suffixes=("", "_start"))
    ids = pd.DataFrame({"prompt_ids": Reader(load_tokenizer(start), limits).prompts(both)})
    ids["chosen_ids"], ids["rejected_ids"] = both["token_ids"].map(list), both["token_ids_start"].map(list)
    rows, models = ids.to_dict("records"), (policy, start)
    logps = [score(load_causal_lm(model, device).eval(), rows, response_logps, batch_tokens) for model in models]
    both["log_ratio"], both["start_log_ratio"] = logps[0] - logps[1]
    both[["prompt", "log_ratio", "start_log_ratio"]].to_parquet(out / "kl.parquet", index=False)
