"""The house of the library: eight rooms, imports downwards only, nothing of the notebooks."""

import ast
import subprocess
import sys

import pytest

from weaklib.arms.folders import NOTEBOOKS, PARAMS, ROOT
from weaklib.study.parameters import read_profile

PACKAGE = ROOT / "weaklib"
# From the ground up: a room imports from those before it, and from itself.
ROOMS = ("data", "training", "supervisors", "evaluation", "arms", "figures", "study", "reproduce")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def room_of(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


def imports_of(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "weaklib":
            found |= {f"weaklib.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("weaklib."):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("weaklib.")}
    return found


def test_eight_rooms():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries == {*ROOMS, "__init__.py", "__main__.py"}
    # a stage's key follows the code it imports: a room's own file would drag the whole room along
    assert all((PACKAGE / room / "__init__.py").read_text() == "" for room in ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = ROOMS.index(path.relative_to(PACKAGE).parts[0])
    assert all(room_of(module) <= room for module in imports_of(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_read_in_one_sitting(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250 and all(len(line) <= 120 for line in lines)


def test_the_library_is_thin():
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*") if path.suffix not in ("", ".pyc")]
    assert sum(len(text.splitlines()) for text in texts) <= 5200


def test_the_library_does_not_know_its_notebooks():
    names = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    sweeps = set(read_profile(PARAMS / "sandbox.yaml")["sweeps"]) - {"epochs", "confidently_wrong"}  # keys, too
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        words = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        told = names & strings if path.name != "parameters.py" else set()
        assert not told, path
        assert not (sweeps - {"students", "objectives"}) & (strings | words), path


def test_the_readme_draws_the_rooms_that_there_are():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = [
        line.split()[0].rstrip("/") for line in text.splitlines() if line[:2] == "  " and line.split()[0].endswith("/")
    ]
    assert [name for name in drawn if name in ROOMS] == list(reversed(ROOMS))


@pytest.mark.parametrize("tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_lint_format_and_types(tool):
    folders = () if tool[0] == "mypy" else ("weaklib", "tests")
    done = subprocess.run([sys.executable, "-m", *tool, *folders], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
