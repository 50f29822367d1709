"""judge_labels: labels of an LLM judge, asked about each pair in both orders, with or without labelled examples before its eyes."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.world import WORLDS
from weaklib.supervisors.judge import Question, ask, simulate
from weaklib.supervisors.judge_settings import Judge
from weaklib.supervisors.labels import pairs_of, write


def run(
    out: Path, *, task: Path, judge: dict, form: str, part: str, seed: int, journals: Path, repeat: int = 0,
    split: Path | None = None, labels: Path | None = None, world: str | None = None,
) -> None:  # fmt: skip
    """Writes ``labels.parquet`` as the other annotators' (:mod:`weaklib.supervisors.labels`), and ``questions.parquet``: what was asked and paid.

    A pair on which the verdict is the same in both orders has confidence 1, any other 0, and a label by a coin; a judge has no
    margin. ``form`` is the text of a question. ``labels`` are D_l's, of which ``judge.examples`` stand before each question: the same
    information as the other annotators have. ``repeat`` asks the same questions once more, for a judge's agreement with itself. ``journals``
    is the folder of all judges' replies. Without a server (``judge.base_url``) the judge is simulated from the gold reward of ``world``,
    which neither form nor examples change.
    """
    settings, pairs, rng = Judge(**judge), pairs_of(task, part, split), np.random.default_rng(seed)
    count = settings.examples
    shown = examples_of(pd.read_parquet(labels / "labels.parquet"), count, rng) if count else ""
    both = [
        Question(pair.prompt, *order, repeat, shown)
        for pair in pairs.itertuples()
        for order in ((pair.response_a, pair.response_b), (pair.response_b, pair.response_a))
    ]
    if settings.base_url is None:
        records = simulate(settings, both, WORLDS[world].gold_reward, [seed, repeat])
    else:
        records = ask(settings, form, both, journals)
    verdicts = pd.DataFrame({"a_first": records[::2], "b_first": records[1::2]}).map(lambda record: record["verdict"])
    for_a = (verdicts["a_first"] == "first") & (verdicts["b_first"] == "second")
    for_b = (verdicts["a_first"] == "second") & (verdicts["b_first"] == "first")
    sure, coin = (for_a | for_b).to_numpy(), rng.random(len(pairs)) < 0.5
    write(out, pairs, np.where(sure, for_a, coin), np.full(len(pairs), np.nan), sure.astype(float))
    asked = pd.DataFrame(records)[["requests", "input_tokens", "output_tokens"]]
    asked.assign(verdict=[record["verdict"] for record in records]).to_parquet(out / "questions.parquet", index=False)


def examples_of(labels: pd.DataFrame, count: int, rng: np.random.Generator) -> str:
    """``count`` labelled pairs as a text; which answer stands first is drawn."""
    texts = []
    for pair in labels.sample(min(count, len(labels)), random_state=rng).itertuples():
        chosen_first = rng.random() < 0.5
        first, second = (pair.chosen, pair.rejected) if chosen_first else (pair.rejected, pair.chosen)
        texts.append(
            f"[Prompt]\n{pair.prompt.strip()}\n\n[Answer 1]\n{first.strip()}\n\n[Answer 2]\n{second.strip()}\n\n"
            f"A person preferred answer {1 if chosen_first else 2}.\n\n"
        )
    return "Before the question, examples of what a person preferred.\n\n" + "".join(texts) + "Now the question.\n\n"
