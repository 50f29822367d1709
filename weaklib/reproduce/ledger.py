"""The ledger: what the papers claim (``notebooks/claims.yaml``), and what a run of the notebooks says to each claim."""

import json
import shlex
from contextlib import suppress
from math import inf, isnan
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import PositiveFloat, ValidationError, model_validator

from weaklib.arms.folders import NOTEBOOKS, figures_folder
from weaklib.arms.table import ARMS
from weaklib.data.errors import RequestError
from weaklib.study.parameters import read_yaml
from weaklib.study.profile import Profile
from weaklib.supervisors.judge import Settings

# What a contrast can be in, and its unit: shares are shown in points (hundredths), all else as it is.
METRICS = dict.fromkeys(("gra", "win_rate", "judged_win_rate", "agreement_with_human", "labels_right"), "points")
METRICS |= dict.fromkeys(("right_where_they_differ", "judged_right_where_they_differ", "self_agreement"), "points")
METRICS |= {"gold_reward": "gold reward", "gain_over_sft": "gold reward", "rank_agreement": "correlation"}
# What a baseline can be that is no arm (arm=NAME).
BASELINES = ("chance", "human", "mismatched", "own gold reward", "sft", "weak=judge", "weak=smallest")
PAIRS = {"first": 0, "second": 1}  # the profile's pairs of models, as claims name them
VERDICTS = ("holds", "fails", "undecided", "not run")
_MEASURED = ("setting", "estimate", "ci_low", "ci_high", "n_seeds", "n_prompts")


class Claim(Settings):
    """``arm`` against ``baseline`` in ``metric``, in each row of the notebook's contrasts that ``where`` names.
    ``direction``: ``above`` or ``below`` 0, ``near`` 0 (by less than ``margin``), or ``not below`` (by ``margin`` or
    more). Margins and ``reported`` differences are in the metric's unit. Models go by their part in the profile:
    ``pair: first`` or ``second``, ``weak: first``, ``strong: largest``.
    """

    id: str
    paper: Literal["A", "B"]
    source: str
    claim: str
    notebook: str | None  # None: no notebook can judge it
    arm: str
    baseline: str
    metric: str
    where: dict[str, str | float] = {}
    direction: Literal["above", "below", "near", "not below"]
    margin: PositiveFloat | None = None
    reported: float | None = None
    note: str = ""

    @model_validator(mode="after")
    def names_what_there_is(self):
        arm, is_arm = self.baseline.removeprefix("arm="), self.baseline.startswith("arm=")
        notebooks = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
        for what, name, known in (
            ("arm: unknown arm", self.arm, ARMS),
            ("metric: unknown metric", self.metric, METRICS),
            ("where: unknown pair", self.where.get("pair", "first"), PAIRS),
            ("unknown notebook", self.notebook or notebooks[0], notebooks),
            ("baseline: unknown arm", arm, ARMS) if is_arm else ("unknown baseline", arm, ("arm=NAME", *BASELINES)),
        ):
            if name not in known:
                raise ValueError(f"{what} {name!r}: {', '.join(known)}")
        if self.direction in ("near", "not below") and self.margin is None:
            raise ValueError(f"direction {self.direction!r} needs a margin")
        return self


class _NotRun(Exception):
    """Why a claim has no verdict."""


def load_claims(path: Path = NOTEBOOKS / "claims.yaml") -> list[Claim]:
    """Raises RequestError where a claim is wrong; the line names it."""
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(read_yaml(path.read_text(encoding="utf-8"), str(path)), start=1):
        name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}".lstrip(": ")
            raise RequestError(f"{path.name}: claim {name}: {said}") from None
        if claims.setdefault(claim.id, claim) is not claim:
            raise RequestError(f"{path.name}: claim {name}: there are two of that id")
    return list(claims.values())


def verdict(direction: str, low: float, high: float, margin: float = 0.0) -> str:
    """Whether all of the interval from ``low`` to ``high`` is where the claim says (``holds``), or none (``fails``)."""
    if isnan(low):
        return "not run"  # the estimate is missing
    where = {"above": (0.0, inf), "below": (-inf, 0.0), "near": (-margin, margin), "not below": (-margin, inf)}
    least, most = where[direction]
    if least < low and high < most:
        return "holds"
    return "fails" if high < least or low > most else "undecided"


def ledger(claims, profile_name: str, profile: Profile, overrides=None, why=lambda *_: []) -> pd.DataFrame:
    """A row for each claim and setting; ``profile`` has its ``overrides`` already. Returns the claim's fields, ``unit``
    and ``setting``, ``estimate, ci_low, ci_high`` (in the unit), ``n_seeds, n_prompts``, ``verdict``, and ``why``: what
    ``why(judged, row, rows)`` says of it, its contrast ``row`` and all ``rows``. Without data it is one ``not run``.
    """
    rows = []
    for claim in claims:
        said = claim.model_dump(exclude={"where"}) | {"unit": METRICS[claim.metric]}
        scale = 100.0 if said["unit"] == "points" else 1.0
        try:
            contrasts = _contrasts(claim, profile_name, profile, overrides or {})
            for row in _about(claim, profile, contrasts):
                estimate, low, high = (scale * row[column] for column in ("estimate", "ci_low", "ci_high"))
                # the models that it is about, and its gold reward if it compares two
                pair = [str(row[column]) for column in ("weak", "strong") if pd.notna(row.get(column))]
                setting = " → ".join(pair) if set(pair) != {"mean"} else "mean"
                setting += f", {row['other']}" if pd.notna(row.get("other")) else ""
                judged = said | dict(zip(_MEASURED, (setting, estimate, low, high, row["n_seeds"], row["n_prompts"])))
                judged["verdict"] = verdict(claim.direction, low, high, claim.margin or 0.0)
                rows.append(judged | {"why": "; ".join(why(judged, row, contrasts))})
        except _NotRun as error:
            rows.append(said | {"verdict": "not run", "why": str(error)})
    return pd.DataFrame(rows, columns=[*said, *_MEASURED, "verdict", "why"])


def _contrasts(claim: Claim, profile_name: str, profile: Profile, overrides: dict) -> pd.DataFrame:
    """Those of the claim's notebook, made with these parameters; one that a profile has got since had its default."""
    if claim.notebook is None:
        raise _NotRun(claim.note)
    command = f"python -m weaklib reproduce --profile {profile_name} --only {claim.notebook}"
    if overrides:
        command += " --set " + shlex.join(f"{key}={json.dumps(value)}" for key, value in overrides.items())
    folder = figures_folder() / profile_name / claim.notebook
    if not (folder / "contrasts.csv").is_file():
        raise _NotRun(f"{claim.notebook} has not been run: {command}")
    for record in folder.glob("*.json"):
        before = json.loads(record.read_text(encoding="utf-8"))["parameters"] | {"notebooks": profile.notebooks}
        with suppress(ValidationError):
            if Profile.model_validate(before) == profile:
                continue
        raise _NotRun(f"{claim.notebook} was run with other parameters: {command}")
    return pd.read_csv(folder / "contrasts.csv")


def _about(claim: Claim, profile: Profile, rows: pd.DataFrame) -> list[dict]:
    """The contrasts that a claim is about, which names models by their part in the profile."""
    wanted = {"arm": claim.arm, "baseline": claim.baseline, "metric": claim.metric, **claim.where}
    pairs = profile.models.pairs
    if pair := wanted.pop("pair", None):
        if PAIRS[pair] >= len(pairs):
            raise _NotRun("this profile has one pair of models")
        wanted["weak"], wanted["strong"] = pairs[PAIRS[pair]]
    if wanted.get("weak") == "first":
        wanted["weak"] = pairs[0][0]
    if wanted.get("strong") == "largest":
        wanted["strong"] = profile.sweep("students")[1][-1]
    for column, value in wanted.items():
        if column not in rows:
            raise _NotRun(f"{claim.notebook} has no column {column} in its contrasts")
        given = rows[column].astype(str) if isinstance(value, str) else pd.to_numeric(rows[column], errors="coerce")
        rows = rows[given == value]
    if rows.empty:
        setting = ", ".join(f"{column} {value}" for column, value in wanted.items())
        raise _NotRun(f"{claim.notebook} has no such setting in this profile: {setting}")
    if rows["estimate"].isna().any():
        raise _NotRun(f"{claim.notebook} has no estimate for it")
    return rows.to_dict("records")
