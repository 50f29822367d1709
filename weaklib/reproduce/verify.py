"""Regenerated figure data against the committed: the same bytes, or each estimate inside the committed interval."""

import io
import subprocess

import pandas as pd

from weaklib.arms.folders import ROOT, figures_folder
from weaklib.data.errors import RequestError, StudyFailed
from weaklib.evaluation import intervals
from weaklib.study.parameters import load_profile

# What a row of figure data measures, beside an estimate a distance from the start; its other columns name it.
_KL = [f"{name}_kl" for name in intervals.COLUMNS]
MEASURED = (*intervals.MEASURED, *_KL, "left_out", "probability", "verdict", "why")


def verify(profile: str) -> None:
    """Each committed ``figures/PROFILE/NOTEBOOK/NAME.csv`` against the one that lies in the figures folder now.
    On the machine and with the versions that made the committed files they are the same bytes. Elsewhere rounding leads
    training another way, and each estimate shall lie inside the committed interval. Raises RequestError where nothing
    of the profile is committed, and StudyFailed with the files that are not verified.
    """
    load_profile(profile)
    listed = _git("ls-tree", "-r", "-z", "--name-only", "HEAD", f"figures/{profile}/").decode().split("\0")
    names = [name.removeprefix("figures/") for name in listed if name.endswith(".csv") and "/tables/" not in name]
    if not names:
        raise RequestError(f"profile {profile!r}: no figure data is committed for it")
    if failed := [name for name in names if not _verified(name)]:
        raise StudyFailed(f"not verified: {', '.join(failed)}")


def _verified(name: str) -> bool:
    committed, path = _git("show", f"HEAD:figures/{name}"), figures_folder() / name
    if not path.is_file():
        print(f"{name}: missing in {figures_folder()}")
        return False
    old, regenerated = _by_row(committed), path.read_bytes()
    if regenerated == committed:
        print(f"{name}: {len(old)} estimates, the same bytes")
        return True
    new, outside, absent = _by_row(regenerated), [], []
    for row, expected in old.iterrows():
        label = ", ".join(f"{column} {value}" for column, value in zip(old.index.names, row) if value != "")
        if row not in new.index:
            absent.append(f"absent: {label}")
            continue
        for what in ("", "_kl") if "estimate_kl" in old else ("",):
            estimate, before = new.loc[row, f"estimate{what}"], expected[f"estimate{what}"]
            low, high = expected[f"ci_low{what}"], expected[f"ci_high{what}"]
            unchanged = estimate == before or (pd.isna(estimate) and pd.isna(before))
            # an interval may end at its estimate (a rank correlation of 1)
            if not unchanged and not low - 1e-9 <= estimate <= high + 1e-9:
                interval = f"{estimate:.4g}, committed {before:.4g} [{low:.4g}, {high:.4g}]"
                outside.append(f"outside: {label}{what}: {interval}")
    inside = f"{len(old) - len(outside) - len(absent)} of {len(old)} estimates inside the committed intervals"
    print(f"{name}: {inside}", *outside, *absent, sep="\n  ")
    return not (outside or absent)


def _by_row(data: bytes) -> pd.DataFrame:
    """What was measured, indexed by the columns that name a row."""
    frame = pd.read_csv(io.BytesIO(data))
    names = [column for column in frame if column not in MEASURED]
    return frame.astype(dict.fromkeys(names, object)).fillna(dict.fromkeys(names, "")).set_index(names)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        last_commit = f"verify compares with the last commit, and {ROOT} is no git checkout that has one"
        raise RequestError(last_commit) from None
