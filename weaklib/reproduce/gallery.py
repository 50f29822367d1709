"""Every figure on one page: ``figures/README.md``."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from weaklib.arms.folders import NOTEBOOKS, ROOT, figures_folder
from weaklib.data.errors import RequestError
from weaklib.data.files import aside

INTRODUCTION = """# Figures

Written by `python -m weaklib reproduce` from what lies beside this page. A figure's provenance says with which parameters, code and
packages it was made; the command under it makes it anew with the profile's own parameters."""


class Parameters(BaseModel):
    seeds: list[int]


class Provenance(BaseModel):
    """What stands in a figure's ``.json``, as far as it is shown here."""

    caption: str
    notebook: str
    profile: str
    parameters: Parameters
    key: str
    commit: str | None
    dirty: bool | None
    python: str
    packages: dict[str, str]
    device: str
    sha256: dict[str, str]


def write() -> Path:
    """Writes ``README.md`` of the figures folder: each figure with its data and how to cite it, and the tables.

    The repository's own page, which is committed, has only the profiles that are committed with it.
    """
    folder, parts = figures_folder(), [INTRODUCTION]
    for profile in folders(folder):
        if _is_the_repositorys(folder) and _ignored(folder / profile):
            continue
        parts.append(f"## {profile}")
        for notebook in sorted({*notebooks(profile), *folders(folder / profile / "tables")}):
            parts += _section(profile, notebook)
    with aside(folder) as place:
        (place / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return folder / "README.md"


def _section(profile: str, notebook: str) -> Iterator[str]:
    folder, source = figures_folder() / profile / notebook, NOTEBOOKS / f"{notebook}.ipynb"
    linked = source.is_file() and _is_the_repositorys(figures_folder())
    yield f"### [{notebook}](../notebooks/{quote(source.name)})" if linked else f"### {notebook}"
    for name in names(folder, "json"):
        yield f"#### {name}"
        yield f"[![{name}]({_address(folder / f'{name}.png')})]({_address(folder / f'{name}.svg')})"
        try:
            yield _markdown(read_provenance(folder / f"{name}.json").caption)
        except RequestError:  # another run's damaged file is no reason to fail this one
            yield f"`{name}.json` cannot be read: nothing is known of this figure."
        files = {"data": "csv", "PDF": "pdf", "provenance": "json"}
        yield " · ".join(f"[{what}]({_address(folder / f'{name}.{kind}')})" for what, kind in files.items())
        yield (
            f"- regenerate: `make reproduce PROFILE={profile} ONLY={notebook}`\n"
            f"- cite: `python -m weaklib cite {notebook}/{name} --profile {profile}`"
        )
    if data := [name for name in names(folder, "csv") if not (folder / f"{name}.json").is_file()]:
        yield "Data: " + ", ".join(f"[{name}]({_address(folder / f'{name}.csv')})" for name in data)
    tables, forms = folder.parent / "tables" / notebook, {"Markdown": "md", "LaTeX": "tex", "CSV": "csv"}
    for name in names(tables, "md"):
        links = (f"[{form}]({_address(tables / f'{name}.{kind}')})" for form, kind in forms.items())
        yield f"Table {name}: {', '.join(links)}"


def _is_the_repositorys(folder: Path) -> bool:
    return folder.resolve() == ROOT / "figures"


def _ignored(path: Path) -> bool:
    """Whether git leaves ``path`` out of the repository; nothing is left out where git is not there."""
    try:
        asked = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, capture_output=True)
    except OSError:
        return False
    return asked.returncode == 0


def read_provenance(path: Path) -> Provenance:
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise RequestError(f"{path}: damaged: {what}") from None


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())


def notebooks(profile: str) -> list[str]:
    return [name for name in folders(figures_folder() / profile) if name != "tables"]


def names(folder: Path, kind: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(f"[!.]*.{kind}"))


def _address(path: Path) -> str:
    """Relative to the page."""
    return quote(path.relative_to(figures_folder()).as_posix())


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>$~|])", r"\\\1", " ".join(text.split()))
