"""Where the study's folders are: at the repository's root, wherever one stands."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"


def _folder(variable: str, default: str) -> Path:
    """The folder that the environment names (relative to where the user stands), or the repository's own."""
    return Path(os.environ.get(variable) or ROOT / default).absolute()


def store_folder() -> Path:
    return _folder("WEAKLIB_STORE", "artifacts")


def runs_folder() -> Path:
    return _folder("WEAKLIB_RUNS", "runs")


def figures_folder() -> Path:
    return _folder("WEAKLIB_FIGURES", "figures")
