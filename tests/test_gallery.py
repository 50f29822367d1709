"""The page of all figures, and ``weaklib cite``, on real figure files."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from weaklib.__main__ import main
from weaklib.arms import running
from weaklib.arms.folders import NOTEBOOKS, ROOT
from weaklib.data.files import save_json, sha256
from weaklib.figures import save
from weaklib.reproduce import gallery
from weaklib.reproduce.run import reproduce

HARD = r"Gain of 10% in D_u & R*, β → 0.5, a {brace, #1 for $2, ~x^2, C:\new, <5>. After [A], Fig. 5."
KEY = "0bc12390723efaedbda70562"


def draw(place: Path, name: str, caption: str) -> None:
    """A figure as ``Study.save_figure`` leaves it; ``place`` is PROFILE/NOTEBOOK of a figures folder."""
    picture = Figure(figsize=(1, 1))
    picture.add_subplot().plot([0, 1])
    files = save.save_figure(picture, place, name, name, KEY)
    files.append(save.save_csv(pd.DataFrame({"arm": ["human"], "estimate": [0.5]}), place, name))
    said = {
        "caption": caption,
        "notebook": place.name,
        "profile": place.parent.name,
        "parameters": {"seeds": [3, 5]},
        "key": KEY,
        "commit": "d3133d572faca913a76c21fdf4dc61f9b7e890b9",
        "dirty": True,
        "python": "3.11.7",
        "packages": {"torch": "2.13.0+cpu", "trl": "1.16.0"},
        "device": "cpu",
        "sha256": {file.name: sha256(file) for file in files},
    }
    save_json(said, place / f"{name}.json")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "figures"
    draw(folder / "smoke" / "07_gold_reward", "kl", "A plain caption.")
    draw(folder / "smoke" / "05_top_confidence", "two", HARD)
    draw(folder / "smoke" / "05_top_confidence", "one", "The first.")
    draw(folder / "mine" / "77_elsewhere", "one", "Of another study.")
    contrasts = pd.DataFrame({"arm": ["cw"], "estimate": [0.1]})
    save.save_csv(contrasts, folder / "smoke" / "07_gold_reward", "contrasts")
    save.save_table(contrasts, folder / "smoke" / "tables" / "07_gold_reward", "gold", "A table.")
    save.save_table(contrasts, folder / "smoke" / "tables" / "00_start_here", "start", "A table alone.")
    return folder


@pytest.fixture
def folder(drawn, tmp_path, monkeypatch) -> Path:
    """The figures folder of this test, in which it may break what it likes."""
    shutil.copytree(drawn, tmp_path / "figures")
    monkeypatch.setenv("WEAKLIB_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "figures"


def links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", page)


# The page


def test_every_file_is_linked_once_and_every_link_leads_to_a_file(folder):
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    page = gallery.write().read_text(encoding="utf-8")
    assert sorted(links(page)) == sorted(there) and len(there) == 4 * 5 + 1 + 2 * 3


def test_profiles_notebooks_and_figures_are_in_order(folder):
    headings = [line for line in gallery.write().read_text(encoding="utf-8").splitlines() if line.startswith("##")]
    assert headings == [
        *("## mine", "### 77_elsewhere", "#### one"),
        *("## smoke", "### 00_start_here", "### 05_top_confidence", "#### one", "#### two"),
        *("### 07_gold_reward", "#### kl"),
    ]


def test_the_page_does_not_depend_on_the_order_of_a_folder(folder, monkeypatch):
    """Nor on when it is written, nor on what it says already."""
    first, found = gallery.write().read_bytes(), Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(found(self, pattern), reverse=True))
    assert gallery.write().read_bytes() == first
    monkeypatch.setattr(Path, "glob", lambda self, pattern: sorted(found(self, pattern)))
    assert gallery.write().read_bytes() == first


def test_a_figure_says_what_it_is_how_to_make_it_and_how_to_cite_it(folder):
    page = gallery.write().read_text(encoding="utf-8")
    figure = page.partition("#### two")[2].partition("#")[0]
    assert "[![two](smoke/05_top_confidence/two.png)](smoke/05_top_confidence/two.svg)" in figure
    caption = next(line for line in page.splitlines() if line.startswith("Gain"))
    assert re.sub(r"\\(\W|_)", r"\1", caption) == HARD  # what Markdown shows is the caption
    assert not re.search(r"(?<!\\)[*_<\[]", caption)
    section = page.partition("### 05_top_confidence")[2].partition("\n### ")[0]
    assert "`make reproduce PROFILE=smoke ONLY=05_top_confidence`" in section
    assert "`python -m weaklib cite 05_top_confidence/two --profile smoke`" in section
    assert "[contrasts](smoke/07_gold_reward/contrasts.csv)" in page


def test_notebooks_are_linked_from_the_repositorys_own_folder_only(folder, monkeypatch):
    assert "ipynb" not in gallery.write().read_text(encoding="utf-8")
    monkeypatch.setattr(gallery, "ROOT", folder.parent)
    page = gallery.write().read_text(encoding="utf-8")
    notebooks = [link for link in links(page) if link.endswith(".ipynb")]
    assert "../notebooks/05_top_confidence.ipynb" in notebooks and "### 77_elsewhere\n" in page
    assert all((ROOT / "figures" / link).resolve() in NOTEBOOKS.iterdir() for link in notebooks)


def profiles(page: Path) -> list[str]:
    return re.findall("^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_repositorys_own_page_has_what_is_committed_only(folder, monkeypatch):
    """A profile that git ignores would change the committed page and offer figures that nobody else has."""
    monkeypatch.setattr(gallery, "ROOT", folder.parent)
    assert profiles(gallery.write()) == ["mine", "smoke"]  # no repository
    subprocess.run(["git", "init", "--quiet"], cwd=folder.parent, check=True)
    assert profiles(gallery.write()) == ["mine", "smoke"]
    (folder.parent / ".gitignore").write_text("/figures/*\n!/figures/mine/\n")
    assert profiles(gallery.write()) == ["mine"]
    monkeypatch.setenv("PATH", "")  # no git
    assert profiles(gallery.write()) == ["mine", "smoke"]
    monkeypatch.undo()
    monkeypatch.setenv("WEAKLIB_FIGURES", str(folder))  # a folder of the user's own
    assert profiles(gallery.write()) == ["mine", "smoke"]


def test_a_damaged_figure_does_not_cost_the_page(folder):
    (folder / "smoke" / "05_top_confidence" / "two.json").write_text('{"caption": ')
    page = gallery.write().read_text(encoding="utf-8")
    assert "`two.json` cannot be read" in page and "The first." in page and "A plain caption." in page


def test_half_written_files_are_on_no_page(folder):
    (folder / "smoke" / ".aside-1").mkdir()
    (folder / "smoke" / "05_top_confidence" / ".aside-2.json").touch()
    assert "aside" not in gallery.write().read_text(encoding="utf-8")


@pytest.fixture
def no_notebooks(folder, monkeypatch):
    """``reproduce`` whose notebooks are done at once; returns where its manifest will lie."""
    monkeypatch.setenv("WEAKLIB_STORE", str(folder.parent / "store"))
    monkeypatch.setenv("WEAKLIB_RUNS", str(folder.parent / "runs"))
    monkeypatch.setenv(running.SCHEDULER, "")
    monkeypatch.setattr(running, "cluster", lambda *_, **__: contextlib.nullcontext("none"))
    monkeypatch.setattr("weaklib.reproduce.run._execute", lambda *asked: {})
    return folder.parent / "runs" / "smoke" / "manifest.json"


def test_reproduce_writes_the_page_before_its_manifest(folder, no_notebooks, monkeypatch):
    assert reproduce("smoke", ["05_top_confidence"], {}, None, None) == no_notebooks and no_notebooks.is_file()
    assert "#### two" in (folder / "README.md").read_text(encoding="utf-8")

    def fail():
        raise OSError("disk full")

    monkeypatch.setattr(gallery, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        reproduce("smoke", ["05_top_confidence"], {}, None, None)
    assert not no_notebooks.exists()


# cite


def cite(capsys, figure: str) -> str:
    assert main(["cite", figure, "--profile", "smoke"]) == 0
    return capsys.readouterr().out


def entries(printed: str) -> dict[str, dict[str, str]]:
    """BibTeX entries by key; those of this module have a field a line."""
    found = re.findall(r"^@\w+\{([^,\s]+),\n((?:  .*\n)+)\}$", printed, flags=re.MULTILINE)
    return {key: dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, flags=re.MULTILINE)) for key, body in found}


def is_legal_tex(text: str) -> bool:
    """Whether pdflatex reads it as text, and BibTeX finds the end of its field."""
    depths = [text[:end].count("{") - text[:end].count("}") for end in range(len(text) + 1)]
    commands = r"\\[%&_#$]|\\text\w+\{\}|\$(?:\\\w+|[<>-])\$|\{\\'[a-z]\}"
    return min(depths) == depths[-1] == 0 and not re.search(r"[%&_#$~^\\<>]|[^\x00-\x7f]", re.sub(commands, "", text))


def test_a_citation_is_legal_bibtex_whatever_the_caption(folder, capsys):
    printed = cite(capsys, "05_top_confidence/two")
    assert printed.startswith(HARD + "\n\n@misc{")
    found = entries(printed)
    assert list(found) == ["weaklib-smoke-05_top_confidence-two", "tao2025weak", "afzali2026when"]
    assert printed.count("@") == len(found) and all(
        is_legal_tex(v) for fields in found.values() for v in fields.values()
    )
    figure = found["weaklib-smoke-05_top_confidence-two"]
    assert figure["annote"] == (
        r"Gain of 10\% in D\_u \& R*, $\beta$ $\rightarrow$ 0.5, a \textbraceleft{}brace, \#1 for \$2, "
        r"\textasciitilde{}x\textasciicircum{}2, C:\textbackslash{}new, $<$5$>$. After [A], Fig. 5."
    )
    assert figure["note"].startswith(f"Profile smoke, store key {KEY}, commit d3133d572")
    assert figure["note"].endswith("with uncommitted changes")


def test_the_study_is_named_as_its_citation_file_names_it(folder, capsys, monkeypatch):
    figure = entries(cite(capsys, "07_gold_reward/kl"))["weaklib-smoke-07_gold_reward-kl"]
    stated = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert (
        re.search('^title: "(.*)"', stated, flags=re.MULTILINE)[1] in figure["title"]
        and r"kl of 07\_gold" in figure["title"]
    )
    assert f"date-released: {figure['year']}-" in stated and figure["author"] == "{The weaklib authors}"

    people = "[{family-names: Doe & Roe, given-names: Jo}, {family-names: Li}, {name: A Group}]"
    cff = f"title: T\ndate-released: 2031-01-02\nauthors: {people}\n"
    (folder.parent / "CITATION.cff").write_text(cff)
    monkeypatch.setattr(gallery, "ROOT", folder.parent)
    figure = entries(cite(capsys, "07_gold_reward/kl"))["weaklib-smoke-07_gold_reward-kl"]
    assert figure["author"] == r"Doe \& Roe, Jo and Li and {A Group}" and figure["year"] == "2031"


@pytest.mark.parametrize(
    "notebook, caption, papers",
    [
        ("77_elsewhere", "After [A], Fig. 5.", "A"),
        ("77_elsewhere", "After [B].", "B"),
        ("77_elsewhere", "It names none.", "AB"),
        ("05_top_confidence", "It names none.", "B"),
        ("07_gold_reward", "After [B], Fig. 5.", "AB"),
    ],
)
def test_papers_are_those_of_the_caption_and_the_notebook(notebook, caption, papers):
    assert "".join(gallery._papers(caption, notebook)) == papers


def test_papers_are_cited_in_full(folder, capsys):
    found = entries(cite(capsys, "07_gold_reward/kl"))
    assert found["tao2025weak"]["author"] == "Tao, Leitian and Li, Yixuan"
    assert found["tao2025weak"]["eprint"] == "2409.08813" and found["tao2025weak"]["year"] == "2025"
    assert found["afzali2026when"]["author"] == r"Afzali, Amirabbas and Jeon, Myeongho and Brbi{\'c}, Maria"
    assert found["afzali2026when"]["eprint"] == "2603.04968" and found["afzali2026when"]["year"] == "2026"


def test_provenance(folder, capsys):
    lines = cite(capsys, "05_top_confidence/two").splitlines()
    for line in (
        "profile: smoke",
        "notebook: 05_top_confidence",
        "seeds: 3, 5",
        f"store key: {KEY}",
        "python: 3.11.7",
        "packages: torch 2.13.0+cpu, trl 1.16.0",
        "device: cpu",
    ):
        assert line in lines
    commit = next(line for line in lines if line.startswith("commit: "))
    assert commit.startswith("commit: d3133d572faca913a76c21fdf4dc61f9b7e890b9 (dirty")
    for kind in ("svg", "pdf", "png", "csv"):
        file = folder / "smoke" / "05_top_confidence" / f"two.{kind}"
        assert f"sha256 of {file.name}: {sha256(file)}" in lines


@pytest.mark.parametrize("dirty, commit, said", [(False, "abc", "abc (clean)"), (None, None, "none (unknown)")])
def test_a_clean_commit_and_none(folder, capsys, dirty, commit, said):
    file = folder / "smoke" / "07_gold_reward" / "kl.json"
    save_json(json.loads(file.read_text()) | {"dirty": dirty, "commit": commit}, file)
    printed = cite(capsys, "07_gold_reward/kl")
    assert f"\ncommit: {said}\n" in printed and "uncommitted" not in printed and "commit None" not in printed


def test_files_that_changed_since_are_named(folder, capsys):
    assert "changed" not in cite(capsys, "07_gold_reward/kl").partition("\nprofile: ")[2]
    place = folder / "smoke" / "07_gold_reward"
    with (place / "kl.svg").open("a") as file:
        file.write("<!-- retouched -->")
    (place / "kl.pdf").unlink()
    lines = cite(capsys, "07_gold_reward/kl").splitlines()
    assert lines[-2:] == ["changed since: kl.svg", "missing: kl.pdf"]


@pytest.mark.parametrize("path", sorted((ROOT / "figures").glob("sandbox/*/*.json")), ids=lambda path: path.stem)
def test_committed_figures_can_be_cited(path, capsys, monkeypatch):
    """By the default profile, from the repository's own folder."""
    monkeypatch.delenv("WEAKLIB_FIGURES", raising=False)
    assert main(["cite", f"{path.parent.name}/{path.stem}"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8"))["caption"] in printed
    found = entries(printed)
    assert len(found) >= 2 and all(is_legal_tex(value) for fields in found.values() for value in fields.values())


WRONG = [
    ("05_top_confidence", "'05_top_confidence': NOTEBOOK/NAME is needed"),
    ("05_top_confidence/", "'05_top_confidence/': NOTEBOOK/NAME is needed"),
    ("/two", "'/two': NOTEBOOK/NAME is needed"),
    ("smoke/05_top_confidence/two", "NOTEBOOK/NAME is needed"),
    ("05_top_confidence/too", "no figure '05_top_confidence/too' of profile 'smoke'", ": there are one, two"),
    ("07_gold_reward/contrasts", "no figure '07_gold_reward/contrasts'", ": there are kl"),
    ("05/two", "no figures of notebook '05'", ": there are 05_top_confidence, 07_gold_reward"),
    ("../two", "no figures of notebook '..'"),
    ("tables/two", "no figures of notebook 'tables'"),
    ("05_top_confidence/two --profile smok", "no figures of profile 'smok'", ": there are mine, smoke"),
    ("05_top_confidence/two --figures /nowhere", "no figures of profile 'smoke' in /nowhere: there is none"),
    ("broken/cut", "cut.json: damaged: Invalid JSON"),
    ("broken/latin", "latin.json: damaged: "),
    ("broken/list", "list.json: damaged: Input should be an object"),
    ("broken/lacks", "lacks.json: damaged: sha256: Field required"),
    ("broken/seeds", "seeds.json: damaged: parameters.seeds: Input should be a valid"),
    ("broken/folder", "folder.json: cannot be read: Is a directory"),
]


@pytest.mark.parametrize("row", WRONG, ids=[row[0] for row in WRONG])
def test_wrong_request(folder, capsys, monkeypatch, row):
    monkeypatch.setenv("WEAKLIB_FIGURES", str(folder))  # --figures of a row sets it, and monkeypatch sets it back
    good, broken = folder / "smoke" / "05_top_confidence" / "two.json", folder / "smoke" / "broken"
    said = json.loads(good.read_text(encoding="utf-8"))
    (broken / "folder.json").mkdir(parents=True)
    (broken / "cut.json").write_bytes(good.read_bytes()[:200])
    (broken / "latin.json").write_bytes('{"caption": "é"}'.encode("latin-1"))
    (broken / "list.json").write_text("[]")
    (broken / "lacks.json").write_text(json.dumps({key: value for key, value in said.items() if key != "sha256"}))
    (broken / "seeds.json").write_text(json.dumps(said | {"parameters": {"seeds": 3}}))
    profile = [] if "--profile" in row[0] else ["--profile", "smoke"]
    assert main(["cite", *row[0].split(), *profile]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("weaklib: ") and not printed.out
    for words in row[1:]:
        assert words in line


def test_cite_from_another_folder(folder):
    """A relative ``--figures`` is relative to where the user stands, in a shell that knows ASCII only."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("WEAKLIB_", "LC_", "LANG"))}
    asked = ["cite", "05_top_confidence/two", "--profile", "smoke", "--figures", "figures"]
    done = subprocess.run(
        [sys.executable, "-m", "weaklib", *asked], cwd=folder.parent, env=plain | {"LC_ALL": "C"}, capture_output=True
    )
    assert done.returncode == 0 and done.stdout.decode().startswith(HARD) and not done.stderr
