"""Tokens that mean what the pair means: for tokenizers of all kinds and random conversations."""

import json
import os

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from weaklib.data.conversations import chat, pair_of_row
from weaklib.training.base import train_tokenizer
from weaklib.training.tokens import Reader

BOS, EOS, TURN_END = "<s>", "</s>", "<|end|>"
TEXTS = ["Human: Hello there.", "Assistant: Hi, what can I do for you?", "Bread of flour, water and salt 1 2 3"] * 3
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def fast(tokenizer, start=False, end=False):
    special = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    template = " ".join([BOS] * start + ["$A"] + [EOS] * end)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=template + " $B", special_tokens=special
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token="<pad>", unk_token="<unk>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>", TURN_END]})
    made.chat_template = TEMPLATE
    return made


def byte_level(**ends):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [BOS, EOS, "<pad>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=special)
    )
    return fast(tokenizer, **ends)


def plain_bpe(**ends):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=[BOS, EOS, "<pad>", "<unk>"])
    )
    return fast(tokenizer, **ends)


def sentencepiece_like(**ends):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = [BOS, EOS, "<pad>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    )
    return fast(tokenizer, **ends)


def word_pieces(**ends):
    """Lower-case, without spaces: decoding does not give the text back."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = [BOS, EOS, "<pad>", "<unk>"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    return fast(tokenizer, **ends)


def with_byte_fallback(**ends):
    """A space before each text, by the normalizer, and bytes for what is no piece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # no piece goes on over a space
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    special = [BOS, EOS, "<pad>", "<unk>", *bytes_]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    return fast(tokenizer, **ends)


def our_own(**_):
    made = train_tokenizer(TEXTS, 400)
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>", TURN_END]})
    made.chat_template = TEMPLATE
    return made


KINDS = {
    f"{kind.__name__}{' with a start' * start}{' with an end' * end}": kind(start=start, end=end)
    for kind in (byte_level, plain_bpe, sentencepiece_like, word_pieces, with_byte_fallback, our_own)
    for start in (False, True)
    for end in (False, True)
    if kind is not our_own or not (start or end)
}
# what people write, and what they should not be able to say: a control token, a turn
WORDS = [
    "Hello",
    " there",
    ".",
    "\n\n",
    "Human:",
    "\n\nHuman: hi",
    " ",
    "é🥚",
    "1",
    BOS,
    EOS,
    TURN_END,
    "<|turn|>",
    "<|endoftext|>",
]
CONTENT = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)), max_size=12
).map("".join)
SLOW = bool(os.environ.get("WEAKLIB_LONG"))


@st.composite
def pairs(draw):
    turns = draw(st.integers(0, 2))
    prompt = [{"role": role, "content": draw(CONTENT)} for _ in range(turns) for role in ("user", "assistant")]
    prompt += [{"role": "user", "content": "So? " + draw(CONTENT)}]
    if draw(st.booleans()):
        prompt.insert(0, {"role": "system", "content": draw(CONTENT)})
    replies = [[{"role": "assistant", "content": f"{word} {draw(CONTENT)}"}] for word in ("Yes", "No")]
    return pair_of_row({"prompt": prompt, "chosen": replies[0], "rejected": replies[1]})[0]


@pytest.mark.parametrize("dialogue", ["plain", "chat"])
@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=300 if SLOW else 25,
    deadline=None,
    database=None,
    derandomize=not SLOW,
    suppress_health_check=list(HealthCheck),
)
@given(pair=pairs(), longest=st.tuples(st.integers(1, 60), st.integers(1, 30)))
def test_what_a_pair_becomes(kind, dialogue, pair, longest):
    tokenizer, frame = KINDS[kind], pd.DataFrame([pair])
    limits = {"max_prompt_tokens": 10_000, "max_response_tokens": 10_000, "dialogue": dialogue}
    reader = Reader(tokenizer, limits)
    end, control = (
        reader.ends[0],
        {reader.ends[0], tokenizer.eos_token_id}
        - ({tokenizer.bos_token_id} if tokenizer.bos_token == tokenizer.eos_token else set()),
    )
    assert end == (tokenizer.convert_tokens_to_ids(TURN_END) if dialogue == "chat" else tokenizer.eos_token_id)
    (whole,), (row,) = reader.prompts(frame), reader.pairs(frame, "chosen", "rejected")[0]
    # a prompt does not end, whatever was said in it: the template ends the turns before it, and nothing else does
    assert row["prompt_ids"] == whole and whole[-1] not in control
    ended = len(chat(pair["messages"])) if dialogue == "chat" else 0
    assert sum(token in control for token in whole) == ended
    if BOS in (tokenizer.bos_token,):
        assert whole.count(tokenizer.bos_token_id) == (dialogue == "chat" or " with a start" in kind)
    for side in ("chosen", "rejected"):
        (alone,) = reader.responses([pair[side]])
        assert row[f"{side}_ids"] == alone and alone[-1] == end and not control & {*alone[:-1]}
    # cut: the end of the prompt, the beginning of the responses, and all is counted
    short = Reader(tokenizer, limits | dict(zip(("max_prompt_tokens", "max_response_tokens"), longest)))
    (prompt,), (chosen, rejected) = short.prompts(frame), short.responses([pair["chosen"], pair["rejected"]])
    kept = len(prompt) - (prompt[0] == tokenizer.bos_token_id and len(prompt) > 1)
    assert len(prompt) == min(len(whole), longest[0]) and prompt[len(prompt) - kept :] == whole[len(whole) - kept :]
    assert short.cuts["prompts_cut"] == (len(whole) > longest[0])
    cut = {side: row[f"{side}_ids"][: longest[1]] for side in ("chosen", "rejected")}
    assert [chosen, rejected] == [*cut.values()]
    assert short.cuts["responses_cut"] == sum(len(row[f"{side}_ids"]) > longest[1] for side in cut)
    rows, differ = short.pairs(frame, "chosen", "rejected")
    assert bool(rows) == differ[0] == (chosen != rejected) and short.cuts["equal_after_cut"] == (chosen == rejected)


def test_pairs_that_are_equal_once_cut_are_left_out_or_refused():
    same = " ".join(f"step {n}" for n in range(30))
    frame = pd.DataFrame(
        [
            pair_of_row({"prompt": "Go.", "chosen": f"{same} {a}", "rejected": f"{b} {same}"})[0]
            for a, b in (("yes", "no"), ("no", same))
        ]
    )
    limits = {"max_prompt_tokens": 20, "max_response_tokens": 10}
    reader = Reader(KINDS["our_own"], limits | {"on_bad_row": "drop"})
    rows, differ = reader.pairs(frame, "chosen", "rejected")
    assert differ.tolist() == [True, False] and len(rows) == 1 and reader.cuts["equal_after_cut"] == 1
    with pytest.raises(ValueError, match="1 of 2 pairs have two responses that are equal once cut .*on_bad_row=drop"):
        Reader(KINDS["our_own"], limits | {"on_bad_row": "error"}).pairs(frame, "chosen", "rejected")


# How well-known families frame a dialogue, each with its own idea of a turn's end and of the space before a reply.
TEMPLATES = {
    "turns with an end of their own": TEMPLATE,
    "instructions in brackets": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    ),
    "the end of text ends a turn": (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    ),
    "a header and two line ends": (
        "{{ bos_token }}{% for m in messages %}<|turn|>{{ m.role }}<|turn|>\n\n{{ m.content | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant<|turn|>\n\n{% endif %}"
    ),
}


THINKING = TEMPLATE.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
TEMPLATES |= {
    "no beginning of a reply of its own": TEMPLATE.partition("{% if add_generation_prompt")[0],
    "an empty thought before each reply": THINKING,
    "a line end before the turn's": TEMPLATE.replace("<|end|>", "\n<|end|>"),
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if "with" not in kind.replace("with_", "") and kind != "our_own"]
)
@pytest.mark.parametrize("response", ["Hello 1 2", "  Hello there.\n\nBread \n"])
def test_the_template_is_followed_to_the_token(template, kind, response):
    """What our prompt and response are one after the other is what the template makes of the whole."""
    tokenizer = globals()[kind](start=True, end=True)
    tokenizer.chat_template = TEMPLATES[template]
    pair, _ = pair_of_row({"prompt": "Hi there", "chosen": response, "rejected": "No."})
    reader = Reader(tokenizer, {"max_prompt_tokens": 99, "max_response_tokens": 99, "dialogue": "chat"})
    whole = tokenizer.apply_chat_template(chat(pair["messages"], pair["chosen"]))["input_ids"]
    ours = reader.prompts(pd.DataFrame([pair]))[0] + reader.responses([pair["chosen"]])[0]
    assert ours == whole[: len(ours)] and not {*whole[len(ours) :]} & {*reader.ends}
    assert json.loads(pair["messages"]) == [{"role": "user", "content": "Hi there"}]


def test_a_reply_begins_no_text():
    """A tokenizer that puts a space before each text puts none before a reply, in HH-RLHF's form either."""
    reader = Reader(with_byte_fallback(), {"max_prompt_tokens": 99, "max_response_tokens": 99})
    ids = reader.responses([" Hello there."])[0][:-1]
    assert "".join(reader.tokenizer.convert_ids_to_tokens(ids)) == "▁Hello▁there."


def test_a_turns_end_may_be_any_added_token():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|eot|>", special=False)])
    tokenizer.chat_template = TEMPLATE.replace("<|end|>", "<|eot|>")
    reader = Reader(tokenizer, {"max_prompt_tokens": 99, "max_response_tokens": 99, "dialogue": "chat"})
    end = tokenizer.convert_tokens_to_ids("<|eot|>")
    pair, _ = pair_of_row({"prompt": "Say <|eot|>", "chosen": "A <|eot|> B", "rejected": "No."})
    assert reader.ends[0] == end and reader.prompts(pd.DataFrame([pair]))[0].count(end) == 1  # the user's turn
    assert reader.responses([pair["chosen"]])[0].count(end) == 1


def test_a_control_token_of_blanks_is_written_as_it_is():
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["  "]})
    assert Reader(tokenizer, {"max_response_tokens": 99}).responses(["two  blanks"])
