"""The ledger: a verdict follows from an interval, and from nothing else."""

import ast
import json

import numpy as np
import pandas as pd
import pytest

from weaklib.arms.folders import NOTEBOOKS, ROOT
from weaklib.data.errors import RequestError
from weaklib.reproduce.ledger import VERDICTS, ledger, load_claims, verdict
from weaklib.study.parameters import load_profile
from weaklib.study.study import reported

ROW = {"arm": "cw", "baseline": "arm=human", "metric": "gra", "weak": "opt-tiny", "strong": "opt-small"}
CLAIM = {
    "id": "X1",
    "paper": "B",
    "source": "Fig. 0",
    "claim": "CW beats human labels",
    "notebook": "05_top_confidence",
    "arm": "cw",
    "baseline": "arm=human",
    "metric": "gra",
    "direction": "above",
}


def defined_in(notebook: str) -> dict:
    """The functions of a notebook, which is not run."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    nodes = [node for c in cells if c["cell_type"] == "code" for node in ast.parse("".join(c["source"])).body]
    kept = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    namespace: dict = {}
    exec(compile(ast.Module(kept, type_ignores=[]), notebook, "exec"), namespace)
    return namespace


reasons = defined_in("14_claims")["reasons"]


@pytest.mark.parametrize(
    ("direction", "low", "high", "expected"),
    [
        ("above", 0.1, 4, "holds"),
        ("above", -4, -0.1, "fails"),
        ("above", -1, 4, "undecided"),
        ("above", 0, 4, "undecided"),  # 0 is not above 0
        ("below", -4, -0.1, "holds"),
        ("below", 0.1, 4, "fails"),
        ("below", -1, 4, "undecided"),
        ("near", -2, 2.9, "holds"),
        ("near", 3.1, 9, "fails"),
        ("near", -9, -3.1, "fails"),
        ("near", -2, 3.1, "undecided"),
        ("near", -9, 9, "undecided"),
        ("not below", -2.9, 9, "holds"),
        ("not below", 4, 9, "holds"),
        ("not below", -9, -3.1, "fails"),
        ("not below", -9, -2, "undecided"),
    ],
)
def test_verdicts(direction, low, high, expected):
    assert verdict(direction, low, high, margin=3) == expected


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a notebook's contrasts, as made with the profile smoke."""
    monkeypatch.setenv("WEAKLIB_FIGURES", str(tmp_path))

    def write(*rows, parameters=None, notebook="05_top_confidence"):
        folder = tmp_path / "smoke" / notebook
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(folder / "contrasts.csv", index=False)
        record = {"parameters": parameters or load_profile("smoke").model_dump()}
        (folder / "figure.json").write_text(json.dumps(record))

    return write


def estimate(value, half=0.02, **more):
    measured = {"estimate": value, "ci_low": value - half, "ci_high": value + half, "n_seeds": 2, "n_prompts": 60}
    return ROW | measured | {"standard_error": half / 2, "freedom": 1e6} | more


def judged(tmp_path, **changes):
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps([CLAIM | changes]), encoding="utf-8")
    return ledger(load_claims(path), "smoke", load_profile("smoke"), why=reasons).iloc[0]


def test_a_reversed_contrast_fails(tmp_path, written):
    written(estimate(0.05))
    row = judged(tmp_path)
    assert row["verdict"] == "holds" and row["estimate"] == pytest.approx(5)  # points
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((3, 7))
    written(estimate(-0.05))
    row = judged(tmp_path)
    assert row["verdict"] == "fails" and "-5.0" in row["why"]
    written(estimate(0.01))
    assert judged(tmp_path)["verdict"] == "undecided"


def test_only_the_named_rows_are_judged_each_by_itself(tmp_path, written):
    other = {"arm": "weak"}, {"baseline": "arm=weak"}, {"metric": "gold_reward"}, {"strong": "qwen2-small"}
    written(estimate(0.05), *(estimate(-0.5, **change) for change in other))
    assert judged(tmp_path, where={"strong": "opt-small"})["estimate"] == pytest.approx(5)
    written(estimate(0.06), estimate(-0.02, strong="qwen2-small"), estimate(-0.06, strong="mean"))
    path = tmp_path / "claims.yaml"
    rows = ledger(load_claims(path), "smoke", load_profile("smoke"))
    assert rows["verdict"].tolist() == ["holds"]
    path.write_text(json.dumps([CLAIM]), encoding="utf-8")
    rows = ledger(load_claims(path), "smoke", load_profile("smoke"))
    assert rows["verdict"].tolist() == ["holds", "undecided", "fails"]
    assert rows["setting"].tolist() == ["opt-tiny → opt-small", "opt-tiny → qwen2-small", "opt-tiny → mean"]


def test_numbers_are_found_as_numbers(tmp_path, written):
    written(estimate(0.05, labeled_fraction="0.2"), estimate(-0.5, labeled_fraction="mean"))
    assert judged(tmp_path, where={"labeled_fraction": 0.2})["estimate"] == pytest.approx(5)
    assert judged(tmp_path, where={"labeled_fraction": "mean"})["estimate"] == pytest.approx(-50)


def test_what_was_not_run_has_no_verdict(tmp_path, written):
    row = judged(tmp_path)
    assert row["verdict"] == "not run" and "--only 05_top_confidence" in row["why"] and pd.isna(row["estimate"])
    written(estimate(0.05), parameters=load_profile("smoke", {"beta": 0.7}).model_dump())
    row = judged(tmp_path)
    assert row["verdict"] == "not run" and "other parameters" in row["why"]
    written(estimate(0.05))
    assert judged(tmp_path, where={"strong": "opt-huge"})["verdict"] == "not run"
    assert judged(tmp_path, where={"task": "both"})["verdict"] == "not run"
    written(estimate(np.nan))
    assert judged(tmp_path)["verdict"] == "not run"
    row = judged(tmp_path, notebook=None, note="no such data")
    assert (row["verdict"], row["why"]) == ("not run", "no such data")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arm": "wek"}, "claim X1: arm: unknown arm 'wek'"),
        ({"baseline": "arm=humans"}, "claim X1: baseline: unknown arm 'humans'"),
        ({"baseline": "weak=smalest"}, "claim X1: unknown baseline 'weak=smalest'"),
        ({"where": {"pair": "third"}}, "claim X1: where: unknown pair 'third': first, second"),
        ({"metric": "accuracy"}, "claim X1: metric: unknown metric 'accuracy'"),
        ({"notebook": "15_more"}, "claim X1: unknown notebook '15_more'"),
        ({"direction": "beside"}, "claim X1: direction: "),
        ({"direction": "near"}, "claim X1: direction 'near' needs a margin"),
        ({"margin": 0}, "claim X1: margin: "),
        ({"reported": "5.2"}, "claim X1: reported: "),
        ({"colour": "red"}, "claim X1: colour: "),
    ],
)
def test_a_wrong_claim_is_named(tmp_path, change, words):
    with pytest.raises(RequestError) as error:
        judged(tmp_path, **change)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_id_is_of_one_claim(tmp_path):
    (tmp_path / "claims.yaml").write_text(json.dumps([CLAIM, CLAIM]), encoding="utf-8")
    with pytest.raises(RequestError, match="claim X1: there are two of that id"):
        load_claims(tmp_path / "claims.yaml")


def test_the_ledger_has_claims_of_both_papers():
    claims = load_claims()
    assert len(claims) >= 20 and {claim.paper for claim in claims} == {"A", "B"}


def test_every_committed_verdict_follows_from_its_interval():
    """Decided anew, from the numbers that stand beside it."""
    rows = pd.read_csv(ROOT / "figures" / "sandbox" / "14_claims" / "claims.csv")
    assert set(rows["id"]) == {claim.id for claim in load_claims()} and set(rows["verdict"]) <= set(VERDICTS)
    margin = rows["margin"].fillna(0)
    low, high = rows["ci_low"], rows["ci_high"]
    holds = pd.Series(False, index=rows.index)
    fails = holds.copy()
    for direction, inside, outside in (
        ("above", low > 0, high < 0),
        ("below", high < 0, low > 0),
        ("near", (low > -margin) & (high < margin), (low > margin) | (high < -margin)),
        ("not below", low > -margin, high < -margin),
    ):
        which = rows["direction"] == direction
        holds |= which & inside
        fails |= which & outside
    expected = np.select([low.isna(), holds, fails], ["not run", "holds", "fails"], "undecided")
    assert (rows["verdict"] == expected).all()


def test_the_committed_ledger_is_what_the_committed_contrasts_say():
    """Of today's claims and profile: whoever runs 14_claims alone in a fresh clone gets what is committed."""
    committed = pd.read_csv(ROOT / "figures" / "sandbox" / "14_claims" / "claims.csv")
    again = ledger(load_claims(), "sandbox", load_profile("sandbox"), why=reasons)
    columns = ["id", "direction", "margin", "reported", "setting", "estimate", "ci_low", "ci_high", "verdict", "why"]
    pd.testing.assert_frame_equal(again[columns], committed[columns], check_dtype=False)


def test_a_run_before_a_parameter_was_there_had_its_default(tmp_path, written):
    before = load_profile("smoke").model_dump()
    del before["sft"]["lora"], before["dialogue"]
    written(estimate(0.05), parameters=before)
    assert judged(tmp_path)["verdict"] == "holds"


def test_models_go_by_their_part_in_the_profile(tmp_path, written):
    (weak, strong), (other, _) = load_profile("smoke").models.pairs
    written(estimate(0.05, weak=weak, strong=strong), estimate(-0.05, weak=other, strong=strong))
    assert judged(tmp_path, where={"pair": "first"})["estimate"] == pytest.approx(5)
    assert judged(tmp_path, where={"weak": "first"})["estimate"] == pytest.approx(5)
    assert (
        judged(tmp_path, where={"pair": "second"})["verdict"] == "not run"
    )  # the second pair has a student of its own
    written(estimate(0.05, strong=load_profile("smoke").sweep("students")[1][-1]), estimate(-0.05, strong="none"))
    assert judged(tmp_path, where={"strong": "largest"})["estimate"] == pytest.approx(5)


def test_a_verdict_says_what_the_data_know_of_its_reason(tmp_path, written):
    def why(*more, **changes):
        written(estimate(-0.05, task="both"), estimate(-0.05, task="other"), *more)
        return judged(tmp_path, where={"task": "both"}, **changes)["why"]

    def right(value, task):
        return estimate(value, 0.01, metric="labels_right", arm="weak", task=task, strong=None)

    worse = "the weak labels are right less often than the human's of the same pairs, by 8.0 points"
    assert worse in why(right(-0.08, "both"), right(0.2, "other"))
    assert "not shown to be right less often" in why(right(0.001, "both"), right(-0.2, "other"))
    written(estimate(-0.05, task="mean"), right(-0.08, "both"), right(0.02, "other"))
    assert "less often than the human's in 1 of 2 settings (-8.0 to +2.0 points)" in judged(tmp_path)["why"]
    differ = estimate(-0.06, metric="right_where_they_differ", arm="weak", baseline="human")
    written(estimate(-0.05, arm="mismatched", baseline="sft"), differ)
    assert "of these labels 44.0% are right" in judged(tmp_path, arm="mismatched", baseline="sft")["why"]
    assert "labels" not in why(right(-0.2, "other"))
    nothing = estimate(0.01, metric="gra_over_start", arm="human", baseline="sft", task="both")
    assert "the baseline itself is not shown to beat its start (GRA 51.0%)" in why(nothing)
    assert "the baseline" not in why(nothing | {"estimate": 0.1, "ci_low": 0.05})
    written(estimate(-0.05, baseline="arm=weak"), right(-0.08, None))
    assert "both learn from labels of the same annotator" in judged(tmp_path, baseline="arm=weak")["why"]
    written(estimate(-0.05, task="mean"), right(-0.08, "both"), right(-0.02, "other"))
    assert "by 2.0 to 8.0 points" in judged(tmp_path)["why"]


# Where reported.csv has the two numbers of a claim about a row of [B]'s tables.
_METHODS = {"cw": "CW-", "weak": "WS-", "arm=human_all": "human", "arm=weak": "WS-"}
_DATA = {
    "harmless": "HH-RLHF harmless",
    "helpful": "HH-RLHF helpful",
    "both kinds": "HH-RLHF",
    "dialogue": "HH-RLHF",
    "summarisation": "TL;DR",
    "UFB": "UFB",
    "mean of": "mean",
}


@pytest.mark.parametrize(
    "claim", [c for c in load_claims() if c.source.startswith("Table")], ids=lambda claim: claim.id
)
def test_a_reported_difference_is_that_of_the_reported_numbers(claim):
    rows = reported("B")
    rows = rows[(rows["where"] == claim.source) & rows["pair"].str.startswith(claim.claim.split(",")[0])]
    rows = rows[rows["data"] == next(data for word, data in _DATA.items() if word in claim.claim.split(":")[0])]
    one, other = (
        rows.loc[rows["method"].str.contains(_METHODS[name]), "value"].item() for name in (claim.arm, claim.baseline)
    )
    assert claim.reported == pytest.approx(float(one) - float(other))
    expected = "near" if abs(claim.reported) < 1 else "above" if claim.reported > 0 else "below"
    assert claim.direction == expected


def test_a_missing_estimate_decides_nothing():
    assert verdict("above", float("nan"), float("nan")) == "not run"
