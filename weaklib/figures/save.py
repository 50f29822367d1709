"""Figures and tables that can be cited: byte-stable files, and what they were made with."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from weaklib.arms.folders import ROOT
from weaklib.arms.stage import LIBRARIES
from weaklib.data.files import aside

PACKAGES = (*LIBRARIES, "distributed", "matplotlib", "pandas", "papermill", "scipy", "seaborn")

# Characters that pdflatex does not know as they are.
LATEX = str.maketrans({"→": r"$\rightarrow$", "β": r"$\beta$", "–": "--", "−": "$-$", "“": "``", "”": "''"})


def save_figure(figure: Figure, folder: Path, name: str, title: str, key: str) -> list[Path]:
    """Writes ``name.svg``, ``.pdf`` and ``.png``, the same bytes each time; ``title`` and ``key`` are in their metadata."""
    empty_dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    subject = {"svg": "Description", "pdf": "Subject", "png": "Description"}
    with aside(folder) as place:
        for kind, dates in empty_dates.items():
            metadata = dates | {"Title": title, subject[kind]: f"store key {key}"}
            figure.savefig(place / f"{name}.{kind}", dpi=200, metadata=metadata)
    return [folder / f"{name}.{kind}" for kind in empty_dates]


def save_csv(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    with aside(folder) as place:
        frame.to_csv(place / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return folder / f"{name}.csv"


def save_table(frame: pd.DataFrame, folder: Path, name: str, caption: str) -> list[Path]:
    """Writes ``frame`` (cells as they shall be read) as Markdown, LaTeX (booktabs) and CSV."""
    latex = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    escapes: dict = {c: f"\\{c}" for c in "%&_#$"}
    escaped = caption.translate(str.maketrans(escapes))
    table = latex.to_latex(hrules=True, caption=escaped, label=f"tab:{name}", position_float="centering")
    with aside(folder) as place:
        (place / f"{name}.md").write_text(f"{caption}\n\n{frame.to_markdown(index=False)}\n", encoding="utf-8")
        (place / f"{name}.tex").write_text(table.translate(LATEX), encoding="utf-8")
        frame.to_csv(place / f"{name}.csv", index=False, lineterminator="\n")
    return [folder / f"{name}.{kind}" for kind in ("md", "tex", "csv")]


def provenance() -> dict:
    """The last commit that touched code, notebooks or parameters, whether they differ from it now, and the packages' versions."""
    paths = ("--", "weaklib", "notebooks/*.ipynb", "params")
    try:
        commit: dict = {"commit": _git("log", "-1", "--format=%H", *paths) or None}
        commit["dirty"] = bool(_git("status", "--porcelain", *paths))
    except (OSError, subprocess.CalledProcessError):
        commit = {"commit": None, "dirty": None}
    packages = {name: version(name) for name in PACKAGES}
    return commit | {"python": ".".join(map(str, sys.version_info[:3])), "packages": packages}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
