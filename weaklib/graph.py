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

from weaklib import preference_datasets
from weaklib.files import local_folder, sha256
from weaklib.profile import Profile
from weaklib.sections import PolicyTraining, Training
from weaklib.stage import Stage


@dataclass(frozen=True)
class Arm:
    """One labelled way to train a policy."""

    name: str
    labels: str  # who labels: human, annotator, oracle, random
    part: str  # which pairs: labeled (D_l), unlabeled (D_u), all
    weighting: str  # none, confidence, top, and those of weaklib.stages.policy.weigh


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
        Arm("matched", "matched", "unlabeled", "none"),
        Arm("mismatched", "mismatched", "unlabeled", "none"),
        Arm("margin", "annotator", "unlabeled", "margin"),
        Arm("rank", "annotator", "unlabeled", "rank"),
        Arm("above", "annotator", "unlabeled", "above"),
    )
}


def task(p: Profile) -> Stage:
    parameters = p.task.model_dump()
    if p.task.kind == "file":
        path = Path(p.task.path).absolute()
        parameters |= {"path": str(path), "sha256": _hash(path)}
    if p.task.kind == "dataset":
        parameters = _dataset(p)
    return Stage("task", parameters=parameters)


def split(p: Profile, seed: int) -> Stage:
    shares = {"labeled_fraction": p.labeled_fraction, "unlabeled_fraction": p.unlabeled_fraction}
    return Stage("split", {"task": task(p)}, {**shares, "seed": seed})


def base(p: Profile, model: str) -> Stage:
    """The base model called ``model``: pre-trained here where the profile says how, else a local folder or hub id."""
    if model in p.models.pretrained_here:
        parameters = {"pretraining": _training(p, p.pretraining), "device": p.device, "seed": 0}
        parameters |= {"max_tokens": p.max_prompt_tokens + p.max_response_tokens}
        parameters |= {"model": p.models.pretrained_here[model]}
        return Stage("base", {"task": task(p)}, parameters, _execution(p))
    precision = {} if p.hardware.precision == "float32" else {"precision": p.hardware.precision}
    return Stage("base", parameters=_outside(p, model) | precision)


def annotator(p: Profile, weak: str, seed: int) -> Stage:
    """``weak`` trained on the human labels of D_l: with a scalar head ([B]), or as a policy from its own SFT start ([A])."""
    human = labels(p, "human", "labeled", seed)
    if p.annotator.kind == "scalar_head":
        return _scalar_head(p, weak, human, seed)
    start = annotator_start(p, weak, seed)
    inputs = {
        "start": start,
        "labels": human,
        "reference": _scored(p, "reference", {"task": task(p), "start": start}),
    }
    return _policy(p, inputs, _annotator_training(p), "dpo", seed)


def temperature(p: Profile, weak: str, seed: int) -> Stage:
    """By what the margins of ``weak`` have to be divided to be calibrated, found on D_l."""
    inputs = {"base": base(p, weak), "labels": labels(p, "human", "labeled", seed)}
    parameters = {"training": _annotator_training(p), "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("temperature", inputs, parameters, _execution(p))


def annotator_start(p: Profile, weak: str, seed: int) -> Stage:
    """``weak`` fine-tuned on the chosen responses of D_l, the reference of [A]'s implicit reward."""
    inputs = {"base": base(p, weak), "labels": labels(p, "human", "labeled", seed)}
    parameters = {"training": _launched(p, _training(p, p.sft)), "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("sft", inputs, parameters, _execution(p))


def proxy(p: Profile) -> Stage:
    """The proxy of the gold reward: a scalar head on a larger model, trained on pairs no arm has."""
    return _scalar_head(p, p.models.proxy, labels(p, "human", "proxy"), seed=0)


def labels(p: Profile, by: str, part: str, seed: int | None = None, weak: str | None = None) -> Stage:
    """Labels of one part of the pairs; ``seed`` draws the split, the annotator, random labels and the noise of human ones."""
    inputs, parameters = {"task": task(p)}, {"by": by, "part": part}
    if by in ("matched", "mismatched"):
        return Stage("labels", inputs | {"weak": labels(p, "annotator", part, seed, weak)}, parameters)
    if part in ("labeled", "unlabeled"):
        inputs["split"] = split(p, seed)
    if by == "annotator" and p.annotator.kind == "judge":
        return _judge_labels(p, inputs, part, seed)
    if by == "annotator":
        inputs["annotator"] = annotator(p, weak, seed)
        parameters |= {"by": p.annotator.kind, **_scoring(p)}
        if p.annotator.confidently_wrong:
            parameters["confidently_wrong"] = p.annotator.confidently_wrong
        if p.annotator.calibrated:
            inputs["temperature"] = temperature(p, weak, seed)
        if p.annotator.kind == "implicit_reward":
            inputs["reference"] = inputs["annotator"].inputs["reference"]
            parameters["beta"] = p.beta
    if by == "human" and p.human_noise and part != "proxy":
        parameters["noise"] = p.human_noise
    if by == "random" or "noise" in parameters:
        parameters["seed"] = seed
    return Stage("labels", inputs, parameters, _shards(p) if "batch_tokens" in parameters else {})


def sft(p: Profile, strong: str, seed: int) -> Stage:
    parameters = {"training": _launched(p, _training(p, p.sft)), "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("sft", {"base": base(p, strong), "task": task(p)}, parameters, _execution(p))


def reference(p: Profile, strong: str, seed: int) -> Stage:
    inputs = {"task": task(p), "start": sft(p, strong, seed)}
    return _scored(p, "reference", inputs)


def policy(p: Profile, arm: Arm, weak: str, strong: str, seed: int, top_percent: float | None = None) -> Stage:
    inputs = {
        "start": sft(p, strong, seed),
        "labels": labels(p, arm.labels, arm.part, seed, weak),
        "reference": reference(p, strong, seed),
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
    pairs = Stage("gold_pairs", {"task": task(p)}, parameters)
    truth = Stage("labels", {"task": pairs}, {"by": "oracle", "part": "all"})
    return _scalar_head(p, gold.model, truth, 0, _training(p, gold.training))


def gold_labels(p: Profile, name: str) -> Stage:
    """How a gold model that is made here labels the task's pairs."""
    inputs = {"task": task(p), "annotator": gold_model(p, name)}
    return _scored(p, "labels", inputs, by="scalar_head", part="all")


def responses(p: Profile, model: Stage, seed: int, part: str = "test") -> Stage:
    """What ``model`` (a policy, or its SFT start) answers to the prompts of ``part``."""
    parameters = {"part": part, "sampling": p.sampling.model_dump(exclude_defaults=True), "limits": _limits(p)}
    return Stage("responses", {"model": model, "task": task(p)}, parameters | {"seed": seed, "device": p.device})


def rewards(p: Profile, model: Stage, seed: int, part: str = "test", gold: str | None = None) -> Stage:
    """Gold rewards of the responses of ``model``: the task's own (the truth, or a proxy of it), or those of the gold model ``gold``."""
    answers = responses(p, model, seed, part)
    gold = gold or p.models.gold
    if gold is not None and p.gold_models[gold].model not in p.models.pretrained_here:
        parameters = p.gold_models[gold].model_dump(include={"format", "output"})
        parameters |= {
            "model": _outside(p, p.gold_models[gold].model),
            "batch_tokens": p.batch_tokens,
            "device": p.device,
        }
        return Stage("rewards", {"responses": answers}, parameters, _shards(p))
    if gold is None and p.task.kind == "world":
        return Stage("rewards", {"responses": answers}, {"world": p.task.name})
    head = proxy(p) if gold is None else gold_model(p, gold)
    return _scored(p, "rewards", {"responses": answers, "scalar_head": head})


def kl(p: Profile, trained: Stage, start: Stage, seed: int) -> Stage:
    """How far a policy has gone from its start."""
    inputs = {"policy": trained, "start": start}
    inputs |= {"responses": responses(p, trained, seed), "start_responses": responses(p, start, seed)}
    return _scored(p, "kl", inputs)


def _policy(
    p: Profile,
    inputs: dict[str, Stage],
    training: dict,
    objective: str,
    seed: int,
    weighting: str = "none",
    **selection: float,
) -> Stage:
    parameters = {
        "weighting": weighting,
        **selection,
        "objective": objective,
        "beta": p.beta,
        "label_smoothing": p.label_smoothing if objective == "rdpo" else 0.0,
        "training": _launched(p, training),
        "limits": _limits(p),
        "seed": seed,
        "device": p.device,
    }
    return Stage("policy", inputs, parameters, _execution(p))


def judge_labels(p: Profile, part: str, seed: int, repeat: int) -> Stage:
    """The judge's labels when it is asked again, to be compared with its first: ``repeat`` 0."""
    inputs = {"task": task(p), "split": split(p, seed)}
    return _judge_labels(p, inputs, part, seed, repeat)


def _judge_labels(p: Profile, inputs: dict[str, Stage], part: str, seed: int, repeat: int = 0) -> Stage:
    # another budget or time-out is another stage, but asks nothing again: the verdicts are kept one by one
    parameters = {"judge": p.judge.model_dump(), "part": part, "seed": seed, "repeat": repeat}
    if p.judge.base_url is None:
        parameters["world"] = p.task.name
    if p.judge.examples:
        inputs = inputs | {"labels": labels(p, "human", "labeled", seed)}
    return Stage("judge_labels", inputs, parameters)


def _scalar_head(p: Profile, model: str, labels: Stage, seed: int, training: dict | None = None) -> Stage:
    training = training | {"batch_tokens": p.batch_tokens} if training else _annotator_training(p)
    parameters = {"training": _launched(p, training), "limits": _limits(p), "seed": seed, "device": p.device}
    return Stage("annotator", {"base": base(p, model), "labels": labels}, parameters, _execution(p))


def _annotator_training(p: Profile) -> dict:
    return _training(p, p.annotator) | {"batch_tokens": p.batch_tokens}


def _dataset(p: Profile) -> dict:
    """A dataset's task with what it is read from: the hashes of a folder's files, or the hub's commit."""
    parameters = p.task.model_dump(exclude={"expected"})
    if folder := local_folder(p.task.source):
        files = preference_datasets.locate(p.task.name, p.task.parts, p.task.source, None)
        hashes = {name: _hash(path) for split in files.values() for name, path in split.items()}
        parameters |= {"source": str(folder.absolute()), "sha256": hashes}
    tokenizer, revision = p.models.source(p.task.tokenizer)
    if folder := local_folder(tokenizer):
        tokenizer = str(folder.absolute())
        # of what may be a model's folder, the files that a tokenizer is made of
        texts = sorted(f for f in folder.iterdir() if f.suffix in (".json", ".jinja", ".model", ".txt"))
        revision = hashlib.sha256("".join(f"{f.name}{_hash(f)}" for f in texts).encode()).hexdigest()
    return parameters | {"tokenizer": tokenizer, "tokenizer_revision": revision}


def _training(p: Profile, section: Training | PolicyTraining) -> dict:
    """A section's settings and those of the hardware that change the weights, without what is not used."""
    settings = section.model_dump(include={*Training.model_fields, "vocabulary"}, exclude_none=True)
    if (accumulated := getattr(section, "gradient_accumulation_steps", 1)) > 1:
        settings["gradient_accumulation_steps"] = accumulated
    if p.hardware.precision != "float32":
        settings["precision"] = p.hardware.precision
    return settings | ({"compile": True} if p.hardware.compile else {})


def _launched(p: Profile, training: dict) -> dict:
    """With how many processes, if not in one, and how they share the model."""
    if p.hardware.gpus == 1:
        return training
    return training | {"launch": {"processes": p.hardware.gpus, "strategy": p.hardware.strategy}}


def _execution(p: Profile) -> dict:
    return p.hardware.model_dump(
        include={"checkpoint_steps", "tracker", "gradient_checkpointing"}, exclude_defaults=True
    )


def _outside(p: Profile, model: str) -> dict:
    """A model that is not made here: its folder and the hash of its files, or its hub id and commit."""
    source, revision = p.models.source(model)
    if folder := local_folder(source):
        return {"model": str(folder.absolute()), "revision": _folder_hash(folder)}
    return {"model": source, "revision": revision}


def _scored(p: Profile, name: str, inputs: dict[str, Stage], **parameters: str) -> Stage:
    """A stage that has a model score."""
    return Stage(name, inputs, parameters | _scoring(p), _shards(p))


def _shards(p: Profile) -> dict:
    return {} if p.hardware.shard_batches is None else {"shard_batches": p.hardware.shard_batches}


def _scoring(p: Profile) -> dict:
    return {"limits": _limits(p), "batch_tokens": p.batch_tokens, "device": p.device}


def _limits(p: Profile) -> dict:
    lengths = {"max_prompt_tokens": p.max_prompt_tokens, "max_response_tokens": p.max_response_tokens}
    return lengths | ({"dialogue": p.dialogue} if p.dialogue != "plain" else {})


_hash = cache(sha256)


@cache
def _folder_hash(folder: Path) -> str:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return hashlib.sha256("".join(f"{f.name}{_hash(f)}" for f in files).encode()).hexdigest()
