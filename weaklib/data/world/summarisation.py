"""Summarisation: a post tells who did what, a feeling and a question among chatter; a good summary has the three.

The post has the form of Reddit TL;DR (Stiennon et al. 2020). A summary is wrong in what it invents: another person, another
deed, another feeling.
"""

import re

import numpy as np

from weaklib.data.world import knobs
from weaklib.data.world import summarisation_text as text
from weaklib.data.world.grammar import distinct, does, normal, pick, points_of

HUMAN = knobs.HUMAN_OF_SUMMARISATION


def sample_prompts(rng: np.random.Generator, count: int, kind: str = "both") -> list[str]:
    """Distinct posts; there is one kind only."""
    capacity = np.prod([len(o) for o in (text.OPENINGS, text.WHO, text.DID, text.WHEN, text.FEELING, text.QUESTION)])
    return distinct(count, float(capacity), lambda: _post(rng))


def _post(rng) -> str:
    sentences = [
        f"{pick(rng, text.WHO)} {pick(rng, text.DID)} {pick(rng, text.WHEN)}.",
        pick(rng, text.FEELING),
        pick(rng, text.QUESTION),
    ]
    for _ in range(knobs.CHATTER_IN_A_POST):
        sentences.insert(rng.integers(3), pick(rng, text.CHATTER))
    return f"\n\nPost: {pick(rng, text.OPENINGS)}{' '.join(sentences)}\n\nTL;DR:"


def write_response(rng: np.random.Generator, prompt: str) -> str:
    """A summary by a writer whose care is drawn at random: careful ones leave nothing out and invent nothing."""
    care = rng.random()
    who, did, feeling, question = facts_of(prompt)
    sentences = []
    if does(rng, care, knobs.TELLS_EVENT):
        if not does(rng, care, knobs.EVENT_IS_RIGHT):
            wrong_person = does(rng, care, knobs.WRONG_PERSON)
            who, did = (pick(rng, text.WHO), did) if wrong_person else (who, pick(rng, text.DID))
        sentences.append(f"{who} {did}.")
    if does(rng, care, knobs.TELLS_FEELING):
        sentences.append(feeling if does(rng, care, knobs.DETAIL_IS_RIGHT) else pick(rng, text.FEELING))
    if does(rng, care, knobs.TELLS_QUESTION):
        sentences.append(question if does(rng, care, knobs.DETAIL_IS_RIGHT) else pick(rng, text.QUESTION))
    for _ in range(rng.binomial(knobs.MOST_CHATTER, knobs.KEEPS_CHATTER.share(care))):
        sentences.insert(rng.integers(len(sentences) + 1), pick(rng, text.CHATTER))
    return " " + " ".join(sentences or [pick(rng, text.CHATTER)])


def gold_reward(prompt: str, response: str) -> float:
    """The truth: how good ``response`` is as a summary of the post ``prompt``. About −3 to 3."""
    who, did, feeling, question = facts_of(prompt)
    right = {normal(f"{who} {did}"): "event", normal(feeling): "feeling", normal(question): "question"}

    def read(sentence):
        kind = _KINDS.get(sentence, "garbled")
        return (right.get(sentence, "invented") if kind == "fact" else kind), sentence

    return points_of(response, read, knobs.POINTS_SUMMARY, knobs.PER_WORD_OF_SUMMARY)


def facts_of(prompt: str) -> tuple[str, str, str, str]:
    """Who, did what, the feeling and the question of a post of this world."""
    found = [
        re.search("|".join(map(re.escape, options)), prompt)
        for options in (text.WHO, text.DID, text.FEELING, text.QUESTION)
    ]
    if not all(found):
        raise ValueError(f"not a post of the controlled world: {prompt!r}")
    return tuple(match.group() for match in found)


_KINDS = {normal(f"{who} {did}"): "fact" for who in text.WHO for did in text.DID}
_KINDS |= {normal(sentence): "fact" for sentence in (*text.FEELING, *text.QUESTION)}
_KINDS |= {normal(sentence): "chatter" for sentence in text.CHATTER}
