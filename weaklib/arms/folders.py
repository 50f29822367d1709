"""Where the study's folders are: at the repository's root, wherever one stands, or where the environment says."""

import os
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, PARAMS = ROOT / "notebooks", ROOT / "params"


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT / default).absolute()


store_folder = partial(_folder, "WEAKLIB_STORE", "artifacts")
runs_folder = partial(_folder, "WEAKLIB_RUNS", "runs")
figures_folder = partial(_folder, "WEAKLIB_FIGURES", "figures")
