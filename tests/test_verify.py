"""``weaklib verify`` against the committed figure data, through the command line."""

import shutil

import pandas as pd
import pytest

from weaklib.__main__ import main
from weaklib.arms.folders import ROOT
from weaklib.reproduce.verify import MEASURED

NAME = "sandbox/05_top_confidence/top_confidence.csv"
ESTIMATES = len((ROOT / "figures" / NAME).read_text().splitlines()) - 1


@pytest.fixture
def regenerated(tmp_path):
    """A copy of the committed figures, as a run elsewhere would leave them."""
    shutil.copytree(ROOT / "figures", tmp_path / "figures")
    return tmp_path / "figures"


def verify(folder, capsys) -> tuple[int, str]:
    code = main(["verify", "--profile", "sandbox", "--figures", str(folder)])
    return code, capsys.readouterr().out


def edit(file, change):
    lines = file.read_text().splitlines()
    header, first = lines[0].split(","), lines[1].split(",")
    row = dict(zip(header, first))
    change(row)
    file.write_text("\n".join([lines[0], ",".join(row[name] for name in header), *lines[2:]]) + "\n")


def test_what_is_committed_is_verified(regenerated, capsys):
    code, printed = verify(regenerated, capsys)
    assert code == 0
    assert all(line.endswith("estimates, the same bytes") for line in printed.splitlines())
    assert NAME in printed


def test_an_estimate_inside_its_committed_interval_is_verified(regenerated, capsys):
    edit(regenerated / NAME, lambda row: row.update(estimate=row["ci_low"]))
    code, printed = verify(regenerated, capsys)
    assert code == 0
    assert f"{ESTIMATES} of {ESTIMATES} estimates inside the committed intervals" in printed


def test_rounding_alone_leads_no_file_out_of_its_intervals(regenerated, capsys):
    for file in regenerated.glob("sandbox/*_*/*.csv"):
        rows = pd.read_csv(file)
        measured = [column for column in rows if column in MEASURED and rows[column].dtype.kind == "f"]
        rows[measured] *= 1 + 1e-12
        if "why" in rows:
            rows["why"] += "."
        rows.to_csv(file, index=False)
    code, printed = verify(regenerated, capsys)
    assert code == 0, printed
    assert "the same bytes" not in printed


def test_a_distance_outside_is_named(regenerated, capsys):
    file = regenerated / "sandbox" / "07_gold_reward" / "kl.csv"
    edit(file, lambda row: row.update(estimate_kl=str(float(row["ci_high_kl"]) + 0.01)))
    code, printed = verify(regenerated, capsys)
    assert code == 1 and "_kl: " in printed


def test_an_estimate_outside_is_named(regenerated, capsys):
    edit(regenerated / NAME, lambda row: row.update(estimate=str(float(row["ci_high"]) + 0.001)))
    code, printed = verify(regenerated, capsys)
    assert code == 1
    assert f"{ESTIMATES - 1} of {ESTIMATES} estimates inside" in printed
    assert "outside: arm human, weak opt-tiny, strong opt-small, metric gra: " in printed


def test_a_missing_estimate_is_neither_0_nor_verified(regenerated, capsys):
    edit(regenerated / NAME, lambda row: row.update(estimate=""))
    assert verify(regenerated, capsys)[0] == 1


def test_a_missing_row_and_a_missing_file_are_named(regenerated, capsys):
    edit(regenerated / NAME, lambda row: row.update(arm="humane"))
    code, printed = verify(regenerated, capsys)
    assert code == 1 and "absent: arm human, weak opt-tiny, strong opt-small" in printed
    (regenerated / NAME).unlink()
    code, printed = verify(regenerated, capsys)
    assert code == 1 and f"{NAME}: missing in {regenerated}" in printed


def test_a_profile_without_committed_data_is_a_wrong_request(capsys):
    assert main(["verify", "--profile", "smoke"]) == 2
    assert capsys.readouterr().err == "weaklib: profile 'smoke': no figure data is committed for it\n"
