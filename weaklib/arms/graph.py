"""The study as a graph of stages: what each arm is made of, for a profile ``p``. Building it runs nothing.
A seed draws the split, the annotator, the SFT start, the policy and the sampling; task and base models have none."""

import hashlib
from functools import cache
from pathlib import Path

from weaklib.arms.folders import store_folder
from weaklib.arms.stage import Stage
from weaklib.arms.table import ARMS, Arm  # noqa: F401
from weaklib.data import preference_datasets
from weaklib.data.files import local_folder, sha256
from weaklib.supervisors.labels import ANNOTATORS, TRAINED
from weaklib.supervisors.verdicts import form_text

TOKENIZER = (".json", ".jinja", ".model", ".txt")  # of what may be a model's folder, the files of its tokenizer
LIMITS = {"max_prompt_tokens", "max_response_tokens", "dialogue"}
_hash = cache(sha256)


def task(p) -> Stage:
    """Pairs, demonstrations and prompts. What a file says makes its key, not where it lies or what it is called."""
    settings, execution = p.task.model_dump(exclude={"path", "source", "tokenizer"}), {}
    if p.task.kind == "file":
        execution["path"], settings["sha256"] = str(Path(p.task.path).absolute()), _hash(Path(p.task.path))
    if p.task.kind == "dataset":
        execution["source"] = p.task.source
        if folder := local_folder(p.task.source):
            located = preference_datasets.locate(p.task.name, p.task.parts, p.task.source, None)
            settings["sha256"] = _hash_of([path for files in located.values() for path in files.values()])
            execution["source"] = str(folder.absolute())
        execution["tokenizer"], settings["tokenizer_revision"] = _outside(p, p.task.tokenizer, TOKENIZER)
    return Stage("data.task", {}, settings, execution)


def split(p, seed: int) -> Stage:
    shares = p.model_dump(include={"labeled_fraction", "unlabeled_fraction"})
    return Stage("data.split", {"task": task(p)}, shares | {"seed": seed})


def base(p, model: str) -> Stage:
    """The base model called ``model``: pre-trained here where the profile says how, else a local folder or hub id."""
    if configuration := p.models.pretrained_here.get(model):
        return _trained(p, "training.base", {"task": task(p)}, p.pretraining, 0, model=configuration)
    source, revision = _outside(p, model)
    return Stage("training.base", {}, {"revision": revision, "precision": p.hardware.precision}, {"model": source})


def sft(p, strong: str, seed: int) -> Stage:
    return _trained(p, "training.sft", {"base": base(p, strong), "task": task(p)}, p.sft, seed)


def annotator(p, weak: str, seed: int) -> Stage:
    """``weak`` trained on human labels of D_l: with a scalar head ([B]), or as a policy from its own start ([A])."""
    inputs = {"base": base(p, weak), "labels": labels(p, "human", "labeled", seed)}
    if p.annotator.kind == "implicit_reward":  # its start has learned the chosen responses
        return _policy(p, _trained(p, "training.sft", inputs, p.sft, seed), inputs["labels"], p.annotator, seed)
    return _trained(p, "supervisors.annotator", inputs, p.annotator, seed)


def labels(p, by: str, part: str, seed: int | None = None, weak: str | None = None, repeat: int = 0) -> Stage:
    """Labels of a part of the pairs ``by`` human, annotator, oracle, random, matched, mismatched, gold (the gold model
    ``weak``, made here) or judge (asked again, for its agreement with itself: ``repeat`` 1). ``seed`` draws the split,
    the annotator, random labels, a judge's coin and the noise of human labels."""
    by = p.annotator.kind if by == "annotator" else by
    inputs, parameters = {"task": task(p)}, {"by": by, "part": part}
    if part in ("labeled", "unlabeled") or by == "judge":
        inputs["split"] = split(p, seed)
    if by == "random":
        parameters["seed"] = seed
    elif by == "human" and p.human_noise and part != "proxy":
        parameters |= {"noise": p.human_noise, "seed": seed}
    elif by in ("matched", "mismatched"):
        inputs["weak"] = labels(p, "annotator", part, seed, weak)
    elif by == "gold":
        inputs["annotator"] = gold_model(p, weak)
        parameters |= {"by": "scalar_head", **_scoring(p)}
    elif by == "judge":
        if p.judge.examples:
            inputs["labels"] = labels(p, "human", "labeled", seed)
        # another budget or time-out is another stage, but asks nothing again: the replies are kept one by one
        parameters = {"judge": p.judge.model_dump(), "form": form_text(p.judge.form), "part": part, "seed": seed}
        parameters |= {"repeat": repeat, "world": None if p.judge.base_url else p.task.name}
        replies = {"replies": str(store_folder() / "verdicts")}  # shared with whoever else asks the same
        return Stage("supervisors.judge_labels", inputs, parameters, replies)
    elif by in TRAINED:
        inputs["annotator"] = trained = annotator(p, weak, seed)
        parameters |= _scoring(p)
        if p.annotator.calibrated:
            inputs["temperature"] = _trained(p, "supervisors.temperature", trained.inputs, p.annotator, seed)
        if by == "implicit_reward":
            inputs["reference"], parameters["beta"] = trained.inputs["reference"], p.beta
    elif by in ANNOTATORS:
        inputs["labeled"] = labels(p, "human", "labeled", seed)
    if by in ANNOTATORS:
        parameters["confidently_wrong"] = p.annotator.confidently_wrong
    return Stage("supervisors.labels", inputs, parameters)


def policy(p, arm: Arm, weak: str, strong: str, seed: int, top_percent: float | None = None) -> Stage:
    weighting = "none" if arm.weighting == "top" and top_percent >= 100 else arm.weighting  # 100%: the arm weak
    choice = {"top": {"top_percent": top_percent}, "above": {"threshold": p.confidence_threshold}}.get(weighting, {})
    labelled = labels(p, arm.labels, arm.part, seed, weak)
    return _policy(p, sft(p, strong, seed), labelled, p.policy, seed, p.objective, weighting, **choice)


def gold_model(p, name: str) -> Stage:
    """A gold reward model that is made here, from pairs which the truth has labelled."""
    gold, parameters = p.gold_models[name], p.task.model_dump(include={"name", "prompts", "seed"})
    pairs = Stage("data.gold_pairs", {"task": task(p)}, parameters | {"pairs": gold.pairs})
    truth = Stage("supervisors.labels", {"task": pairs}, {"by": "oracle", "part": "all"})
    return _trained(p, "supervisors.annotator", {"base": base(p, gold.model), "labels": truth}, gold.training, 0)


def responses(p, model: Stage, seed: int, part: str = "test") -> Stage:
    """What ``model`` (a policy, or its SFT start) answers to the prompts of ``part``."""
    parameters = {"part": part, "sampling": p.sampling.model_dump(), "limits": _limits(p)}
    parameters |= {"seed": seed, "device": p.device}
    return Stage("evaluation.responses", {"model": model, "task": task(p)}, parameters)


def rewards(p, model: Stage, seed: int, part: str = "test", gold: str | None = None) -> Stage:
    """Rewards of the responses of a model by the gold model ``gold`` or the task's own: the truth, or its proxy, a
    scalar head on a larger model, trained on pairs no arm has."""
    inputs, name = {"responses": responses(p, model, seed, part)}, gold or p.models.gold
    if name is None and p.task.kind == "world":
        return Stage("evaluation.rewards", inputs, {"world": p.task.name})
    if name is not None and p.gold_models[name].model not in p.models.pretrained_here:
        source, revision = _outside(p, p.gold_models[name].model)
        parameters = p.gold_models[name].model_dump(include={"format", "output"}) | {"revision": revision}
        parameters |= {"batch_tokens": p.batch_tokens, "device": p.device}
        return Stage("evaluation.rewards", inputs, parameters, {"model": source})
    if name is not None:
        head = gold_model(p, name)
    else:
        known = {"base": base(p, p.models.proxy), "labels": labels(p, "human", "proxy")}
        head = _trained(p, "supervisors.annotator", known, p.annotator, 0)
    return Stage("evaluation.rewards", inputs | {"scalar_head": head}, _scoring(p))


def kl(p, trained: Stage, start: Stage, seed: int) -> Stage:
    """How far a policy has gone from its start."""
    sampled = {"responses": responses(p, trained, seed), "start_responses": responses(p, start, seed)}
    return Stage("evaluation.kl", {"policy": trained, "start": start, **sampled}, _scoring(p))


def _policy(p, start: Stage, labels: Stage, training, seed: int, objective="dpo", weighting="none", **choice) -> Stage:
    reference = Stage("training.reference", {"task": task(p), "start": start}, _scoring(p))
    inputs = {"start": start, "labels": labels, "reference": reference}
    choice |= {"objective": objective, "weighting": weighting, "beta": p.beta}
    choice["label_smoothing"] = p.label_smoothing if objective == "rdpo" else 0.0
    return _trained(p, "training.policy", inputs, training, seed, **choice)


def _trained(p, module: str, inputs: dict, training, seed: int, **parameters) -> Stage:
    """What every stage that trains has; ``training`` is a section, with the profile's settings where it lacks them."""
    settings = {"learning_rate": p.learning_rate, "precision": p.hardware.precision}
    settings |= {} if module in ("training.base", "training.sft") else {"batch_tokens": p.batch_tokens}  # of pairs
    settings |= training.model_dump(exclude={"kind", "calibrated", "confidently_wrong"}, exclude_defaults=True)
    parameters |= {"training": settings, "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage(module, inputs, parameters, p.hardware.model_dump(exclude={"precision"}))


def _limits(p) -> dict:
    """How a text becomes tokens, and what a pair is whose responses are equal once cut."""
    return p.model_dump(include=LIMITS) | p.task.model_dump(include={"on_bad_row"})


def _scoring(p) -> dict:
    return {"limits": _limits(p), "batch_tokens": p.batch_tokens, "device": p.device}


def _outside(p, model: str, endings: tuple[str, ...] = ("",)) -> tuple[str, str]:
    """Where a model lies that is not made here, and which it is: its commit, or a hash of files with these endings."""
    source, revision = p.models.source(model)
    if folder := local_folder(source):
        return str(folder.absolute()), _hash_of([path for path in folder.rglob("*") if path.name.endswith(endings)])
    return source, revision


def _hash_of(files: list[Path]) -> str:
    named = "".join(f"{path.name}{_hash(path)}" for path in sorted(files) if path.is_file())
    return hashlib.sha256(named.encode()).hexdigest()
