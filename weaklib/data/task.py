"""task: preference pairs, demonstrations, text to pre-train on, and prompts to be tested on; no two share a prompt."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data import preference_datasets
from weaklib.data.files import sha256 as hash_of
from weaklib.data.preference_files import divide, read_pairs
from weaklib.data.world import WORLDS
from weaklib.data.world.knobs import HumanAnnotator


def run(out: Path, *, kind: str, seed: int, **parameters) -> None:
    """Writes

    - ``pairs.parquet`` (D_l ∪ D_u): ``pair, prompt, response_a, response_b, human_prefers_a, gold_reward_a/_b``
      (missing where no truth is known); which response is a is drawn at random;
    - ``demonstrations.parquet``: ``prompt, completion`` for SFT; ``corpus.parquet``: ``text`` for pre-training;
    - ``prompts.parquet``: ``part`` (``test``, and ``validation`` in the world), ``prompt``;
    - ``proxy_pairs.parquet``: of a file or dataset, human-labelled pairs for the proxy of the gold reward;
    - ``counts.json``: what was met in a file or dataset.
    """
    rng = np.random.default_rng(seed)
    {"world": _from_world, "file": _from_file, "dataset": _from_dataset}[kind](out, rng, **parameters)


def _from_world(out, rng, *, name, prompts, corpus, demonstrations, pairs, validation_prompts, test_prompts) -> None:
    world = WORLDS[name]
    sizes = {"corpus": corpus, "demonstrations": demonstrations, "pairs": pairs}
    sizes |= {"validation": validation_prompts, "test": test_prompts}
    drawn = iter(world.sample_prompts(rng, sum(sizes.values()), prompts))
    parts = {part: [next(drawn) for _ in range(size)] for part, size in sizes.items()}

    texts = [prompt + world.write_response(rng, prompt) for prompt in parts["corpus"]]
    shown = world_pairs(rng, world, parts["demonstrations"], world.HUMAN)
    best = shown["response_a"].where(shown["human_prefers_a"], shown["response_b"])
    _write(
        out,
        pairs=world_pairs(rng, world, parts["pairs"], world.HUMAN),
        demonstrations=pd.DataFrame({"prompt": shown["prompt"], "completion": best}),
        corpus=pd.DataFrame({"text": texts}),
        prompts=_prompts(validation=parts["validation"], test=parts["test"]),
    )


def world_pairs(rng: np.random.Generator, world, prompts: list[str], human: HumanAnnotator) -> pd.DataFrame:
    """Two different responses to each prompt, their gold rewards, and which one the human prefers."""
    responses = []
    for prompt in prompts:
        a = b = world.write_response(rng, prompt)
        while b == a:
            b = world.write_response(rng, prompt)
        responses.append((a, b))
    pairs = pd.DataFrame(responses, columns=["response_a", "response_b"])
    pairs.insert(0, "prompt", prompts)
    for side in ("a", "b"):
        pairs[f"gold_reward_{side}"] = list(map(world.gold_reward, pairs["prompt"], pairs[f"response_{side}"]))
    words_a, words_b = (pairs[f"response_{side}"].str.split().str.len() for side in ("a", "b"))
    prefers_a = human.probability(pairs["gold_reward_a"], pairs["gold_reward_b"], words_a, words_b)
    return _numbered(pairs.assign(human_prefers_a=rng.random(len(pairs)) < prefers_a))


def _from_file(out, rng, *, path, on_bad_row, sha256, **shares) -> None:
    rows, counts = read_pairs(Path(path), on_bad_row)
    parts = divide(pd.DataFrame(rows), rng, **shares)
    parts["test"] = parts["test"]["prompt"].unique()
    _write_preferences(out, rng, counts | {"sha256": sha256}, **parts)


def _from_dataset(
    out, rng, *, name, parts, source, revision, max_tokens, tokenizer, tokenizer_revision, on_bad_row, demonstrations,
    sha256=None, **sizes,
) -> None:  # fmt: skip
    """With ``demonstrations`` *chosen*, SFT learns the chosen responses of ``pairs`` themselves, as in the papers.

    That leaks hidden labels: the start of every policy then knows which responses of D_u the human preferred. *separate* does not.
    """
    files = preference_datasets.locate(name, parts, source, revision)
    counts = {"dataset": name, "revision": revision, "max_tokens": max_tokens}
    counts["sha256"] = {file: hash_of(path) for split in files.values() for file, path in split.items()}
    within = {}
    for split, paths in files.items():
        pairs, counts[split] = preference_datasets.read(paths.values(), name, on_bad_row)
        lengths = preference_datasets.dialogue_tokens(pairs, tokenizer, tokenizer_revision)
        within[split] = pairs[lengths <= max_tokens].reset_index(drop=True)
        counts[split]["pairs_within_max_tokens"] = len(within[split])
    drawn = preference_datasets.draw(**within, rng=rng, **sizes)
    if demonstrations == "chosen":
        drawn["demonstrations"] = drawn["pairs"]
    _write_preferences(out, rng, counts, **drawn)


def _write_preferences(out, rng, counts, *, pairs, proxy, demonstrations, test) -> None:
    _write(
        out,
        pairs=_file_pairs(rng, pairs),
        proxy_pairs=_file_pairs(rng, proxy),
        demonstrations=demonstrations[["prompt", "chosen"]].rename(columns={"chosen": "completion"}),
        # both responses of the demonstration part: text, not preferences
        corpus=pd.DataFrame(
            {"text": pd.concat([demonstrations["prompt"] + demonstrations[s] for s in ("chosen", "rejected")])}
        ),
        prompts=_prompts(test=test),
    )
    counts |= {"pairs": len(pairs), "proxy_pairs": len(proxy), "demonstrations": len(demonstrations)}
    counts |= {"test_prompts": len(test)}
    (out / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")


def _file_pairs(rng, frame: pd.DataFrame) -> pd.DataFrame:
    prefers_a = rng.random(len(frame)) < 0.5
    pairs = pd.DataFrame(
        {
            "prompt": frame["prompt"],
            "response_a": frame["chosen"].where(prefers_a, frame["rejected"]),
            "response_b": frame["rejected"].where(prefers_a, frame["chosen"]),
            "human_prefers_a": prefers_a,
            "gold_reward_a": np.nan,
            "gold_reward_b": np.nan,
        }
    )
    return _numbered(pairs)


def _numbered(pairs: pd.DataFrame) -> pd.DataFrame:
    pairs.insert(0, "pair", np.arange(len(pairs)))
    return pairs


def _prompts(**parts) -> pd.DataFrame:
    return pd.DataFrame([{"part": part, "prompt": prompt} for part, prompts in parts.items() for prompt in prompts])


def _write(out: Path, **tables: pd.DataFrame) -> None:
    for name, table in tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
