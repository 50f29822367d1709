"""What every notebook promises, whatever it is about."""

import os
import re
import subprocess
import sys

import nbformat
import pytest

import weaklib
from weaklib.arms.folders import NOTEBOOKS, ROOT
from weaklib.reproduce.run import stages_asked_for
from weaklib.study.parameters import load_profile

NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def cells_of(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells


def test_the_profiles_run_all_of_them():
    assert len(NAMES) == 15
    for profile in ("smoke", "sandbox"):
        assert load_profile(profile).notebooks == NAMES  # in their order: the ledger comes last


@pytest.mark.parametrize("name", NAMES)
def test_form(name):
    cells = cells_of(name)
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    (parameters,) = (cell for cell in code if "parameters" in cell.metadata.get("tags", []))
    namespace = {}
    exec(parameters.source, namespace)
    assert namespace["profile"] == "sandbox" and namespace["overrides"] == {} and namespace["seeds"] is None
    assert f'"{name}"' in "".join(cell.source for cell in code)  # it knows its own name
    assert code[-1].source == "study.finish()"
    headings = [
        line for cell in cells if cell.cell_type == "markdown" for line in re.findall("^## .*", cell.source, re.M)
    ]
    assert {"## What we found", "## Limits"} <= set(headings)
    assert len(cells) <= 24
    assert max(len(cell.source.splitlines()) for cell in code) <= 15


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_its_committed_figure_at_its_top(name):
    first = cells_of(name)[0].source
    (shown,) = re.findall(r"!\[.+\]\(\.\./(figures/sandbox/.+\.png)\)", first)
    assert (ROOT / shown).is_file() and f"/{name}/" in shown


@pytest.mark.parametrize("name", NAMES)
def test_its_stages_are_known_beforehand(name):
    """Nothing runs, and no cell before the last that runs stages needs a result."""
    asked = stages_asked_for(name, "smoke", {})
    kinds = {stage.name for stage in asked}
    assert kinds == set() if name == "14_claims" else "rewards" in kinds


@pytest.mark.notebooks
@pytest.mark.parametrize("name", NAMES)
def test_plain_papermill_and_run_all(name, tmp_path_factory):
    """From another folder; the second finds everything stored. One store for all, so that it is filled once."""
    place = tmp_path_factory.mktemp("elsewhere")
    shared = tmp_path_factory.getbasetemp()
    folders = {f"WEAKLIB_{kind}": str(shared / kind.lower()) for kind in ("STORE", "FIGURES", "RUNS")}

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=place, env=os.environ | folders, capture_output=True, text=True
        )

    source = NOTEBOOKS / f"{name}.ipynb"
    done = run("papermill", str(source), "out.ipynb", "-p", "profile", "smoke")
    assert done.returncode == 0, done.stderr[-2000:]
    written = {path: path.read_bytes() for path in (shared / "figures" / "smoke").rglob("*.csv")}
    assert any(name in str(path) for path in written)
    # Run All has no parameters: the profile is edited, as a user does
    edited = place / source.name
    edited.write_text(source.read_text(encoding="utf-8").replace('profile = \\"sandbox\\"', 'profile = \\"smoke\\"'))
    done = run("jupyter", "execute", str(edited))
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path: path.read_bytes() for path in (shared / "figures" / "smoke").rglob("*.csv")} == written


def test_few_names_are_needed():
    """What notebooks use of weaklib, beside the methods of their study."""
    code = "\n".join(cell.source for name in NAMES for cell in cells_of(name) if cell.cell_type == "code")
    used = set(re.findall(r"\b(?:weaklib|draw|style|tables|graph|ledger)\.\w+(?=\()", code))
    assert len(used) <= 50, sorted(used)
    assert len(weaklib.__all__) <= 30
