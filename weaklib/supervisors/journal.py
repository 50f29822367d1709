"""What a judge was asked and what it said: questions, the reading of replies, and a journal that only grows."""

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from weaklib.supervisors.judge_settings import Judge

_CHOICE = {"type": "string", "enum": ["1", "2", "tie"]}
_RATING = {"type": "integer", "minimum": 1, "maximum": 10}
# What a reply to each form must be; asked of the server only if ``structured`` says so, and checked in any case.
FIELDS = {"pairwise": {"better": _CHOICE}, "rating": {"rating_1": _RATING, "rating_2": _RATING}}


@dataclass(frozen=True)
class Question:
    prompt: str
    first: str
    second: str
    repeat: int = 0
    examples: str = ""  # what stands before it


def verdict_of(form: str, reply: str) -> str | None:
    """What a reply says, strictly: one JSON object, as it is or in a code fence, with the form's fields and no others."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", reply.strip(), re.DOTALL)
    try:
        said = json.loads(fenced.group(1) if fenced else reply)
    except ValueError:
        return None
    if not isinstance(said, dict) or set(said) != set(FIELDS[form]):
        return None
    if form == "pairwise":
        better = said["better"]
        return {"1": "first", "2": "second", "tie": "tie"}.get(better) if isinstance(better, str) else None
    ratings = said["rating_1"], said["rating_2"]
    if not all(type(rating) is int and 1 <= rating <= 10 for rating in ratings):
        return None
    return "tie" if ratings[0] == ratings[1] else "first" if ratings[0] > ratings[1] else "second"


class Journal:
    """The replies of one judge, in a file of JSON lines that only grows; a question is answered by one that can be read, or by two."""

    def __init__(self, folder: Path, settings: Judge, text: str):
        identity = settings.model_dump(include={"base_url", "model", "form", "structured", "temperature", "max_tokens"})
        identity["text"] = text
        self.form = settings.form
        self.path = folder / f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.replies: dict[str, list[dict]] = {}
        text = self.path.read_text(encoding="utf-8")
        for line in text.splitlines():
            with contextlib.suppress(ValueError):  # the end of a line that a killed run was writing
                reply = json.loads(line)
                self.replies.setdefault(reply["question"], []).append(reply)
        if text and not text.endswith("\n"):
            self._append("\n")

    def answered(self, question: Question) -> bool:
        record = self.record(question)
        return record["requests"] == 2 or record["verdict"] is not None

    def record(self, question: Question) -> dict:
        replies = self.replies.get(self._key(question), [])
        last = replies[-1]["reply"] if replies else None
        verdict = None if last is None else verdict_of(self.form, last)
        tokens = {name: sum(reply[name] for reply in replies) for name in ("input_tokens", "output_tokens")}
        return {"verdict": verdict, "reply": last, "requests": len(replies), **tokens}

    def add(self, question: Question, reply: str, input_tokens: int, output_tokens: int) -> None:
        entry = {"question": self._key(question), "reply": reply}
        entry |= {"input_tokens": input_tokens, "output_tokens": output_tokens}
        self._append(json.dumps(entry) + "\n")
        self.replies.setdefault(entry["question"], []).append(entry)

    def all(self) -> list[dict]:
        return [reply for replies in self.replies.values() for reply in replies]

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    @staticmethod
    def _key(question: Question) -> str:
        return hashlib.sha256(json.dumps([*vars(question).values()]).encode()).hexdigest()[:24]
