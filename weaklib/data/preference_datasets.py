"""Preference pairs of files, in any form that :mod:`weaklib.data.conversations` reads, and of published datasets."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
from huggingface_hub import errors, is_offline_mode, snapshot_download

from weaklib.data.conversations import completions, pair_of_row
from weaklib.data.errors import RequestError, no_use_of_a_proxy
from weaklib.data.files import local_folder

MET = ("rows", "bad_rows_dropped", "empty_responses", "prompts_differ", "prompts_repeated", "human_turns_cut")
CAUSES = {KeyError: "key {} is missing", json.JSONDecodeError: "not JSON: {}", ValueError: "{}"}
CAUSES |= {RecursionError: "nested too deeply", Exception: "not an object of this form: {}"}
# What is read of a parquet file; other columns may hold anything, and much of it.
COLUMNS = ("prompt", "chosen", "rejected", "messages", "system")
COLUMNS += ("info", "summaries", "choice", "score_chosen", "score_rejected")


def read_pairs(*paths: Path, on_bad_row: str = "error", pair_of: Callable = pair_of_row) -> tuple[pd.DataFrame, dict]:
    """Preference pairs of ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` files. ``pair_of`` reads a row, or returns ``None``
    and why, where it states no preference. Returns the pairs (responses may be empty) with the ``row`` of each, and
    counts of what was met: :data:`MET`, and ``dropped`` (why → rows without a pair). Raises RequestError where a file
    cannot be read or has no pairs, or a row is bad and ``on_bad_row`` is ``error``.
    """
    pairs, counts, dropped = [], dict.fromkeys(MET, 0), Counter()
    for path in paths:
        before, first_cause = len(pairs), ""
        for number, row in _rows(path):
            counts["rows"] += 1
            try:
                pair, met = pair_of(json.loads(row) if isinstance(row, str) else row)
            except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
                cause = next(CAUSES[kind] for kind in CAUSES if isinstance(error, kind)).format(error)
                if on_bad_row == "error":
                    raise RequestError(f"{path}: row {number}: {cause}") from None
                first_cause = first_cause or f": row {number}: {cause}"
                pair, met = None, {"bad_rows_dropped", cause.partition(": ")[0]}  # without the value that is to blame
            for what in met:
                (counts if what in counts else dropped)[what] += 1
            if pair is not None:
                counts["empty_responses"] += (not pair["chosen"].strip()) + (not pair["rejected"].strip())
                pairs.append(pair | {"row": number})
        if len(pairs) == before:
            raise RequestError(f"{path}: no preference pairs in it{first_cause}")
    return pd.DataFrame(pairs), counts | {"dropped": dict(dropped)}


def _rows(path: Path):
    """(number from 1, row) of each row; of JSON lines a row is its text."""
    try:
        if path.suffix == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            columns = [name for name in COLUMNS if name in file.schema_arrow.names]
            yield from enumerate(file.read(columns).to_pylist(), start=1)
        elif path.name.endswith((".jsonl", ".jsonl.gz")):
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="\n") as lines:
                yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        else:
            raise RequestError(f"{path}: not a .jsonl, .jsonl.gz or .parquet file")
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, pyarrow.ArrowException) as error:
        raise RequestError(f"{path}: cannot be read: {error}") from None


def _of_tldr(row: dict) -> tuple[dict | None, set[str]]:
    """A comparison of two summaries, in the form of Stiennon et al. (2020); or TRL's rows, which are in it already."""
    if "prompt" in row:
        return completions(row["prompt"], row["chosen"], row["rejected"]), set()
    info, choice = row["info"], row["choice"]
    if info.get("post") is None and info.get("article") is not None:
        return None, {"a CNN/DM article, not a post"}
    told = [info[key] for key in ("subreddit", "title", "post")]
    if None in told:
        raise ValueError(f"info has no subreddit, title or post: {told!r:.60}")
    chosen, rejected = (" " + row["summaries"][side]["text"].strip() for side in (choice, 1 - choice))
    prompt = "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:".format(*told)
    return completions(prompt, chosen, rejected), set()


def _of_ultrafeedback(row: dict) -> tuple[dict | None, set[str]]:
    """Two chats that differ in their last message; ``prompt`` repeats the first one and is not read."""
    (*prompt, chosen), (*other, rejected) = row["chosen"], row["rejected"]
    if row["score_chosen"] == row["score_rejected"] or chosen == rejected:
        return None, {"equal scores" if row["score_chosen"] == row["score_rejected"] else "equal responses"}
    if prompt != other or not chosen["role"] == rejected["role"] == "assistant":
        raise ValueError("the two chats differ in more than the last message, which is the assistant's")
    return pair_of_row({"prompt": prompt, "chosen": [chosen], "rejected": [rejected]})


# Published datasets: what a row says, and where files lie, by {part} and by the names of the training and test split.
# They are Anthropic/hh-rlhf; openai/summarize_from_feedback's comparisons as the hub converts them (a commit of
# refs/convert/parquet), or trl-lib/tldr-preference; HuggingFaceH4/ultrafeedback_binarized.
FORMS = {
    "hh-rlhf": (pair_of_row, "{part}/{split}.jsonl.gz", "train", "test"),
    "tldr": (_of_tldr, "comparisons/{split}/*.parquet or data/{split}-*.parquet", "train", "validation"),
    "ultrafeedback": (_of_ultrafeedback, "data/{split}-*.parquet", "train_prefs", "test_prefs"),
}


def locate(name: str, parts: list[str] | None, source: str, revision: str | None, download: bool = True) -> dict:
    """The files of ``train`` and ``test``, each a dict of their names in the dataset's repository → paths.
    Of a hub id only these are fetched, at its commit; without ``download`` they are looked for in the hub's cache.
    Raises RequestError: what is missing, and how to fetch it.
    """
    _, pattern, *names = FORMS[name]
    splits = zip(("train", "test"), names)
    places = [(split, pattern.format(part=part, split=its)) for split, its in splits for part in parts or [None]]
    patterns = [pattern for _, place in places for pattern in place.split(" or ")]
    wanted = {"repo_type": "dataset", "revision": revision, "allow_patterns": patterns}
    local, found = local_folder(source), {"train": {}, "test": {}}
    if local and not local.is_dir():
        raise RequestError(f"task.source {source!r}: no such folder, and not a hub id")
    try:
        with no_use_of_a_proxy():
            folder = local or Path(snapshot_download(source, **wanted, local_files_only=not download))
        for split, place in places:
            matches = sorted(path for pattern in place.split(" or ") for path in folder.glob(pattern))
            if not matches:
                raise RequestError(f"{folder}: no {place} in it, where {name} keeps its {split} pairs")
            found[split] |= {path.relative_to(folder).as_posix(): path for path in matches}
        return found
    except errors.HfHubHTTPError as error:
        cause = " ".join(str(error).split())
        raise RequestError(f"task.source: dataset {source} at revision {revision}: {cause}") from None
    except (errors.LocalEntryNotFoundError, RequestError) as error:
        if isinstance(error, RequestError) and (local or download and not is_offline_mode()):
            raise  # all of it is here, and it is another dataset
        missing = (
            f"dataset {source} is not in the hub's cache at revision {revision}, fetch it by: hf download {source}"
        )
        included = "".join(f" --include '{pattern}'" for pattern in patterns)
        raise RequestError(f"task.source: {missing} --repo-type dataset --revision {revision}{included}") from None


def dialogue_tokens(pairs: pd.DataFrame, tokenizer: str, revision: str | None) -> np.ndarray:
    """Tokens of each pair's prompt and longer response, shape (len(pairs),), with those put before a text."""
    from transformers import AutoTokenizer  # only here: it takes seconds

    encode = AutoTokenizer.from_pretrained(tokenizer, revision=None if local_folder(tokenizer) else revision)

    def tokens(texts: pd.Series, **settings) -> np.ndarray:
        batches = (texts[start : start + 1000].tolist() for start in range(0, len(texts), 1000))
        return np.array([len(ids) for batch in batches for ids in encode(batch, **settings)["input_ids"]])

    chosen, rejected = (tokens(pairs[side], add_special_tokens=False) for side in ("chosen", "rejected"))
    return tokens(pairs["prompt"]) + np.maximum(chosen, rejected)


def divide(pairs: pd.DataFrame, rng: np.random.Generator, **shares: float) -> dict[str, pd.DataFrame]:
    """The rows of each part: ``{part}_share`` of all prompts; ``pairs`` (D_l ∪ D_u) gets those that are left."""
    prompts = rng.permutation(pairs["prompt"].unique())
    ends = np.cumsum([round(share * len(prompts)) for _, share in sorted(shares.items())])
    parts = zip([*sorted(shares), "pairs"], np.split(prompts, ends))
    return {name.removesuffix("_share"): pairs[pairs["prompt"].isin(own)].reset_index(drop=True) for name, own in parts}


def draw(train: pd.DataFrame, test: pd.DataFrame, rng, max_pairs: int | None, test_prompts: int, **shares) -> dict:
    """A task's parts (:func:`divide`) of the pairs of ``train``, and its ``test`` prompts: of ``test`` without those of
    ``train``, drawn first, so that other settings leave them as they are. Raises RequestError for too few of any.
    """
    unseen = test.loc[~test["prompt"].isin(train["prompt"]), "prompt"].unique()
    if len(unseen) < test_prompts:
        there = f"the dataset's test split has {len(unseen)} that are no prompts of training pairs"
        raise RequestError(f"task.test_prompts is {test_prompts}: {there}")
    drawn = rng.permutation(unseen)[:test_prompts]
    if max_pairs is not None:
        train = train.iloc[np.sort(rng.permutation(len(train))[:max_pairs])]
    parts = divide(train, rng, **shares)
    for part, some in parts.items():
        if shares.get(f"{part}_share", 1.0) and some["prompt"].nunique() < 2:
            raise RequestError(f"task: {len(train)} training pairs are too few: {part} would have {len(some)}")
    return parts | {"test": drawn}
