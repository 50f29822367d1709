"""How to cite a figure: its caption, BibTeX, and provenance."""

import json
import re
from pathlib import Path

from weaklib.arms.folders import NOTEBOOKS, ROOT, figures_folder
from weaklib.data.errors import RequestError
from weaklib.data.files import sha256
from weaklib.reproduce.gallery import Provenance, folders, names, notebooks, read_provenance
from weaklib.study.parameters import read_yaml

# The two papers, as captions and notebooks name them.
PAPERS = {
    "A": r"""@inproceedings{tao2025weak,
  author = {Tao, Leitian and Li, Yixuan},
  title = {Your Weak {LLM} is Secretly a Strong Teacher for Alignment},
  booktitle = {The Thirteenth International Conference on Learning Representations},
  year = {2025},
  eprint = {2409.08813},
  archiveprefix = {arXiv},
}""",
    "B": r"""@inproceedings{afzali2026when,
  author = {Afzali, Amirabbas and Jeon, Myeongho and Brbi{\'c}, Maria},
  title = {When Weak {LLMs} Speak with Confidence, Preference Alignment Gets Stronger},
  booktitle = {The Fourteenth International Conference on Learning Representations},
  year = {2026},
  eprint = {2603.04968},
  archiveprefix = {arXiv},
}""",
}

# BibTeX counts braces even behind a backslash, so these two have names.
TEX = {c: f"\\{c}" for c in "%&_#$"} | {"{": r"\textbraceleft{}", "}": r"\textbraceright{}", "\\": r"\textbackslash{}"}
TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


def cite(figure: str, profile: str) -> str:
    """Caption, BibTeX and provenance of ``NOTEBOOK/NAME``, and which of its files are no longer those it was made with.

    Raises:
        RequestError: there is no such figure, or its ``.json`` is damaged.
    """
    notebook, slash, name = figure.partition("/")
    if not (notebook and name) or "/" in name:
        raise RequestError(f"{figure!r}: NOTEBOOK/NAME is needed, such as 05_top_confidence/top_confidence")
    folder = figures_folder() / profile / notebook
    _refuse_unknown(f"figures of profile {profile!r}", profile, folders(figures_folder()))
    _refuse_unknown(f"figures of notebook {notebook!r} and profile {profile!r}", notebook, notebooks(profile))
    _refuse_unknown(f"figure {figure!r} of profile {profile!r}", name, names(folder, "json"))
    said = read_provenance(folder / f"{name}.json")
    papers = [PAPERS[paper] for paper in _papers(said.caption, notebook)]
    return "\n\n".join([said.caption, _bibtex(said, notebook, name), *papers, _provenance(said, folder)])


def _papers(caption: str, notebook: str) -> list[str]:
    """Those that the caption or the notebook's first cell says it reproduces; the study as a whole reproduces both."""
    try:
        cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        question = "".join(cells[0]["source"])
    except (OSError, ValueError, LookupError):  # a figure of another study, or a notebook that is being edited
        question = ""
    return [paper for paper in PAPERS if f"[{paper}]" in caption or f"**[{paper}]**" in question] or list(PAPERS)


def _bibtex(said: Provenance, notebook: str, name: str) -> str:
    study = read_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"), "CITATION.cff")
    commit = f"commit {said.commit}{', with uncommitted changes' if said.dirty else ''}" if said.commit else "no commit"
    fields = {
        "author": " and ".join(map(_author, study["authors"])),
        "title": _tex(f"{study['title']}, figure {name} of {notebook}"),
        "year": str(study["date-released"])[:4],
        "note": _tex(f"Profile {said.profile}, store key {said.key}, {commit}"),
        "annote": _tex(said.caption),
    }
    key = re.sub(r"[^A-Za-z0-9_-]", "-", f"weaklib-{said.profile}-{notebook}-{name}")
    return "\n".join([f"@misc{{{key},", *(f"  {field} = {{{value}}}," for field, value in fields.items()), "}"])


def _author(author: dict) -> str:
    """A body, whose name BibTeX shall not take apart, or a person."""
    if "name" in author:
        return f"{{{_tex(author['name'])}}}"
    return ", ".join(_tex(author[part]) for part in ("family-names", "given-names") if part in author)


def _provenance(said: Provenance, folder: Path) -> str:
    state = {True: "dirty: code, notebooks or parameters differed from it", False: "clean", None: "unknown"}[said.dirty]
    lines = [
        f"profile: {said.profile}",
        f"notebook: {said.notebook}",
        f"seeds: {', '.join(map(str, said.parameters.seeds))}",
        f"store key: {said.key}",
        f"commit: {said.commit or 'none'} ({state})",
        f"python: {said.python}",
        f"packages: {', '.join(map(' '.join, said.packages.items()))}",
        f"device: {said.device}",
        *(f"sha256 of {file}: {digest}" for file, digest in said.sha256.items()),
    ]
    for file, digest in said.sha256.items():
        if not (folder / file).is_file():
            lines.append(f"missing: {file}")
        elif sha256(folder / file) != digest:
            lines.append(f"changed since: {file}")
    return "\n".join(lines)


def _refuse_unknown(what: str, asked: str, there: list[str]) -> None:
    if asked not in there:
        known = f"there are {', '.join(there)}" if there else "there is none"
        raise RequestError(f"no {what} in {figures_folder()}: {known}")


def _tex(text: str) -> str:
    from weaklib.figures.save import (
        LATEX,
    )  # matplotlib takes a second or two, and a wrong request shall be told at once

    return " ".join(text.split()).translate(str.maketrans(TEX) | LATEX)
