"""What a notebook calls: its parameters checked, its arms run, its figures and tables saved with their provenance."""

import ast
import hashlib
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from tokenizers import Tokenizer

from weaklib import figures, graph, judge, parameters, preflight, running
from weaklib.files import save_json, sha256
from weaklib.parameters import RequestError
from weaklib.paths import ROOT, figures_folder, runs_folder, store_folder
from weaklib.stage import LIBRARIES, Stage, upstream
from weaklib.store import Store
from weaklib.worlds import WORLDS

PACKAGES = (*LIBRARIES, "distributed", "matplotlib", "pandas", "papermill", "scipy", "seaborn")


@dataclass(frozen=True)
class Run:
    """An arm for one weak→strong pair, one seed and one setting, scored by one gold reward."""

    arm: str
    weak: str
    strong: str
    seed: int
    top_percent: float | None
    gold: str
    rewards: Stage
    sft_rewards: Stage
    kl: Stage

    @property
    def setting(self) -> dict:
        """The columns that name it."""
        return {name: getattr(self, name) for name in ("arm", "weak", "strong", "top_percent", "seed", "gold")}


class Study:
    """One experiment: a notebook and the effective parameters of its profile.

    Raises:
        RequestError: a parameter has a wrong name, type or value; nothing has been run or written.
    """

    def __init__(self, notebook: str, profile: Any, overrides: Any = None, **sweeps: Any):
        _refuse_unknown_parameters({"profile", "overrides", *sweeps})
        overrides = parameters.parse_value(overrides) or {}
        if not isinstance(overrides, dict):
            raise RequestError(f"overrides: a mapping of dotted keys to values is needed (got {overrides!r})")
        chosen = {name: parameters.parse_value(value) for name, value in sweeps.items()}
        overrides |= {name: value for name, value in chosen.items() if value is not None}
        self.notebook, self.profile_name = notebook, str(profile)
        self._overrides = overrides
        self.profile = parameters.load_profile(self.profile_name, overrides)
        if notebook not in self.profile.notebooks:
            raise RequestError(
                f"profile {self.profile_name!r} does not run {notebook}: {', '.join(self.profile.notebooks)}"
            )
        preflight.check(self.profile, [store_folder(), figures_folder(), runs_folder()], [notebook])
        self.store = Store(store_folder())
        self.outputs: list[Path] = []
        self._stages: dict[str, Stage] = {}
        figures.use_style()
        print(f"{notebook}, profile {self.profile_name}: {self.profile.title}, seeds {self.profile.seeds}")

    @property
    def gold_name(self) -> str:
        """What the gold reward is here, for axes and captions."""
        return "gold reward" if self.profile.task.kind == "world" else "proxy reward"

    @property
    def own_gold(self) -> str:
        """The task's own gold reward as results name it; others are the profile's ``gold_models``."""
        return "truth" if self.profile.task.kind == "world" else "proxy"

    def interval_note(self, units: str = "test prompts") -> str:
        """What the intervals of this run cover, for captions; ``units`` are what was scored."""
        seeds = len(self.profile.seeds)
        covers = f"{seeds} seeds and the {units}" if seeds > 1 else f"the {units} only (one seed)"
        return f"95% intervals over {covers}"

    def arms(
        self, *names: str, top_percents: Sequence[float | None] = (None,), golds: Sequence[str | None] = (None,)
    ) -> list[Run]:
        """The named arms for every weak→strong pair and seed of the profile, every N of ``top``, and every gold reward.

        ``golds`` are names of the profile's ``gold_models``; None is the task's own.
        """
        if unknown := set(names) - set(graph.ARMS):
            raise RequestError(f"unknown arm {unknown.pop()!r}: {', '.join(graph.ARMS)}")
        if ("top" in names) != (None not in top_percents):
            raise RequestError("top_percents are for the arm 'top', which needs them; ask for it by itself")
        p, runs = self.profile, []
        for name, percent, (weak, strong), seed in itertools.product(names, top_percents, p.models.pairs, p.seeds):
            policy, start = graph.policy(p, graph.ARMS[name], weak, strong, seed, percent), graph.sft(p, strong, seed)
            kl = graph.kl(p, policy, start, seed)
            for gold in golds:
                scored = [graph.rewards(p, model, seed, gold=gold) for model in (policy, start)]
                runs.append(Run(name, weak, strong, seed, percent, gold or self.own_gold, *scored, kl))
        return runs

    def run(self, runs: list[Run]) -> pd.DataFrame:
        """Trains and evaluates what is not stored yet.

        Returns:
            a row for each arm, weak→strong pair, setting, seed, gold reward and test prompt: ``response``, its length in
            ``words``, ``gold_reward``, and ``sft_words``, ``sft_gold_reward`` of the start's response to the same prompt.
        """
        if not self._compute([run.rewards for run in runs] + [run.sft_rewards for run in runs]):
            return pd.DataFrame()
        self._print_forms(runs)
        tables = []
        for run in runs:
            both = self._read(run.rewards, "rewards").merge(
                self._read(run.sft_rewards, "rewards"), on="prompt", validate="one_to_one", suffixes=("", "_sft")
            )
            measured = {
                "prompt": both["prompt"],
                "response": both["response"],
                "words": both["response"].str.split().str.len(),
                "gold_reward": both["gold_reward"],
                "sft_words": both["response_sft"].str.split().str.len(),
                "sft_gold_reward": both["gold_reward_sft"],
            }
            tables.append(pd.DataFrame(measured).assign(**run.setting))
        return pd.concat(tables, ignore_index=True)

    def kl(self, runs: list[Run]) -> pd.DataFrame:
        """How far each policy has gone from its start: a row for each run and test prompt.

        ``log_ratio`` is log π(y|x)/π_sft(y|x) in nats of the policy's own response: its mean is the KL divergence from SFT.
        """
        if not self._compute([run.kl for run in runs]):
            return pd.DataFrame()
        return pd.concat([self._read(run.kl, "kl").assign(**run.setting) for run in runs], ignore_index=True)

    def verdicts(self, *names: str, baseline: str) -> pd.DataFrame:
        """The judge's verdicts on the responses of the named arms against those of ``baseline`` to the same prompts and seeds.

        Each pair is asked in both orders and ``judge.repeats`` times, of the first ``judge.prompts`` test prompts. Two responses that are
        the same text are a tie that nobody is asked about.

        Returns:
            a row a question: ``arm, weak, strong, seed, prompt, arm_first, repeat, verdict`` (``first``, ``second``, ``tie``, missing
            where the replies could not be read), ``requests, input_tokens, output_tokens``, and ``truth``, which of the two has
            the higher gold reward (missing where it is unknown).
        """
        p = self.profile
        runs = {(run.weak, run.strong, run.seed, run.arm): run for run in self.arms(*names, baseline)}
        if not self._compute([run.rewards for run in runs.values()]):
            return pd.DataFrame()
        rows = []
        for weak, strong, seed, arm in runs:
            if arm == baseline:
                continue
            ours, theirs = (
                self._read(runs[weak, strong, seed, which].rewards, "rewards").head(p.judge.prompts)
                for which in (arm, baseline)
            )
            setting = {"arm": arm, "weak": weak, "strong": strong, "seed": seed}
            for one, other in zip(ours.itertuples(), theirs.itertuples(), strict=True):
                truth = np.sign(one.gold_reward - other.gold_reward) if self.own_gold == "truth" else np.nan
                for arm_first, repeat in itertools.product((True, False), range(p.judge.repeats)):
                    shown = (one.response, other.response) if arm_first else (other.response, one.response)
                    question = judge.Question(one.prompt, *shown, repeat)
                    rows.append(
                        setting | vars(question) | {"arm_first": arm_first, "truth": truth if arm_first else -truth}
                    )
        frame = pd.DataFrame(rows)
        asked = frame["first"] != frame["second"]
        questions = [
            judge.Question(**row)
            for row in frame.loc[asked, ["prompt", "first", "second", "repeat"]].to_dict("records")
        ]
        records = pd.DataFrame(self._ask(questions), index=frame.index[asked])
        same = {"verdict": "tie", "requests": 0, "input_tokens": 0, "output_tokens": 0}
        records = pd.concat([records, pd.DataFrame([same] * int((~asked).sum()), index=frame.index[~asked])])
        names_of_truth = {1.0: "first", -1.0: "second", 0.0: "tie"}
        return frame.join(records[list(same)]).assign(truth=frame["truth"].map(names_of_truth))

    @property
    def judge_name(self) -> str:
        """Who judges here, for axes and captions."""
        return self.profile.judge.model or "simulated judge"

    def _ask(self, questions: list["judge.Question"]) -> list[dict]:
        settings = self.profile.judge
        if settings.base_url is not None:
            return judge.ask(settings, questions, self.store.root / "verdicts")
        world = WORLDS[self.profile.task.name]
        return judge.simulate(settings, questions, world.gold_reward, self.profile.seeds[0])

    def gold_model_labels(self) -> pd.DataFrame:
        """Which response of each of the task's pairs the gold models prefer that are made here.

        Returns:
            a row for each gold model and pair that the truth tells apart: ``gold``, ``pair``, ``margin``, and whether it
            agrees with the truth (``truth``) and with the human (``human``).
        """
        stages = {
            name: graph.gold_labels(self.profile, name) for name in self.profile.gold_models if self._made_here(name)
        }
        if not self._compute(stages.values()) or not stages:
            return pd.DataFrame()
        pairs = self._read(graph.task(self.profile), "pairs").set_index("pair")
        difference = pairs["gold_reward_a"] - pairs["gold_reward_b"]
        tables = []
        for name, stage in stages.items():
            labels = self._read(stage, "labels").set_index("pair")
            labels["truth"] = labels["prefers_a"] == (difference > 0)
            labels["human"] = labels["prefers_a"] == pairs["human_prefers_a"]
            tables.append(labels.loc[difference != 0, ["margin", "truth", "human"]].assign(gold=name).reset_index())
        return pd.concat(tables, ignore_index=True)

    def _made_here(self, gold: str) -> bool:
        return self.profile.gold_models[gold].model in self.profile.models.pretrained_here

    def _print_forms(self, runs: list[Run]) -> None:
        """How the policies' pairs were laid out (:mod:`weaklib.pairs`)."""
        policies = {policy.key: policy for policy in (run.rewards.inputs["responses"].inputs["model"] for run in runs)}
        files = [self.store.folder(policy) / "pairs.json" for policy in policies.values()]
        records = pd.DataFrame([json.loads(file.read_text(encoding="utf-8")) for file in files])
        for form, rows in records.groupby("form"):
            padding = 100 * rows["padding_share"].mean()
            print(f"{len(rows)} policies, pairs in the {form} form, {padding:.1f}% of positions padding")

    def weak_labels(self, overrides: dict | None = None) -> pd.DataFrame:
        """The annotators' labels of D_u, for each weak model and seed; ``overrides`` are for another annotator than the profile's.

        Returns:
            a row a pair: ``weak, strong, seed, pair, prompt, chosen, rejected, margin, confidence``; its ``decile`` of
            confidence among the labels of its annotator (1 least, 10 most); whether the label is that of the human
            (``human``) and that of the gold reward (``truth``), and whether the human's is (``human_truth``);
            and ``probability``, σ(margin), with which the annotator holds its label to be the human's. ``truth`` and
            ``human_truth`` are missing where no gold reward is known or both responses have the same, margins and
            probabilities where an annotator has none.
        """
        p, stages = self.profile, self._label_stages(overrides)
        if not self._compute(stages.values()):
            return pd.DataFrame()
        pairs = self._read(graph.task(p), "pairs").set_index("pair")
        human = pairs["human_prefers_a"]
        difference = pairs["gold_reward_a"] - pairs["gold_reward_b"]
        truth = (difference > 0).astype("boolean").mask(difference.isna() | (difference == 0))
        tables = []
        for (weak, strong, seed), stage in stages.items():
            labels = self._read(stage, "labels").set_index("pair").assign(weak=weak, strong=strong, seed=seed)
            labels["decile"] = np.ceil(labels["confidence"].rank(pct=True, method="first") * 10).astype(int)
            labels["human"] = labels["prefers_a"] == human[labels.index]
            labels["truth"] = truth[labels.index] == labels["prefers_a"]
            labels["human_truth"] = truth[labels.index] == human[labels.index]
            labels["probability"] = 1 / (1 + np.exp(-labels["margin"]))
            tables.append(labels.drop(columns="prefers_a").reset_index())
        return pd.concat(tables, ignore_index=True)

    def label_costs(self, overrides: dict | None = None) -> pd.DataFrame:
        """What a thousand labels of :meth:`weak_labels` cost once the annotator is there: a row a weak model and seed.

        ``seconds`` (of this machine, with what loading takes), ``tflop`` (2 · parameters · tokens of the forward passes) and, of a judge,
        ``requests`` and ``usd``; missing where an annotator has no such cost.
        """
        stages = self._label_stages(overrides)
        if not self._compute(stages.values()):
            return pd.DataFrame()
        rows = []
        for (weak, strong, seed), stage in stages.items():
            folder, count = self.store.folder(stage), len(self._read(stage, "labels"))
            record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
            row = {"weak": weak, "strong": strong, "seed": seed, "seconds": record["seconds"]}
            if stage.name == "judge_labels":
                asked, price = self._read(stage, "questions"), self.profile.judge.usd_per_million_tokens
                usd = (asked["input_tokens"].sum() * price.input + asked["output_tokens"].sum() * price.output) / 1e6
                row |= {"requests": asked["requests"].sum(), "usd": usd}
                if self.profile.judge.base_url is None:  # who is simulated costs nothing that could be said
                    row |= dict.fromkeys(("seconds", "requests", "usd"), np.nan)
            else:
                row["tflop"] = self._forward_flops(stage) / 1e12
            rows.append(
                {
                    name: value * 1000 / count if name in ("seconds", "tflop", "requests", "usd") else value
                    for name, value in row.items()
                }
            )
        return pd.DataFrame(rows).reindex(columns=["weak", "strong", "seed", "seconds", "tflop", "requests", "usd"])

    def _label_stages(self, overrides: dict | None) -> dict[tuple, Stage]:
        p = parameters.load_profile(self.profile_name, self._overrides | (overrides or {}))
        return {
            (weak, strong, seed): graph.labels(p, "annotator", "unlabeled", seed, weak)
            for (weak, strong), seed in itertools.product(p.models.pairs, p.seeds)
        }

    def _forward_flops(self, stage: Stage) -> float:
        folder, labels = self.store.folder(stage.inputs["annotator"]), self._read(stage, "labels")
        with safe_open(folder / "model.safetensors", framework="numpy") as weights:
            size = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        texts = labels["prompt"] + labels["chosen"] + labels["rejected"]
        passes = 2 if "reference" in stage.inputs else 1  # the implicit reward needs the start's, too
        return 2 * passes * size * sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts.tolist()))

    def baseline_labels(self) -> pd.DataFrame:
        """Labels of D_u by two rules that learn from D_l and read nothing; one row a seed, rule and pair.

        ``majority``: the response (a or b) that D_l's human labels prefer more often. ``length only``: the longer response,
        or the shorter, whichever they do; of two equally long ones the majority's.

        Returns:
            ``weak`` (the rule), ``seed``, ``pair``, and whether the label is that of the human (``human``).
        """
        p = self.profile
        splits = {seed: graph.split(p, seed) for seed in p.seeds}
        if not self._compute(splits.values()):
            return pd.DataFrame()
        pairs = self._read(graph.task(p), "pairs").set_index("pair")
        words_a, words_b = (pairs[f"response_{side}"].str.split().str.len() for side in ("a", "b"))
        human, longer_a, same = pairs["human_prefers_a"], words_a > words_b, words_a == words_b
        tables = []
        for seed, stage in splits.items():
            labeled = self._read(stage, "split").set_index("pair")["part"] == "labeled"
            majority_a = human[labeled].mean() >= 0.5
            longer = (longer_a == human)[labeled & ~same].mean() >= 0.5
            rules = {"majority": majority_a, "length only": (longer_a == longer).mask(same, majority_a)}
            for rule, prefers_a in rules.items():
                right = (human == prefers_a)[~labeled]
                tables.append(
                    pd.DataFrame({"weak": rule, "seed": seed, "pair": right.index, "human": right.to_numpy()})
                )
        return pd.concat(tables, ignore_index=True)

    def counts(self) -> dict:
        """What was met in the task's file (rows, dropped, empty responses, …); empty for the controlled world."""
        file = self.store.folder(graph.task(self.profile)) / "counts.json"
        return parameters.read_yaml(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}

    def save_figure(self, figure, name: str, data: pd.DataFrame, caption: str) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/NAME.{svg,pdf,png,csv,json}``; ``data`` is what the figure shows."""
        folder = figures_folder() / self.profile_name / self.notebook
        files = figures.save_figure(figure, folder, name, f"{self.notebook}: {name}", self._key())
        files.append(figures.save_csv(data, folder, name))
        self.outputs += [*files, save_json(self._provenance(caption, files), folder / f"{name}.json")]

    def save_table(self, frame: pd.DataFrame, name: str, caption: str) -> None:
        """Writes ``figures/PROFILE/tables/NOTEBOOK/NAME.{md,tex,csv}``."""
        folder = figures_folder() / self.profile_name / "tables" / self.notebook
        self.outputs += figures.save_table(frame, folder, name, caption)

    def finish(self) -> None:
        """The notebook's last word: writes the list of its outputs, by which ``reproduce`` knows that it succeeded."""
        outputs = {str(path): sha256(path) for path in self.outputs}
        record = {"notebook": self.notebook, "outputs": outputs, "stages": sorted(map(str, self._stages.values()))}
        save_json(record, runs_folder() / self.profile_name / f"{self.notebook}.json")
        print(f"{len(outputs)} files written, from {len(self._stages)} stages")

    def _compute(self, stages) -> bool:
        """Whether the artifacts are there now: not while a plan is made (``weaklib.plan``), when nothing runs."""
        stages = list(stages)
        self._stages |= {stage.key: stage for stage in upstream(stages)}
        return running.run(stages, self.store)

    def _read(self, stage: Stage, table: str) -> pd.DataFrame:
        return pd.read_parquet(self.store.folder(stage) / f"{table}.parquet")

    def _key(self) -> str:
        """One key for everything the notebook has used."""
        return hashlib.sha256(" ".join(sorted(self._stages)).encode()).hexdigest()[:24]

    def _provenance(self, caption: str, files: list[Path]) -> dict:
        return {
            "caption": caption,
            "notebook": self.notebook,
            "profile": self.profile_name,
            "parameters": self.profile.model_dump(),
            "task_counts": self.counts(),
            "key": self._key(),
            "stages": sorted(map(str, self._stages.values())),
            **_code_version(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "packages": {name: version(name) for name in PACKAGES},
            "device": self.profile.device,
            "sha256": {path.name: sha256(path) for path in files},
        }


def _code_version() -> dict:
    """The last commit that touched code, notebooks or parameters, and whether they differ from it now."""
    paths = ("--", "weaklib", "notebooks/*.ipynb", "params")
    try:
        commit = _git("log", "-1", "--format=%H", *paths)
        return {"commit": commit or None, "dirty": bool(_git("status", "--porcelain", *paths))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _refuse_unknown_parameters(known: set[str]) -> None:
    """Papermill only warns of a parameter that a notebook does not have; here it is an error.

    What it injects is a cell of assignments that begins with "# Parameters".
    """
    if "IPython" not in sys.modules or (shell := sys.modules["IPython"].get_ipython()) is None:
        return
    for cell in shell.user_ns.get("In", []):
        if cell.startswith("# Parameters\n"):
            given = {
                name.id for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Assign) for name in node.targets
            }
            if unknown := given - known:
                raise RequestError(f"unknown parameter {min(unknown)!r}: this notebook has {', '.join(sorted(known))}")
