"""Preference pairs as messages with roles, from every form that people have, and their text in HH-RLHF's form.
Roles decide turns, never what a message says. Only a transcript has none: it is read by its speakers' names."""

import json
import re
import unicodedata
from itertools import groupby, takewhile

KEYS = ("prompt", "chosen", "rejected")
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
ROLES = {name: role for role, name in SPEAKERS.items()}
TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(System|Human|Assistant):")
LISTED = re.compile(r"\s*\[\s*\{\s*[\"'](role|content)[\"']\s*:")  # messages that were written as a text


def pair_of_row(row: dict) -> tuple[dict, set[str]]:
    """The pair of a row whose ``chosen`` and ``rejected`` are each a whole dialogue or what follows the ``prompt`` (or
    the ``messages``), as text or as messages. Its prompt is what both share before a reply, usually the last; what is
    said after the last reply is left out. Two texts after a text that is no transcript are a completion, kept as they
    are. Returns texts ``prompt, chosen, rejected`` and ``messages``, those of the prompt as JSON, and which of
    ``prompts_differ``, ``prompts_repeated`` and ``human_turns_cut`` were met. Raises for a bad row."""
    prompt, *sides = row.get("prompt"), row["chosen"], row["rejected"]
    if row.get("system"):
        raise ValueError("a column system is not read: its text belongs into the prompt's messages")
    if all(isinstance(side, str) and LISTED.match(side) for side in sides):
        sides = [_unlisted(side, key) for side, key in zip(sides, KEYS[1:])]
    prompt = _unlisted(prompt, "prompt") if isinstance(prompt, str) else prompt or None
    if prompt is None and not all(_is_whole(side) for side in sides):
        prompt = row.get("messages")
        if isinstance(prompt, list) and len(prompt) > 1 and prompt[-1] in [_reply(side) for side in sides]:
            prompt = prompt[:-1]  # the chosen chat as a whole
    with_roles = not all(isinstance(side, str) for side in sides)
    transcript = isinstance(prompt, str) and (prompt.startswith("\n\nHuman:") or prompt.endswith("\n\nAssistant:"))
    if with_roles and isinstance(prompt, str) and not transcript:  # whatever it quotes
        prompt = [{"role": "user", "content": prompt}]
    known = None if prompt is None else _said(prompt, "prompt")
    texts = all(isinstance(side, str) for side in sides)
    if isinstance(known, str) and texts and not all(map(TURN.match, sides)):
        # a prompt of some words that both repeat is no part of the replies; a greeting may be
        repeated = len(known.split()) > 2 and all(side.startswith(known) for side in sides)
        replies = [side.removeprefix(known) for side in sides] if repeated else sides
        return completions(known, *replies), {"prompts_repeated"} if repeated else set()
    dialogues, met = [_dialogue(prompt, known, side, key) for key, side in zip(KEYS[1:], sides)], set()
    for key, dialogue in zip(KEYS[1:], dialogues):
        while dialogue and dialogue[-1]["role"] != "assistant":
            dialogue.pop()
            met.add("human_turns_cut")
        if not dialogue:
            lacking = "" if prompt else ", and there is no prompt"
            raise ValueError(f'{key} has no "Assistant:" turn{lacking}')
    shared = len(list(takewhile(lambda two: two[0] == two[1], zip(*(dialogue[:-1] for dialogue in dialogues)))))
    while shared and any(dialogue[shared]["role"] != "assistant" for dialogue in dialogues):
        shared -= 1
    if not shared:
        raise ValueError("the two dialogues share no prompt: no turn up to a reply in which they are equal")
    met |= {"prompts_differ"} if max(map(len, dialogues)) > shared + 1 else set()
    replies = [text_of(dialogue[shared:]).removeprefix("\n\nAssistant:") for dialogue in dialogues]
    return _checked(text_of(dialogues[0][:shared]) + "\n\nAssistant:", dialogues[0][:shared], replies), met


def completions(prompt: str, chosen: str, rejected: str) -> dict:
    """A pair of texts that go on from a text, whatever they say."""
    return _checked(prompt, [{"role": "user", "content": prompt.strip()}], [chosen, rejected])


def text_of(messages: list[dict]) -> str:
    """Messages as HH-RLHF writes them."""
    turns = (f"\n\n{SPEAKERS[message['role']]}: {message['content']}" for message in messages)
    return "".join(turn if message["content"] else turn[:-1] for turn, message in zip(turns, messages))


def as_message(prompt: str) -> str:
    """A prompt that is no dialogue (a post to summarise): one message of the user, as JSON."""
    return json.dumps([{"role": "user", "content": prompt.strip()}], ensure_ascii=False)


def chat(messages: str, response: str | None = None) -> list[dict]:
    """Messages (JSON) and a response as chat templates take them: what one speaker says twice in a row, which some
    refuse, is one message."""
    by_role = groupby(json.loads(messages), key=lambda message: message["role"])
    dialogue = [{"role": role, "content": "\n\n".join(said["content"] for said in some)} for role, some in by_role]
    return dialogue if response is None else [*dialogue, {"role": "assistant", "content": response.strip()}]


def _dialogue(prompt, known: list[dict] | str | None, side, key: str) -> list[dict]:
    """All that is said: the ``prompt`` (``known``: as messages or, of a text without roles, as it is) and one side."""
    if isinstance(known, str):
        known = [{"role": "user", "content": known.strip()}]
    if isinstance(side, str) and not TURN.match(side) and known is not None:  # what follows the prompt
        if isinstance(prompt, str) and TURN.search(prompt):  # both are one transcript
            return _turns(prompt + ("" if known[-1]["role"] == "assistant" else "\n\nAssistant:") + side)
        known = _open(known)
        begun = known.pop()["content"] if known[-1]["role"] == "assistant" else ""
        return [*known, {"role": "assistant", "content": (begun + side).strip()}]
    said = _said(side, key)
    if known is None or isinstance(said, str):
        return [] if isinstance(said, str) else said
    known, one, other = _open(known), *([_plain(message) for message in some] for some in (_open(known), said))
    if any(other[at : at + len(one)] == one for at in range(len(other))):  # a whole chat holds the prompt
        return said
    shared = next((n for n in range(min(len(one), len(other)), 0, -1) if one[-n:] == other[:n]), 0)
    if not shared and said[0]["role"] != "assistant" and known[-1]["role"] != "assistant":
        raise ValueError(f"{key} is a chat that does not go on from the prompt: {said[0]['content']!r:.60}")
    if known[-1]["role"] == said[0]["role"] == "assistant":  # a reply that the prompt begins
        *known, begun = known
        said = [{"role": "assistant", "content": f"{begun['content']} {said[0]['content']}".strip()}, *said[1:]]
    return known + said[shared:]


def _plain(message: dict) -> tuple[str, str]:
    """A message without what another writing of the same text changes."""
    text = unicodedata.normalize("NFC", message["content"].replace("\r\n", "\n").lstrip("\ufeff"))
    return message["role"], text.strip()


def _reply(side) -> dict:
    """A side that is one reply, as a message."""
    last = side[-1] if isinstance(side, list) and side else side
    return last if isinstance(last, dict) else {"role": "assistant", "content": last}


def _open(known: list[dict]) -> list[dict]:
    """A prompt without the turn that the response will be."""
    return known[:-1] if len(known) > 1 and known[-1] == {"role": "assistant", "content": ""} else known[:]


def _unlisted(text: str, key: str) -> list | str | None:
    """The messages that a column of text holds as JSON; any other text as it is, None for a blank one."""
    try:
        return json.loads(text) if LISTED.match(text) else text if text.strip() else None
    except ValueError:
        raise ValueError(f"{key} is a list of messages as text, but not as JSON: {text!r:.60}") from None


def _is_whole(side) -> bool:
    """Is it a dialogue and not the reply alone?"""
    return bool(TURN.search(side)) if isinstance(side, str) else isinstance(side, list) and len(side) > 1


def _said(value, key: str) -> list[dict] | str:
    """Its messages; a text that is no transcript as it is."""
    if isinstance(value, str):
        return _turns(value) if TURN.search(value) else value
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value) or not value:
        raise ValueError(f"{key} is neither text nor chat messages: {value!r:.60}")
    if unknown := [message.get("role") for message in value if str(message.get("role")) not in SPEAKERS]:
        raise ValueError(f"{key}: unknown role {unknown[0]!r:.60}")
    if any(message.get("tool_calls") for message in value):
        raise ValueError(f"{key}: a message calls tools, which is no text")
    return [{"role": message["role"], "content": _content(message.get("content"), key)} for message in value]


def _content(content, key: str) -> str:
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} is neither text nor chat messages: {content!r:.60}")
    return "".join(texts).strip()


def _turns(transcript: str) -> list[dict]:
    """The turns of a transcript; what stands before the first one is the system's."""
    before, *named = TURN.split(transcript)
    said = [("System", before)] if before.strip() else []
    said += zip(named[::2], named[1::2])
    return [{"role": ROLES[speaker], "content": text.strip()} for speaker, text in said]


def _checked(prompt: str, messages: list[dict], replies: list[str]) -> dict:
    pair = dict(zip(KEYS, (prompt, *replies)))
    if replies[0].strip() == replies[1].strip():
        raise ValueError("chosen and rejected are equal")
    for key, text in pair.items():
        if re.search("[\ud800-\udfff]", text):
            raise ValueError(f"{key} holds half of a surrogate pair, which is no text")
    return pair | {"messages": json.dumps(messages, ensure_ascii=False)}
