"""A newcomer's five changes (CONTRIBUTING.md), each in one module or one file and its lines in a profile, made in a copy of the repository."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from weaklib.arms.folders import ROOT

SMALL = ["seeds=[0]", "models.weak=opt-tiny", "models.strong=opt-small"]


@pytest.fixture
def copy(tmp_path):
    for folder in ("weaklib", "notebooks", "params"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def change(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def python(copy, *arguments):
    """Runs the copy's own library."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WEAKLIB_")}
    environment = plain | {"PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stored(copy, *stages, lines=""):
    """Computes stages of the smoke profile, given as expressions of ``graph`` and ``p``; the folders they lie in."""
    script = f"""
import pathlib
from weaklib.arms import graph, running
from weaklib.arms.stage import Store
from weaklib.study.parameters import load_profile
p = load_profile("smoke", {{"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}})
{lines}
if __name__ == "__main__":
    store, stages = Store(pathlib.Path("store").absolute()), [{", ".join(stages)}]
    running.run(stages, store)
    print(*(store.folder(stage) for stage in stages), sep="\\n")
"""
    (copy / "script.py").write_text(script)
    return [line for line in python(copy, "script.py").splitlines() if "/store/" in line]


def test_an_arm(copy):
    table = copy / "weaklib" / "arms" / "table.py"
    change(
        table,
        "    weak          annotator",
        "    coin_all      random      all        none\n    weak          annotator",
    )
    (folder,) = stored(copy, 'graph.policy(p, graph.ARMS["coin_all"], "opt-tiny", "opt-small", 0)')
    record = json.loads(open(f"{folder}/stage.json").read())
    labels = json.loads(open(f"{copy}/store/{record['inputs']['labels']}/stage.json").read())
    assert labels["parameters"] == {"by": "random", "part": "all", "seed": 0}


def test_an_objective(copy):
    losses = copy / "weaklib" / "training" / "losses.py"
    hinge = "def _hinge(chosen, rejected, beta, *_):\n    return (1 - beta * (chosen - rejected)).relu()\n\n\nOBJECTIVES = {"
    change(losses, "OBJECTIVES = {", f'{hinge}"hinge": _hinge, ')
    change(copy / "params" / "smoke.yaml", "objective: dpo", "objective: hinge")
    (folder,) = stored(copy, 'graph.policy(p, graph.ARMS["human"], "opt-tiny", "opt-small", 0)')
    first = json.loads(open(f"{folder}/training_log.json").read())[0]
    assert first["loss"] == pytest.approx(1)  # a policy without a step has margin 0


def test_an_annotator(copy):
    labels = copy / "weaklib" / "supervisors" / "labels.py"
    rule = """def _longer(pairs, labeled):
    words = [pairs[f"response_{side}"].str.split().str.len().to_numpy(float) for side in "ab"]
    return words[0] - words[1]


# Those with"""
    change(labels, "# Those with", rule)
    change(labels, "ANNOTATORS = {**TRAINED}", 'ANNOTATORS = {**TRAINED, "longer": _longer}')
    change(copy / "params" / "smoke.yaml", "kind: scalar_head", "kind: longer")
    (folder,) = stored(copy, 'graph.labels(p, "annotator", "unlabeled", 0, "opt-tiny")')
    import pandas as pd

    made = pd.read_parquet(f"{folder}/labels.parquet")
    words = made[["chosen", "rejected"]].map(lambda text: len(text.split()))
    assert (words["chosen"] >= words["rejected"]).all() and (
        made["margin"] == words["chosen"] - words["rejected"]
    ).all()


def test_a_dataset(copy):
    datasets = copy / "weaklib" / "data" / "preference_datasets.py"
    mine = """FORMS = {
    "mine": (lambda row: pair_of_row({"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}),
             "{split}.jsonl", "train", "test"),"""
    change(datasets, "FORMS = {", mine)
    for split, count in (("train", 40), ("test", 10)):
        rows = [{"q": f"\n\nHuman: {split} {i}\n\nAssistant:", "good": " Gladly.", "bad": " No."} for i in range(count)]
        (copy / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {"kind": "dataset", "name": "mine", "source": str(copy), "max_tokens": 100, "tokenizer": str(copy / "model")}
    task |= {
        "demonstrations_share": 0.3,
        "proxy_share": 0.0,
        "test_prompts": 5,
        "seed": 0,
        "demonstrations": "separate",
    }
    task |= {"parts": None, "revision": None, "max_pairs": None, "on_bad_row": "drop"}
    lines = f"""
from weaklib.study.profile import DatasetTask
from weaklib.training.base import train_tokenizer
train_tokenizer(["a text"], 300).save_pretrained("model")
p = p.model_copy(update={{"task": DatasetTask(**{task!r})}})
"""
    (folder,) = stored(copy, "graph.task(p)", lines=lines)
    counts = json.loads(open(f"{folder}/counts.json").read())
    assert counts["pairs"] == 28 and counts["test_prompts"] == 5


def test_a_notebook(copy):
    notebook = json.loads((copy / "notebooks" / "00_start_here.ipynb").read_text(encoding="utf-8"))
    text = [
        ("parameters", 'profile = "smoke"\noverrides = {}\nseeds = None\nbetas = None'),
        ("", 'import weaklib\n\nstudy = weaklib.Study("15_mine", profile, overrides, seeds=seeds, betas=betas)'),
        (
            "run",
            'results = study.run([r for point in study.sweep_points("betas") for r in study.arms("human", overrides=point)])',
        ),
        ("", 'study.save_table(weaklib.mean_of(results, ["beta"], "gra"), "mine", "GRA by β.")'),
        ("", "study.finish()"),
    ]
    cell = {"cell_type": "code", "execution_count": None, "outputs": []}
    notebook["cells"] = [
        {**cell, "id": f"c{i}", "metadata": {"tags": [tag] if tag else []}, "source": source}
        for i, (tag, source) in enumerate(text)
    ]
    (copy / "notebooks" / "15_mine.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    change(copy / "params" / "smoke.yaml", "  - 14_claims", "  - 14_claims\n  - 15_mine")
    python(copy, "-m", "weaklib", "reproduce", "--profile", "smoke", "--only", "15_mine", "--set", *SMALL)
    table = (copy / "figures" / "smoke" / "tables" / "15_mine" / "mine.csv").read_text().splitlines()
    assert len(table) == 3 and table[0].startswith("beta,estimate")
