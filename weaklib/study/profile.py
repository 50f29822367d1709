"""What a profile says: keys, types and ranges, explained by the comments in ``params/``; and what must fit together."""

import os
import re
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, create_model

from weaklib.data.files import local_folder
from weaklib.data.preference_datasets import FORMS
from weaklib.data.world import WORLDS
from weaklib.supervisors.judge import Judge, Settings
from weaklib.supervisors.labels import ANNOTATORS
from weaklib.training.losses import OBJECTIVES


def _distinct(values: list) -> list:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("values repeat")
    return values


Distinct = Annotated[list[TypeVar("Item")], Field(min_length=1), AfterValidator(_distinct)]  # type: ignore[valid-type]
Models = Annotated[list[str], Field(min_length=1), BeforeValidator(lambda m: [m] if isinstance(m, str) else m)]
HHFile = Annotated[str | None, AfterValidator(lambda path: path or os.environ.get("WEAKLIB_HH_FILE"))]
HHPart = Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Part = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class WorldTask(Settings):  # of the controlled world; each number counts prompts of a part of its own
    kind: Literal["world"]
    name: Literal[*WORLDS]  # type: ignore[valid-type]
    prompts: Literal["both", "harmless", "helpful"] = "both"
    corpus: PositiveInt
    demonstrations: PositiveInt
    pairs: PositiveInt
    validation_prompts: PositiveInt
    test_prompts: PositiveInt
    seed: Seed = 0


class FileTask(Settings):  # each share is a part of the file's prompts, what they leave is D_l and D_u
    kind: Literal["file"]
    path: HHFile = Field(None, validate_default=True)
    on_bad_row: Literal["error", "drop"] = "error"
    demonstrations_share: Part
    proxy_share: Part
    test_share: Part
    seed: Seed = 0


class DatasetTask(Settings):  # each share is a part of the training pairs' prompts, what they leave is D_l and D_u
    kind: Literal["dataset"]
    name: Literal[*FORMS]  # type: ignore[valid-type]
    parts: Distinct[HHPart] | None = None  # hh-rlhf only
    source: str  # hub id, or a folder
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None  # the hub's commit
    max_tokens: PositiveInt  # pairs with a longer dialogue are left out
    tokenizer: str  # whose tokens are counted: one of models.published, a folder, or a hub id at a commit
    max_pairs: PositiveInt | None = None  # no more training pairs than so many, all parts together, drawn by the seed
    on_bad_row: Literal["error", "drop"] = "drop"
    demonstrations: Literal["separate", "chosen"] = "separate"  # chosen: of D_l and D_u, which leaks hidden labels
    demonstrations_share: Share = 0.0
    proxy_share: Share = 0.0
    test_prompts: PositiveInt  # of the dataset's own test split
    seed: Seed = 0


class ModelChoice(Settings):  # names of pretrained_here or published, folders, or hub ids at a commit (ID@COMMIT)
    weak: Models
    strong: Models
    proxy: str | None = None
    gold: str | None = None  # the one of gold_models that is the task's own gold reward, where no truth is known
    published: dict[str, str] = {}  # name: the folder or hub id that it stands for
    pretrained_here: dict[str, dict[str, Any]] = {}  # name: a model's configuration, in transformers' own terms

    def source(self, name: str) -> tuple[str, str | None]:
        """Where a model that is not made here is from: a folder and ``None``, or a hub id and its commit, if named."""
        return re.fullmatch("(.*?)(?:@([0-9a-f]{40}))?", self.published.get(name, name)).groups()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(weak, strong), one for each of the longer list."""
        count = max(len(self.weak), len(self.strong))
        return list(zip(*(models * count if len(models) == 1 else models for models in (self.weak, self.strong))))


section = partial(create_model, __base__=Settings)
# low-rank adapters (Hu et al. 2021): arguments of peft.LoraConfig
Lora = section("Lora", r=PositiveInt, lora_alpha=PositiveFloat, lora_dropout=(Rate, 0.0), target_modules=Distinct[str])
Steps = {"epochs": PositiveFloat, "batch_size": PositiveInt}
PolicyTraining = section("PolicyTraining", **Steps, lora=(Lora | None, None))
Training = section("Training", **Steps, learning_rate=PositiveFloat, lora=(Lora | None, None))
TextTraining = section("TextTraining", __base__=Training, gradient_accumulation_steps=(PositiveInt, 1))
Pretraining = section("Pretraining", __base__=TextTraining, vocabulary=PositiveInt)
Kind = Literal[*ANNOTATORS, "judge"]  # type: ignore[valid-type]
Annotator: Any = section(
    "Annotator", __base__=Training, kind=Kind, calibrated=(bool, False), confidently_wrong=(Share, 0.0)
)
Sampling = section("Sampling", temperature=PositiveFloat, max_new_tokens=PositiveInt, batch_tokens=PositiveInt)


class GoldModel(Settings):
    model: str  # of pretrained_here, or a sequence classifier
    pairs: PositiveInt | None = None  # on so many, labelled by the truth and seen by no arm, one made here is trained
    training: Training | None = None
    format: Literal["text", "text_pair", "chat"] = "text"  # how it is given a dialogue
    output: NonNegativeInt = 0  # which of its logits is the reward


class Hardware(Settings):  # the defaults are those of small models on a CPU
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    checkpoint_steps: PositiveInt | None = None  # a stopped training goes on from its last checkpoint


class Profile(Settings):
    """One file of ``params/``."""

    title: str
    notebooks: Annotated[list[str], Field(min_length=1)]
    task: Annotated[WorldTask | FileTask | DatasetTask, Field(discriminator="kind")]
    models: ModelChoice
    device: Annotated[str, Field(pattern="^(cpu|cuda)$")]
    hardware: Hardware = Hardware()
    dialogue: Literal["plain", "chat"] = "plain"  # how a prompt is put to a model: HH-RLHF's form, or its chat template
    seeds: Distinct[Seed]
    labeled_fraction: Part
    unlabeled_fraction: Part | None = None
    human_noise: Share = 0.0
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    batch_tokens: PositiveInt
    pretraining: Pretraining | None = None
    annotator: Annotator
    sft: TextTraining
    objective: Literal[*OBJECTIVES]  # type: ignore[valid-type]
    beta: PositiveFloat
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    learning_rate: PositiveFloat
    policy: PolicyTraining
    sampling: Sampling
    gold_models: dict[str, GoldModel] = {}
    judge: Judge | None = None
    confidence_threshold: Share = 0.5
    top_percent: Annotated[float, Field(gt=0, le=100)] = 30.0
    sweeps: dict[str, Any] = {}  # name: {key: its values} ("key, key": lists of them), or a list for a notebook to use

    def sweep(self, name: str) -> tuple[list[str], list]:
        """The keys that a sweep changes (none for a plain list) and its values; both empty if there is no such one."""
        given = self.sweeps.get(name) or []
        keys, values = next(iter(given.items())) if isinstance(given, dict) else ("", given)
        return keys.split(", ") if keys else [], values

    def rules(self):
        """What must fit together: whether it does not, what is then said, and the section that it is in, if one."""
        task, models, judge, made = self.task, self.models, self.judge, self.models.pretrained_here
        if task.kind == "world":
            odd = task.name != "dialogue" and task.prompts != "both"
            yield odd, f"prompts: {task.prompts} is for dialogue, the task is {task.name}", "task"
            line = f"judge.prompts is {judge and judge.prompts}, the task has {task.test_prompts} test prompts"
            yield judge and judge.prompts > task.test_prompts, line
        else:
            line = "judge.base_url is required: without the truth no judge can be simulated"
            yield judge and judge.base_url is None, line
            yield not (models.proxy or models.gold), f"models.proxy is required: a {task.kind} has no gold reward"
        if task.kind == "file":
            taken = task.demonstrations_share + task.proxy_share + task.test_share
            yield taken >= 1, "demonstrations_share + proxy_share + test_share must be less than 1", "task"
        if task.kind == "dataset":
            hh, folder, share = task.name == "hh-rlhf", local_folder(task.source), task.demonstrations_share
            yield hh and not task.parts, "parts is required: which folders of hh-rlhf, such as harmless-base", "task"
            yield task.parts and not hh, f"parts: {task.name} has none", "task"
            line = f"revision is required: which commit of the hub's dataset {task.source}"
            yield not folder and not task.revision, line, "task"
            yield folder and task.revision, f"revision: {task.source} is a folder, which has none", "task"
            needed = "above 0" if task.demonstrations == "separate" else "0"
            line = f"demonstrations: {task.demonstrations} needs demonstrations_share {needed}"
            yield (share > 0) != (needed == "above 0"), line, "task"
            yield share + task.proxy_share >= 1, "demonstrations_share + proxy_share must be less than 1", "task"
            line = "task.proxy_share must be above 0: models.proxy is trained on that part"
            yield models.proxy is not None and task.proxy_share == 0, line
        uneven = len({len(models.weak), len(models.strong)} - {1}) > 1
        yield uneven, "weak and strong must be of one length, or one of them a single model", "models"
        for section, training in (("sft", self.sft), ("pretraining", self.pretraining or self.sft)):
            rest = training.batch_size % training.gradient_accumulation_steps
            yield rest, f"gradient_accumulation_steps must divide batch_size, {training.batch_size}", section
        line = f"calibrated: temperature scaling is for scalar heads, the annotator is {self.annotator.kind}"
        yield self.annotator.calibrated and self.annotator.kind != "scalar_head", line, "annotator"
        yield made and not self.pretraining, "pretraining is required: models.pretrained_here has models to make"
        labels = self.labeled_fraction + (self.unlabeled_fraction or 0)
        yield labels > 1, "labeled_fraction + unlabeled_fraction must be at most 1"
        yield models.gold not in {None, *self.gold_models}, f"models.gold: {models.gold} is not one of gold_models"
        for name, gold in self.gold_models.items():
            key, here, needs = f"gold_models.{name}:", gold.model in made, "pairs and training"
            yield here and not (gold.pairs and gold.training), f"{key} {gold.model} is made here, which needs {needs}"
            line = f"{key} {gold.model} would be trained on the truth, which a file does not have"
            yield here and task.kind != "world", line
            yield not here and (gold.pairs or gold.training), f"{key} {needs} are for models of pretrained_here"
        needed = self.max_prompt_tokens + max(self.max_response_tokens, self.sampling.max_new_tokens)
        what = "max_prompt_tokens and the longer of max_response_tokens and sampling.max_new_tokens"
        for name, settings in made.items():
            line = f"models.pretrained_here.{name}.max_position_embeddings is less than the {needed} tokens of {what}"
            yield settings.get("max_position_embeddings", needed) < needed, line
        for name, given in self.sweeps.items():
            if isinstance(given, dict):
                yield len(given) != 1, f"sweeps.{name}: one key with its values is needed, these are {len(given)}"
