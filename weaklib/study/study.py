"""What a notebook calls: its parameters checked, and its arms run into tidy frames."""

import ast
import itertools
import os
import sys
from typing import Any, NamedTuple

import pandas as pd

from weaklib.arms import folders, graph, running
from weaklib.arms.stage import Stage
from weaklib.data.errors import RequestError
from weaklib.evaluation import metrics
from weaklib.figures.draw import use_style
from weaklib.study import checks, parameters
from weaklib.study.outputs import Outputs
from weaklib.study.profile import Profile

UNSEEN = ("messages", "token_ids", "ended")  # of responses, what no figure needs


class Run(NamedTuple):
    """An arm for one weak→strong pair, seed and setting, scored by one gold reward; ``setting``: its columns."""

    setting: dict
    policy: Stage
    start: Stage
    rewards: Stage
    sft_rewards: Stage
    kl: Stage


def columns(overrides: dict | None) -> dict:
    """Those that tell rows of one setting from another's; models have columns of their own (``weak``, ``strong``)."""
    return {key: value for key, value in (overrides or {}).items() if not key.startswith("models.")}


class Study(Outputs):
    """A notebook, with its ``sweeps``, and the effective parameters of its profile. Raises RequestError where one has a
    wrong name, type or value; nothing has been run or written then.
    """

    def __init__(self, notebook: str, profile: Any, overrides: Any = None, seeds: Any = None, **sweeps: Any):
        _refuse_unknown_parameters({"profile", "overrides", "seeds", *sweeps})
        overrides = parameters.parse_value(overrides) or {}
        if not isinstance(overrides, dict):
            raise RequestError(f"overrides: a mapping of dotted keys to values is needed (got {overrides!r})")
        chosen = {name: parameters.parse_value(value) for name, value in ({"seeds": seeds} | sweeps).items()}
        self.overrides = overrides | {name: value for name, value in chosen.items() if value is not None}
        super().__init__(notebook, str(profile), parameters.load_profile(str(profile), self.overrides))
        if notebook not in (known := self.profile.notebooks):
            raise RequestError(f"profile {self.profile_name!r} does not run {notebook}: {', '.join(known)}")
        given = [name for name, values in self.profile.sweeps.items() if values is not None]
        if missing := [name for name in sweeps if name not in given]:
            raise RequestError(f"{missing[0]} is required by {notebook}")
        checks.check(self.profile, elsewhere=running.SCHEDULER in os.environ)
        used = [name for name in given if name in sweeps or name in self.overrides]
        self._sweeps = {name: parameters.sweep(name, self.profile_name, self.overrides) for name in used}
        for point in itertools.chain(*map(self.sweep_points, sweeps)):
            checks.check_models(self.profile_with(point))
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
    def own_gold(self) -> str:
        """The task's own gold reward as results name it."""
        return "truth" if self.profile.task.kind == "world" else self.profile.models.gold or "proxy"

    @property
    def gold_name(self) -> str:
        """The task's own gold reward, for axes and captions."""
        return {"truth": "gold reward", "proxy": "proxy reward"}.get(self.own_gold, f"{self.own_gold} gold reward")

    @property
    def judge_name(self) -> str:
        """Who judges here, for axes and captions."""
        checks.check_judge(self.profile)
        return self.profile.judge.model or "simulated judge"

    @property
    def first_pair(self) -> dict:
        """The overrides for the profile's first weak→strong pair alone."""
        weak, strong = self.profile.models.pairs[0]
        return {"models.weak": [weak], "models.strong": [strong]}

    def profile_with(self, overrides: dict | None) -> Profile:
        """The notebook's profile at one point of a sweep."""
        return parameters.load_profile(self.profile_name, self.overrides | (overrides or {}))

    def arms(self, *names: str, top_percents=(None,), golds=(None,), overrides: dict | None = None) -> list[Run]:
        """The named arms for every weak→strong pair, seed, N of ``top`` and gold reward (of ``gold_models``; None:
        the task's own). Results have the ``overrides`` (dotted keys), one point of a sweep, as columns.
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
        seeds: list[int] = p.seeds
        for arm, top, (weak, strong), seed in itertools.product(names, top_percents, p.models.pairs, seeds):
            policy, start = graph.policy(p, graph.ARMS[arm], weak, strong, seed, top), graph.sft(p, strong, seed)
            setting = {"arm": arm, "weak": weak, "strong": strong, "top_percent": top, "seed": seed}
            for gold in golds:
                named = setting | {"gold": gold or self.own_gold} | columns(overrides)
                ours, theirs = (graph.rewards(p, model, seed, gold=gold) for model in (policy, start))
                runs.append(Run(named, policy, start, ours, theirs, graph.kl(p, policy, start, seed)))
        return runs

    def run(self, runs: list[Run]) -> pd.DataFrame:
        """Trains and evaluates what is not stored. Returns a row for each run and test prompt: the ``response``, its
        number of ``words`` and ``gold_reward``, and ``sft_words``, ``sft_gold_reward`` of the start's response to it.
        """
        if not self.compute([run.rewards for run in runs] + [run.sft_rewards for run in runs]):
            return pd.DataFrame()
        policies = {run.policy.key: run.policy for run in runs}.values()
        for form, rows in pd.DataFrame([self.record(policy, "pairs") for policy in policies]).groupby("form"):
            padding = 100 * rows["padding_share"].mean()
            print(f"{len(rows)} policies, pairs in the {form} form, {padding:.1f}% of positions padding")
        start = self.tables([({}, run.sft_rewards) for run in runs], "rewards").add_prefix("sft_")
        both = self.tables([(run.setting, run.rewards) for run in runs], "rewards").join(start)
        assert both["prompt"].equals(both.pop("sft_prompt"))
        both, silent = metrics.without_silent_rewards(both)
        self.missing += silent
        self.say(silent)
        words = {f"{of}words": both[f"{of}response"].str.split().str.len() for of in ("", "sft_")}
        return both.assign(**words).drop(
            columns=[f"{of}{name}" for of in ("", "sft_") for name in UNSEEN] + ["sft_response"]
        )

    def kl(self, runs: list[Run]) -> pd.DataFrame:
        """How far each policy has gone from its start: ``log_ratio``, log π(y|x)/π_sft(y|x) in nats, of the policy's
        own response to each test prompt; its mean is the KL divergence from SFT.
        """
        there = self.compute(run.kl for run in runs)
        return self.tables([(run.setting, run.kl) for run in runs], "kl") if there else pd.DataFrame()

    def loss_curves(self, runs: list[Run]) -> pd.DataFrame:
        """How each policy and its start (``stage``: ``policy``, ``sft``) learned: ``step``, ``epoch``, ``loss``."""
        tables = []
        for setting, stage in [(run.setting, stage) for run in runs for stage in (run.policy, run.start)]:
            log = pd.DataFrame(self.record(stage, "training_log"))[["step", "epoch", "loss"]]
            tables.append(log.assign(stage=stage.name, **setting))
        return pd.concat(tables, ignore_index=True)


def _refuse_unknown_parameters(known: set[str]) -> None:
    """Papermill, which only warns of them, injects a cell of assignments that begins with "# Parameters"."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    for cell in shell.user_ns.get("In", []) if shell else []:
        if cell.startswith("# Parameters\n"):
            names = [node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)]
            if unknown := {name.id for name in names if isinstance(name.ctx, ast.Store)} - known:
                raise RequestError(f"unknown parameter {min(unknown)!r}: this notebook has {', '.join(sorted(known))}")


def reported(paper: str, *where: str) -> pd.DataFrame:
    """What ``paper`` (A or B) reported, ``where`` (figures or tables) if said: rows of ``notebooks/reported.csv``."""
    rows = pd.read_csv(folders.NOTEBOOKS / "reported.csv").query("paper == @paper")
    return rows[rows["where"].isin(where or rows["where"])].reset_index(drop=True)
