"""The figures that are there: all on one page, ``figures/README.md``, and how to cite one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Annotated
from urllib.parse import quote

from pydantic import AliasPath, Field, ValidationError, create_model

from weaklib.arms.folders import NOTEBOOKS, ROOT, figures_folder
from weaklib.data.errors import RequestError
from weaklib.data.files import aside, sha256
from weaklib.study.parameters import read_yaml

INTRODUCTION = """Written by `python -m weaklib reproduce` from what lies beside this page. \
A figure's provenance says with which parameters, code and
packages it was made; the command under it makes it anew with the profile's own parameters."""
# BibTeX counts braces even behind a backslash, so these two have names.
TEX = {c: f"\\{c}" for c in "%&_#$"} | {"{": r"\textbraceleft{}", "}": r"\textbraceright{}", "\\": r"\textbackslash{}"}
TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
# What stands in a figure's ``.json``, as far as it is shown.
_SHOWN: dict = dict.fromkeys(("caption", "notebook", "profile", "key", "python", "device"), str)
_SHOWN |= {"commit": str | None, "dirty": bool | None, "packages": dict[str, str], "sha256": dict[str, str]}
_SHOWN |= {"seeds": Annotated[list[int], Field(validation_alias=AliasPath("parameters", "seeds"))]}
Provenance = create_model("Provenance", **_SHOWN)


def write() -> Path:
    """Writes ``README.md`` of the figures folder: each figure with its data and how to cite it, and the tables.
    The repository's own page, which is committed, has only the profiles that are committed with it.
    """
    folder, parts = figures_folder(), ["# Figures", INTRODUCTION]
    own = folder.resolve() == ROOT / "figures"
    for profile in _names(folder):
        if not (own and _ignored(folder / profile)):
            parts.append(f"## {profile}")
            for notebook in sorted({*_names(folder / profile), *_names(folder / profile / "tables")} - {"tables"}):
                parts += _section(profile, notebook, own and (NOTEBOOKS / f"{notebook}.ipynb").is_file())
    with aside(folder) as place:
        (place / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return folder / "README.md"


def _ignored(path: Path) -> bool:
    """Whether git leaves ``path`` out of the repository; nothing is left out where git is not there."""
    asked = ["git", "check-ignore", "-q", path]
    return bool(shutil.which("git")) and not subprocess.run(asked, cwd=ROOT, capture_output=True).returncode


def _section(profile: str, notebook: str, linked: bool) -> Iterator[str]:
    folder, tables = (figures_folder() / profile / place / notebook for place in (".", "tables"))
    yield f"### [{notebook}](../notebooks/{quote(notebook)}.ipynb)" if linked else f"### {notebook}"
    for name in _names(folder, ".json"):
        picture = _links(folder, name, {name: "png"})
        yield f"#### {name}\n\n{_links(folder, name, {f'!{picture}': 'svg'})}"
        try:
            caption = " ".join(_read(folder / f"{name}.json").caption.split())
            yield re.sub(r"([\\`*_\[\]<>$~|])", r"\\\1", caption)
        except RequestError:  # another run's damaged file is no reason to fail this one
            yield f"`{name}.json` cannot be read: nothing is known of this figure."
        yield _links(folder, name, {"data": "csv", "PDF": "pdf", "provenance": "json"}, " · ")
        again = f"- regenerate: `make reproduce PROFILE={profile} ONLY={notebook}`"
        yield f"{again}\n- cite: `python -m weaklib cite {notebook}/{name} --profile {profile}`"
    if data := [name for name in _names(folder, ".csv") if not (folder / f"{name}.json").is_file()]:
        yield "Data: " + ", ".join(_links(folder, name, {name: "csv"}) for name in data)
    for name in _names(tables, ".md"):
        yield f"Table {name}: " + _links(tables, name, {"Markdown": "md", "LaTeX": "tex", "CSV": "csv"}, ", ")


def _links(folder: Path, name: str, kinds: dict[str, str], between: str = "") -> str:
    address = quote((folder / name).relative_to(figures_folder()).as_posix())
    return between.join(f"[{what}]({address}.{kind})" for what, kind in kinds.items())


def _names(folder: Path, ending: str = "/") -> list[str]:
    return sorted(path.name.removesuffix(ending) for path in folder.glob(f"[!.]*{ending}"))


def _read(path: Path) -> Provenance:
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
        raise RequestError(f"{path}: damaged: {what}") from None


def cite(figure: str, profile: str) -> None:
    """Prints caption, BibTeX and provenance of ``NOTEBOOK/NAME``, and which of its files have changed since.
    Raises RequestError where there is no such figure, or its ``.json`` is damaged.
    """
    notebook, _, name = figure.partition("/")
    if not (notebook and name) or "/" in name:
        raise RequestError(f"{figure!r}: NOTEBOOK/NAME is needed, such as 05_top_confidence/top_confidence")
    folder = figures_folder() / profile / notebook
    notebooks = [other for other in _names(folder.parent) if other != "tables"]
    for what, asked, there in (
        (f"figures of profile {profile!r}", profile, _names(figures_folder())),
        (f"figures of notebook {notebook!r} and profile {profile!r}", notebook, notebooks),
        (f"figure {figure!r} of profile {profile!r}", name, _names(folder, ".json")),
    ):
        if asked not in there:
            known = f"are {', '.join(there)}" if there else "is none"
            raise RequestError(f"no {what} in {figures_folder()}: there {known}")
    said = _read(folder / f"{name}.json")
    study = read_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"), "CITATION.cff")
    commit = f"commit {said.commit}{', with uncommitted changes' if said.dirty else ''}" if said.commit else "no commit"
    state = {True: "dirty: code, notebooks or parameters differed from it", False: "clean", None: "unknown"}[said.dirty]
    form = {
        "id": re.sub(r"[^A-Za-z0-9_-]", "-", f"weaklib-{said.profile}-{notebook}-{name}"),
        "authors": " and ".join(map(_author, study["authors"])),
        "title": _tex(f"{study['title']}, figure {name} of {notebook}"),
        "year": str(study["date-released"])[:4],
        "note": _tex(f"Profile {said.profile}, store key {said.key}, {commit}"),
        "annote": _tex(said.caption),
        "papers": "\n\n".join(_papers(said.caption, notebook).values()),
        "seeds": ", ".join(map(str, said.seeds)),
        "commit": said.commit or "none",
        "state": state,
        "packages": ", ".join(map(" ".join, said.packages.items())),
        "files": "\n".join(_files(said.sha256, folder)),
    }
    print(Template((NOTEBOOKS / "citation.txt").read_text(encoding="utf-8")).substitute(dict(said) | form), end="")


def _papers(caption: str, notebook: str) -> dict[str, str]:
    """BibTeX of those that the caption or the notebook says it reproduces; the study as a whole reproduces both."""
    papers = dict(zip("AB", (NOTEBOOKS / "papers.bib").read_text(encoding="utf-8").strip().split("\n\n")))
    text = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob(f"{notebook}.ipynb"))
    return {p: papers[p] for p in papers if f"[{p}]" in caption or f"**[{p}]**" in text} or papers


def _author(author: dict) -> str:
    """A person, or a body, whose name BibTeX shall not take apart."""
    person = [_tex(author[part]) for part in ("family-names", "given-names") if part in author]
    return ", ".join(person) or f"{{{_tex(author['name'])}}}"


def _tex(text: str) -> str:
    from weaklib.figures.save import LATEX  # with matplotlib, which takes a second or two

    return " ".join(text.split()).translate(str.maketrans(TEX) | LATEX)


def _files(hashes: dict[str, str], folder: Path) -> Iterator[str]:
    yield from (f"sha256 of {file}: {digest}" for file, digest in hashes.items())
    for file, digest in hashes.items():
        if not (folder / file).is_file():
            yield f"missing: {file}"
        elif sha256(folder / file) != digest:
            yield f"changed since: {file}"
