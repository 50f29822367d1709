"""The forms of a judge's questions, and what its replies say."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import BeforeValidator, Field

FORMS = Path(__file__).parents[2] / "params" / "forms"


def _no_truth_value(value):
    return str(value) if isinstance(value, bool) else value


_BETTER = Annotated[Literal["1", "2", "tie"], BeforeValidator(lambda value: str(value).strip().lower())]
_RATING = Annotated[int, Field(ge=1, le=10), BeforeValidator(_no_truth_value)]
# What a reply to each form must hold; asked of the server only if ``structured`` says so, and checked in any case.
REPLIES = {
    "pairwise": pydantic.create_model("Pairwise", __config__={"extra": "forbid"}, better=_BETTER),
    "rating": pydantic.create_model("Rating", __config__={"extra": "forbid"}, rating_1=_RATING, rating_2=_RATING),
}


THOUGHT = re.compile(r"</think(?:ing)?>|\[/THINK\]"), re.compile(r"<think(?:ing)?>|\[THINK\]")  # its end, and its begin


def _once(pairs: list[tuple]) -> dict:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is said twice")
    return dict(pairs)


def form_text(name: str) -> str:
    """The text of a question in the form ``name``, with ``$prompt``, ``$first`` and ``$second``."""
    return (FORMS / f"{name}.txt").read_text(encoding="utf-8")


def verdict_of(form: str, reply: str) -> str | None:
    """What a reply says by the JSON object in it that has the form's fields; what else is in it, or stands around it or
    in a thought before it, says nothing. None if there is no such object, or two that differ."""
    kind, leads = REPLIES[form], set()
    answer = THOUGHT[1].split(THOUGHT[0].split(reply)[-1])[0]
    at = answer.find("{")
    while at >= 0:
        try:
            content, end = json.JSONDecoder(object_pairs_hook=_once).raw_decode(answer, at)
            said = kind.model_validate({name: content[name] for name in kind.model_fields if name in content})
            lead = {"1": 1, "2": -1, "tie": 0}[said.better] if form == "pairwise" else said.rating_1 - said.rating_2
            leads.add("first" if lead > 0 else "second" if lead < 0 else "tie")
        except (ValueError, RecursionError):  # what is no such object may hold one
            end = at + 1
        at = answer.find("{", end)
    return leads.pop() if len(leads) == 1 else None
