"""Preference files in every form they come in."""

import gzip
import json

import pandas as pd
import pytest

from weaklib.data import preference_datasets
from weaklib.data.errors import RequestError

HH = {
    "chosen": "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: How?\n\nAssistant: Gladly.",
    "rejected": "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: How?\n\nAssistant: No.",
}
EXPECTED = {
    "prompt": "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: How?\n\nAssistant:",
    "chosen": " Gladly.",
    "rejected": " No.",
}


def read_pairs(path, **settings):
    pairs, counts = preference_datasets.read_pairs(path, **settings)
    return pairs[["prompt", "chosen", "rejected"]].to_dict("records"), counts


def messages(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


ROWS = {
    "HH-RLHF": HH,
    "TRL text": EXPECTED,
    "TRL messages": {
        "prompt": messages("Hello", "Hi.", "How?"),
        "chosen": [{"role": "assistant", "content": "Gladly."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    "TRL messages without a prompt": {
        "chosen": messages("Hello", "Hi.", "How?", "Gladly."),
        "rejected": messages("Hello", "Hi.", "How?", "No."),
    },
}


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_every_form_gives_the_same_pair(tmp_path, form, ending):
    pairs, counts = read_pairs(write(tmp_path / f"pairs.{ending}", [ROWS[form]]))
    assert pairs == [EXPECTED]
    assert counts.pop("dropped") == {}
    assert counts.pop("rows") == 1 and not any(counts.values())


def test_dialogues_that_part_earlier_share_what_they_share(tmp_path):
    row = HH | {"rejected": "\n\nHuman: Hello\n\nAssistant: Go away.\n\nHuman: How?\n\nAssistant: No."}
    pairs, counts = read_pairs(write(tmp_path / "pairs.jsonl", [row]))
    assert pairs[0]["prompt"] == "\n\nHuman: Hello\n\nAssistant:"
    assert pairs[0]["chosen"] == " Hi.\n\nHuman: How?\n\nAssistant: Gladly."
    assert pairs[0]["rejected"] == " Go away.\n\nHuman: How?\n\nAssistant: No."
    assert counts["prompts_differ"] == 1


def test_one_dialogue_longer_than_the_other(tmp_path):
    row = HH | {"rejected": "\n\nHuman: Hello\n\nAssistant: Hi."}
    (pair,), counts = read_pairs(write(tmp_path / "pairs.jsonl", [row]))
    assert pair["prompt"] == "\n\nHuman: Hello\n\nAssistant:" and pair["rejected"] == " Hi."
    assert counts["prompts_differ"] == 1


def test_what_the_human_says_last_is_no_part_of_a_response(tmp_path):
    row = HH | {"rejected": HH["rejected"] + "\n\nHuman: Oh.\n\nHuman: Bye."}
    pairs, counts = read_pairs(write(tmp_path / "pairs.jsonl", [row, HH]))
    assert pairs == [EXPECTED, EXPECTED] and counts["human_turns_cut"] == 1 and counts["prompts_differ"] == 0


def test_a_line_ends_at_a_line_feed_only(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    odd = HH | {"chosen": HH["chosen"] + " A\u2028b\x85c\rd\x0be"}
    line = json.dumps(odd, ensure_ascii=False, separators=(",\r", ":"))
    path.write_bytes(gzip.compress((line + "\r\n" + json.dumps(HH)).encode()))
    pairs, counts = read_pairs(path)
    assert pairs[0]["chosen"] == " Gladly. A\u2028b\x85c\rd\x0be" and counts["rows"] == 2


def test_what_is_dropped_is_counted_by_its_cause(tmp_path):
    rows = [HH, HH | {"rejected": 3}, HH | {"rejected": 4}, HH | {"rejected": HH["chosen"]}]
    _, counts = read_pairs(write(tmp_path / "pairs.jsonl", rows), on_bad_row="drop")
    causes = {"rejected is neither text nor chat messages": 2, "chosen and rejected are equal": 1}
    assert counts["dropped"] == causes and counts["bad_rows_dropped"] == 3
    with pytest.raises(RequestError, match=r"none\.jsonl: no preference pairs in it: row 1: rejected is neither"):
        read_pairs(write(tmp_path / "none.jsonl", rows[1:]), on_bad_row="drop")


def test_empty_responses_are_legal_and_counted(tmp_path):
    row = HH | {"rejected": "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: How?\n\nAssistant:"}
    pairs, counts = read_pairs(write(tmp_path / "pairs.jsonl", [row, HH]))
    assert pairs[0]["rejected"] == "" and counts["empty_responses"] == 1


BAD_ROWS = {
    "not JSON": '{"chosen": ',
    "key 'rejected' is missing": json.dumps({"chosen": HH["chosen"]}),
    "chosen is neither text": json.dumps(HH | {"chosen": None}),
    "rejected is neither text": json.dumps(HH | {"rejected": 3}),
    "equal": json.dumps(HH | {"rejected": HH["chosen"]}),
    "share no prompt": json.dumps(HH | {"rejected": "\n\nHuman: Else\n\nAssistant: No."}),
    'no "Assistant:"': json.dumps(HH | {"rejected": "No."}),
    "not an object": "[1, 2]",
    "unknown role 'robot'": json.dumps(HH | {"chosen": [{"role": "robot", "content": "beep"}]}),
}


@pytest.mark.parametrize("cause", BAD_ROWS)
def test_a_bad_row_is_named_or_dropped(tmp_path, cause):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(HH) + "\n" + BAD_ROWS[cause] + "\n")
    with pytest.raises(RequestError, match=rf"pairs\.jsonl: row 2: .*{cause}"):
        read_pairs(path)
    pairs, counts = read_pairs(path, on_bad_row="drop")
    assert len(pairs) == 1 and counts["bad_rows_dropped"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.jsonl", None),
        ("empty.jsonl", b""),
        ("pairs.csv", b"chosen,rejected\n"),
        ("plain.jsonl.gz", b"not gzip"),
        ("cut.jsonl.gz", gzip.compress(json.dumps(HH).encode() * 50)[:-20]),
        ("latin.jsonl", "é".encode("latin-1")),
        ("text.parquet", b"not parquet"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=name):
        read_pairs(tmp_path / name)
