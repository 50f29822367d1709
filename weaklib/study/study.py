"""What a notebook calls: its parameters checked, its arms run into tidy frames, its figures and tables saved with their provenance."""

import ast
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from weaklib.arms import graph, running
from weaklib.arms.folders import figures_folder, runs_folder, store_folder
from weaklib.arms.stage import Stage, upstream
from weaklib.arms.store import Store
from weaklib.data.errors import RequestError
from weaklib.data.files import save_json, sha256
from weaklib.figures import save
from weaklib.figures.style import readable, use_style
from weaklib.study import checks, parameters
from weaklib.study.profile import Profile

# Points of GRA on either side that the study's intervals aim at.
AIM = 3.0


@dataclass(frozen=True)
class Run:
    """An arm for one weak→strong pair, one seed and one setting, scored by one gold reward."""

    arm: str
    weak: str
    strong: str
    seed: int
    top_percent: float | None
    gold: str
    overrides: dict
    rewards: Stage
    sft_rewards: Stage
    kl: Stage

    @property
    def policy(self) -> Stage:
        return self.rewards.inputs["responses"].inputs["model"]

    @property
    def setting(self) -> dict:
        """The columns that name it."""
        names = ("arm", "weak", "strong", "top_percent", "seed", "gold")
        return {name: getattr(self, name) for name in names} | columns(self.overrides)


def columns(overrides: dict | None) -> dict:
    """The columns that tell rows of one setting from another's; models have columns of their own (``weak``, ``strong``)."""
    return {key: value for key, value in (overrides or {}).items() if not key.startswith("models.")}


class Study:
    """One experiment: a notebook and the effective parameters of its profile; ``sweeps`` are those that the notebook has.

    Raises:
        RequestError: a parameter has a wrong name, type or value; nothing has been run or written.
    """

    def __init__(self, notebook: str, profile: Any, overrides: Any = None, seeds: Any = None, **sweeps: Any):
        _refuse_unknown_parameters({"profile", "overrides", "seeds", *sweeps})
        overrides = parameters.parse_value(overrides) or {}
        if not isinstance(overrides, dict):
            raise RequestError(f"overrides: a mapping of dotted keys to values is needed (got {overrides!r})")
        chosen = {name: parameters.parse_value(value) for name, value in ({"seeds": seeds} | sweeps).items()}
        self.overrides = overrides | {name: value for name, value in chosen.items() if value is not None}
        self.notebook, self.profile_name = notebook, str(profile)
        self.profile = parameters.load_profile(self.profile_name, self.overrides)
        if notebook not in self.profile.notebooks:
            known = ", ".join(self.profile.notebooks)
            raise RequestError(f"profile {self.profile_name!r} does not run {notebook}: {known}")
        for name in sweeps:
            if not self.profile.sweep(name)[1] and self.profile.sweeps.get(name) is None:
                raise RequestError(f"{name} is required by {notebook}")
        folders = [store_folder(), figures_folder(), runs_folder()]
        checks.check(self.profile, folders, elsewhere=running.SCHEDULER in os.environ)
        self._sweeps = {name: parameters.sweep(name, self.profile_name, self.overrides) for name in self.profile.sweeps}
        for name in sweeps:
            for point in self.sweep_points(name):
                checks.check_models(self.profile_with(point))
        self.store = Store(store_folder())
        self.outputs: list[Path] = []
        self._stages: dict[str, Stage] = {}
        self._read: dict[str, str] = {}
        use_style()
        print(f"{notebook}, profile {self.profile_name}: {self.profile.title}, seeds {self.profile.seeds}")

    def sweep(self, name: str) -> list:
        """The values of a sweep."""
        return self._sweeps[name]

    def sweep_points(self, name: str) -> list[dict]:
        """Overrides for each value of a sweep."""
        keys, values = self.profile.sweep(name)[0], self._sweeps[name]
        return [dict(zip(keys, value if len(keys) > 1 else [value])) for value in values]

    @property
    def gold_name(self) -> str:
        """What the gold reward is here, for axes and captions."""
        if self.profile.task.kind == "world":
            return "gold reward"
        return f"{self.own_gold} gold reward" if self.profile.models.gold else "proxy reward"

    @property
    def own_gold(self) -> str:
        """The task's own gold reward as results name it."""
        return "truth" if self.profile.task.kind == "world" else self.profile.models.gold or "proxy"

    @property
    def other_golds(self) -> list[str]:
        """Names of the profile's ``gold_models`` beside it."""
        return [name for name in self.profile.gold_models if name != self.own_gold]

    @property
    def task_name(self) -> str:
        """What the pairs are, for titles."""
        return getattr(self.profile.task, "name", self.profile.task.kind)

    @property
    def judge_name(self) -> str:
        """Who judges here, for axes and captions."""
        checks.check_judge(self.profile)
        return self.profile.judge.model or "simulated judge"

    @property
    def first_pair(self) -> dict:
        """The overrides for the profile's first weak→strong pair alone."""
        (weak, strong), *_ = self.profile.models.pairs
        return {"models.weak": [weak], "models.strong": [strong]}

    def profile_with(self, overrides: dict | None) -> Profile:
        """The notebook's profile at one point of a sweep."""
        return parameters.load_profile(self.profile_name, self.overrides | (overrides or {}))

    def interval_note(self, units: str = "test prompts") -> str:
        """What the intervals of this run cover, for captions; ``units`` are what was scored."""
        seeds = len(self.profile.seeds)
        covers = f"{seeds} seeds and the {units}" if seeds > 1 else f"the {units} only (one seed)"
        return f"95% intervals over {covers}"

    def arms(
        self, *names: str, top_percents: Sequence[float | None] = (None,), golds: Sequence[str | None] = (None,),
        overrides: dict | None = None,
    ) -> list[Run]:  # fmt: skip
        """The named arms for every weak→strong pair and seed of the profile, every N of ``top``, and every gold reward.

        ``golds`` are names of the profile's ``gold_models``; None is the task's own. ``overrides`` (dotted keys, as the
        notebook's) are one point of a sweep: results have them as columns.
        """
        if unknown := set(names) - set(graph.ARMS):
            raise RequestError(f"unknown arm {unknown.pop()!r}: {', '.join(graph.ARMS)}")
        if ("top" in names) != (None not in top_percents):
            raise RequestError("top_percents are for the arm 'top', which needs them; ask for it by itself")
        p, runs = self.profile_with(overrides), []
        if p.annotator.kind == "judge":
            checks.check_judge(p)
        for gold in filter(None, golds):
            checks.check_gold(p, gold)
        for name, percent, (weak, strong), seed in itertools.product(names, top_percents, p.models.pairs, p.seeds):
            policy, start = graph.policy(p, graph.ARMS[name], weak, strong, seed, percent), graph.sft(p, strong, seed)
            kl = graph.kl(p, policy, start, seed)
            for gold in golds:
                scored = [graph.rewards(p, model, seed, gold=gold) for model in (policy, start)]
                runs.append(Run(name, weak, strong, seed, percent, gold or self.own_gold, overrides or {}, *scored, kl))
        return runs

    def run(self, runs: list[Run]) -> pd.DataFrame:
        """Trains and evaluates what is not stored yet.

        Returns:
            a row for each arm, weak→strong pair, setting, seed, gold reward and test prompt: ``response``, its length in
            ``words``, ``gold_reward``, and ``sft_words``, ``sft_gold_reward`` of the start's response to the same prompt.
        """
        if not self.compute([run.rewards for run in runs] + [run.sft_rewards for run in runs]):
            return pd.DataFrame()
        self._print_forms(runs)
        tables = []
        for run in runs:
            ours, start = self.read(run.rewards, "rewards"), self.read(run.sft_rewards, "rewards")
            both = ours.merge(start, on="prompt", validate="one_to_one", suffixes=("", "_sft"))
            measured = {"prompt": both["prompt"], "response": both["response"]}
            for prefix, suffix in (("", ""), ("sft_", "_sft")):
                measured[f"{prefix}words"] = both[f"response{suffix}"].str.split().str.len()
                measured[f"{prefix}gold_reward"] = both[f"gold_reward{suffix}"]
            tables.append(pd.DataFrame(measured).assign(**run.setting))
        return pd.concat(tables, ignore_index=True)

    def kl(self, runs: list[Run]) -> pd.DataFrame:
        """How far each policy has gone from its start: a row for each run and test prompt.

        ``log_ratio`` is log π(y|x)/π_sft(y|x) in nats of the policy's own response: its mean is the KL divergence from SFT.
        """
        if not self.compute([run.kl for run in runs]):
            return pd.DataFrame()
        return pd.concat([self.read(run.kl, "kl").assign(**run.setting) for run in runs], ignore_index=True)

    def loss_curves(self, runs: list[Run]) -> pd.DataFrame:
        """The loss as each policy and its start learned it: ``stage`` (``policy`` or ``sft``), ``step``, ``epoch`` and ``loss``, beside
        the columns that name the run. For another training stage see ``training_log.json`` in its folder of the store.
        """
        tables = []
        for run, stage in itertools.chain(*([(r, r.policy), (r, r.policy.inputs["start"])] for r in runs)):
            curve = pd.read_json(self.store.folder(stage) / "training_log.json")[["step", "epoch", "loss"]]
            tables.append(curve.assign(stage=stage.name, **run.setting))
        return pd.concat(tables, ignore_index=True)

    def _print_forms(self, runs: list[Run]) -> None:
        """How the policies' pairs were laid out (:mod:`weaklib.training.pairs`)."""
        policies = {run.policy.key: run.policy for run in runs}
        files = [self.store.folder(policy) / "pairs.json" for policy in policies.values()]
        records = pd.DataFrame([json.loads(file.read_text(encoding="utf-8")) for file in files])
        for form, rows in records.groupby("form"):
            padding = 100 * rows["padding_share"].mean()
            print(f"{len(rows)} policies, pairs in the {form} form, {padding:.1f}% of positions padding")

    def counts(self) -> dict:
        """What was met in the task's file (rows, dropped, empty responses, …); empty for the controlled world."""
        file = self.store.folder(graph.task(self.profile)) / "counts.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def compute(self, stages: Iterable[Stage]) -> bool:
        """Brings the artifacts of ``stages`` into the store, and counts them as used by this notebook.

        Returns:
            whether they are there now: not while stages are only listed (:func:`weaklib.arms.running.recording`), when nothing runs.
        """
        stages = list(stages)
        self._stages |= {stage.key: stage for stage in upstream(stages)}
        return running.run(stages, self.store)

    def read(self, stage: Stage, table: str) -> pd.DataFrame:
        """One table of a stored artifact."""
        return pd.read_parquet(self.store.folder(stage) / f"{table}.parquet")

    def reads(self, files: Iterable[Path]) -> None:
        """Counts data of other notebooks as used by this one: their hashes are part of its key and provenance."""
        self._read |= {f"{path.parent.name}/{path.name}": sha256(path) for path in files}

    def save_figure(
        self, figure, name: str, data: pd.DataFrame, caption: str, units: str | None = "test prompts"
    ) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/NAME.{svg,pdf,png,csv,json}``; ``data`` is what the figure shows.

        Caption and figure are told what the intervals cover, the seeds and the ``units``, unless these are None.
        """
        if units:
            figure.supxlabel(self.interval_note(units), fontsize=6)
        folder, key = self._folder(), self._key()
        files = save.save_figure(figure, folder, name, f"{self.notebook}: {name}", key)
        files.append(save.save_csv(data, folder, name))
        said = {"caption": self._whole(caption, units), "notebook": self.notebook, "profile": self.profile_name}
        said |= {"parameters": self.profile.model_dump(), "task_counts": self.counts(), "key": key}
        said |= {"stages": sorted(map(str, self._stages.values())), "read": self._read, **save.provenance()}
        said |= {"device": self.profile.device, "sha256": {path.name: sha256(path) for path in files}}
        self.outputs += [*files, save_json(said, folder / f"{name}.json")]

    def save_table(self, frame: pd.DataFrame, name: str, caption: str, units: str | None = "test prompts"):
        """Writes ``figures/PROFILE/tables/NOTEBOOK/NAME.{md,tex,csv}``; returns the table for a notebook to show."""
        folder = figures_folder() / self.profile_name / "tables" / self.notebook
        self.outputs += save.save_table(frame, folder, name, self._whole(caption, units))
        return readable(frame)

    def save_contrasts(self, contrasts: pd.DataFrame) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/contrasts.csv``: what arms differ by (:func:`weaklib.contrasts`), for the ledger of claims.

        Prints how small a difference in GRA they can decide.
        """
        self.outputs.append(save.save_csv(contrasts, self._folder(), "contrasts"))
        in_gra = contrasts[contrasts["metric"] == "gra"]
        half = 50 * (in_gra["ci_high"] - in_gra["ci_low"])
        print(
            f"{len(half)} differences in GRA: {(half <= AIM).sum()} are known to ±{AIM:g} points or better, half of them to "
            f"±{half.median():.1f}, the widest to ±{half.max():.1f}; smaller ones are not decided here"
        )

    def say(self, *sentences: str | Iterable[str]) -> None:
        """Prints findings as a list."""
        for sentence in sentences:
            for line in [sentence] if isinstance(sentence, str) else sentence:
                print("-", line)

    def finish(self) -> None:
        """The notebook's last word: writes the list of its outputs, by which ``reproduce`` knows that it succeeded."""
        outputs = {str(path): sha256(path) for path in self.outputs}
        record = {"notebook": self.notebook, "outputs": outputs, "stages": sorted(map(str, self._stages.values()))}
        save_json(record, runs_folder() / self.profile_name / f"{self.notebook}.json")
        print(f"{len(outputs)} files written, from {len(self._stages)} stages")

    def _folder(self) -> Path:
        return figures_folder() / self.profile_name / self.notebook

    def _whole(self, caption: str, units: str | None) -> str:
        p = self.profile
        tail = f"{p.objective.upper()}, β = {p.beta:g} unless said, profile {self.profile_name}"
        return f"{caption} {tail}" + (f"; {self.interval_note(units)}." if units else ".")

    def _key(self) -> str:
        """One key for everything the notebook has used."""
        return hashlib.sha256(" ".join(sorted([*self._stages, *self._read.values()])).encode()).hexdigest()[:24]


def _refuse_unknown_parameters(known: set[str]) -> None:
    """Papermill only warns of a parameter that a notebook does not have; here it is an error.

    What it injects is a cell of assignments that begins with "# Parameters".
    """
    if "IPython" not in sys.modules or (shell := sys.modules["IPython"].get_ipython()) is None:
        return
    for cell in shell.user_ns.get("In", []):
        if cell.startswith("# Parameters\n"):
            nodes = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Assign)]
            given = {name.id for node in nodes for name in node.targets if isinstance(name, ast.Name)}
            if unknown := given - known:
                raise RequestError(f"unknown parameter {min(unknown)!r}: this notebook has {', '.join(sorted(known))}")
