"""task: preference pairs, demonstrations, text to pre-train on, and prompts to be tested on; no two share a prompt."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data import files
from weaklib.data.conversations import as_message
from weaklib.data.preference_datasets import FORMS, dialogue_tokens, divide, draw, locate, read_pairs
from weaklib.data.world import WORLDS


def run(out: Path, *, kind: str, seed: int, **parameters) -> None:
    """Writes ``pairs.parquet`` (D_l and D_u): ``pair, prompt, response_a, response_b, human_prefers_a, gold_reward_a,
    gold_reward_b`` (missing where unknown), sides drawn at random; ``demonstrations.parquet``: ``prompt, completion``;
    ``corpus.parquet``: ``text``; ``prompts.parquet``: ``part`` (``test``, in the world ``validation``), ``prompt``;
    not of the world ``proxy_pairs.parquet``, for a proxy of the gold reward, and ``counts.json``, what was met.
    Prompts are text in HH-RLHF's form; beside them stand their ``messages`` (JSON), for a model's chat template.
    """
    rng = np.random.default_rng(seed)
    tables = {"world": _of_world, "file": _of_file, "dataset": _of_dataset}[kind](rng, **parameters)
    if counts := tables.pop("counts", None):
        files.save_json(counts, out / "counts.json")
    messages = tables.pop("messages", {})
    prompts = [{"part": part, "prompt": prompt} for part, drawn in tables.pop("prompts").items() for prompt in drawn]
    for name, table in (tables | {"prompts": pd.DataFrame(prompts)}).items():
        if "prompt" in table:
            table["messages"] = [messages.get(prompt) or as_message(prompt) for prompt in table["prompt"]]
        table.to_parquet(out / f"{name}.parquet", index=False)


def _of_world(rng, *, name, prompts, **sizes) -> dict:
    world = WORLDS[name]
    drawn = iter(world.sample_prompts(rng, sum(sizes.values()), prompts))
    order = ("corpus", "demonstrations", "pairs", "validation_prompts", "test_prompts")
    corpus, shown, pairs, validation, test = ([next(drawn) for _ in range(sizes[part])] for part in order)
    texts = [prompt + world.write_response(rng, prompt) for prompt in corpus]
    shown = world_pairs(rng, world, shown, world.HUMAN)
    best = shown["response_a"].where(shown["human_prefers_a"], shown["response_b"])
    return {
        "corpus": pd.DataFrame({"text": texts}),
        "demonstrations": pd.DataFrame({"prompt": shown["prompt"], "completion": best}),
        "pairs": world_pairs(rng, world, pairs, world.HUMAN),
        "prompts": {"validation": validation, "test": test},
    }


def world_pairs(rng: np.random.Generator, world, prompts: list[str], human) -> pd.DataFrame:
    """Two different responses to each prompt, their gold rewards, and which one ``human`` prefers."""
    texts = {"prompt": prompts, "messages": list(map(as_message, prompts))}
    pairs, responses = pd.DataFrame({"pair": np.arange(len(prompts)), **texts}), []
    for prompt in prompts:
        a = b = world.write_response(rng, prompt)
        while b == a:
            b = world.write_response(rng, prompt)
        responses.append((a, b))
    pairs[["response_a", "response_b"]] = responses
    for side in ("a", "b"):
        pairs[f"gold_reward_{side}"] = list(map(world.gold_reward, prompts, pairs[f"response_{side}"]))
    words_a, words_b = (pairs[f"response_{side}"].str.split().str.len() for side in ("a", "b"))
    prefers_a = human.probability(pairs["gold_reward_a"], pairs["gold_reward_b"], words_a, words_b)
    return pairs.assign(human_prefers_a=rng.random(len(pairs)) < prefers_a)


def _of_file(rng, *, path, on_bad_row, sha256, **shares) -> dict:
    pairs, counts = read_pairs(Path(path), on_bad_row=on_bad_row)
    parts = divide(pairs, rng, **shares)
    parts["test"] = parts["test"]["prompt"].unique()
    return _preferences(rng, counts | {"sha256": sha256}, pairs, **parts)


def _of_dataset(rng, *, name, parts, source, revision, max_tokens, on_bad_row, demonstrations, **settings) -> dict:
    """With ``demonstrations`` *chosen*, SFT learns the chosen responses of ``pairs`` themselves, as in the papers.
    That leaks hidden labels: a policy's start knows which responses of D_u the human preferred. *separate* does not.
    """
    settings.pop("sha256", None)  # of a folder's files: a part of the stage's key
    tokenizer = settings.pop("tokenizer"), settings.pop("tokenizer_revision")
    located = locate(name, parts, source, revision)
    counts, within = {"dataset": name, "revision": revision, "max_tokens": max_tokens}, {}
    counts["sha256"] = {file: files.sha256(path) for some in located.values() for file, path in some.items()}
    for split, paths in located.items():
        pairs, counts[split] = read_pairs(*paths.values(), on_bad_row=on_bad_row, pair_of=FORMS[name][0])
        within[split] = pairs[dialogue_tokens(pairs, *tokenizer) <= max_tokens]
        counts[split] |= {"pairs": len(pairs), "pairs_within_max_tokens": len(within[split])}
    drawn = draw(**within, rng=rng, **settings)
    if demonstrations == "chosen":
        drawn["demonstrations"] = drawn["pairs"]
    return _preferences(rng, counts, pd.concat(within.values()), **drawn)


def _preferences(rng, counts: dict, known: pd.DataFrame, *, pairs, proxy, demonstrations, test) -> dict:
    # both responses of the demonstration part: text, not preferences
    texts = pd.concat([demonstrations["prompt"] + demonstrations[side] for side in ("chosen", "rejected")])
    counts |= {"pairs": len(pairs), "proxy_pairs": len(proxy), "demonstrations": len(demonstrations)}
    return {
        "counts": counts | {"test_prompts": len(test)},
        "messages": known.drop_duplicates("prompt").set_index("prompt")["messages"].to_dict(),
        "pairs": _drawn_sides(rng, pairs),
        "proxy_pairs": _drawn_sides(rng, proxy),
        "demonstrations": demonstrations[["prompt", "chosen"]].rename(columns={"chosen": "completion"}),
        "corpus": pd.DataFrame({"text": texts}),
        "prompts": {"test": test},
    }


def _drawn_sides(rng, pairs: pd.DataFrame) -> pd.DataFrame:
    prefers_a = rng.random(len(pairs)) < 0.5
    a, b = (pairs["chosen"].where(chosen, pairs["rejected"]) for chosen in (prefers_a, ~prefers_a))
    sides = {"prompt": pairs["prompt"], "response_a": a, "response_b": b, "human_prefers_a": prefers_a}
    return pd.DataFrame({"pair": np.arange(len(pairs)), **sides, "gold_reward_a": np.nan, "gold_reward_b": np.nan})
