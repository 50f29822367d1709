"""judge_labels: labels of an LLM judge, asked about each pair in both orders, with or without labelled examples."""

from pathlib import Path

import numpy as np
import pandas as pd

from weaklib.data.world import WORLDS
from weaklib.supervisors.judge import Judge, Question, ask, simulate
from weaklib.supervisors.labels import pairs_of, write


def run(out: Path, *, task, split, judge, form, part, seed, repeat, replies, labels=None, world=None) -> None:
    """Writes ``labels.parquet`` as other annotators do, and ``questions.parquet``: what was asked and paid. A pair with
    the same verdict in both orders has confidence 1, any other 0, and a label by a coin; one whose verdicts could not
    be read has no label. A judge has no margin. Before each question stand ``judge.examples`` of D_l's ``labels``,
    which the other annotators learn from. ``repeat`` asks once more, for its agreement with itself. Without a server it
    is simulated from the gold reward of ``world``; what one says is kept in the folder ``replies`` as it comes."""
    settings, pairs, rng = Judge(**judge), pairs_of(task, part, split), np.random.default_rng(seed)
    shown = examples_of(pd.read_parquet(labels / "labels.parquet"), settings.examples, rng) if labels else ""
    rows, orders = pairs.to_dict("records"), (("response_a", "response_b"), ("response_b", "response_a"))
    questions = [Question(row["prompt"], row[one], row[two], repeat, shown) for row in rows for one, two in orders]
    if world:
        records = simulate(settings, questions, WORLDS[world].gold_reward, [seed, repeat])
    else:
        records = ask(settings, form, questions, Path(replies))
    asked = pd.DataFrame(records)[["requests", "input_tokens", "output_tokens", "verdict"]]
    asked.insert(0, "pair", pairs["pair"].repeat(2).to_numpy())
    asked.to_parquet(out / "questions.parquet", index=False)
    a_first, b_first = asked["verdict"].to_numpy(object).reshape(-1, 2).T
    for_a, for_b = (a_first == "first") & (b_first == "second"), (a_first == "second") & (b_first == "first")
    sure, coin, read = for_a | for_b, rng.random(len(pairs)) < 0.5, pd.notna(a_first) & pd.notna(b_first)
    write(out, pairs[read], np.where(sure, for_a, coin)[read], np.nan, sure[read].astype(float))


def examples_of(labels: pd.DataFrame, count: int, rng: np.random.Generator) -> str:
    """``count`` labelled pairs as a text; which answer stands first is drawn."""
    text = "Before the question, examples of what a person preferred.\n\n"
    for pair in labels.sample(min(count, len(labels)), random_state=rng).itertuples():
        chosen_first = rng.random() < 0.5
        first, second = (pair.chosen, pair.rejected) if chosen_first else (pair.rejected, pair.chosen)
        text += f"[Prompt]\n{pair.prompt.strip()}\n\n[Answer 1]\n{first.strip()}\n\n[Answer 2]\n{second.strip()}\n\n"
        text += f"A person preferred answer {1 if chosen_first else 2}.\n\n"
    return text + "Now the question.\n\n"
