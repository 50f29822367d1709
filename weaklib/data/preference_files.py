"""Reading preference pairs from a file: HH-RLHF's form, or TRL's (text or chat messages); JSON lines or parquet."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet

from weaklib.data.errors import BadFile, LeftOut

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
SPEAKERS = {"user": HUMAN + " ", "assistant": ASSISTANT + " ", "system": "\n\nSystem: "}


def read_pairs(path: Path, on_bad_row: str = "error", pair_of: Callable | None = None) -> tuple[list[dict], dict]:
    """Preference pairs of a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file; ``pair_of`` reads a row of another form than :func:`pair_of_row`'s.

    Returns:
        the pairs (``prompt``, ``chosen``, ``rejected``, all text; a response may be empty), and counts of what was met: ``rows``,
        ``bad_rows_dropped``, ``dropped`` (why → rows that gave no pair), ``empty_responses``, ``prompts_differ``, ``human_turns_cut``.

    Raises:
        BadFile: the file cannot be read, has no pairs, or a row is bad and ``on_bad_row`` is ``error`` (``drop`` counts it).
    """
    pairs, dropped, first_cause = [], Counter(), ""
    counts = {"rows": 0, "bad_rows_dropped": 0, "empty_responses": 0, "prompts_differ": 0, "human_turns_cut": 0}
    for number, row in _rows(path):
        counts["rows"] += 1
        try:
            pair, met = (pair_of or pair_of_row)(_whole(row))
        except LeftOut as reason:
            dropped[str(reason)] += 1
            continue
        except ValueError as error:
            if on_bad_row == "error":
                raise BadFile(f"{path}: row {number}: {error}") from None
            first_cause = first_cause or f": row {number}: {error}"
            counts["bad_rows_dropped"] += 1
            dropped[str(error).partition(": ")[0]] += 1  # without the value that is to blame
            continue
        for what in met:
            counts[what] += 1
        counts["empty_responses"] += sum(not pair[side].strip() for side in ("chosen", "rejected"))
        pairs.append(pair)
    if not pairs:
        raise BadFile(f"{path}: no preference pairs in it{first_cause}")
    return pairs, counts | {"dropped": dict(dropped)}


def divide(pairs: pd.DataFrame, rng: np.random.Generator, **shares: float) -> dict[str, pd.DataFrame]:
    """The rows of each part (:func:`part_sizes`): whole prompts are drawn, so that no two parts share one."""
    prompts = rng.permutation(pairs["prompt"].unique())
    sizes = part_sizes(len(prompts), **shares)
    part_of = dict(zip(prompts, np.repeat(list(sizes), list(sizes.values()))))
    parts = pairs["prompt"].map(part_of)
    return {part: pairs[parts == part].reset_index(drop=True) for part in sizes}


def part_sizes(prompts: int, demonstrations_share: float, proxy_share: float, test_share: float) -> dict[str, int]:
    """How many of a file's prompts go to each part; ``pairs`` (D_l ∪ D_u) gets what the others leave."""
    sizes = {
        "demonstrations": round(demonstrations_share * prompts),
        "proxy": round(proxy_share * prompts),
        "test": round(test_share * prompts),
    }
    return sizes | {"pairs": prompts - sum(sizes.values())}


def _rows(path: Path):
    """(row number from 1, row) of each row; a JSON line that does not parse is a row that is an exception."""
    suffixes = "".join(path.suffixes[-2:])
    try:
        if suffixes.endswith(".parquet"):
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from enumerate((row for batch in file.iter_batches() for row in batch.to_pylist()), start=1)
        elif suffixes.endswith((".jsonl", ".jsonl.gz")):
            with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield number, _json(line)
        else:
            raise BadFile(f"{path}: not a .jsonl, .jsonl.gz or .parquet file")
    except (OSError, EOFError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise BadFile(f"{path}: cannot be read: {error}") from None


def _json(line: str):
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return error


def _whole(row) -> dict:
    if isinstance(row, json.JSONDecodeError):
        raise ValueError(f"not JSON: {row}")
    if not isinstance(row, dict):
        raise ValueError(f"not an object with keys but a {type(row).__name__}")
    return row


def pair_of_row(row: dict) -> tuple[dict, set[str]]:
    """The pair of a row: ``prompt, chosen, rejected`` (TRL's form, text or chat messages), or the last two alone as whole dialogues.

    Chat messages are written out in HH-RLHF's plain form. Of whole dialogues the prompt is what both share up to the assistant's last
    turn; what the human says after that turn is left out.

    Returns:
        the pair, and which of ``prompts_differ`` and ``human_turns_cut`` were met.

    Raises:
        ValueError: what is wrong with the row.
    """
    chosen, rejected = (_plain(row, key) for key in ("chosen", "rejected"))
    met = set()
    if row.get("prompt") is not None:
        prompt = _plain(row, "prompt")
        if isinstance(row["prompt"], list):  # messages: the reply's own "Assistant:" belongs to the prompt
            prompt += ASSISTANT
            chosen, rejected = chosen.removeprefix(ASSISTANT), rejected.removeprefix(ASSISTANT)
    else:
        dialogues = _until_last_reply(chosen), _until_last_reply(rejected)
        if dialogues != (chosen, rejected):
            met.add("human_turns_cut")
        prompt, chosen, rejected, differ = _shared_prompt(*dialogues)
        if differ:
            met.add("prompts_differ")
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are equal")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}, met


def _plain(row: dict, key: str) -> str:
    if key not in row:
        raise ValueError(f"key {key!r} is missing")
    value = row[key]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in value):
        if unknown := {m.get("role") for m in value} - set(SPEAKERS):
            raise ValueError(f"{key}: unknown role {unknown.pop()!r}")
        return "".join(SPEAKERS[m["role"]] + m["content"] for m in value)
    raise ValueError(f"{key} is neither text nor chat messages: {value!r:.60}")


def _until_last_reply(dialogue: str) -> str:
    reply = dialogue.rfind(ASSISTANT)
    if reply < 0:
        raise ValueError('no "Assistant:" turn in a dialogue')
    end = dialogue.find(HUMAN, reply)
    return dialogue if end < 0 else dialogue[:end]


def _shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str, bool]:
    """Two whole dialogues → (prompt, chosen, rejected, whether they part before the last reply).

    The prompt ends at the last "Assistant:" up to which both dialogues are equal; usually that is the last one of
    both. Where they part earlier, the rest of each dialogue is its response.
    """
    ends = [d.rfind(ASSISTANT) for d in (chosen, rejected)]
    end = min(ends)
    while end >= 0 and chosen[:end] != rejected[:end]:
        end = chosen.rfind(ASSISTANT, 0, end)
    if end < 0:
        raise ValueError("the two dialogues share no prompt")
    cut = end + len(ASSISTANT)
    return chosen[:cut], chosen[cut:], rejected[cut:], not ends[0] == ends[1] == end
