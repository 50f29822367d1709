"""What the worlds share: reading an answer sentence by sentence, adding up its points, and the human annotator."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Each further sentence of a good kind adds less than the one before, so that no answer wins by being endless.
DIMINISHING = 0.7
REPEATED = -0.5  # a sentence said twice
GARBLED = -0.8  # words that form no sentence of the grammar
EMPTY = -2.0  # nothing was said


@dataclass(frozen=True)
class HumanAnnotator:
    """P(prefers a) = ``lapse``/2 + (1 − ``lapse``)·σ((g_a − g_b)/``temperature`` + ``length_taste``·(words_a − words_b)).

    ``temperature`` makes human labels agree with the gold reward on about 70% of pairs, as gold reward models
    agree with the human labels of HH-RLHF; it is set for each world by simulation (`notebooks/LOG.md`). ``lapse`` is
    the share of pairs that are labelled without looking. ``length_taste`` is the known preference of annotators for longer
    answers, odds of e^0.04 a word.
    """

    temperature: float
    lapse: float = 0.1
    length_taste: float = 0.04

    def probability(self, gold_a, gold_b, words_a, words_b) -> np.ndarray:
        """Probability that the human prefers response a, one for each pair."""
        utility = (gold_a - gold_b) / self.temperature + self.length_taste * (words_a - words_b)
        return self.lapse / 2 + (1 - self.lapse) / (1 + np.exp(-utility))


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
        return EMPTY
    reward = per_word * len(response.split())
    said, times = set(), {}
    for sentence in sentences:
        kind, content = read(sentence)
        if content in said:
            reward += REPEATED
        elif kind == "garbled":
            reward += GARBLED
        else:
            value = points.get(kind, 0.0)
            reward += value * DIMINISHING ** times.get(kind, 0) if value > 0 else value
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
