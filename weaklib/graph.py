"""The study as a graph of stages: what each arm is made of. Building it runs nothing.

::

    task → split → labels of D_l → annotator → labels of D_u ─┐
       └→ base → sft → reference log-probs ───────────────────┴→ policy → responses → rewards

A seed draws the split, the annotator, the SFT start, the policy and the sampling; task and base models have none.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from weaklib.files import sha256
from weaklib.parameters import Profile
from weaklib.stage import Stage


@dataclass(frozen=True)
class Arm:
    """One labelled way to train a policy."""

    name: str
    labels: str  # who labels: human, annotator, oracle, random
    part: str  # which pairs: labeled (D_l), unlabeled (D_u), all
    weighting: str  # none, confidence, top


ARMS = {
    arm.name: arm
    for arm in (
        Arm("human", "human", "unlabeled", "none"),
        Arm("human_all", "human", "all", "none"),
        Arm("labeled_only", "human", "labeled", "none"),
        Arm("weak", "annotator", "unlabeled", "none"),
        Arm("top", "annotator", "unlabeled", "top"),
        Arm("cw", "annotator", "unlabeled", "confidence"),
        Arm("oracle", "oracle", "unlabeled", "none"),
        Arm("random", "random", "unlabeled", "none"),
    )
}


def task(p: Profile) -> Stage:
    parameters = p.task.model_dump()
    if p.task.kind == "file":
        path = Path(p.task.path).absolute()
        parameters |= {"path": str(path), "sha256": _hash(path)}
    return Stage("task", parameters=parameters)


def split(p: Profile, seed: int) -> Stage:
    return Stage("split", {"task": task(p)}, {"labeled_fraction": p.labeled_fraction, "seed": seed})


def base(p: Profile, model: str) -> Stage:
    """The base model called ``model``: pre-trained here where the profile says how, else a local folder or hub id."""
    if model in p.models.pretrained_here:
        parameters = {"pretraining": p.pretraining.model_dump(), "device": p.device, "seed": 0}
        parameters |= {"max_tokens": p.max_prompt_tokens + p.max_response_tokens}
        return Stage("base", {"task": task(p)}, {"model": p.models.pretrained_here[model], **parameters})
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Stage("base", parameters={"model": str(folder.absolute()), "revision": _folder_hash(folder)})
    return Stage("base", parameters={"model": model})


def annotator(p: Profile, weak: str, seed: int) -> Stage:
    """A scalar head on ``weak``, trained on the human labels of D_l."""
    return _scalar_head(p, weak, labels(p, "human", "labeled", seed), seed)


def proxy(p: Profile) -> Stage:
    """The proxy of the gold reward: a scalar head on a larger model, trained on pairs no arm has."""
    return _scalar_head(p, p.models.proxy, labels(p, "human", "proxy"), seed=0)


def labels(p: Profile, by: str, part: str, seed: int | None = None, weak: str | None = None) -> Stage:
    """Labels of one part of the pairs; ``seed`` draws the split, the annotator and random labels."""
    inputs, parameters = {"task": task(p)}, {"by": by, "part": part}
    if part in ("labeled", "unlabeled"):
        inputs["split"] = split(p, seed)
    if by == "annotator":
        inputs["annotator"] = annotator(p, weak, seed)
        parameters |= {"by": p.annotator.kind, **_scoring(p)}
    if by == "random":
        parameters["seed"] = seed
    return Stage("labels", inputs, parameters)


def sft(p: Profile, strong: str, seed: int) -> Stage:
    parameters = {"training": p.sft.model_dump(), "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("sft", {"base": base(p, strong), "task": task(p)}, parameters)


def reference(p: Profile, strong: str, seed: int) -> Stage:
    inputs = {"task": task(p), "start": sft(p, strong, seed)}
    return Stage("reference", inputs, _scoring(p))


def policy(p: Profile, arm: Arm, weak: str, strong: str, seed: int, top_percent: float | None = None) -> Stage:
    inputs = {
        "start": sft(p, strong, seed),
        "labels": labels(p, arm.labels, arm.part, seed, weak),
        "reference": reference(p, strong, seed),
    }
    everything = arm.weighting == "top" and top_percent == 100  # the same training as the arm weak
    parameters = {
        "weighting": "none" if everything else arm.weighting,
        "top_percent": None if everything else top_percent,
        "objective": p.objective,
        "beta": p.beta,
        "label_smoothing": p.label_smoothing if p.objective == "rdpo" else 0.0,
        "training": p.policy.model_dump() | {"learning_rate": p.learning_rate, "batch_tokens": p.batch_tokens},
        "limits": _limits(p),
        "seed": seed,
        "device": p.device,
    }
    return Stage("policy", inputs, parameters)


def rewards(p: Profile, model: Stage, seed: int, part: str = "test") -> Stage:
    """Gold rewards of responses that ``model`` (a policy, or its SFT start) samples for the prompts of ``part``."""
    parameters = {"part": part, "sampling": p.sampling.model_dump(), "limits": _limits(p)}
    parameters |= {"seed": seed, "device": p.device}
    responses = Stage("responses", {"model": model, "task": task(p)}, parameters)
    if p.task.kind == "world":
        return Stage("rewards", {"responses": responses}, {"world": p.task.name})
    return Stage("rewards", {"responses": responses, "proxy": proxy(p)}, _scoring(p))


def _scalar_head(p: Profile, model: str, human_labels: Stage, seed: int) -> Stage:
    training = p.annotator.model_dump(exclude={"kind"}) | {"batch_tokens": p.batch_tokens}
    parameters = {"training": training, "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("annotator", {"base": base(p, model), "labels": human_labels}, parameters)


def _scoring(p: Profile) -> dict:
    return {"limits": _limits(p), "batch_tokens": p.batch_tokens, "device": p.device}


def _limits(p: Profile) -> dict:
    return {"max_prompt_tokens": p.max_prompt_tokens, "max_response_tokens": p.max_response_tokens}


_hash = cache(sha256)


@cache
def _folder_hash(folder: Path) -> str:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return hashlib.sha256("".join(f"{f.name}{_hash(f)}" for f in files).encode()).hexdigest()
