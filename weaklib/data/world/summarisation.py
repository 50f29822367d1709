"""Summarisation: a post tells who did what, a feeling and a question among chatter; a good summary has the three.
The post has the form of Reddit TL;DR (Stiennon et al. 2020). A summary is wrong in what it invents.
"""

import numpy as np

from weaklib.data.world import knobs
from weaklib.data.world.grammar import distinct, normal, pick, points_of, told, words

HUMAN = knobs.HUMAN_OF_SUMMARISATION
OPENINGS = words("""|Hi all.|Throwaway account.|Long time reader.|I need advice.|Not sure where to begin.""")
# Who did what, and when: the event that a summary must get right; then what the writer feels and asks.
WHO = words("""My sister|My brother|My boss|My neighbour|My roommate|My best friend|My cousin|My uncle|My teacher|
    My landlord""")
DID = words("""lost my bike|ate my lunch|forgot my birthday|told my secret|broke my laptop|moved away|sold my guitar|
    lied about a job|took my place|played loud music|cancelled our trip|kept my money""")
WHEN = words("""last week|yesterday|two days ago|on Monday|last summer|this morning|a month ago|at work""")
FEELING = words("""I am angry.|I am sad.|I feel tired of it.|I am confused.|I am worried.|I feel guilty.""")
QUESTION = words("""Should I forgive them?|Should I say something?|Should I ask for money?|Should I move out?|
    Should I tell my mother?|Should I wait?""")
FACTS = (WHO, DID, FEELING, QUESTION)
# What belongs in no summary.
CHATTER = words("""It was raining at the time.|I like tea in the morning.|We live near a park.|I am thirty years old.|
    My cat was asleep.|The bus was late again.|I work in an office.|English is not my first language.""")

_KINDS = {normal(f"{who} {did}"): "fact" for who in WHO for did in DID}
_KINDS |= {normal(sentence): "fact" for sentence in (*FEELING, *QUESTION)}
_KINDS |= {normal(sentence): "chatter" for sentence in CHATTER}


def sample_prompts(rng: np.random.Generator, count: int, kind: str = "both") -> list[str]:
    """Distinct posts; there is one kind only."""
    return distinct(count, lambda: _post(rng))


def _post(rng) -> str:
    who, did, when, feeling, question = (pick(rng, options) for options in (WHO, DID, WHEN, FEELING, QUESTION))
    sentences = [f"{who} {did} {when}.", feeling, question]
    for _ in range(knobs.CHATTER_IN_A_POST):
        sentences.insert(rng.integers(3), pick(rng, CHATTER))
    post = f"{pick(rng, OPENINGS)} {' '.join(sentences)}".strip()
    return f"\n\nPost: {post}\n\nTL;DR:"


def write_response(rng: np.random.Generator, prompt: str) -> str:
    """A summary by a writer whose care is drawn at random: careful ones leave nothing out and invent nothing."""
    care = rng.random()
    who, did, feeling, question = (told(prompt, options) for options in FACTS)
    sentences = []
    if knobs.TELLS_EVENT.does(rng, care):
        if not knobs.EVENT_IS_RIGHT.does(rng, care):
            wrong_person = knobs.WRONG_PERSON.does(rng, care)
            who, did = (pick(rng, WHO), did) if wrong_person else (who, pick(rng, DID))
        sentences.append(f"{who} {did}.")
    if knobs.TELLS_FEELING.does(rng, care):
        sentences.append(feeling if knobs.DETAIL_IS_RIGHT.does(rng, care) else pick(rng, FEELING))
    if knobs.TELLS_QUESTION.does(rng, care):
        sentences.append(question if knobs.DETAIL_IS_RIGHT.does(rng, care) else pick(rng, QUESTION))
    for _ in range(knobs.KEEPS_CHATTER.times(rng, care)):
        sentences.insert(rng.integers(len(sentences) + 1), pick(rng, CHATTER))
    return " " + " ".join(sentences or [pick(rng, CHATTER)])


def gold_reward(prompt: str, response: str) -> float:
    """The truth: how good ``response`` is as a summary of the post ``prompt``. About −3 to 3."""
    who, did, feeling, question = (told(prompt, options) for options in FACTS)
    right = {normal(f"{who} {did}"): "event", normal(feeling): "feeling", normal(question): "question"}

    def read(sentence):
        kind = _KINDS.get(sentence, "garbled")
        return (right.get(sentence, "invented") if kind == "fact" else kind), sentence

    return points_of(response, read, knobs.POINTS_SUMMARY, knobs.PER_WORD_OF_SUMMARY)
