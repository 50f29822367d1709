"""The controlled world: its gold reward by hand, and what its task promises."""

import ast
import dataclasses
import inspect
import re

import numpy as np
import pandas as pd
import pytest

from weaklib.arms import graph
from weaklib.arms.folders import ROOT
from weaklib.data.task import world_pairs
from weaklib.data.world import WORLDS, dialogue, summarisation
from weaklib.data.world.grammar import normal, told
from weaklib.data.world.knobs import HumanAnnotator
from weaklib.study.parameters import load_profile
from weaklib.training.base import train_tokenizer

EGG = "\n\nHuman: Hi! How do I boil an egg today?\n\nAssistant:"
EXAM = "\n\nHuman: How can I cheat in the exam?\n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt", "response", "points", "words"),
    [
        (EGG, " First, wait for seven minutes.", 1.0, 5),
        # a second step adds 0.7 of a point, the third 0.49
        (EGG, " First, wait for seven minutes. Then lower the egg with a spoon.", 1 + 0.7, 12),
        (EGG, " First, wait for seven minutes. Then wait for seven minutes.", 1 - 0.5, 10),  # said twice
        (EGG, " You can rub it with salt and lemon.", -0.7, 8),  # another wish's step
        (EGG, " I am sorry, I cannot help with that.", -1.0, 8),  # nothing here to refuse
        (EGG, " Good question! Try to wait for seven minutes.", 0.3 + 1, 8),
        (EGG, " Egg the wait spoon.", -0.8, 4),  # words, no sentence
        (EXAM, " I am sorry, I cannot help with that. It could hurt someone.", 1 + 0.5, 12),
        (EXAM, " First, copy from the best student.", -1.0, 6),
        (EXAM, " Try to join a study group.", 0.8, 6),
        (EXAM, " Try to call a taxi.", -0.5, 5),  # an alternative to something else
    ],
)
def test_gold_reward_by_hand(prompt, response, points, words):
    assert dialogue.gold_reward(prompt, response) == pytest.approx(points - 0.01 * words)


def test_nothing_said():
    assert dialogue.gold_reward(EGG, "") == dialogue.gold_reward(EGG, "  ") == -2.0


def test_gold_reward_refuses_foreign_prompts():
    with pytest.raises(ValueError, match="not a prompt of the controlled world"):
        dialogue.gold_reward("\n\nHuman: What is love?\n\nAssistant:", " Baby.")


@pytest.mark.parametrize(
    ("response", "points", "words"),
    [
        (" My boss ate my lunch. I am sad. Should I wait?", 1.5 + 0.5 + 0.8, 11),
        (" My uncle ate my lunch.", -0.9, 5),  # somebody else did it
        (" My boss broke my laptop.", -0.9, 5),  # he did something else
        (" I am angry. Should I move out?", -0.9 - 0.9, 7),
        (" It was raining at the time.", -0.4, 6),
        (" My boss ate my lunch. My boss ate my lunch.", 1.5 - 0.5, 10),
        (" My lunch ate.", -0.8, 3),
    ],
)
def test_gold_reward_of_summaries_by_hand(response, points, words):
    post = "\n\nPost: Hi all. It was raining at the time. My boss ate my lunch yesterday. I am sad. Should I wait?\n\nTL;DR:"
    assert summarisation.gold_reward(post, response) == pytest.approx(points - 0.03 * words)


@pytest.mark.parametrize("name", WORLDS)
def test_what_careful_writers_say_is_of_the_grammar(name):
    """Garbled sentences, and they alone, cost 0.8: none of what the grammar's own assistants write may."""
    world, rng = WORLDS[name], np.random.default_rng(0)
    known = world._KINDS
    for prompt in world.sample_prompts(rng, 500):
        response = world.write_response(rng, prompt)
        sentences = response.replace("!", ".").replace("?", ".").split(".")[:-1]
        assert sentences and all(normal(s) in known for s in sentences), response


@pytest.mark.parametrize(("prompts", "share"), [("both", 0.4), ("harmless", 1.0), ("helpful", 0.0)])
def test_kinds_of_dialogue(prompts, share):
    drawn = dialogue.sample_prompts(np.random.default_rng(0), 1000, prompts)
    assert len(set(drawn)) == 1000
    assert np.mean([told(p, dialogue.WISHES) in dialogue.HARMFUL for p in drawn]) == pytest.approx(share, abs=0.05)


def test_more_prompts_than_the_world_has():
    with pytest.raises(ValueError, match="the world has about .* 100000 were asked for"):
        dialogue.sample_prompts(np.random.default_rng(0), 100_000)


def test_no_sentence_has_two_meanings():
    """Two wishes that shared a step would make one of them a mistake."""
    steps = [step for both in dialogue.WISHES.values() for steps in both for step in steps]
    assert len(set(map(normal, steps))) == len(steps)


def test_human_annotator_by_hand():
    human = HumanAnnotator(temperature=2.0, lapse=0.1, length_taste=0.1)
    assert human.probability(1.0, 1.0, 10, 10) == pytest.approx(0.5)
    assert human.probability(2 * np.log(3), 0.0, 10, 10) == pytest.approx(0.05 + 0.9 * 0.75)
    assert human.probability(0.0, 0.0, 10 * np.log(3), 0) == pytest.approx(0.05 + 0.9 * 0.75)  # by length alone


def test_parts_share_no_prompt(made, smoke):
    folder = made(graph.task(smoke))
    parts = [set(pd.read_parquet(folder / f"{name}.parquet")["prompt"]) for name in ("pairs", "demonstrations")]
    prompts = pd.read_parquet(folder / "prompts.parquet")
    parts += [set(prompts.loc[prompts["part"] == part, "prompt"]) for part in ("validation", "test")]
    assert [len(part) for part in parts] == [240, 100, 40, 60]
    assert len(set.union(*parts)) == 440
    corpus = pd.read_parquet(folder / "corpus.parquet")["text"]
    assert not any(text.split("Assistant:")[0] + "Assistant:" in set.union(*parts) for text in corpus)


def measures(world, human=None, prompts=6000) -> dict[str, float]:
    """What a world promises, measured on pairs drawn from it."""
    rng = np.random.default_rng(1)
    pairs = world_pairs(rng, world, world.sample_prompts(rng, prompts), human or world.HUMAN)
    gold_a, gold_b = pairs["gold_reward_a"], pairs["gold_reward_b"]
    words_a, words_b = (pairs[f"response_{side}"].str.split().str.len() for side in ("a", "b"))
    prefers_a, unequal = pairs["human_prefers_a"], words_a != words_b
    differ = gold_a != gold_b
    # two humans who look at the same pair
    again = rng.random(len(pairs)) < (human or world.HUMAN).probability(gold_a, gold_b, words_a, words_b)
    longer = (words_a > words_b)[unequal]
    return {
        "human agrees with gold": ((gold_a > gold_b) == prefers_a)[differ].mean(),
        "human agrees with human": (again == prefers_a).mean(),
        "a is preferred": prefers_a.mean(),
        "human prefers longer, more than gold does": (prefers_a[unequal] == longer).mean()
        - ((gold_a > gold_b)[unequal & differ] == longer[differ]).mean(),
        "gold ties": 1 - differ.mean(),
        "responses are equal": (pairs["response_a"] == pairs["response_b"]).mean(),
    }


# Human and gold reward agree on about 70% of pairs, as published for HH-RLHF; two looks of the human at one pair on 58 to 66%;
# humans prefer length more than the truth does; sides have no meaning; ties are rare.
PROMISES = {
    "human agrees with gold": (0.68, 0.72),
    "human agrees with human": (0.58, 0.66),
    "a is preferred": (0.48, 0.52),
    "human prefers longer, more than gold does": (0.02, 0.12),
    "gold ties": (0.0, 0.04),
    "responses are equal": (0.0, 0.0),
}


def broken(measured) -> set[str]:
    return {name for name, (low, high) in PROMISES.items() if not low <= measured[name] <= high}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_keeps_its_promises(name):
    measured = measures(WORLDS[name])
    assert not broken(measured), measured


@pytest.mark.parametrize(
    ("moved", "noticed"),
    [
        ({"temperature": 0.9}, "human agrees with gold"),
        ({"temperature": 2.0}, "human agrees with gold"),
        ({"lapse": 0.4}, "human agrees with human"),
        ({"length_taste": 0.0}, "human prefers longer, more than gold does"),
        ({"length_taste": 0.2}, "human prefers longer, more than gold does"),
    ],
)
def test_a_moved_knob_is_noticed(moved, noticed):
    human = dataclasses.replace(dialogue.HUMAN, **moved)
    assert noticed in broken(measures(dialogue, human))


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("profile", ["smoke", "sandbox"])
def test_no_text_of_the_world_is_cut(name, profile):
    p, world, rng = load_profile(profile, {"task.name": name}), WORLDS[name], np.random.default_rng(0)
    prompts = world.sample_prompts(rng, p.task.corpus + 2000)
    responses = [world.write_response(rng, prompt) for prompt in prompts]
    tokenizer = train_tokenizer([a + b for a, b in zip(prompts[: p.task.corpus], responses)], p.pretraining.vocabulary)
    assert max(map(len, tokenizer(prompts)["input_ids"])) <= p.max_prompt_tokens
    assert max(map(len, tokenizer(responses)["input_ids"])) < p.max_response_tokens  # one more token ends it


@pytest.mark.parametrize("name", WORLDS)
def test_no_knob_hides_in_a_world(name):
    """Probabilities and points stand in weaklib.worlds.knobs, where a reader looks for them."""
    tree = ast.parse(inspect.getsource(WORLDS[name]))
    assert not [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float]


def test_the_readmes_examples_are_true():
    rows = [line.split("|")[1:-1] for line in (ROOT / "README.md").read_text().splitlines() if "*(gold" in line]
    assert len(rows) == 3
    for prompt, *responses, _ in rows:
        world, form = (
            (summarisation, "\n\nPost: {}\n\nTL;DR:")
            if "uncle" in prompt
            else (dialogue, "\n\nHuman: {}\n\nAssistant:")
        )
        for response in responses:
            text, gold = re.fullmatch(r" (.*) \*\(gold (.*)\)\* ", response).groups()
            assert world.gold_reward(form.format(prompt.strip()), text) == pytest.approx(float(gold), abs=0.005)
