"""Dialogues: from HH-RLHF's plain form to chat messages."""

import re

_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def messages(prompt: str, response: str | None = None) -> list[dict]:
    """A dialogue as chat messages; a prompt that is not in the HH form (a post to summarise) is one message of the user."""
    _, *turns = _TURN.split(prompt)
    said = list(zip(turns[::2], turns[1::2]))
    if said and said[-1] == ("Assistant", ""):
        said.pop()
    roles = {"Human": "user", "Assistant": "assistant"}
    dialogue = [{"role": roles[who], "content": what} for who, what in said] or [
        {"role": "user", "content": prompt.strip()}
    ]
    return dialogue if response is None else [*dialogue, {"role": "assistant", "content": response.strip()}]
