"""The study as its users run it: the command line and plain papermill, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from weaklib.arms.folders import ROOT
from weaklib.data.files import sha256
from weaklib.study.parameters import load_profile

NOTEBOOK = "05_top_confidence"
SMALL = ["seeds=[0]", "models.weak=opt-tiny", "models.strong=opt-small", "top_percents=[50, 100]"]
# A user's own taste and start-up code, which must not show.
HOSTILE = {"MATPLOTLIBRC": "matplotlibrc", "IPYTHONDIR": "ipython"}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder outside the repository, with a matplotlibrc of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "matplotlibrc").write_text("axes.facecolor: black\nfont.size: 30\nsavefig.dpi: 10\nsvg.hashsalt: mine\n")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("import matplotlib\nmatplotlib.rcParams['lines.linewidth'] = 9\n")
    return folder


def command(place, *arguments, **environment):
    """Runs a module of this environment from ``place``."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("WEAKLIB_")}
    hostile = {name: str(place / value) for name, value in HOSTILE.items()}
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=place,
        env=plain | hostile | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def reproduce(place, name, *arguments):
    """A run with a store and figures of its own."""
    folders = [word for kind in ("store", "figures", "runs") for word in (f"--{kind}", place / name / kind)]
    return command(place, "weaklib", "reproduce", "--profile", "smoke", "--only", NOTEBOOK, *folders, *arguments)


@pytest.fixture(scope="module")
def cold(place):
    """A cold run with one worker."""
    done = reproduce(place, "one", "--set", *SMALL, "--workers", "1")
    assert done.returncode == 0, done.stderr
    return done


def files(place, name, *endings) -> dict[str, bytes]:
    figures = place / name / "figures"
    return {str(f.relative_to(figures)): f.read_bytes() for f in figures.rglob("*") if f.suffix in endings}


def test_two_cold_runs_are_byte_identical(place, cold):
    """With another number of workers, and from a shell with another locale."""
    again = reproduce(place, "two", "--set", *SMALL, "--workers", "2")
    assert again.returncode == 0, again.stderr
    first, second = (files(place, name, ".csv", ".svg", ".pdf", ".png", ".tex", ".md") for name in ("one", "two"))
    assert len(first) == 16  # two figures, two tables, the contrasts and the page of all
    assert first == second


def test_a_warm_run_computes_nothing_and_changes_nothing(place, cold):
    before = files(place, "one", ".csv", ".svg", ".json")
    warm = reproduce(place, "one", "--set", *SMALL)
    assert warm.returncode == 0 and "all stored already" in warm.stdout and "stage/s" not in warm.stdout
    assert files(place, "one", ".csv", ".svg", ".json") == before


def test_the_terminal_shows_progress_and_no_noise(cold):
    assert re.search(r"stages: 100%.*\d+/\d+ \[\d\d:\d\d<\d\d:\d\d", cold.stdout)
    assert "Warning" not in cold.stdout + cold.stderr and "Traceback" not in cold.stderr


def test_manifest_lists_every_output_with_its_hash(place, cold):
    manifest = json.loads((place / "one" / "runs" / "smoke" / "manifest.json").read_text())
    outputs = manifest["notebooks"][NOTEBOOK]["outputs"]
    written = {str(f) for f in (place / "one" / "figures").rglob("*") if f.is_file()}
    page = str(place / "one" / "figures" / "README.md")
    assert manifest["page"] == page and {*outputs, page} == written and len(written) == 18
    assert all(sha256(Path(path)) == digest for path, digest in outputs.items())


def test_figure_data_are_tidy_and_complete(place, cold):
    data = pd.read_csv(place / "one" / "figures" / "smoke" / NOTEBOOK / "top_confidence.csv")
    gra = data[data["metric"] == "gra"]
    assert set(zip(gra["arm"], gra["top_percent"].fillna(-1))) == {
        ("human", -1), ("human_all", -1), ("cw", -1), ("top", 50), ("top", 100)
    }  # fmt: skip
    accuracy = data[data["metric"] == "label_accuracy"]
    assert sorted(accuracy["decile"]) == sorted([*range(1, 11)] * 2) and set(accuracy["against"]) == {"human", "truth"}
    assert data[["estimate", "ci_low", "ci_high", "n_seeds", "n_prompts"]].notna().all().all()
    assert (data["ci_low"] <= data["estimate"]).all() and (data["estimate"] <= data["ci_high"]).all()


def test_provenance(place, cold):
    folder = place / "one" / "figures" / "smoke" / NOTEBOOK
    said = json.loads((folder / "top_confidence.json").read_text())
    assert said["parameters"]["seeds"] == [0] and said["parameters"]["models"]["weak"] == ["opt-tiny"]
    assert re.fullmatch("[0-9a-f]{40}", said["commit"]) and said["dirty"] in (True, False)
    assert said["packages"]["torch"] and said["device"] == "cpu"
    store = place / "one" / "store"
    assert all((store / stage).is_dir() for stage in said["stages"])
    for file, digest in said["sha256"].items():
        assert sha256(folder / file) == digest
    svg, pdf = (folder / "top_confidence.svg").read_text(), (folder / "top_confidence.pdf").read_bytes()
    assert f"{NOTEBOOK}: top_confidence" in svg and said["key"] in svg
    assert said["key"].encode() in pdf and b"CreationDate" not in pdf


def test_model_folders_load_with_plain_from_pretrained(place, cold):
    store = place / "one" / "store"
    for kind, loader in (
        ("base", AutoModelForCausalLM),
        ("sft", AutoModelForCausalLM),
        ("policy", AutoModelForCausalLM),
        ("annotator", AutoModelForSequenceClassification),
    ):
        for folder in (store / kind).iterdir():
            model, tokenizer = loader.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
            assert model.config.vocab_size == len(tokenizer) and tokenizer.pad_token_id == model.config.pad_token_id
            text = " First, wait for seven minutes. Über 3 € 🥚"
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_plain_papermill_from_another_folder(place, cold):
    """With a cluster of its own, into the same store; papermill delivers strings."""
    folders = {f"WEAKLIB_{kind.upper()}": str(place / "one" / kind) for kind in ("store", "runs")}
    overrides = "{models.weak: opt-tiny, models.strong: opt-small}"
    done = command(
        place,
        *("papermill", ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", "out.ipynb", "--no-progress-bar"),
        *(
            "-p",
            "profile",
            "smoke",
            "-p",
            "seeds",
            "[0]",
            "-p",
            "top_percents",
            "[50, 100]",
            "-p",
            "overrides",
            overrides,
        ),
        **folders,
        WEAKLIB_FIGURES="figures of mine",  # relative to where the user stands
    )
    assert done.returncode == 0, done.stderr
    figures = place / "figures of mine" / "smoke" / NOTEBOOK
    for kind in ("csv", "svg", "png", "pdf"):
        expected = place / "one" / "figures" / "smoke" / NOTEBOOK / f"top_confidence.{kind}"
        assert (figures / f"top_confidence.{kind}").read_bytes() == expected.read_bytes()
    pictures = [
        o
        for c in nbformat.read(place / "out.ipynb", 4).cells
        for o in c.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 2


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        (
            ["seed", "[0]"],
            "RequestError: unknown parameter 'seed': this notebook has overrides, profile, seeds, top_percents",
        ),
        (["profile", "smok"], "RequestError: unknown profile 'smok'"),
        (["seeds", "three"], "RequestError: override seeds: Input should be a valid list (got 'three')"),
        (["overrides", "{bta: 0.1}"], "RequestError: override bta: Extra inputs are not permitted (got 0.1)"),
    ],
)
def test_plain_papermill_with_a_mistake_fails_at_once(place, parameters, line):
    arguments = [] if parameters[0] == "profile" else ["-p", "profile", "smoke"]
    before = set(place.rglob("figures*/**/*"))
    done = command(
        place,
        *("papermill", ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", "bad.ipynb", "--no-progress-bar"),
        *(*arguments, "-p", *parameters),
        WEAKLIB_STORE=str(place / "untouched"),
        WEAKLIB_FIGURES=str(place / "figures untouched"),
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(line)
    assert not (place / "untouched").exists() and set(place.rglob("figures*/**/*")) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "bta=0.1"], "weaklib: override bta: Extra inputs are not permitted (got 0.1)"),
        (["--set", "beta"], "weaklib: --set beta: KEY=VALUE is needed"),
        (["--profile", "smok"], "weaklib: unknown profile 'smok': there are"),
        (["--only", "05_top"], "weaklib: unknown notebook '05_top': there are 00_start_here"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(place, arguments, line):
    done = reproduce(place, "wrong", *arguments)
    assert done.returncode == 2
    (only,) = done.stderr.strip().splitlines()
    assert only.startswith(line)
    assert not (place / "wrong").exists()


def test_a_failing_stage_is_named_and_exit_1(place):
    done = reproduce(place, "failing", "--set", *SMALL, "task.pairs=1000000", "--workers", "1")
    assert done.returncode == 1
    pattern = rf"weaklib: {NOTEBOOK}, cell \[\d+\]: StageFailed: stage task/\w+: ValueError: the world has about \d+ such prompts"
    assert re.match(pattern, done.stderr.strip().splitlines()[-1])
    assert not (place / "failing" / "runs" / "smoke" / "manifest.json").exists()


def plan(place, store, *overrides):
    arguments = ("--profile", "smoke", "--only", NOTEBOOK, "--store", store, "--json", "--set", *SMALL, *overrides)
    done = command(place, "weaklib", "plan", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_plan_of_an_empty_store(place):
    planned = plan(place, place / "empty")
    # 5 policies and their start are sampled and rewarded; D_l, D_u, all pairs and the annotator's D_u are labelled
    counts = {
        "task": 1,
        "base": 2,
        "split": 1,
        "sft": 1,
        "reference": 1,
        "labels": 4,
        "annotator": 1,
        "policy": 5,
        "responses": 6,
        "rewards": 6,
    }
    assert {name: row["distinct"] for name, row in planned["by_stage"].items()} == counts
    assert planned["to_run"] == planned["distinct"] == planned["unknown"] == sum(counts.values())
    assert planned["stored"] == 0 and planned["seconds"] is None and not (place / "empty").exists()


def test_plan_knows_what_is_stored_and_how_long_such_stages_take(place, cold):
    store = place / "one" / "store"
    stored = plan(place, store)
    assert stored["to_run"] == 0 and stored["stored"] == stored["distinct"] == 28
    records = [json.loads(path.read_text()) for path in store.glob("*/*/stage.json")]
    assert len(records) == 28, "plan and run disagree"
    another_seed = plan(place, store, "seeds=[1]")
    # task, base models and the human labels of all pairs know no seed
    assert another_seed["to_run"] == 24 and another_seed["unknown"] == 0
    work = sum(record["seconds"] for record in records if record["stage"] not in ("task", "base"))
    assert another_seed["seconds"] == pytest.approx(work, rel=0.5)  # the labels take no time
    longer, elsewhere = (plan(place, store, change) for change in ("policy.epochs=2", "device=cuda"))
    assert longer["unknown"] == 15 and longer["seconds"] is None  # the policies, and what they say
    assert longer["by_stage"]["policy"]["seconds"] is None
    assert elsewhere["unknown"] > 15, "a CPU's times are not a GPU's"


def test_plan_in_words(place, cold):
    arguments = ("--profile", "smoke", "--only", NOTEBOOK, "--store", place / "one" / "store", "--set", *SMALL)
    done = command(place, "weaklib", "plan", *arguments)
    assert "28 stages asked for, 28 distinct, 28 stored already, 0 to run" in done.stdout


def test_plan_says_what_notebooks_share(place):
    done = command(place, "weaklib", "plan", "--profile", "smoke", "--store", place / "empty", "--json")
    planned = json.loads(done.stdout)
    assert list(planned["notebooks"]) == load_profile("smoke").notebooks
    assert planned["asked_for"] == sum(planned["notebooks"].values()) > 1.3 * planned["distinct"]


def test_every_notebook_of_a_profile_runs(place, cold):
    folders = [word for kind in ("store", "figures", "runs") for word in (f"--{kind}", place / "all" / kind)]
    done = command(place, "weaklib", "reproduce", "--profile", "smoke", *folders, "--set", *SMALL)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / "all" / "runs" / "smoke" / "manifest.json").read_text())
    assert list(manifest["notebooks"]) == load_profile("smoke").notebooks
    gold = pd.read_csv(place / "all" / "figures" / "smoke" / "07_gold_reward" / "gold_reward.csv")
    assert set(gold["gold"]) == {"truth", "learned-opt", "learned-qwen2"} and gold.groupby("gold").size().nunique() == 1
    judged = (place / "all" / "figures" / "smoke" / "08_judge" / "judge.svg").read_text()
    assert (
        "simulated judge"
        in json.loads((place / "all" / "figures" / "smoke" / "08_judge" / "judge.json").read_text())["caption"]
    )
    assert judged.startswith("<?xml")


def test_an_existing_cluster(place, cluster):
    done = reproduce(place, "remote", "--set", *SMALL, "top_percents=[100]", "--scheduler", cluster)
    assert done.returncode == 0, done.stderr
    assert (place / "remote" / "runs" / "smoke" / "manifest.json").exists()


def test_check_of_valid_files(place):
    files = sorted((ROOT / "params").glob("*.yaml"))
    done = command(place, "weaklib", "check", *files)
    assert done.returncode == 0 and done.stdout.splitlines() == [f"{file}: valid" for file in files]


def test_tables_are_latex_that_pdflatex_reads(place, cold):
    for file in (place / "one" / "figures" / "smoke" / "tables" / NOTEBOOK).glob("*.tex"):
        table = file.read_text()
        assert table.isascii() and "\\toprule" in table and "nan" not in table.lower()
        assert not re.search(r"(?<!\\)[%_]", table.replace(r"\label{tab:" + file.stem, ""))
        columns = table.split("\\begin{tabular}{")[1].split("}")[0]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert rows and all(line.count("&") - line.count(r"\&") == len(columns) - 1 for line in rows)


def test_the_stored_notebook_is_clean(place, cold):
    """No warning, no traceback, and a progress bar in one line."""
    notebook = nbformat.read(place / "one" / "runs" / "smoke" / f"{NOTEBOOK}.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert outputs and {output.name for output in streams} == {"stdout"}
    assert not any("\r" in output.text for output in streams)


def test_the_stored_notebook_shows_the_figure_of_its_run(place, cold):
    """Not the one committed beside the notebook, and from where it lies now."""
    file = place / "one" / "runs" / "smoke" / f"{NOTEBOOK}.ipynb"
    (shown,) = re.findall(r"!\[.+?\]\((.+?\.png)\)", nbformat.read(file, 4).cells[0].source)
    figure = (file.parent / shown).resolve()
    assert figure == (place / "one" / "figures" / "smoke" / NOTEBOOK / "top_confidence.png").resolve()
    assert figure.is_file()


def test_a_folder_of_any_name_and_a_terminal_of_any_encoding(place):
    """Papermill fills in what stands in braces; YAML and markdown have their own ideas of #, & and brackets."""
    folders = [word for kind in ("store", "figures", "runs") for word in (f"--{kind}", place / "{a} #1 & [b]*" / kind)]
    asked = ["weaklib", "reproduce", "--profile", "smoke", "--only", "00_start_here", *folders]
    done = command(place, *asked, "--set", *SMALL[:3], PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert (place / "{a} #1 & [b]*" / "runs" / "smoke" / "00_start_here.ipynb").is_file()
    # its start-up code ends the kernel's process in the middle of a cell, as the system does for want of memory
    killer = place / "killer"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if any('ipykernel' in word for word in sys.orig_argv):\n"
        "    import threading, time\n"
        "    def kill():\n"
        "        while 'weaklib.study.study' not in sys.modules:\n"
        "            time.sleep(0.01)\n"
        "        os.kill(os.getpid(), 9)\n"
        "    threading.Thread(target=kill, daemon=True).start()\n"
    )
    done = command(place, *asked, "--set", *SMALL[:3], "beta=0.7", PYTHONPATH=str(killer))
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(r"weaklib: 00_start_here, cell \[\d+\]: its process was killed", done.stderr)


@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"]).returncode != 0, reason="needs a mount of its own")
def test_a_machine_without_shared_memory_is_told_in_one_line(place):
    folders = " ".join(f"--{kind} {place / 'shm' / kind}" for kind in ("store", "figures", "runs"))
    asked = f"{sys.executable} -m weaklib reproduce --profile smoke --only 00_start_here {folders}"
    script = f"mount -t tmpfs -o ro tmpfs /dev/shm && exec {asked}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "no worker can be started on this machine: OSError(30" in done.stderr and "/dev/shm" in done.stderr
