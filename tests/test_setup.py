"""The pins, and that the ways to install agree."""

import re
import tomllib
from importlib.metadata import version

import pytest
from ruamel.yaml import YAML

from weaklib.arms.folders import ROOT


def pins(lines) -> dict[str, str]:
    """name → version of requirement lines; a ``-r FILE`` line stands for that file's."""
    found = {}
    for line in lines:
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= pins((ROOT / line.removeprefix("-r ")).read_text().splitlines())
        elif line and not line.startswith("-"):
            name, pinned = line.split("==")
            assert name.lower() not in found, f"{name} is named twice"
            found[name.lower()] = pinned
    return found


REQUIREMENTS = pins((ROOT / "requirements.txt").read_text().splitlines())
CONDA = YAML(typ="safe").load((ROOT / "environment.yml").read_text())["dependencies"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_pin_is_exact_and_public():
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", pinned) for pinned in REQUIREMENTS.values())  # no +cpu, no URL
    assert REQUIREMENTS["torch"] == "2.13.0"


def test_conda_names_the_same_versions():
    (conda_pip,) = [entry["pip"] for entry in CONDA if isinstance(entry, dict)]
    assert pins(conda_pip) == REQUIREMENTS
    assert "-e ." in conda_pip


def test_conda_python_is_one_the_package_allows():
    (python,) = [entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python=")]
    lowest = PROJECT["requires-python"].removeprefix(">=").split(".")
    assert [int(n) for n in python.removeprefix("python=").split(".")] >= [int(n) for n in lowest]


@pytest.mark.parametrize("name", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
def test_what_the_code_imports_is_pinned_and_installed(name):
    assert version(name).split("+")[0] == REQUIREMENTS[name]
