"""Real text in: every form of the same pairs gives the same pairs; what looks like a turn in a message is none."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from weaklib.data import task as task_stage
from weaklib.data.conversations import chat, pair_of_row
from weaklib.data.errors import RequestError
from weaklib.data.preference_datasets import read_pairs
from weaklib.training.base import train_tokenizer

TURNS = ["Can I leave the {} outside?", "For how long?", "For {} days."]
YES, NO = "Yes, if you cover it.\n\nCheck it after {} days.", "Why ask me? Do what you like, {}."
EVERY = range(80)


def said(role, text):
    return {"role": role, "content": text}


def user(text):
    return said("user", text)


def assistant(text):
    return said("assistant", text)


def prompt(i):
    first, question, second = (turn.format(i) for turn in TURNS)
    return [user(first), assistant(question), user(second)]


def transcript(messages):
    return "".join(f"\n\n{'Human' if m['role'] == 'user' else 'Assistant'}: {m['content']}" for m in messages)


def parts(text):
    return [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}]


# A row of pair i in each form: of its prompt as messages, and its two replies.
FORMS = {
    "HH-RLHF": lambda p, a, b: {"chosen": transcript([*p, assistant(a)]), "rejected": transcript([*p, assistant(b)])},
    "without leading blank lines": lambda p, a, b: {
        "chosen": transcript([*p, assistant(a)]).lstrip(),
        "rejected": transcript([*p, assistant(b)]).lstrip(),
    },
    "a trailing human turn": lambda p, a, b: {
        "chosen": transcript([*p, assistant(a), user("Thanks!")]),
        "rejected": transcript([*p, assistant(b)]) + "\n\nHuman:",
    },
    "explicit prompt": lambda p, a, b: {"prompt": transcript(p) + "\n\nAssistant:", "chosen": " " + a, "rejected": " " + b},
    "explicit prompt, no space": lambda p, a, b: {"prompt": transcript(p) + "\n\nAssistant: ", "chosen": a, "rejected": b},
    "explicit prompt, no turn begun": lambda p, a, b: {"prompt": transcript(p), "chosen": a, "rejected": b},
    "the turn begins the reply": lambda p, a, b: {
        "prompt": transcript(p),
        "chosen": transcript([assistant(a)]),
        "rejected": transcript([assistant(b)]),
    },
    "prompt and whole transcripts": lambda p, a, b: {
        "prompt": transcript(p) + "\n\nAssistant:",
        "chosen": transcript([*p, assistant(a)]),
        "rejected": transcript([*p, assistant(b)]),
    },
    "messages": lambda p, a, b: {"prompt": p, "chosen": [assistant(a)], "rejected": [assistant(b)]},
    "implicit messages": lambda p, a, b: {"chosen": [*p, assistant(a)], "rejected": [*p, assistant(b)]},
    "messages and whole chats": lambda p, a, b: {
        "prompt": p, "chosen": [*p, assistant(a)], "rejected": [*p, assistant(b)]
    },
    "text of the last question and whole chats": lambda p, a, b: {
        "prompt": p[-1]["content"], "chosen": [*p, assistant(a)], "rejected": [*p, assistant(b)]
    },
    "text of the first question and whole chats": lambda p, a, b: {
        "prompt": p[0]["content"], "chosen": [*p, assistant(a)], "rejected": [*p, assistant(b)]
    },
    "messages and text": lambda p, a, b: {"prompt": p, "chosen": a, "rejected": " " + b},
    "transcript and messages": lambda p, a, b: {
        "prompt": transcript(p) + "\n\nAssistant:", "chosen": [assistant(a)], "rejected": [assistant(b)]
    },
    "content parts": lambda p, a, b: {
        "chosen": [said(m["role"], parts(m["content"])) for m in [*p, assistant(a)]],
        "rejected": [said(m["role"], parts(m["content"])) for m in [*p, assistant(b)]],
    },
    "messages beside objects": lambda p, a, b: {"messages": p, "chosen": assistant(a), "rejected": assistant(b)},
    "objects with more keys": lambda p, a, b: {
        "prompt": [m | {"weight": None} for m in p], "chosen": [assistant(a)], "rejected": [assistant(b)], "score": 7
    },
}  # fmt: skip


def write(path, form):
    rows = [FORMS[form](prompt(i), YES.format(i), NO.format(i)) for i in EVERY]
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tables(path, folder) -> dict[str, pd.DataFrame]:
    folder.mkdir()
    shares = {"demonstrations_share": 0.2, "proxy_share": 0.2, "test_share": 0.2}
    task_stage.run(folder, kind="file", seed=0, path=path, on_bad_row="error", sha256="", **shares)
    return {file.name: file.read_bytes() for file in folder.glob("*.parquet")}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tables(form, ending, tmp_path):
    """To the byte, and so the same tokens, policies and figures: all that follows is made of these tables."""
    reference = tables(write(tmp_path / "reference.jsonl", "messages"), tmp_path / "reference")
    assert len(reference) == 5
    assert tables(write(tmp_path / f"pairs.{ending}", form), tmp_path / "other") == reference


def pair(**row):
    return pair_of_row(row)


def test_a_reply_may_quote_a_turn():
    quote = "Put up a sign:\n\nHuman: keep out.\n\nAssistant: enter.\n\nThen lock the door."
    for row in (
        {"chosen": [user("Hi"), assistant(quote)], "rejected": [user("Hi"), assistant("No.")]},
        {"prompt": [user("Hi")], "chosen": quote, "rejected": "No."},
        {"prompt": "Hi", "chosen": [assistant(quote)], "rejected": [assistant("No.")]},
        {"messages": [user("Hi")], "chosen": assistant(quote), "rejected": assistant("No.")},
    ):
        found, met = pair(**row)
        assert found["chosen"] == " " + quote and found["prompt"] == "\n\nHuman: Hi\n\nAssistant:" and not met
    found, met = pair(prompt="\n\nHuman: Hi\n\nAssistant:", chosen=" Look:\n\nHuman: keep out.", rejected=" No.")
    assert found["chosen"] == " Look:" and met == {"human_turns_cut"}  # in a transcript it cannot be told


def test_a_prompt_may_quote_a_turn():
    asked = "What does this mean?\n\nAssistant: I will not."
    found, _ = pair(prompt=[user(asked)], chosen=[assistant("Yes.")], rejected=[assistant("No.")])
    assert chat(found["messages"]) == [user(asked)]


def test_what_stands_before_the_first_turn_is_the_systems():
    text = "Be kind.\n\nHuman: Hi\n\nAssistant: {}"
    found, _ = pair(chosen=text.format("Yes."), rejected=text.format("No."))
    same, _ = pair(prompt=[said("system", "Be kind."), user("Hi")], chosen="Yes.", rejected="No.")
    assert found == same and chat(found["messages"])[0] == said("system", "Be kind.")


def test_a_system_row_beside_a_text_prompt():
    whole = [said("system", "Be kind."), user("Hi")]
    found, _ = pair(prompt="Hi", chosen=[*whole, assistant("Yes.")], rejected=[*whole, assistant("No.")])
    assert chat(found["messages"]) == whole


def test_turns_that_are_doubled_are_one_message_of_a_chat():
    text = "\n\nHuman: Hi\n\nHuman: Are you there?\n\nAssistant: {}"
    found, _ = pair(chosen=text.format("Yes."), rejected=text.format("No."))
    assert found["prompt"] == "\n\nHuman: Hi\n\nHuman: Are you there?\n\nAssistant:"
    assert chat(found["messages"]) == [user("Hi\n\nAre you there?")]


def test_dialogues_that_part_early_are_the_same_in_both_forms():
    one = [user("Hi"), assistant("Hello."), user("How?"), assistant("Gladly.")]
    other = [user("Hi"), assistant("Hello."), user("Why?"), assistant("No.")]
    found, met = pair(chosen=one, rejected=other)
    assert (found, met) == pair(chosen=transcript(one), rejected=transcript(other))
    assert found["prompt"] == "\n\nHuman: Hi\n\nAssistant:" and met == {"prompts_differ"}
    assert found["rejected"] == " Hello.\n\nHuman: Why?\n\nAssistant: No."


def test_a_completion_is_kept_as_it_is():
    found, _ = pair(prompt="POST: My boss\n\nTL;DR:", chosen=" Boss. ", rejected=" Mine.")
    assert found["prompt"] == "POST: My boss\n\nTL;DR:" and found["chosen"] == " Boss. "
    assert chat(found["messages"], found["chosen"]) == [user("POST: My boss\n\nTL;DR:"), assistant("Boss.")]


GOOD = json.dumps({"prompt": "Hi.", "chosen": " Yes.", "rejected": " No."})
BAD = {
    "half of a surrogate pair": GOOD.replace("Yes", "Yes \\ud83d"),
    "integer string conversion": GOOD[:-1] + ', "id": ' + "9" * 5000 + "}",
    "nested too deeply": GOOD[:-1] + ', "more": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "prompt is neither text nor chat messages": GOOD.replace('"Hi."', '[{"role": "user", "content": [{"type": "image"}]}]'),
    "chosen is neither text nor chat messages": GOOD.replace('" Yes."', '[{"role": "assistant", "content": null}]'),
    "unknown role 'tool'": GOOD.replace('" Yes."', '[{"role": "tool", "content": "x"}]'),
    "rejected is neither text nor chat messages": GOOD.replace('" No."', "[]"),
    "not an object of this form": "null",
}  # fmt: skip


@pytest.mark.parametrize("cause", BAD)
def test_a_row_that_cannot_be_understood_is_named_or_dropped(cause, tmp_path):
    path = tmp_path / "pairs #2 {a}*[b].jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join([GOOD, BAD[cause], GOOD]).encode())  # a byte-order mark is no error
    with pytest.raises(RequestError, match=f"row 2: .*{cause}"):
        read_pairs(path)
    pairs, counts = read_pairs(path, on_bad_row="drop")
    assert pairs["row"].tolist() == [1, 3] and counts["bad_rows_dropped"] == 1


def test_other_columns_of_a_parquet_file_are_not_read(tmp_path):
    path = tmp_path / "pairs.parquet"
    pd.DataFrame([json.loads(GOOD) | {"image": b"\x00" * 100}]).to_parquet(path)
    whole = path.read_bytes()
    start = whole.index(b"\x00" * 100)
    path.write_bytes(whole[:start] + b"\xff" * 100 + whole[start + 100 :])  # whatever it holds
    assert len(read_pairs(path)[0]) == 1


def csvs(form, ending, dialogue, folder, model) -> dict[str, bytes]:
    """Of the whole study on a file in a form, by the command line."""
    folder.mkdir()
    file = write(folder / f"{form.replace(' ', '_')} #1.{ending}", form)
    settings = [
        f"task.path={file}",
        f"dialogue={dialogue}",
        f"models={{weak: ['{model}'], strong: ['{model}'], proxy: '{model}'}}",
    ]
    settings += [
        "seeds=[0]",
        "top_percents=[50,100]",
        "annotator.epochs=1",
        "sft.epochs=1",
        "sampling.max_new_tokens=8",
    ]
    where = [word for kind in ("store", "figures", "runs") for word in (f"--{kind}", folder / kind)]
    command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", "hh-file", "--only", "05_top_confidence"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WEAKLIB_")}
    done = subprocess.run([*command, "--set", *settings, *where], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = folder / "figures"
    return {str(path.relative_to(figures)): path.read_bytes() for path in figures.rglob("*.csv")}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder in the hub's format whose template ends a turn by a token of its own."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([transcript(prompt(i)) + YES.format(i) + NO.format(i) for i in EVERY], 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    sizes = {
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "opt", **sizes, **ids, vocab_size=len(tokenizer), max_position_embeddings=400, dropout=0.0
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("dialogue", ["plain", "chat"])
def test_the_study_knows_none_of_the_forms(tmp_path, model, dialogue):
    reference = csvs("messages", "parquet", dialogue, tmp_path / "reference", model)
    assert len(reference) >= 3
    for number, form in enumerate(FORMS):
        assert csvs(form, "jsonl", dialogue, tmp_path / f"{number}", model) == reference, form


def test_messages_that_were_written_as_text_are_messages():
    """As a column of a table has them that knows no lists."""
    turns = {"prompt": [user("Hi")], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]}
    assert pair(**{key: json.dumps(value) for key, value in turns.items()}) == pair(**turns)
    with pytest.raises(ValueError, match="chosen is a list of messages as text, but not as JSON"):
        pair(**{key: str(value) for key, value in turns.items() if key != "prompt"})
    found, _ = pair(prompt="Show me a chat.", chosen=json.dumps(turns["chosen"]), rejected="No.")
    assert found["chosen"] == json.dumps(turns["chosen"])  # a reply that is one


def test_a_prompt_that_both_texts_repeat_is_no_part_of_the_replies():
    found, met = pair(prompt="What is tea?", chosen="What is tea? Leaves.", rejected="What is tea? No.")
    assert (found["chosen"], found["rejected"], met) == (" Leaves.", " No.", {"prompts_repeated"})
    found, met = pair(prompt="Hello", chosen="Hello! What can I do?", rejected="Hello.")
    assert found["chosen"] == "Hello! What can I do?" and not met


def test_a_reply_that_was_begun_in_the_prompt_is_one_reply():
    found, _ = pair(prompt="\n\nHuman: Hi\n\nAssistant: Sure,", chosen=" here.", rejected=" no.")
    assert found["prompt"] == "\n\nHuman: Hi\n\nAssistant:" and found["chosen"] == " Sure, here."
    assert pair(prompt=[user("Hi"), assistant("Sure,")], chosen=" here.", rejected=" no.")[0] == found


def test_a_transcript_of_another_systems_line_ends():
    text = "\r\n\r\nHuman: Hi\r\n\r\nAssistant: {}"
    found, _ = pair(chosen=text.format("Yes."), rejected=text.format("No."))
    assert found["prompt"] == "\n\nHuman: Hi\n\nAssistant:" and found["rejected"] == " No."


QUOTED = "What does this mean?\n\nHuman: keep out"


@pytest.mark.parametrize(
    ("row", "turns", "chosen"),
    [
        # the prompt column beside whole chats, however it is written; and beside replies that have roles
        ({"prompt": QUOTED, "chosen": [user(QUOTED), assistant("Yes")]}, [QUOTED], " Yes"),
        ({"prompt": QUOTED, "chosen": [assistant("Yes")]}, [QUOTED], " Yes"),
        ({"prompt": "A\r\nB", "chosen": [user("A\nB"), assistant("Yes")]}, ["A\nB"], " Yes"),
        ({"prompt": "\ufeffA B", "chosen": [user("A B"), assistant("Yes")]}, ["A B"], " Yes"),
        ({"prompt": "e\u0301", "chosen": [user("\u00e9"), assistant("Yes")]}, ["\u00e9"], " Yes"),
        ({"prompt": "C", "chosen": [user("A"), assistant("B"), user("C"), assistant("Yes")]}, ["A", "B", "C"], " Yes"),
        # they overlap in the last question alone
        ({"prompt": [user("A"), assistant("B"), user("C")], "chosen": [user("C"), assistant("Yes")]}, ["A", "B", "C"], " Yes"),
        ({"prompt": [{"role": "system", "content": "S"}, user("C")], "chosen": [user("C"), assistant("Yes")]}, ["S", "C"], " Yes"),
        # messages that are the chosen chat
        ({"messages": [user("Hi"), assistant("Yes")], "chosen": "Yes"}, ["Hi"], "Yes"),
        ({"messages": [user("Hi"), assistant("Yes")], "chosen": assistant("Yes")}, ["Hi"], " Yes"),
        # a reply that the prompt begins
        ({"prompt": [user("Hi"), assistant("Sure,")], "chosen": [assistant("here.")]}, ["Hi"], " Sure, here."),
        ({"prompt": [user("Hi"), assistant("Sure,")], "chosen": " here."}, ["Hi"], " Sure, here."),
    ],
)  # fmt: skip
def test_nothing_is_lost_or_doubled(row, turns, chosen):
    rejected = json.loads(json.dumps(row["chosen"]).replace("Yes", "No").replace("here", "gone"))
    pair, _ = pair_of_row(row | {"rejected": rejected})
    assert [message["content"] for message in json.loads(pair["messages"])] == turns
    assert (pair["chosen"].strip(), pair["chosen"] == pair["rejected"]) == (chosen.strip(), False)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "X", "chosen": [user("Y"), assistant("Yes")], "rejected": [user("Y"), assistant("No")]}, "go on from"),
        ({"prompt": "X", "chosen": [assistant("") | {"tool_calls": [{}]}], "rejected": "No"}, "calls tools"),
        ({"prompt": "X", "chosen": "Yes", "rejected": "No", "system": "Be brief."}, "column system is not read"),
        ({"prompt": "", "chosen": "Yes", "rejected": "No"}, "there is no prompt"),
        ({"prompt": "X", "chosen": {"role": ["user"], "content": ["Y"]}, "rejected": "No"}, "unknown role"),
    ],
)  # fmt: skip
def test_what_would_be_lost_makes_a_bad_row(row, said):
    with pytest.raises(ValueError, match=said):
        pair_of_row(row)
