"""The plan: which stages a profile asks for, which are stored, and a time only where such stages have been timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from weaklib.arms.stage import Stage, upstream
from weaklib.reproduce.run import as_text, plan, stages_asked_for

NOTEBOOK = "05_top_confidence"
ONE_PAIR = {"models.weak": "opt-tiny", "models.strong": "opt-small", "top_percents": [50]}
SEED = ONE_PAIR | {"seeds": [0]}


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WEAKLIB_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def asked(profile: str = "smoke", overrides: dict = SEED) -> list[Stage]:
    return upstream(stages_asked_for(NOTEBOOK, profile, overrides))


def keep(store: Path, stages: list[Stage], **seconds: float) -> None:
    """As if these stages had been run: two seconds each, or those of their name."""
    for stage in stages:
        folder = store / stage.name / stage.key
        folder.mkdir(parents=True, exist_ok=True)
        record = stage.record | {"seconds": seconds.get(stage.name, 2.0)}
        (folder / "stage.json").write_text(json.dumps(record))


def test_an_empty_store(store):
    planned = plan("smoke", [NOTEBOOK], SEED)
    stages = asked()
    assert planned["distinct"] == planned["to_run"] == planned["unknown"] == len(stages)
    assert planned["stored"] == 0 and planned["seconds"] is None and not store.exists()
    assert planned["by_stage"]["policy"] == {"distinct": 4, "to_run": 4, "unknown": 4, "seconds": None}
    text = as_text(planned)
    assert f"{len(stages)} distinct, 0 stored already, {len(stages)} to run" in text
    assert f"time unknown: this machine has timed no stage of the kind and size of {len(stages)} of them" in text


def test_notebooks_share_stages():
    both = plan("smoke", [NOTEBOOK, "06_cw_po"], SEED)
    alone = [plan("smoke", [name], SEED) for name in both["notebooks"]]
    assert list(both["notebooks"].values()) == [planned["distinct"] for planned in alone]
    assert both["asked_for"] == sum(planned["distinct"] for planned in alone) > both["distinct"]
    shared = both["asked_for"] - both["distinct"]
    assert shared > 0 and both["shared"] == dict.fromkeys(
        both["notebooks"], shared
    )  # by two notebooks, each stage twice


def test_what_is_stored_is_not_run_again(store):
    keep(store, asked())
    planned = plan("smoke", [NOTEBOOK], SEED)
    assert planned["stored"] == planned["distinct"] == len(asked()) and planned["to_run"] == 0
    assert planned["seconds"] == 0 and all(row["to_run"] == 0 for row in planned["by_stage"].values())


def test_another_seed_takes_as_long(store):
    """The middle of what stages of the same kind and size have taken."""
    for seed, seconds in enumerate((10.0, 50.0, 30.0)):
        keep(store, asked(overrides=ONE_PAIR | {"seeds": [seed]}), policy=seconds)
    planned = plan("smoke", [NOTEBOOK], ONE_PAIR | {"seeds": [7]})
    policies = planned["by_stage"]["policy"]
    assert policies == {"distinct": 4, "to_run": 4, "unknown": 0, "seconds": 4 * 30.0}
    assert planned["by_stage"]["base"]["to_run"] == 0  # knows no seed
    assert planned["seconds"] == 120 + 2 * (planned["to_run"] - 4) and planned["unknown"] == 0
    assert f"about {planned['seconds'] / 60:.1f} minutes of work for one worker" in as_text(planned)


def test_other_sizes_are_unknown(store):
    keep(store, asked())
    longer = plan("smoke", [NOTEBOOK], SEED | {"policy.epochs": 2})
    policies = longer["by_stage"]["policy"]
    assert policies == {"distinct": 4, "to_run": 4, "unknown": 4, "seconds": None}
    assert longer["by_stage"]["annotator"]["seconds"] == 0 and longer["seconds"] is None
    another = plan("smoke", [NOTEBOOK], ONE_PAIR | {"seeds": [1], "policy.epochs": 2})
    assert another["by_stage"]["annotator"] == {"distinct": 1, "to_run": 1, "unknown": 0, "seconds": 2.0}
    lines = {line.split()[0]: line.split()[-1] for line in as_text(another).splitlines() if line}
    assert lines["policy"] == "unknown" and lines["annotator"] == "2"


def test_a_cpus_times_are_not_a_gpus(store):
    keep(store, asked())
    assert plan("smoke", [NOTEBOOK], SEED | {"device": "cuda"})["by_stage"]["policy"]["seconds"] is None


def test_a_smoke_run_says_nothing_of_the_sandbox(store):
    keep(store, asked(overrides={}))
    planned = plan("sandbox", [NOTEBOOK], {})
    assert planned["seconds"] is None and planned["unknown"] == planned["to_run"] > 0 and planned["stored"] == 0
    assert {row["seconds"] for row in planned["by_stage"].values()} == {None}
    text = as_text(planned)
    assert "time unknown" in text and "minutes" not in text


OFFLINE = """
import socket, sys
from weaklib.__main__ import main

def connect(*_):
    raise AssertionError("the plan asked the network")

socket.socket.connect = connect
status = main(["plan", *sys.argv[1:], "--json"])
print({"torch", "transformers"} & set(sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("profile", ["sandbox", "single-gpu", "paper"])
def test_a_plan_needs_neither_network_nor_what_takes_seconds_to_import(profile):
    """Nor a GPU, models or data."""
    done = subprocess.run([sys.executable, "-c", OFFLINE, "--profile", profile], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "set()"
    planned = json.loads(done.stdout)
    assert planned["to_run"] == planned["distinct"] > 100 and planned["seconds"] is None
