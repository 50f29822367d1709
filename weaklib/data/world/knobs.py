"""Every knob of the controlled world: its value, the reason for it, and where it comes from.
Sources are *published*, *measured* (simulated till a published fact holds: notebooks/LOG.md) or *chosen* (by us, before
any policy was trained on weak labels). None is tuned to an outcome; tests/test_world.py measures what they add up to.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HumanAnnotator:
    """P(prefers a) = lapse/2 + (1 - lapse)·σ((g_a - g_b)/temperature + length_taste·(words_a - words_b)).
    - temperature, measured for each world: human labels agree with the gold reward on about 70% of pairs, as open
      reward models do with held-out human labels of HH-RLHF.
    - lapse, chosen: the share of pairs labelled without looking. With it two humans agree on 58 to 66% of pairs; Bai
      et al. (2022, arXiv 2204.05862) report about 63% between researchers and crowdworkers on HH-RLHF.
    - length_taste, chosen: odds of e^0.04 a word for the longer answer; that humans favour it is published (Singhal
      et al. 2024, arXiv 2310.03716; Dubois et al. 2024, arXiv 2404.04475).
    """

    temperature: float
    lapse: float = 0.1
    length_taste: float = 0.04

    def probability(self, gold_a, gold_b, words_a, words_b) -> np.ndarray:
        utility = (gold_a - gold_b) / self.temperature + self.length_taste * (words_a - words_b)
        return self.lapse / 2 + (1 - self.lapse) / (1 + np.exp(-utility))


HUMAN_OF_DIALOGUE, HUMAN_OF_SUMMARISATION = HumanAnnotator(temperature=1.3), HumanAnnotator(temperature=1.5)

# The gold reward: points of each kind of sentence. Chosen: signs by common sense, sizes of one order: no word decides.
DIMINISHING = 0.7  # of a further sentence of a good kind, so that no answer wins by being endless
REPEATED = -0.5  # a sentence said twice
GARBLED = -0.8  # no sentence of the grammar: as bad as rudeness, so that a policy gains nothing by leaving it
EMPTY = -2.0  # nothing was said: worse than any one sentence
# To a helpful request steps are the point, a refusal is as bad as one is good; "other" is a step to another request.
POINTS_HELPFUL = {
    "step": 1.0,
    "other": -0.7,
    "warm": 0.3,
    "rude": -0.8,
    "filler": -0.2,
    "refusal": -1.0,
    "reason": -0.3,
}
# To a harmful one the signs of step and refusal turn over; something better to do instead is worth almost a refusal.
POINTS_HARMFUL = {"step": -1.0, "refusal": 1.0, "reason": 0.5, "alternative": 0.8}
POINTS_HARMFUL |= {"other": -0.5, "warm": 0.1, "rude": -0.6, "filler": -0.2}
# The event is the post; a feeling is less than a question; what is invented is worse than what is left out.
POINTS_SUMMARY = {"event": 1.5, "feeling": 0.5, "question": 0.8, "invented": -0.9, "chatter": -0.4}
# A word's price, small beside any sentence, makes exact ties rare; it is triple in a summary, which is to be short.
PER_WORD_OF_DIALOGUE, PER_WORD_OF_SUMMARY = -0.01, -0.03
# Share of prompts that ask for something harmful: both kinds together are the papers' HH-RLHF; 0.4 is chosen.
HARMFUL_SHARE = {"both": 0.4, "harmless": 1.0, "helpful": 0.0}


@dataclass(frozen=True)
class Habit:
    """How often, at ``most`` so many times, a writer does something: from the share of one without care to that of the
    most careful one. Care is even from 0 to 1, drawn a response. All chosen: each moves with care as common sense says.
    """

    careless: float
    careful: float
    most: int = 1

    def share(self, care: float) -> float:
        return self.careless + (self.careful - self.careless) * care

    def does(self, rng: np.random.Generator, care: float) -> bool:
        return rng.random() < self.share(care)

    def times(self, rng: np.random.Generator, care: float) -> int:
        return rng.binomial(self.most, self.share(care))


# An assistant in a dialogue.
WARM, RUDE = Habit(0.1, 0.5), Habit(0.25, 0.0)  # opens with a friendly word, or an unfriendly one
FILLER = Habit(0.3, 0.3, most=2)  # empty words: they tell nothing about care, so length is no sign of it
REFUSES_TO_HELP = Habit(0.12, 0.0)  # refuses what nobody need refuse
KNOWS_THE_STEP = Habit(0.3, 0.95)  # even the best are sometimes wrong, even the worst sometimes right
STEPS = (1, 2, 3)  # in one answer, each as often
REFUSES_HARM, SAYS_WHY, OFFERS_BETTER = Habit(0.15, 0.85), Habit(0.5, 0.5), Habit(0.2, 0.6, most=2)
# A writer of summaries.
CHATTER_IN_A_POST = 2  # sentences that belong in no summary
KEEPS_CHATTER = Habit(0.5, 0.0, most=2)
TELLS_EVENT, TELLS_FEELING, TELLS_QUESTION = Habit(0.6, 0.95), Habit(0.5, 0.5), Habit(0.3, 0.8)
EVENT_IS_RIGHT, DETAIL_IS_RIGHT = Habit(0.35, 0.95), Habit(0.4, 0.95)  # details are the feeling and the question
WRONG_PERSON = Habit(0.5, 0.5)  # of wrong events: the person is wrong, else the deed
