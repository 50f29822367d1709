"""Published preference datasets: where their files lie, what a row of each says, and how a task is drawn from them.

========================================= =====================================================================
``hh-rlhf``                               Anthropic/hh-rlhf: two whole dialogues, in folders by kind
``tldr``                                  openai/summarize_from_feedback, comparisons, in the hub's own conversion to parquet
                                          (a commit of ``refs/convert/parquet``); or trl-lib/tldr-preference
``ultrafeedback``                         HuggingFaceH4/ultrafeedback_binarized, the ``_prefs`` splits
========================================= =====================================================================
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.errors import BadFile, LeftOut
from weaklib.data.files import local_folder
from weaklib.data.preference_files import divide, pair_of_row, read_pairs

# Texts that are tokenised at once.
_BATCH = 1000


def _of_tldr(row: dict) -> tuple[dict, set[str]]:
    """A comparison of two summaries, put in the form of Stiennon et al. (2020); or TRL's rows, which are in it already."""
    if "prompt" in row:
        return pair_of_row(row)
    info, choice = _value(row, "info"), _value(row, "choice")
    if isinstance(info, dict) and info.get("post") is None and info.get("article") is not None:
        raise LeftOut("a CNN/DM article, not a post")
    subreddit, title, post = (_value(row, "info", key) for key in ("subreddit", "title", "post"))
    if choice not in (0, 1):
        raise ValueError(f"choice is neither 0 nor 1: {choice!r}")
    summaries = [" " + _value(row, "summaries", number, "text").strip() for number in (choice, 1 - choice)]
    prompt = f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
    return pair_of_row({"prompt": prompt, "chosen": summaries[0], "rejected": summaries[1]})


def _of_ultrafeedback(row: dict) -> tuple[dict, set[str]]:
    """Two chats that differ in their last message; ``prompt`` repeats the first one and is not read."""
    chosen, rejected = _value(row, "chosen"), _value(row, "rejected")
    for side, chat in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(chat, list) or _value(row, side, -1, "role") != "assistant":
            raise ValueError(f"{side} is no chat that the assistant ends: {chat!r:.60}")
    if _value(row, "score_chosen") == _value(row, "score_rejected"):
        raise LeftOut("equal scores")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("the two chats have different prompts")
    if chosen == rejected:
        raise LeftOut("equal responses")
    return pair_of_row({"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]})


def _value(row: dict, *path: str | int):
    """What lies at ``path`` in nested columns.

    Raises:
        ValueError: nothing does; the line says up to where.
    """
    for depth, step in enumerate(path, start=1):
        try:
            row = row[step]
        except (KeyError, IndexError, TypeError):
            row = None
        if row is None:
            raise ValueError(f"key {'.'.join(map(str, path[:depth]))!r} is missing")
    return row


@dataclass(frozen=True)
class Form:
    pair_of: Callable[[dict], tuple[dict, set[str]]]
    # where the files of a split may lie, the first place that has any; {part}: in each of the task's parts
    train: tuple[str, ...]
    test: tuple[str, ...]


FORMS = {
    "hh-rlhf": Form(pair_of_row, ("{part}/train.jsonl.gz",), ("{part}/test.jsonl.gz",)),
    "tldr": Form(
        _of_tldr,
        ("comparisons/train/*.parquet", "data/train-*.parquet"),
        ("comparisons/validation/*.parquet", "data/validation-*.parquet"),
    ),
    "ultrafeedback": Form(_of_ultrafeedback, ("data/train_prefs-*.parquet",), ("data/test_prefs-*.parquet",)),
}


def locate(
    name: str, parts: list[str] | None, source: str, revision: str | None, download: bool = True
) -> dict[str, dict[str, Path]]:
    """The files of ``train`` and ``test``, by their names in the dataset's repository.

    Args:
        source: a folder, or a hub id; of a hub id only these files are fetched, at the commit ``revision``, unless the hub's cache has them.
        download: False for looking into the cache alone.

    Raises:
        BadFile: what is missing, and for a hub id the command that fetches it.
    """
    if folder := local_folder(source):
        if not folder.is_dir():
            raise BadFile(f"task.source {source!r}: no such folder, and not a hub id")
        return _files(folder, name, parts)

    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [pattern for split in ("train", "test") for some in _places(name, parts, split) for pattern in some]
    wanted = {"repo_type": "dataset", "revision": revision, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(source, **wanted, local_files_only=not download))
        return _files(folder, name, parts)
    except (LocalEntryNotFoundError, BadFile) as error:
        if isinstance(error, BadFile) and download and not is_offline_mode():
            raise  # all of it is here, and it is another dataset
        included = " ".join(f"--include '{pattern}'" for pattern in patterns)
        raise BadFile(
            f"task.source: dataset {source} is not in the hub's cache at revision {revision}, fetch it by: "
            f"hf download {source} --repo-type dataset --revision {revision} {included}"
        ) from None
    except HfHubHTTPError as error:
        raise BadFile(f"task.source: dataset {source} at revision {revision}: {' '.join(str(error).split())}") from None


def _files(folder: Path, name: str, parts: list[str] | None) -> dict[str, dict[str, Path]]:
    found = {"train": {}, "test": {}}
    for split, files in found.items():
        for places in _places(name, parts, split):
            here = next((matches for place in places if (matches := sorted(folder.glob(place)))), None)
            if here is None:
                raise BadFile(f"{folder}: no {' or '.join(places)} in it, where {name} keeps its {split} pairs")
            files |= {path.relative_to(folder).as_posix(): path for path in here}
    return found


def _places(name: str, parts: list[str] | None, split: str) -> list[list[str]]:
    """For each part of the dataset, the places where its files of ``split`` may lie."""
    return [[place.format(part=part) for place in getattr(FORMS[name], split)] for part in parts or [None]]


def read(paths: Iterable[Path], name: str, on_bad_row: str) -> tuple[pd.DataFrame, dict]:
    """The pairs of all files of a split (``prompt, chosen, rejected``), and what was met (:func:`weaklib.data.preference_files.read_pairs`).

    Raises:
        BadFile: a file or a row of it is bad.
    """
    pairs, counts, dropped = [], Counter(), Counter()
    for path in paths:
        some, met = read_pairs(path, on_bad_row, FORMS[name].pair_of)
        pairs += some
        dropped.update(met.pop("dropped"))
        counts.update(met)
    return pd.DataFrame(pairs), {**counts, "dropped": dict(dropped), "pairs": len(pairs)}


def dialogue_tokens(pairs: pd.DataFrame, tokenizer: str, revision: str | None) -> np.ndarray:
    """Tokens of each pair's prompt and longer response, shape (len(pairs),), with those that ``tokenizer`` puts before a text."""
    from transformers import AutoTokenizer  # only here: it takes seconds

    encode = AutoTokenizer.from_pretrained(tokenizer, revision=None if local_folder(tokenizer) else revision)

    def tokens(texts: list[str], **settings) -> np.ndarray:
        batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
        return np.array([len(ids) for batch in batches for ids in encode(batch, **settings)["input_ids"]])

    chosen, rejected = (tokens(pairs[side].tolist(), add_special_tokens=False) for side in ("chosen", "rejected"))
    return tokens(pairs["prompt"].tolist()) + np.maximum(chosen, rejected)


def draw(
    train: pd.DataFrame,
    test: pd.DataFrame,
    rng: np.random.Generator,
    *,
    max_pairs: int | None,
    test_prompts: int,
    demonstrations_share: float,
    proxy_share: float,
) -> dict:
    """A task's parts: pairs of ``demonstrations``, ``proxy`` and ``pairs``, no two with a common prompt, and the ``test`` prompts.

    Test prompts are drawn from ``test`` without those of any pair of ``train``, first of all, so that other settings leave them as they are.

    Raises:
        BadFile: there are too few pairs or test prompts.
    """
    unseen = pd.Series(test["prompt"].unique())
    unseen = unseen[~unseen.isin(train["prompt"])].to_numpy()
    if len(unseen) < test_prompts:
        raise BadFile(
            f"task.test_prompts is {test_prompts}: the dataset's test split has {len(unseen)} that are no prompts of training pairs"
        )
    drawn = rng.permutation(unseen)[:test_prompts]
    if max_pairs is not None:
        train = train.iloc[np.sort(rng.permutation(len(train))[:max_pairs])]
    parts = divide(train, rng, demonstrations_share=demonstrations_share, proxy_share=proxy_share, test_share=0.0)
    shares = {"demonstrations": demonstrations_share, "proxy": proxy_share, "pairs": 1.0}
    for part, share in shares.items():
        if share and parts[part]["prompt"].nunique() < 2:
            raise BadFile(f"task: {len(train)} training pairs are too few: {part} would have {len(parts[part])}")
    return parts | {"test": drawn}
