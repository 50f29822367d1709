"""Stages and their store: what makes a key, and artifacts that are whole or absent."""

import multiprocessing
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from weaklib.arms import graph, running
from weaklib.arms import stage as stages
from weaklib.arms.stage import Stage, Store, fingerprint
from weaklib.study.parameters import load_profile
from weaklib.supervisors import verdicts

ROOT = Path(stages.PACKAGE).parent


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """The package's source in a place where a test may change it."""
    package = tmp_path / "weaklib"
    shutil.copytree(stages.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stages, "PACKAGE", package)
    return package


def stage_modules() -> list[str]:
    """Those that have a function ``run(out, ...)``."""
    files = sorted(path for path in (ROOT / "weaklib").rglob("*.py") if "\ndef run(out" in _one_line_signatures(path))
    return [str(path.relative_to(ROOT / "weaklib")).removesuffix(".py").replace("/", ".") for path in files]


def _one_line_signatures(path) -> str:
    return path.read_text(encoding="utf-8").replace("def run(\n    out", "def run(out")


def fingerprints() -> dict[str, str]:
    fingerprint.cache_clear()
    found = {name.rpartition(".")[2]: fingerprint(f"weaklib.{name}") for name in stage_modules()}
    fingerprint.cache_clear()
    return found


def change(file: Path, old: str, new: str):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def recomputed(before, after) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_every_stage_is_found():
    assert {name.rpartition(".")[2] for name in stage_modules()} == {
        *("task", "split", "gold_pairs", "base", "sft", "policy", "reference"),
        *("annotator", "labels", "temperature", "judge_labels", "responses", "rewards", "kl"),
    }


def test_a_changed_helper_recomputes_who_uses_it(copied_package):
    before = fingerprints()
    change(copied_package / "supervisors" / "labels.py", "abs(margin) / 2", "abs(margin) / 3")
    # labels write the judge's, too
    assert recomputed(before, fingerprints()) == {"judge_labels", "labels"}


def test_a_changed_trainer_recomputes_who_trains_and_no_label(copied_package):
    before = fingerprints()
    change(copied_package / "training" / "trainers.py", "set_seed(seed)", "set_seed(seed + 1)")
    assert recomputed(before, fingerprints()) == {"annotator", "base", "policy", "sft", "temperature"}


def test_a_changed_helper_of_a_helper_recomputes(copied_package):
    before = fingerprints()
    change(copied_package / "data" / "world" / "dialogue.py", "boil an egg", "fry an egg")
    assert recomputed(before, fingerprints()) == {"gold_pairs", "judge_labels", "rewards", "task"}


def test_what_changes_no_number_recomputes_nothing(copied_package):
    before = fingerprints()
    change(copied_package / "study" / "study.py", "class Study", "class Study2")
    change(copied_package / "training" / "losses.py", '"""Preference', '"""The preference')
    change(copied_package / "training" / "losses.py", "unknown objective", "an unknown objective")
    change(copied_package / "training" / "language_models.py", "# Settings", "# All settings")
    assert recomputed(before, fingerprints()) == set()


def test_five_edits_re_key_only_what_they_touch(copied_package, monkeypatch, tmp_path):
    before = fingerprints()
    change(copied_package / "training" / "losses.py", "OBJECTIVES = {", 'OBJECTIVES = {"mine": _dpo, ')
    assert recomputed(before, fingerprints()) == {"policy"}
    after = fingerprints()
    change(
        copied_package / "arms" / "table.py", "    weak  ", "    mine          human       all        none\n    weak  "
    )
    change(copied_package / "figures" / "draw.py", "#D55E00", "#FF0000")
    assert fingerprints() == after

    # a sweep, and the text of a question
    monkeypatch.undo()
    profile = load_profile("smoke")
    swept = load_profile("smoke", {"betas": [7.0], "supervisors": ["opt-micro"]})
    arm, pair = graph.ARMS["weak"], ("opt-tiny", "opt-small")
    assert graph.policy(swept, arm, *pair, 0).key == graph.policy(profile, arm, *pair, 0).key
    rating = load_profile("smoke", {"judge.form": "rating"})
    keys = [graph.labels(p, "judge", "unlabeled", 0).key for p in (profile, rating)]
    assert graph.labels(swept, "judge", "unlabeled", 0).key == keys[0]
    shutil.copytree(verdicts.FORMS, tmp_path / "forms")
    change(tmp_path / "forms" / "pairwise.txt", "$prompt", "$prompt, please")
    monkeypatch.setattr(verdicts, "FORMS", tmp_path / "forms")
    edited = [graph.labels(p, "judge", "unlabeled", 0).key for p in (profile, rating)]
    assert edited[0] != keys[0] and edited[1] == keys[1]
    assert graph.labels(profile, "annotator", "unlabeled", 0, "opt-tiny").name == "labels"  # asks no judge


def test_batches_of_pairs_re_key_no_training_on_texts():
    profile, smaller = (load_profile("smoke", {"batch_tokens": tokens}) for tokens in (1000, 500))
    assert graph.sft(profile, "opt-small", 0).key == graph.sft(smaller, "opt-small", 0).key
    assert graph.annotator(profile, "opt-tiny", 0).key != graph.annotator(smaller, "opt-tiny", 0).key


def test_a_key_tells_parameters_inputs_and_libraries_apart(monkeypatch):
    def split(**parameters):
        task = Stage("data.task", parameters={"kind": "world", "seed": parameters.pop("task_seed", 0)})
        return Stage("data.split", {"task": task}, {"seed": 0, **parameters}).key

    assert split() == split()
    assert len({split(), split(seed=1), split(task_seed=1)}) == 3
    before = split()
    monkeypatch.setattr(stages, "version", lambda name: "0.0")
    assert split() != before
    monkeypatch.undo()


SMALL_TASK = {
    "kind": "world",
    "name": "dialogue",
    "prompts": "both",
    "corpus": 5,
    "demonstrations": 5,
    "pairs": 5,
    "validation_prompts": 5,
    "test_prompts": 5,
}


def compute(root, seed=0):
    stage = Stage("data.task", parameters={**SMALL_TASK, "seed": seed})
    Store(root).compute(stage.record)
    return Store(root).folder(stage)


def test_a_failing_stage_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        compute(tmp_path, seed="no seed")
    assert not (tmp_path / "task").exists()
    assert [p for p in (tmp_path / ".partial").iterdir() if p.is_dir()] == []


def test_a_killed_stage_leaves_nothing_and_runs_again(tmp_path):
    script = f"""
        import os, pathlib, signal
        from tests.test_store import SMALL_TASK, Stage, Store
        from weaklib.arms import stage as stages
        stage = Stage("data.task", parameters={{**SMALL_TASK, "seed": 0}}).record
        stages.Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing is renamed
        Store(pathlib.Path({str(tmp_path)!r})).compute(stage)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".partial/*/stage.json")) and not list(tmp_path.glob("task/*"))
    assert (compute(tmp_path) / "pairs.parquet").is_file()
    assert not list(tmp_path.glob(".partial/*/"))


GOES_ON_STAGE = """
def run(out, *, stops):
    scratch = out.with_suffix(".scratch")
    scratch.mkdir(exist_ok=True)
    steps = sorted(scratch.iterdir())
    (scratch / f"step-{len(steps)}").write_text("done")
    if len(steps) < stops:
        raise OSError("no power")
    (out / "steps.json").write_text(str(len(steps)))
"""


def test_scratch_outlives_an_error_and_goes_when_the_stage_is_done(tmp_path, monkeypatch):
    import weaklib.data

    (tmp_path / "goes_on.py").write_text(GOES_ON_STAGE)
    monkeypatch.setattr(weaklib.data, "__path__", [*weaklib.data.__path__, str(tmp_path)])
    store, stage = Store(tmp_path / "store"), Stage("data.goes_on", parameters={"stops": 2})
    for _ in range(2):
        with pytest.raises(OSError, match="no power"):
            store.compute(stage.record)
    store.compute(stage.record)
    assert (store.folder(stage) / "steps.json").read_text() == "2"
    assert {path.name for path in (store.root / ".partial").iterdir()} == {f"{stage.key}.lock"}


SLOW_STAGE = """
import time
def run(out, *, log):
    with open(log, "a") as file:
        file.write("ran\\n")
    time.sleep(1)
"""


def compute_slow(root, log):
    """A stage of this test's own, which tells each time it runs."""
    import weaklib.data

    weaklib.data.__path__.append(str(root))
    Store(root / "store").compute(Stage("data.slow", parameters={"log": str(log)}).record)


def test_equal_keys_run_once_though_two_processes_ask(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_STAGE)
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.starmap(compute_slow, [(tmp_path, log), (tmp_path, log)])
    assert log.read_text() == "ran\n"


def test_what_is_stored_does_not_run_again(tmp_path):
    record = compute(tmp_path) / "stage.json"
    before = record.stat().st_mtime_ns
    compute(tmp_path)
    assert record.stat().st_mtime_ns == before


def test_a_worker_with_older_code_refuses(tmp_path):
    stage = Stage("data.task", parameters={**SMALL_TASK, "seed": 0})
    with pytest.raises(RuntimeError, match="restart"):
        Store(tmp_path).compute(stage.record | {"code": "that of an hour ago"})


def test_a_failed_stage_is_named(cluster, tmp_path):
    stage = Stage("data.task", parameters={**SMALL_TASK, "pairs": 10**6, "seed": 0})
    with pytest.raises(running.StageFailed, match=rf"stage task/{stage.key}: ValueError: the world has about"):
        running.run([stage], Store(tmp_path))


def test_no_pickle_in_any_artifact(made, smoke, store):
    from weaklib.arms import graph

    policy = graph.policy(smoke, graph.ARMS["cw"], "opt-tiny", "opt-small", 0)
    made(graph.rewards(smoke, policy, 0))
    suffixes = {path.suffix for path in store.root.rglob("*") if path.is_file() and ".partial" not in path.parts}
    assert suffixes <= {".json", ".parquet", ".safetensors", ".jinja"}
