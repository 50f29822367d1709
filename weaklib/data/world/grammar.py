"""What the worlds share: drawing words, and reading an answer sentence by sentence."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from weaklib.data.world import knobs


def words(text: str) -> list[str]:
    return [" ".join(entry.split()) for entry in text.split("|")]


def table(text: str) -> dict[str, list[list[str]]]:
    """Name → lists of words, of a text ``name: word|word; word|word / name: word|word``."""
    entries = (entry.split(":") for entry in text.split("/"))
    return {words(name)[0]: [words(some) for some in lists.split(";")] for name, lists in entries}


def pick(rng: np.random.Generator, options: Sequence):
    return options[rng.integers(len(options))]


def distinct(count: int, sample: Callable[[], str]) -> list[str]:
    """``count`` different draws. Raises ValueError where a thousand in a row bring nothing new: there are no more."""
    found, repeated = {}, 0  # a set that keeps its order
    while len(found) < count:
        prompt = sample()
        repeated = repeated + 1 if prompt in found else 0
        if repeated == 1000:
            raise ValueError(f"the world has about {len(found)} such prompts to give, {count} were asked for")
        found[prompt] = None
    return list(found)


def told(prompt: str, options: Iterable[str]) -> str:
    """The one of ``options`` that a prompt tells. Raises ValueError where it tells none."""
    found = next((option for option in options if option in prompt), None)
    if found is None:
        raise ValueError(f"not a prompt of the controlled world: {prompt!r}")
    return found


def normal(sentence: str) -> str:
    return re.sub(r"[^a-z ]", "", sentence.lower()).strip()


def points_of(response: str, read: Callable[[str], tuple], points: dict[str, float], per_word: float) -> float:
    """The gold reward: the points of each sentence, whose kind and content ``read`` tells, and the price of words."""
    sentences = [normal(s) for s in re.findall(r"[^.!?]+[.!?]?", response) if s.strip()]
    if not sentences:
        return knobs.EMPTY
    reward = per_word * len(response.split())
    said, times = set(), Counter()
    for kind, content in map(read, sentences):
        if content in said:
            reward += knobs.REPEATED
        else:
            value = points.get(kind, knobs.GARBLED)
            reward += value * (knobs.DIMINISHING ** times[kind] if value > 0 else 1)
            times[kind] += 1
        said.add(content)
    return reward
