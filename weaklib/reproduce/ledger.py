"""The ledger: what the papers claim, as contrasts between arms, and what a run of the notebooks says to each.

``notebooks/claims.yaml`` lists the claims. A claim is judged by the ``contrasts.csv`` of the notebook that it names, by intervals alone.
"""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import AfterValidator, Field, ValidationError

from weaklib.arms.folders import NOTEBOOKS, figures_folder
from weaklib.arms.table import ARMS
from weaklib.data.errors import RequestError
from weaklib.reproduce.plan import notebook_path
from weaklib.study.parameters import read_yaml
from weaklib.study.profile import Profile
from weaklib.study.sections import Section

# What a contrast can be in, and its unit: shares are shown in points (hundredths), gold reward and correlations as they are.
METRICS = {
    "gra": "points",
    "win_rate": "points",
    "judged_win_rate": "points",
    "agreement_with_human": "points",
    "labels_right": "points",
    "right_where_they_differ": "points",
    "judged_right_where_they_differ": "points",
    "self_agreement": "points",
    "gold_reward": "gold reward",
    "gain_over_sft": "gold reward",
    "rank_agreement": "correlation",
}
# What a baseline can be that is no arm (arm=NAME).
BASELINES = ("chance", "human", "mismatched", "own gold reward", "sft", "weak=judge", "weak=smallest")
# The profile's pairs of models, as claims name them.
PAIRS = ("first", "second")
VERDICTS = ("holds", "fails", "undecided", "not run")


def _known(kind: str, names) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"unknown {kind} {name!r}: {', '.join(names)}")
        return name

    return AfterValidator(check)


def _of_pairs(where: dict) -> dict:
    if where.get("pair", "first") not in PAIRS:
        raise ValueError(f"unknown pair {where['pair']!r}: {', '.join(PAIRS)}")
    return where


class Claim(Section):
    """One claim: ``arm`` against ``baseline`` in ``metric``, in the rows of the notebook's contrasts that ``where`` names.

    ``direction``: ``above`` or ``below`` 0, ``near`` 0 (by less than ``margin``), or ``not below`` (by ``margin`` or more). Margins and
    ``reported`` differences are in the metric's unit (``METRICS``). Each row is judged by itself. Models go by their part in the profile:
    ``pair: first`` or ``second``, ``weak: first``, ``strong: largest``.
    """

    id: str
    paper: Literal["A", "B"]
    source: str
    claim: str
    notebook: str | None  # None: no notebook can judge it
    arm: Annotated[str, _known("arm", ARMS)]
    baseline: str
    metric: Annotated[str, _known("metric", METRICS)]
    where: Annotated[dict[str, str | float], AfterValidator(_of_pairs)] = {}
    direction: Literal["above", "below", "near", "not below"]
    margin: Annotated[float, Field(gt=0)] | None = None
    reported: float | None = None
    note: str = ""

    @property
    def scale(self) -> float:
        """What an estimate is multiplied by to be in the metric's unit."""
        return 100.0 if METRICS[self.metric] == "points" else 1.0


def load_claims(path: Path = NOTEBOOKS / "claims.yaml") -> list[Claim]:
    """Raises:
    RequestError: a claim is wrong; the line names it.
    """
    claims = []
    for number, entry in enumerate(read_yaml(path.read_text(encoding="utf-8"), str(path)), start=1):
        name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "claim"
            raise RequestError(
                f"{path.name}: claim {name}: {key}: {first['msg'].removeprefix('Value error, ')}"
            ) from None
        if claim.direction in ("near", "not below") and claim.margin is None:
            raise RequestError(f"{path.name}: claim {name}: direction {claim.direction!r} needs a margin")
        arm = claim.baseline.removeprefix("arm=")
        if claim.baseline.startswith("arm=") and arm not in ARMS:
            raise RequestError(f"{path.name}: claim {name}: baseline: unknown arm {arm!r}: {', '.join(ARMS)}")
        if not claim.baseline.startswith("arm=") and claim.baseline not in BASELINES:
            known = ", ".join(("arm=NAME", *BASELINES))
            raise RequestError(f"{path.name}: claim {name}: unknown baseline {claim.baseline!r}: {known}")
        if claim.notebook is not None:
            try:
                notebook_path(claim.notebook)
            except RequestError as error:
                raise RequestError(f"{path.name}: claim {name}: {error}") from None
        if any(claim.id == other.id for other in claims):
            raise RequestError(f"{path.name}: claim {name}: there are two of that id")
        claims.append(claim)
    return claims


def data_files(claims: list[Claim], profile_name: str) -> list[Path]:
    """The contrasts that the claims are judged by, those that are there."""
    folders = {claim.notebook: figures_folder() / profile_name / claim.notebook for claim in claims if claim.notebook}
    return [folder / "contrasts.csv" for folder in folders.values() if (folder / "contrasts.csv").is_file()]


def verdict(direction: str, low: float, high: float, margin: float = 0.0) -> str:
    """``holds``, ``fails`` or ``undecided``, by whether the interval [``low``, ``high``] lies wholly where the claim says, or wholly elsewhere."""
    if direction == "below":
        return verdict("above", -high, -low)
    if direction == "near":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
    else:  # above 0, or not below by the margin
        least = -margin if direction == "not below" else 0.0
        inside, outside = low > least, high < least
    return "holds" if inside else "fails" if outside else "undecided"


def ledger(
    claims: list[Claim],
    profile_name: str,
    profile: Profile,
    overrides: dict | None = None,
    reasons: Callable = lambda *_: [],
) -> pd.DataFrame:
    """A row for each claim and setting that it is about; ``profile`` has its ``overrides`` already.

    ``reasons(row, rows, verdict)`` may give further sentences on the contrast ``row``, one of its notebook's ``rows``.

    Returns:
        the claim's fields, ``setting``, ``estimate, ci_low, ci_high`` in the unit of its metric, ``n_seeds, n_prompts``, ``verdict``, and
        ``why``. A claim without data has one row, ``not run``.
    """
    run = _Run(profile_name, profile, overrides or {})
    rows = [row for claim in claims for row in _rows(claim, run, reasons)]
    return pd.DataFrame(rows).reindex(columns=list(dict.fromkeys([*rows[0], *_MEASURED])))


_MEASURED = ("setting", "estimate", "ci_low", "ci_high", "n_seeds", "n_prompts", "verdict", "why")


def _rows(claim: Claim, run: "_Run", reasons: Callable) -> Iterator[dict]:
    said = claim.model_dump(exclude={"where"}) | {"unit": METRICS[claim.metric]}
    contrasts = run.contrasts(claim.notebook) if claim.notebook else claim.note
    found = contrasts if isinstance(contrasts, str) else _about(claim, run, contrasts)
    if isinstance(found, str):
        yield said | {"verdict": "not run", "why": found}
        return
    form = "{:+.1f} [{:+.1f}, {:+.1f}]" if claim.scale > 1 else "{:+.2f} [{:+.2f}, {:+.2f}]"
    for row in found.to_dict("records"):
        estimate, low, high = (claim.scale * row[column] for column in ("estimate", "ci_low", "ci_high"))
        decided = verdict(claim.direction, low, high, claim.margin or 0.0)
        measured = {"estimate": estimate, "ci_low": low, "ci_high": high}
        measured |= {"n_seeds": row["n_seeds"], "n_prompts": row["n_prompts"]}
        why = [_where_it_lies(claim, decided, form.format(estimate, low, high)), *reasons(row, contrasts, decided)]
        yield said | {"setting": _setting(row)} | measured | {"verdict": decided, "why": "; ".join(why)}


def _setting(row: dict) -> str:
    """The models that a row is about, and its gold reward if it compares two."""
    pair = [str(row[column]) for column in ("weak", "strong") if pd.notna(row.get(column))]
    named = " → ".join(pair) if set(pair) != {"mean"} else "mean"
    return f"{named}, {row['other']}" if pd.notna(row.get("other")) else named


@dataclass(frozen=True)
class _Run:
    """What notebooks have written of one profile and its overrides."""

    profile_name: str
    profile: Profile
    overrides: dict

    def contrasts(self, notebook: str) -> pd.DataFrame | str:
        """Those of a notebook, or why there are none."""
        folder = figures_folder() / self.profile_name / notebook
        command = f"python -m weaklib reproduce --profile {self.profile_name} --only {notebook}"
        if self.overrides:
            command += " --set " + shlex.join(f"{key}={json.dumps(value)}" for key, value in self.overrides.items())
        if not (folder / "contrasts.csv").is_file():
            return f"{notebook} has not been run: {command}"
        if not self._has_parameters_of(folder):
            return f"{notebook} was run with other parameters: {command}"
        return pd.read_csv(folder / "contrasts.csv")

    def named(self, where: dict) -> dict | str:
        """``where`` with the profile's own models: its ``first`` or ``second`` ``pair`` of them, its first ``weak`` one, its largest student."""
        found, pairs = dict(where), self.profile.models.pairs
        if pair := found.pop("pair", None):
            number = PAIRS.index(pair)
            if number >= len(pairs):
                return "this profile has one pair of models"
            found["weak"], found["strong"] = pairs[number]
        if found.get("weak") == "first":
            found["weak"] = pairs[0][0]
        if found.get("strong") == "largest":
            found["strong"] = self.profile.sweep("students")[1][-1]
        return found

    def _has_parameters_of(self, folder: Path) -> bool:
        """Whether what lies in a notebook's folder was made with these parameters; one that a profile has got since had its default."""
        now = self.profile.model_dump(exclude={"notebooks"})
        for record in sorted(folder.glob("*.json")):
            try:
                before = Profile.model_validate(json.loads(record.read_text(encoding="utf-8"))["parameters"])
            except ValidationError:
                return False
            if before.model_dump(exclude={"notebooks"}) != now:
                return False
        return True


def _about(claim: Claim, run: "_Run", contrasts: pd.DataFrame) -> pd.DataFrame | str:
    """The rows that a claim is about, or why there are none."""
    rows, where = contrasts, run.named(claim.where)
    if isinstance(where, str):
        return where
    wanted = {"arm": claim.arm, "baseline": claim.baseline, "metric": claim.metric, **where}
    for column, value in wanted.items():
        if column not in rows:
            return f"{claim.notebook} has no column {column} in its contrasts"
        is_number = isinstance(value, (int, float))
        rows = rows[
            pd.to_numeric(rows[column], errors="coerce") == value if is_number else rows[column].astype(str) == value
        ]
    if rows.empty:
        return f"{claim.notebook} has no such setting in this profile: " + ", ".join(
            f"{k} {v}" for k, v in wanted.items()
        )
    if rows["estimate"].isna().any():
        return f"{claim.notebook} has no estimate for it"
    return rows


def _where_it_lies(claim: Claim, decided: str, interval: str) -> str:
    wanted = {
        "above": "above 0",
        "below": "below 0",
        "near": f"within {claim.margin} of 0",
        "not below": f"above −{claim.margin}",
    }[claim.direction]
    if decided == "fails":
        return f"{interval} {METRICS[claim.metric]}: no part of the interval is {wanted}"
    how = {"holds": "lies wholly", "undecided": "lies partly"}[decided]
    return f"{interval} {METRICS[claim.metric]} {how} {wanted}"
