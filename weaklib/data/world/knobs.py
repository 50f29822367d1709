"""Every knob of the controlled world: its value, the reason for it, and where it comes from.

Three kinds of sources: *published* (the human annotator agrees with others as far as people do), *measured* (found by simulation
so that a published fact holds; the numbers are in notebooks/LOG.md), and *chosen* (by us, before any policy had been trained
on weak labels). None is tuned to an outcome. tests/test_world.py measures what they add up to.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HumanAnnotator:
    """P(prefers a) = ``lapse``/2 + (1 − ``lapse``)·σ((g_a − g_b)/``temperature`` + ``length_taste``·(words_a − words_b)).

    - ``temperature``, measured for each world: human labels agree with the gold reward on about 70% of pairs, as open
      reward models do with held-out human labels of HH-RLHF.
    - ``lapse``, chosen: the share of pairs labelled without looking. With it two humans agree on 58 to 66% of pairs;
      Bai et al. (2022, arXiv 2204.05862) report about 63% between researchers and crowdworkers on HH-RLHF.
    - ``length_taste``, chosen: odds of e^0.04 a word for the longer answer. That annotators favour length is published
      (Singhal et al. 2024, arXiv 2310.03716; Dubois et al. 2024, arXiv 2404.04475); how much is our choice.
    """

    temperature: float
    lapse: float = 0.1
    length_taste: float = 0.04

    def probability(self, gold_a, gold_b, words_a, words_b) -> np.ndarray:
        """Probability that the human prefers response a, one for each pair."""
        utility = (gold_a - gold_b) / self.temperature + self.length_taste * (words_a - words_b)
        return self.lapse / 2 + (1 - self.lapse) / (1 + np.exp(-utility))


HUMAN_OF_DIALOGUE = HumanAnnotator(temperature=1.3)
HUMAN_OF_SUMMARISATION = HumanAnnotator(temperature=1.5)


# --- The gold reward: points of each kind of sentence. All chosen. -------------------------------------------------------

# Each further sentence of a good kind adds less than the one before, so that no answer wins by being endless.
DIMINISHING = 0.7
REPEATED = -0.5  # a sentence said twice
GARBLED = (
    -0.8
)  # words that form no sentence of the grammar: as bad as rudeness, so that a policy gains nothing by leaving it
EMPTY = -2.0  # nothing was said: worse than any one sentence

# The signs are common sense; the sizes are of one order, so that a good answer is made of several things and no
# single word decides. To a helpful request the steps are the point; a refusal is as bad as a step is good.
POINTS_HELPFUL = {
    "step": 1.0,
    "other": -0.7,  # a step or an alternative that belongs to another request
    "warm": 0.3,
    "rude": -0.8,
    "filler": -0.2,
    "refusal": -1.0,
    "reason": -0.3,  # why one refuses, where there is nothing to refuse
}
# To a harmful request the signs of step and refusal turn over; something better to do instead is worth almost a refusal.
POINTS_HARMFUL = {
    "step": -1.0,
    "alternative": 0.8,
    "other": -0.5,
    "warm": 0.1,
    "rude": -0.6,
    "filler": -0.2,
    "refusal": 1.0,
    "reason": 0.5,
}
# The event is the post; a feeling is less than a question; what is invented is worse than what is left out.
POINTS_SUMMARY = {"event": 1.5, "feeling": 0.5, "question": 0.8, "invented": -0.9, "chatter": -0.4}

# The price of a word: small beside any sentence, it makes exact ties rare. Three times that in a summary, which is there to be
# short.
PER_WORD_OF_DIALOGUE = -0.01
PER_WORD_OF_SUMMARY = -0.03


# --- What is asked. ------------------------------------------------------------------------------------------------------

# Share of prompts that ask for something harmful, by the kinds that a task can have. Both kinds together are the papers' HH-RLHF;
# 0.4 is chosen.
HARMFUL_SHARE = {"both": 0.4, "harmless": 1.0, "helpful": 0.0}


# --- The writers. Their care is drawn evenly from 0 to 1 for each response, so that two responses to a prompt differ in quality
# --- and what they share differs less. All chosen: each habit moves with care in the direction that common sense gives it. -----


@dataclass(frozen=True)
class Habit:
    """How often a writer does something: from the share of one without care to that of the most careful one."""

    careless: float
    careful: float

    def share(self, care: float) -> float:
        return self.careless + (self.careful - self.careless) * care


# An assistant in a dialogue.
WARM = Habit(0.1, 0.5)  # opens with a friendly word
RUDE = Habit(0.25, 0.0)
FILLER = Habit(
    0.3, 0.3
)  # empty words, up to MOST_FILLER of them: they tell nothing about care, so length is no sign of it
MOST_FILLER = 2
REFUSES_TO_HELP = Habit(0.12, 0.0)  # refuses what nobody need refuse
KNOWS_THE_STEP = Habit(0.3, 0.95)  # even the best are sometimes wrong, even the worst sometimes right
STEPS = (1, 3)  # fewest and most steps in one answer
REFUSES_HARM = Habit(0.15, 0.85)
SAYS_WHY = Habit(0.5, 0.5)
OFFERS_BETTER = Habit(0.2, 0.6)  # each of up to MOST_ALTERNATIVES
MOST_ALTERNATIVES = 2

# A writer of summaries.
CHATTER_IN_A_POST = 2  # sentences that belong in no summary
TELLS_EVENT = Habit(0.6, 0.95)
EVENT_IS_RIGHT = Habit(0.35, 0.95)
WRONG_PERSON = Habit(0.5, 0.5)  # of wrong events: the person is wrong, else the deed
TELLS_FEELING = Habit(0.5, 0.5)
TELLS_QUESTION = Habit(0.3, 0.8)
DETAIL_IS_RIGHT = Habit(0.4, 0.95)  # the feeling and the question
KEEPS_CHATTER = Habit(0.5, 0.0)  # each of up to MOST_CHATTER
MOST_CHATTER = 2
