"""Reading preference pairs from a file: HH-RLHF's form, or TRL's (text or chat messages); JSON lines or parquet."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet

ASSISTANT = "\n\nAssistant:"
SPEAKERS = {"user": "\n\nHuman: ", "assistant": ASSISTANT + " ", "system": "\n\nSystem: "}


class BadFile(Exception):
    """The file, or a row of it, is not what it should be; the message names file, line and cause."""


def read_pairs(path: Path, on_bad_row: str = "error") -> tuple[list[dict], dict]:
    """Preference pairs of a ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` file.

    A row has either ``chosen`` and ``rejected`` as whole dialogues (HH-RLHF's form, or chat messages), or
    ``prompt, chosen, rejected`` (TRL's form, text or chat messages). Chat messages are written out in
    HH-RLHF's plain form, since models made here have no chat template.

    Returns:
        the pairs (``prompt``, ``chosen``, ``rejected``, all text; a response may be empty), and counts of what was met.

    Raises:
        BadFile: the file cannot be read, or a row is bad and ``on_bad_row`` is ``error`` (``drop`` counts it).
    """
    pairs, counts = [], {"rows": 0, "bad_rows_dropped": 0, "empty_responses": 0, "prompts_differ": 0}
    for number, row in _rows(path):
        counts["rows"] += 1
        try:
            pair, differs = _pair(row)
        except ValueError as error:
            if on_bad_row == "error":
                raise BadFile(f"{path}: row {number}: {error}") from None
            counts["bad_rows_dropped"] += 1
            continue
        counts["empty_responses"] += sum(not pair[side].strip() for side in ("chosen", "rejected"))
        counts["prompts_differ"] += differs
        pairs.append(pair)
    if not pairs:
        raise BadFile(f"{path}: no preference pairs in it")
    return pairs, counts


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
            yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
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


def _pair(row) -> tuple[dict, bool]:
    """The pair of one row, and whether its two dialogues had different prompts."""
    if isinstance(row, json.JSONDecodeError):
        raise ValueError(f"not JSON: {row}")
    if not isinstance(row, dict):
        raise ValueError(f"not an object with keys but a {type(row).__name__}")
    chosen, rejected = (_plain(row, key) for key in ("chosen", "rejected"))
    differs = False
    if row.get("prompt") is not None:
        prompt = _plain(row, "prompt")
        if isinstance(row["prompt"], list):  # messages: the reply's own "Assistant:" belongs to the prompt
            prompt += ASSISTANT
            chosen, rejected = chosen.removeprefix(ASSISTANT), rejected.removeprefix(ASSISTANT)
    else:
        prompt, chosen, rejected, differs = _shared_prompt(chosen, rejected)
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are equal")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}, differs


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


def _shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str, bool]:
    """Two whole dialogues → (prompt, chosen, rejected, whether they part before the last reply).

    The prompt ends at the last "Assistant:" up to which both dialogues are equal; usually that is the last one of
    both. Where they part earlier, the rest of each dialogue is its response.
    """
    ends = [d.rfind(ASSISTANT) for d in (chosen, rejected)]
    if min(ends) < 0:
        raise ValueError('no "Assistant:" turn in a dialogue')
    end = min(ends)
    while end >= 0 and chosen[:end] != rejected[:end]:
        end = chosen.rfind(ASSISTANT, 0, end)
    if end < 0:
        raise ValueError("the two dialogues share no prompt")
    cut = end + len(ASSISTANT)
    return chosen[:cut], chosen[cut:], rejected[cut:], not ends[0] == ends[1] == end
