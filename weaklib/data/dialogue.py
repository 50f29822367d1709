"""Dialogues: from HH-RLHF's plain form to chat messages."""

import re
from itertools import groupby
from operator import itemgetter

_TURN = re.compile(r"\n\n(System|Human|Assistant): ?")


def _by_turns(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What one speaker says twice in a row, which some templates refuse, as one turn."""
    return [(who, "\n\n".join(what for _, what in turns)) for who, turns in groupby(said, key=itemgetter(0))]


def messages(prompt: str, response: str | None = None) -> list[dict]:
    """A dialogue as chat messages; a prompt that is not in the HH form (a post to summarise) is one message of the user."""
    _, *turns = _TURN.split(prompt)
    said = list(zip(turns[::2], turns[1::2]))
    if said and said[-1] == ("Assistant", ""):
        said.pop()
    roles = {"System": "system", "Human": "user", "Assistant": "assistant"}
    dialogue = [{"role": roles[who], "content": what} for who, what in _by_turns(said)] or [
        {"role": "user", "content": prompt.strip()}
    ]
    return dialogue if response is None else [*dialogue, {"role": "assistant", "content": response.strip()}]
