"""The GPU bench at a tiny size on the CPU: every part runs, and a part that cannot says why."""

import json
import math
import os
import subprocess
import sys

import pytest

from weaklib.arms.folders import ROOT

BENCH = ROOT / "tests" / "bench" / "gpu.py"
NUMBERS = ("seconds", "a_second", "tokens_a_second", "tflops", "share_of_matrix_rate")
SIDES = {
    "OPT-125M annotator, training": 2,
    "OPT-125M annotator, labelling": 2,
    "OPT-1.3B CW-DPO, training": 3,
    "OPT-1.3B reference log-probs": 2,
    "OPT-1.3B SFT, training": 1,
    "OPT-1.3B sampling": 1,
    "OPT-1.3B attention, forward and backward": 3,
    "OPT-1.3B attention, forward": 3,
    "profile hh-file, notebook 05, one seed, end to end": 1,
}


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("bench") / "gpu.json"
    no_file = {name: value for name, value in os.environ.items() if name != "WEAKLIB_HH_FILE"}
    run = subprocess.run([sys.executable, BENCH, "--tiny", "--out", out], capture_output=True, text=True, env=no_file)
    assert run.returncode == 0, run.stderr
    return json.loads(out.read_text())


def test_every_part_has_its_rows(record):
    found = [row["what"] for row in record["rows"]]
    assert {what: found.count(what) for what in found} == SIDES
    assert record["matrix_tflops"] > 0 and record["machine"] and record["date"]


def test_what_ran_has_numbers_and_what_failed_has_a_reason(record):
    for row in record["rows"]:
        if "hh-file" in row["what"]:
            assert "no preference file is named" in row["failed"] and "seconds" not in row
        else:
            assert row["failed"] is None
            assert all(math.isfinite(row[name]) and row[name] > 0 for name in NUMBERS)
            assert row["share_of_matrix_rate"] == pytest.approx(row["tflops"] / record["matrix_tflops"])


def test_trls_sequences_hold_the_prompt_twice(record):
    """Tokens and FLOPs are those of each side's own form."""
    ours, trl, precomputed = (row for row in record["rows"] if row["what"] == "OPT-1.3B CW-DPO, training")
    tokens, flops = ([row[name] * row["seconds"] for row in (ours, trl, precomputed)] for name in NUMBERS[2:4])
    assert 1.1 * tokens[0] < tokens[1] < 2 * tokens[0] and tokens[1] == pytest.approx(tokens[2])
    assert flops[1] / flops[2] == pytest.approx(4 / 3) and flops[0] < flops[2]


def test_numbers_agree(record):
    continued, precision = record["checks"]
    assert continued["difference"] == 0  # on a CPU, bit for bit
    assert precision["holds"] and 0 < precision["difference"]
