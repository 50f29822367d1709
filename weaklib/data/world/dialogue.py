"""Dialogue: a user asks something helpful ("How do I boil an egg?") or harmful ("How can I cheat in the exam?").

A good answer to the first knows the steps; a good answer to the second refuses, says why, and offers something better.
"""

import re

import numpy as np

from weaklib.data.world import dialogue_text as text
from weaklib.data.world import knobs
from weaklib.data.world.grammar import distinct, does, normal, pick, points_of

HUMAN = knobs.HUMAN_OF_DIALOGUE


def sample_prompts(rng: np.random.Generator, count: int, kind: str = "both") -> list[str]:
    """Distinct prompts in the HH-RLHF form: ``helpful`` ones, harmful ones (``harmless``, after HH's split), or both."""
    share = knobs.HARMFUL_SHARE[kind]
    forms = len(text.OPENINGS) * len(text.FRAMES) * len(text.CIRCUMSTANCES)
    limits = [forms * len(wishes) / s for wishes, s in ((text.HARMFUL, share), (text.HELPFUL, 1 - share)) if s]
    return distinct(count, min(limits), lambda: _question(rng, share))


def _question(rng, harmful_share: float) -> str:
    wishes = text.HARMFUL if rng.random() < harmful_share else text.HELPFUL
    question = pick(rng, text.FRAMES).format(pick(rng, list(wishes)), pick(rng, text.CIRCUMSTANCES))
    return f"\n\nHuman: {pick(rng, text.OPENINGS)}{question}\n\nAssistant:"


def write_response(rng: np.random.Generator, prompt: str) -> str:
    """A response by an assistant whose care is drawn at random: careful ones know the steps and stay friendly."""
    care = rng.random()
    wish = wish_of(prompt)
    sentences = []
    if does(rng, care, knobs.WARM):
        sentences.append(pick(rng, text.WARM))
    if does(rng, care, knobs.RUDE):
        sentences.append(pick(rng, text.RUDE))
    if wish in text.HELPFUL:
        sentences += _helpful_answer(rng, wish, care)
    else:
        sentences += _answer_to_harmful(rng, wish, care)
    for _ in range(rng.binomial(knobs.MOST_FILLER, knobs.FILLER.share(care))):
        sentences.insert(rng.integers(len(sentences) + 1), pick(rng, text.FILLER))
    return " " + " ".join(sentences)


def _helpful_answer(rng, wish: str, care: float) -> list[str]:
    if does(rng, care, knobs.REFUSES_TO_HELP):
        return [pick(rng, text.REFUSAL)]
    steps = []
    for _ in range(_number_of_steps(rng)):
        known = does(rng, care, knobs.KNOWS_THE_STEP)
        steps.append(pick(rng, text.HELPFUL[wish if known else pick(rng, list(text.HELPFUL))]))
    return [pick(rng, text.STEP_FRAMES).format(step) for step in steps]


def _answer_to_harmful(rng, wish: str, care: float) -> list[str]:
    harmful_steps, alternatives = text.HARMFUL[wish]
    if not does(rng, care, knobs.REFUSES_HARM):
        steps = [pick(rng, harmful_steps) for _ in range(_number_of_steps(rng))]
        return [pick(rng, text.STEP_FRAMES).format(step) for step in steps]
    sentences = [pick(rng, text.REFUSAL)]
    if does(rng, care, knobs.SAYS_WHY):
        sentences.append(pick(rng, text.REASON))
    for _ in range(rng.binomial(knobs.MOST_ALTERNATIVES, knobs.OFFERS_BETTER.share(care))):
        sentences.append(pick(rng, text.STEP_FRAMES).format(pick(rng, alternatives)))
    return sentences


def _number_of_steps(rng) -> int:
    fewest, most = knobs.STEPS
    return rng.integers(fewest, most + 1)


def gold_reward(prompt: str, response: str) -> float:
    """The truth: how good ``response`` is as an answer to ``prompt``. About −4 to 4."""
    wish = wish_of(prompt)

    def read(sentence):
        kind, content = _KINDS.get(sentence, ("garbled", sentence))
        return ("other" if kind in ("step", "alternative") and content[0] != wish else kind), content

    points = knobs.POINTS_HELPFUL if wish in text.HELPFUL else knobs.POINTS_HARMFUL
    return points_of(response, read, points, knobs.PER_WORD_OF_DIALOGUE)


def wish_of(prompt: str) -> str:
    """What the user of a prompt of this world wants, a key of ``HELPFUL`` or ``HARMFUL``."""
    found = _WISH.search(prompt)
    if not found:
        raise ValueError(f"not a prompt of the controlled world: {prompt!r}")
    return found.group()


def _sentence_kinds() -> dict[str, tuple[str, object]]:
    """Each sentence of the grammar (normalised) → its kind and its content; a step's content is (wish, step)."""
    kinds = {}
    for kind in ("warm", "rude", "filler", "refusal", "reason"):
        for sentence in getattr(text, kind.upper()):
            kinds[normal(sentence)] = (kind, sentence)
    steps = [("step", wish, step) for wish, steps in text.HELPFUL.items() for step in steps]
    for wish, (harmful_steps, alternatives) in text.HARMFUL.items():
        steps += [("step", wish, step) for step in harmful_steps]
        steps += [("alternative", wish, step) for step in alternatives]
    for kind, wish, step in steps:
        for frame in text.STEP_FRAMES:
            kinds[normal(frame.format(step))] = (kind, (wish, step))
    return kinds


_KINDS = _sentence_kinds()
_WISH = re.compile("|".join(map(re.escape, (*text.HELPFUL, *text.HARMFUL))))
