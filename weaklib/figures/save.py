"""Figures and tables that can be cited: byte-stable files, and what they were made with."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from weaklib.arms.folders import ROOT
from weaklib.arms.stage import LIBRARIES
from weaklib.data.files import aside

# Characters that pdflatex does not know as they are.
LATEX = str.maketrans({"→": r"$\rightarrow$", "β": r"$\beta$", "–": "--", "−": "$-$", "“": "``", "”": "''"})


def save_figure(figure, folder: Path, name: str, title: str, key: str) -> list[Path]:
    """Writes ``name.svg``, ``.pdf`` and ``.png``, byte-stable, with ``title`` and ``key`` in their metadata."""
    kinds = {"svg": ("Description", "Date"), "pdf": ("Subject", "CreationDate"), "png": ("Description", "Software")}
    with aside(folder) as place:
        for kind, (subject, changes) in kinds.items():
            metadata = {changes: None, "Title": title, subject: f"store key {key}"}
            figure.savefig(place / f"{name}.{kind}", dpi=200, metadata=metadata)
    return [folder / f"{name}.{kind}" for kind in kinds]


def save_csv(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    with aside(folder) as place:
        frame.to_csv(place / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return folder / f"{name}.csv"


def save_table(frame: pd.DataFrame, folder: Path, name: str, caption: str) -> list[Path]:
    """Writes ``frame`` (cells as they shall be read) as Markdown, LaTeX (booktabs) and CSV."""
    latex = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    escaped = caption.translate({ord(sign): f"\\{sign}" for sign in "%&_#$"})
    table = latex.to_latex(hrules=True, caption=escaped, label=f"tab:{name}", position_float="centering")
    with aside(folder) as place:
        (place / f"{name}.md").write_text(f"{caption}\n\n{frame.to_markdown(index=False)}\n", encoding="utf-8")
        (place / f"{name}.tex").write_text(table.translate(LATEX), encoding="utf-8")
        frame.to_csv(place / f"{name}.csv", index=False, lineterminator="\n")
    return [folder / f"{name}.{kind}" for kind in ("md", "tex", "csv")]


def provenance() -> dict:
    """The last commit of code, notebooks or parameters, whether they differ from it now, and the packages' versions."""

    def git(*words: str) -> str:
        paths = ["--", "weaklib", "notebooks/*.ipynb", "notebooks/look.yaml", "params"]
        return subprocess.check_output(["git", *words, *paths], cwd=ROOT, stderr=subprocess.DEVNULL, text=True)

    try:
        commit, dirty = git("log", "-1", "--format=%H").strip() or None, bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        commit, dirty = None, None
    names = (*LIBRARIES, "distributed", "matplotlib", "pandas", "papermill", "scipy", "seaborn")
    packages = {name: version(name) for name in names}
    return {"commit": commit, "dirty": dirty, "python": platform.python_version(), "packages": packages}
