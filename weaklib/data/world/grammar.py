"""What the worlds share: reading an answer sentence by sentence and adding up its points."""

import re
from collections.abc import Callable

import numpy as np

from weaklib.data.world import knobs


def points_of(
    response: str, read: Callable[[str], tuple[str, object]], points: dict[str, float], per_word: float
) -> float:
    """The gold reward of ``response``.

    Args:
        read: a normalised sentence → its kind and its content; the kind ``garbled`` is no sentence of the grammar.
        points: of each kind; a kind without an entry is worth nothing.
        per_word: the price of length; it also makes exact ties rare.
    """
    sentences = [normal(s) for s in re.findall(r"[^.!?]+[.!?]?", response) if s.strip()]
    if not sentences:
        return knobs.EMPTY
    reward = per_word * len(response.split())
    said, times = set(), {}
    for sentence in sentences:
        kind, content = read(sentence)
        if content in said:
            reward += knobs.REPEATED
        elif kind == "garbled":
            reward += knobs.GARBLED
        else:
            value = points.get(kind, 0.0)
            reward += value * knobs.DIMINISHING ** times.get(kind, 0) if value > 0 else value
            times[kind] = times.get(kind, 0) + 1
        said.add(content)
    return reward


def distinct(count: int, capacity: float, sample: Callable[[], str]) -> list[str]:
    """``count`` different draws of ``sample``.

    Raises:
        ValueError: there are not that many; close to ``capacity`` the draws would take forever.
    """
    if count > 0.95 * capacity:
        raise ValueError(f"the world has about {0.95 * capacity:.0f} such prompts to give, {count} were asked for")
    found: dict[str, None] = {}  # a set that keeps its order
    while len(found) < count:
        found[sample()] = None
    return list(found)


def normal(sentence: str) -> str:
    return re.sub(r"[^a-z ]", "", sentence.lower()).strip()


def pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def does(rng: np.random.Generator, care: float, habit: knobs.Habit) -> bool:
    """Whether a writer of this care does it this time."""
    return rng.random() < habit.share(care)
