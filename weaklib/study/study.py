"""What a notebook calls: its parameters checked, its arms run into tidy frames, its figures and tables saved with their provenance."""

import ast
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from weaklib.arms import graph, running
from weaklib.arms.folders import figures_folder, runs_folder, store_folder
from weaklib.arms.stage import Stage, upstream
from weaklib.arms.store import Store
from weaklib.data.errors import RequestError
from weaklib.figures.style import use_style
from weaklib.study import checks, parameters
from weaklib.study.outputs import Outputs
from weaklib.study.profile import Profile


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


class Study(Outputs):
    """One experiment: a notebook and the effective parameters of its profile; ``sweeps`` are those that the notebook has.

    Raises:
        RequestError: a parameter has a wrong name, type or value; nothing has been run or written.
    """

    def __init__(self, notebook: str, profile: Any, overrides: Any = None, seeds: Any = None, **sweeps: Any):
        super().__init__()
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
        given = [name for name, values in self.profile.sweeps.items() if values is not None]
        used = [name for name in given if name in sweeps or name in self.overrides]
        self._sweeps = {name: parameters.sweep(name, self.profile_name, self.overrides) for name in used}
        for name in sweeps:
            for point in self.sweep_points(name):
                checks.check_models(self.profile_with(point))
        self.store = Store(store_folder())
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
        for other in filter(None, golds):
            checks.check_gold(p, other)
        for name, percent, (weak, strong), seed in itertools.product(names, top_percents, p.models.pairs, p.seeds):
            policy, start = graph.policy(p, graph.ARMS[name], weak, strong, seed, percent), graph.sft(p, strong, seed)
            kl = graph.kl(p, policy, start, seed)
            for gold in golds:
                ours, theirs = (graph.rewards(p, model, seed, gold=gold) for model in (policy, start))
                by = gold or self.own_gold
                runs.append(Run(name, weak, strong, seed, percent, by, overrides or {}, ours, theirs, kl))
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
