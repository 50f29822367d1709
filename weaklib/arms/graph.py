"""The study as a graph of stages: what each arm is made of. Building it runs nothing.

::

    task → split → labels of D_l → annotator → labels of D_u ─┐
       └→ base → sft → reference log-probs ───────────────────┴→ policy → responses → rewards

A seed draws the split, the annotator, the SFT start, the policy and the sampling; task and base models have none. ``p`` is always a
:class:`weaklib.study.profile.Profile`.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from weaklib.arms.stage import Stage
from weaklib.arms.table import ARMS, Arm
from weaklib.data import preference_datasets
from weaklib.data.files import local_folder, sha256
from weaklib.supervisors.judge import form_text
from weaklib.supervisors.labels import TRAINED

__all__ = ["ARMS", "Arm"]
Profile = Any


def task(p: Profile) -> Stage:
    parameters, execution = p.task.model_dump(), {}
    if p.task.kind == "file":  # what it says is read, not what it is called
        execution = {"path": str(Path(parameters.pop("path")).absolute())}
        parameters["sha256"] = _hash(Path(execution["path"]))
    if p.task.kind == "dataset":
        parameters, execution = _dataset(p)
    return Stage("data.task", {}, parameters, execution)


def split(p: Profile, seed: int) -> Stage:
    shares = {"labeled_fraction": p.labeled_fraction, "unlabeled_fraction": p.unlabeled_fraction}
    return Stage("data.split", {"task": task(p)}, {**shares, "seed": seed})


def base(p: Profile, model: str) -> Stage:
    """The base model called ``model``: pre-trained here where the profile says how, else a local folder or hub id."""
    if model in p.models.pretrained_here:
        parameters = {"pretraining": _training(p, p.pretraining), "device": p.device, "seed": 0}
        parameters |= {"max_tokens": p.max_prompt_tokens + p.max_response_tokens}
        parameters |= {"model": p.models.pretrained_here[model]}
        return Stage("training.base", {"task": task(p)}, parameters, _execution(p))
    precision = {} if p.hardware.precision == "float32" else {"precision": p.hardware.precision}
    return Stage("training.base", parameters=_outside(p, model) | precision)


def annotator(p: Profile, weak: str, seed: int) -> Stage:
    """``weak`` trained on the human labels of D_l: with a scalar head ([B]), or as a policy from its own SFT start ([A])."""
    human = labels(p, "human", "labeled", seed)
    if p.annotator.kind == "scalar_head":
        return _scalar_head(p, weak, human, seed, _annotator_training(p))
    # the reference of [A]'s implicit reward is fine-tuned on the chosen responses of D_l
    start = Stage(
        "training.sft", {"base": base(p, weak), "labels": human}, _trained(p, _training(p, p.sft), seed), _execution(p)
    )
    reference = Stage("training.reference", {"task": task(p), "start": start}, _scoring(p))
    return _policy(p, {"start": start, "labels": human, "reference": reference}, _annotator_training(p), "dpo", seed)


def temperature(p: Profile, weak: str, seed: int) -> Stage:
    """By what the margins of ``weak`` have to be divided to be calibrated, found on D_l."""
    inputs = {"base": base(p, weak), "labels": labels(p, "human", "labeled", seed)}
    return Stage("supervisors.temperature", inputs, _trained(p, _annotator_training(p), seed), _execution(p))


def proxy(p: Profile) -> Stage:
    """The proxy of the gold reward: a scalar head on a larger model, trained on pairs no arm has."""
    return _scalar_head(p, p.models.proxy, labels(p, "human", "proxy"), 0, _annotator_training(p))


def labels(p: Profile, by: str, part: str, seed: int | None = None, weak: str | None = None) -> Stage:
    """Labels of one part of the pairs; ``seed`` draws the split, the annotator, random labels and the noise of human ones."""
    inputs, kind = {"task": task(p)}, p.annotator.kind
    parameters: dict = {"by": by, "part": part}
    if by in ("matched", "mismatched"):
        return Stage("supervisors.labels", inputs | {"weak": labels(p, "annotator", part, seed, weak)}, parameters)
    if part in ("labeled", "unlabeled"):
        inputs["split"] = split(p, seed)
    if by == "annotator" and kind == "judge":
        return judge_labels(p, part, seed)
    if by == "annotator":
        parameters["by"] = kind
        if p.annotator.confidently_wrong:
            parameters["confidently_wrong"] = p.annotator.confidently_wrong
    if by == "annotator" and kind not in TRAINED:
        inputs["labeled"] = labels(p, "human", "labeled", seed)
    elif by == "annotator":
        inputs["annotator"] = annotator(p, weak, seed)
        parameters |= _scoring(p)
        if p.annotator.calibrated:
            inputs["temperature"] = temperature(p, weak, seed)
        if kind == "implicit_reward":
            inputs["reference"] = inputs["annotator"].inputs["reference"]
            parameters["beta"] = p.beta
    if by == "human" and p.human_noise and part != "proxy":
        parameters["noise"] = p.human_noise
    if by == "random" or "noise" in parameters:
        parameters["seed"] = seed
    return Stage("supervisors.labels", inputs, parameters)


def judge_labels(p: Profile, part: str, seed: int, repeat: int = 0) -> Stage:
    """The judge's labels; when it is asked again, to be compared with its first: ``repeat`` 1."""
    inputs = {"task": task(p), "split": split(p, seed)}
    # another budget or time-out is another stage, but asks nothing again: the replies are kept one by one
    parameters = {"judge": p.judge.model_dump(), "form": form_text(p.judge.form)}
    parameters |= {"part": part, "seed": seed, "repeat": repeat}
    if p.judge.base_url is None:
        parameters["world"] = p.task.name
    if p.judge.examples:
        inputs["labels"] = labels(p, "human", "labeled", seed)
    return Stage("supervisors.judge_labels", inputs, parameters, folders={"journals": "verdicts"})


def sft(p: Profile, strong: str, seed: int) -> Stage:
    inputs = {"base": base(p, strong), "task": task(p)}
    return Stage("training.sft", inputs, _trained(p, _training(p, p.sft), seed), _execution(p))


def policy(p: Profile, arm: Arm, weak: str, strong: str, seed: int, top_percent: float | None = None) -> Stage:
    start = sft(p, strong, seed)
    inputs = {
        "start": start,
        "labels": labels(p, arm.labels, arm.part, seed, weak),
        "reference": Stage("training.reference", {"task": task(p), "start": start}, _scoring(p)),
    }
    training = _training(p, p.policy) | {"learning_rate": p.learning_rate, "batch_tokens": p.batch_tokens}
    if arm.weighting == "above":
        return _policy(p, inputs, training, p.objective, seed, "above", threshold=p.confidence_threshold)
    if arm.weighting == "top" and top_percent < 100:
        return _policy(p, inputs, training, p.objective, seed, "top", top_percent=top_percent)
    # all of them: the same training as the arm weak
    return _policy(p, inputs, training, p.objective, seed, "none" if arm.weighting == "top" else arm.weighting)


def gold_model(p: Profile, name: str) -> Stage:
    """A gold reward model that is made here, from pairs which the truth has labelled."""
    gold = p.gold_models[name]
    parameters = {"name": p.task.name, "prompts": p.task.prompts, "pairs": gold.pairs, "seed": p.task.seed}
    pairs = Stage("data.gold_pairs", {"task": task(p)}, parameters)
    truth = Stage("supervisors.labels", {"task": pairs}, {"by": "oracle", "part": "all"})
    training = _training(p, gold.training) | {"batch_tokens": p.batch_tokens}
    return _scalar_head(p, gold.model, truth, 0, training)


def gold_labels(p: Profile, name: str) -> Stage:
    """How a gold model that is made here labels the task's pairs."""
    inputs = {"task": task(p), "annotator": gold_model(p, name)}
    return Stage("supervisors.labels", inputs, {"by": "scalar_head", "part": "all"} | _scoring(p))


def responses(p: Profile, model: Stage, seed: int, part: str = "test") -> Stage:
    """What ``model`` (a policy, or its SFT start) answers to the prompts of ``part``."""
    parameters = {
        "part": part,
        "sampling": p.sampling.model_dump(),
        "limits": _limits(p),
        "seed": seed,
        "device": p.device,
    }
    return Stage("evaluation.responses", {"model": model, "task": task(p)}, parameters)


def rewards(p: Profile, model: Stage, seed: int, part: str = "test", gold: str | None = None) -> Stage:
    """Gold rewards of the responses of ``model``: the task's own (the truth, or a proxy of it), or those of the gold model ``gold``."""
    inputs, gold = {"responses": responses(p, model, seed, part)}, gold or p.models.gold
    if gold is None and p.task.kind == "world":
        return Stage("evaluation.rewards", inputs, {"world": p.task.name})
    if gold is not None and p.gold_models[gold].model not in p.models.pretrained_here:
        parameters = p.gold_models[gold].model_dump(include={"format", "output"})
        parameters |= {
            "model": _outside(p, p.gold_models[gold].model),
            "batch_tokens": p.batch_tokens,
            "device": p.device,
        }
        return Stage("evaluation.rewards", inputs, parameters)
    head = proxy(p) if gold is None else gold_model(p, gold)
    return Stage("evaluation.rewards", inputs | {"scalar_head": head}, _scoring(p))


def kl(p: Profile, trained: Stage, start: Stage, seed: int) -> Stage:
    """How far a policy has gone from its start."""
    inputs = {"policy": trained, "start": start}
    inputs |= {"responses": responses(p, trained, seed), "start_responses": responses(p, start, seed)}
    return Stage("evaluation.kl", inputs, _scoring(p))


def _policy(p, inputs, training: dict, objective: str, seed: int, weighting: str = "none", **selection: float) -> Stage:
    parameters = {"weighting": weighting, **selection, "objective": objective, "beta": p.beta}
    parameters["label_smoothing"] = p.label_smoothing if objective == "rdpo" else 0.0
    return Stage("training.policy", inputs, parameters | _trained(p, training, seed), _execution(p))


def _scalar_head(p: Profile, model: str, labels: Stage, seed: int, training: dict) -> Stage:
    inputs = {"base": base(p, model), "labels": labels}
    return Stage("supervisors.annotator", inputs, _trained(p, training, seed), _execution(p))


def _trained(p: Profile, training: dict, seed: int) -> dict:
    return {"training": training, "limits": _limits(p), "seed": seed, "device": p.device}


def _annotator_training(p: Profile) -> dict:
    return _training(p, p.annotator) | {"batch_tokens": p.batch_tokens}


def _training(p: Profile, section) -> dict:
    """A section's settings and those of the hardware that change the weights, without what is not used."""
    names = {"epochs", "batch_size", "learning_rate", "lora", "vocabulary"} & set(type(section).model_fields)
    settings = section.model_dump(include=names, exclude_none=True)
    if (accumulated := getattr(section, "gradient_accumulation_steps", 1)) > 1:
        settings["gradient_accumulation_steps"] = accumulated
    return settings | ({"precision": p.hardware.precision} if p.hardware.precision != "float32" else {})


def _execution(p: Profile) -> dict:
    return p.hardware.model_dump(include={"checkpoint_steps", "gradient_checkpointing"}, exclude_defaults=True)


def _scoring(p: Profile) -> dict:
    return {"limits": _limits(p), "batch_tokens": p.batch_tokens, "device": p.device}


def _limits(p: Profile) -> dict:
    lengths = {"max_prompt_tokens": p.max_prompt_tokens, "max_response_tokens": p.max_response_tokens}
    return lengths | ({"dialogue": p.dialogue} if p.dialogue != "plain" else {})


def _dataset(p: Profile) -> tuple[dict, dict]:
    """A dataset's task with what it is read from: the hashes of a folder's files, or the hub's commit."""
    parameters, execution = p.task.model_dump(exclude={"source"}), {"source": p.task.source}
    if folder := local_folder(p.task.source):
        files = preference_datasets.locate(p.task.name, p.task.parts, p.task.source, None)
        hashes = {name: _hash(path) for split in files.values() for name, path in split.items()}
        execution = {"source": str(folder.absolute())}
        parameters["sha256"] = hashes
    tokenizer, revision = p.models.source(p.task.tokenizer)
    if folder := local_folder(tokenizer):
        tokenizer = str(folder.absolute())
        # of what may be a model's folder, the files that a tokenizer is made of
        texts = sorted(f for f in folder.iterdir() if f.suffix in (".json", ".jinja", ".model", ".txt"))
        revision = hashlib.sha256("".join(f"{f.name}{_hash(f)}" for f in texts).encode()).hexdigest()
    return parameters | {"tokenizer": tokenizer, "tokenizer_revision": revision}, execution


def _outside(p: Profile, model: str) -> dict:
    """A model that is not made here: its folder and the hash of its files, or its hub id and commit."""
    source, revision = p.models.source(model)
    if folder := local_folder(source):
        return {"model": str(folder.absolute()), "revision": _folder_hash(folder)}
    return {"model": source, "revision": revision}


_hash = cache(sha256)


@cache
def _folder_hash(folder: Path) -> str:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return hashlib.sha256("".join(f"{f.name}{_hash(f)}" for f in files).encode()).hexdigest()
