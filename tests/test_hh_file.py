"""Profile ``hh-file`` on generated files of the true shapes, from the command line."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from test_reproduce import NOTEBOOK, command, place  # noqa: F401 (place is a fixture)

from weaklib.data.world import dialogue as world

ROWS = 140
TINY = "{model_type: opt, hidden_size: 16, word_embed_proj_dim: 16, ffn_dim: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 400, dropout: 0.0}"
SMALL = [
    *("seeds=[0]", "models.weak=opt-weak", "models.strong=opt-strong", "top_percents=[50, 100]"),
    *(f"models.pretrained_here.{name}={TINY}" for name in ("opt-weak", "opt-strong", "opt-proxy")),
    *("pretraining.epochs=1", "annotator.epochs=1", "sft.epochs=1", "sampling.max_new_tokens=20"),
]


def dialogues():
    """(prompt, chosen, rejected) with an earlier turn, as HH-RLHF has; the first rejected response is empty."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in world.sample_prompts(rng, ROWS):
        better, worse = sorted(
            (world.write_response(rng, prompt) for _ in range(2)), key=lambda r: -world.gold_reward(prompt, r)
        )
        rows.append(("\n\nHuman: Hello.\n\nAssistant: Hi, what can I do?" + prompt, better, worse if rows else ""))
    return rows


def hh_form(path):
    lines = (json.dumps({"chosen": p + a, "rejected": p + b}) for p, a, b in dialogues())
    path.write_text("\n".join(lines))
    return path


def trl_form(path):
    def turns(prompt):
        return [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi, what can I do?"},
                {"role": "user", "content": prompt.split("Human: ")[2].removesuffix("\n\nAssistant:")}]  # fmt: skip

    rows = [
        {
            "prompt": turns(p),
            **{k: [{"role": "assistant", "content": r.strip()}] for k, r in (("chosen", a), ("rejected", b))},
        }
        for p, a, b in dialogues()
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.fixture(
    scope="module", params=[hh_form, trl_form], ids=["HH-RLHF's form, jsonl", "TRL's form, parquet of messages"]
)
def run(request, place, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp(request.param.__name__)
    file = request.param(folder / ("pairs.jsonl" if request.param is hh_form else "pairs.parquet"))
    folders = [word for kind in ("store", "figures", "runs") for word in (f"--{kind}", folder / kind)]
    arguments = [
        "reproduce",
        "--profile",
        "hh-file",
        "--only",
        NOTEBOOK,
        "--set",
        f"task.path={file}",
        *SMALL,
        *folders,
    ]
    done = command(place, "weaklib", *arguments)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_file_is_counted(run):
    folder, done = run
    counts = json.loads((folder / "figures" / "hh-file" / NOTEBOOK / "top_confidence.json").read_text())["task_counts"]
    assert counts["rows"] == ROWS and counts["empty_responses"] == 1 and counts["bad_rows_dropped"] == 0
    parts = [counts[part] for part in ("pairs", "proxy_pairs", "demonstrations", "test_prompts")]
    assert parts == [63, 28, 28, 21]


def test_the_proxy_is_called_a_proxy(run):
    folder, _ = run
    figures = folder / "figures" / "hh-file"
    assert "proxy reward" in json.loads((figures / NOTEBOOK / "top_confidence.json").read_text())["caption"]
    assert "proxy reward" in (figures / "tables" / NOTEBOOK / "top_confidence.md").read_text()
    notebook = nbformat.read(folder / "runs" / "hh-file" / f"{NOTEBOOK}.ipynb", 4)
    assert any("Content warning" in cell.source for cell in notebook.cells)


def test_no_truth_is_made_up(run):
    """Labels are held against the human's; where no gold reward is known, nothing is said of the truth."""
    folder, done = run
    data = pd.read_csv(folder / "figures" / "hh-file" / NOTEBOOK / "top_confidence.csv")
    assert set(data["against"].dropna()) == {"human"} and (data["metric"] == "label_accuracy").sum() == 10
    assert "truth" not in done.stdout
    for pairs in (folder / "store" / "task").glob("*/pairs.parquet"):
        assert pd.read_parquet(pairs)[["gold_reward_a", "gold_reward_b"]].isna().all().all()


def test_the_proxy_is_trained_on_a_part_of_its_own(run):
    folder, _ = run
    (task,) = (folder / "store" / "task").iterdir()
    parts = [
        set(pd.read_parquet(task / f"{name}.parquet")["prompt"])
        for name in ("pairs", "proxy_pairs", "demonstrations", "prompts")
    ]
    assert len(set.union(*parts)) == sum(map(len, parts)) == ROWS


def test_without_a_file_it_says_what_to_download(place):  # noqa: F811
    done = command(place, "weaklib", "reproduce", "--profile", "hh-file")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("weaklib: task.path: no preference file is named. Download harmless-base/test.jsonl.gz")
