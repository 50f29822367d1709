"""The committed figures and tables: whole, readable, and nothing missing that looks like something."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from weaklib.arms.folders import ROOT
from weaklib.data.files import sha256
from weaklib.study.parameters import load_profile

FOLDER = ROOT / "figures" / "sandbox"
FIGURES = sorted(path.with_suffix("") for path in FOLDER.glob("[01]*/*.json"))
TABLES = sorted(FOLDER.glob("tables/*/*.tex"))

# The arms that each notebook compares.
ARMS = {
    "00_start_here": {"human", "weak", "cw"},
    "01_supervisor_size": {"human", "oracle", "simulated judge", "opt-micro", "opt-tiny", "opt-small", "opt-large"},
    "02_student_size": {"human", "human_all", "weak", "cw"},
    "03_model_families": {"human", "weak", "cw"},
    "04_labeled_split": {"labeled_only", "human", "human_all", "weak", "cw"},
    "05_top_confidence": {"human", "human_all", "top", "cw"},
    "06_cw_po": {"human", "human_all", "weak", "cw"},
    "07_gold_reward": {"human", "human_all", "labeled_only", "weak", "top", "cw", "oracle", "random"},
    "08_judge": {"weak", "cw", "labeled_only"},
    "09_tasks": {"human", "human_all", "weak", "cw"},
    "10_feedback_quality": {"human", "weak", "matched", "mismatched", "random"},
    "11_confidence_function": {"human", "weak", "cw", "margin", "rank", "above", "top"},
    "12_beta": {"human", "weak", "top", "cw", "oracle"},
    "13_label_noise": {"weak", "cw"},  # differences to human
}


def test_every_notebook_has_a_figure_and_a_table():
    notebooks = set(load_profile("sandbox").notebooks)
    assert {path.parent.name for path in FIGURES} == notebooks == {path.parent.name for path in TABLES}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_figure_is_whole_and_not_blank(figure):
    record = json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
    for name, digest in record["sha256"].items():
        assert sha256(figure.parent / name) == digest
    assert {name.rpartition(".")[2] for name in record["sha256"]} == {"svg", "pdf", "png", "csv"}
    picture = np.asarray(Image.open(figure.with_suffix(".png")).convert("RGB"))
    drawn = (picture < 250).any(axis=2)
    assert 0.005 < drawn.mean() < 0.9
    # ink in every quarter: an empty panel is a blank figure, too
    middle = [side // 2 for side in drawn.shape]
    quarters = [
        drawn[rows, columns]
        for rows in (slice(middle[0]), slice(middle[0], None))
        for columns in (slice(middle[1]), slice(middle[1], None))
    ]
    assert all(quarter.mean() > 0.002 for quarter in quarters)
    assert record["dirty"] is False and record["commit"]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_its_data_are_tidy_and_missing_is_not_zero(figure):
    data = pd.read_csv(figure.with_suffix(".csv"))
    assert {"estimate", "ci_low", "ci_high", "n_seeds", "n_prompts"} <= set(data)
    assert not data.duplicated().any() and len(data)
    known = data.dropna(subset=["estimate", "ci_low"])
    assert ((known["ci_low"] <= known["estimate"]) & (known["estimate"] <= known["ci_high"])).all()
    # what was not measured has neither an estimate nor an interval; nothing measured here is 0 with an interval of 0
    assert data.loc[data["estimate"].isna(), ["ci_low", "ci_high"]].isna().all(axis=None)
    assert not ((known[["estimate", "ci_low", "ci_high"]] == 0).all(axis=1)).any()
    assert (known["n_seeds"] == len(load_profile("sandbox").seeds)).all()


@pytest.mark.parametrize("notebook", ARMS)
def test_no_arm_is_missing(notebook):
    found = set()
    for path in (FOLDER / notebook).glob("*.csv"):
        if path.stem != "contrasts":
            data = pd.read_csv(path)
            found |= {name for column in ("arm", "labeller") if column in data for name in data[column].dropna()}
    assert ARMS[notebook] <= found


P = load_profile("sandbox")


def size(sweep):
    return len(P.sweep(sweep)[1])


OF_A, OF_B = size("labeled_sixteenths"), size("labeled_fractions")


@pytest.mark.parametrize(
    ("figure", "panel", "sweep", "settings"),
    [
        ("02_student_size/student_size", ["annotator.kind"], ["strong"], {size("students")}),
        ("03_model_families/model_families", ["weak", "strong"], ["pair"], {1}),
        ("04_labeled_split/labeled_split", ["design"], ["labeled_fraction"], {OF_A, OF_B}),
        ("06_cw_po/cw_po", ["weak", "strong"], ["task", "objective"], {2 * size("objectives")}),
        ("07_gold_reward/gold_reward", ["weak", "strong"], ["gold"], {1 + len(P.gold_models)}),
        ("08_judge/judge", ["weak", "annotator.kind"], ["by"], {4}),
        ("09_tasks/tasks", ["weak", "annotator.kind"], ["task"], {4}),
        ("12_beta/beta", ["sweep"], ["metric", "value"], {3 * size("betas"), 3 * size("epochs")}),
        (
            "13_label_noise/label_noise",
            ["difference"],
            ["human_noise", "labeled_fraction"],
            {size("human_noises") * size("noise_fractions")},
        ),
    ],
)
def test_no_arm_is_missing_at_a_setting(figure, panel, sweep, settings):
    """Within a panel every setting of the profile's sweep has the same arms."""
    data = pd.read_csv(FOLDER / f"{figure}.csv")
    for name, rows in data.groupby(panel):
        arms = rows.groupby(sweep)["arm"].agg(lambda names: tuple(sorted(names)))
        assert arms.nunique() == 1, f"{name}: {arms.to_dict()}"
        assert len(arms) in settings, name


@pytest.mark.parametrize("table", TABLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_table_is_latex_in_form(table):
    text = table.read_text(encoding="utf-8")
    assert text.isascii() or set(re.findall(r"[^\x00-\x7f]", text)) <= set("±×σ≥")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    columns = len(re.search(r"\\begin\{tabular\}\{([lrc]+)\}", text).group(1))
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert lines and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)
    for line in [*lines, re.search(r"\\caption\{.*\}", text).group()]:
        outside = re.sub(r"\$[^$]*\$", "", line)
        assert not re.search(r"(?<!\\)[%#_$]", outside), line
    assert not re.search(r"\bnan\b|\bNaN\b|\binf\b|None", body)
    # the three forms say the same
    cells = pd.read_csv(table.with_suffix(".csv"), dtype=str, keep_default_na=False)
    assert len(cells) == len(lines) - 1 and len(cells.columns) == columns
    markdown = [
        line for line in table.with_suffix(".md").read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    assert len(markdown) == len(cells) + 2
