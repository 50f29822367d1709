"""Regenerated figure data against the committed: the same bytes, or each estimate inside the committed interval."""

import io
import subprocess
from dataclasses import dataclass, field

import pandas as pd

from weaklib.arms.folders import ROOT, figures_folder
from weaklib.data.errors import RequestError
from weaklib.evaluation import intervals
from weaklib.study.parameters import load_profile

# What a row of figure data measures, beside an estimate a distance from the start (…_kl); its other columns name it.
MEASURED = (
    *intervals.MEASURED,
    *(f"{name}_kl" for name in intervals.COLUMNS),
    "left_out",
    "probability",
    "verdict",
    "why",
)
# An interval may end at its estimate (a rank correlation of 1).
_ROUNDING = 1e-9


@dataclass
class Comparison:
    """One file of figure data. ``outside`` and ``absent`` say which of the committed estimates are not met."""

    file: str
    estimates: int
    missing: bool = False  # nothing was regenerated under its name
    same_bytes: bool = False
    outside: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def verified(self) -> bool:
        return not (self.missing or self.outside or self.absent)

    def __str__(self) -> str:
        if self.missing:
            return f"{self.file}: missing in {figures_folder()}"
        if self.same_bytes:
            return f"{self.file}: {self.estimates} estimates, the same bytes"
        inside = self.estimates - len(self.outside) - len(self.absent)
        lines = [f"{self.file}: {inside} of {self.estimates} estimates inside the committed intervals"]
        return "\n  ".join(
            [*lines, *(f"outside: {row}" for row in self.outside), *(f"absent: {row}" for row in self.absent)]
        )


def verify(profile: str) -> list[Comparison]:
    """Each committed ``figures/PROFILE/NOTEBOOK/NAME.csv`` against the one that lies in the figures folder now.

    On the machine and with the versions that made the committed files they are the same bytes. Elsewhere rounding alone leads
    training another way, and each estimate shall lie inside the committed interval.

    Raises:
        RequestError: no such profile, or nothing is committed for it.
    """
    load_profile(profile)
    tables = f"figures/{profile}/tables/"
    listed = _git("ls-tree", "-r", "-z", "--name-only", "HEAD", f"figures/{profile}/").decode().split("\0")
    files = [name for name in listed if name.endswith(".csv") and not name.startswith(tables)]
    if not files:
        raise RequestError(f"profile {profile!r}: no figure data is committed for it")
    return [_compare(name.removeprefix("figures/"), _git("show", f"HEAD:{name}")) for name in files]


def _compare(name: str, committed: bytes) -> Comparison:
    old, path = _by_row(committed), figures_folder() / name
    result = Comparison(name, len(old))
    if not path.is_file():
        result.missing = True
        return result
    regenerated = path.read_bytes()
    result.same_bytes = regenerated == committed
    new = _by_row(regenerated)
    for row, expected in old.iterrows():
        label = ", ".join(f"{column} {value}" for column, value in zip(old.index.names, row) if value != "")
        if row not in new.index:
            result.absent.append(label)
            continue
        for what in ("", "_kl") if "estimate_kl" in old else ("",):
            before, low, high = (expected[f"{name}{what}"] for name in ("estimate", "ci_low", "ci_high"))
            estimate = new.loc[row, f"estimate{what}"]
            unchanged = estimate == before or (pd.isna(estimate) and pd.isna(before))
            if not unchanged and not low - _ROUNDING <= estimate <= high + _ROUNDING:
                result.outside.append(f"{label}{what}: {estimate:.4g}, committed {before:.4g} [{low:.4g}, {high:.4g}]")
    return result


def _by_row(data: bytes) -> pd.DataFrame:
    """What was measured, indexed by the columns that name a row."""
    frame = pd.read_csv(io.BytesIO(data))
    names = [column for column in frame if column not in MEASURED]
    return frame.astype(dict.fromkeys(names, object)).fillna(dict.fromkeys(names, "")).set_index(names)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise RequestError(
            f"verify compares with the last commit, and {ROOT} is no git checkout that has one"
        ) from None
