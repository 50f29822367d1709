"""The sections of a profile: every key, its type and its range; the comments in ``params/sandbox.yaml`` explain them."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from weaklib.data.files import local_folder
from weaklib.data.preference_datasets import FORMS
from weaklib.data.world import WORLDS
from weaklib.supervisors.labels import ANNOTATORS
from weaklib.training.losses import OBJECTIVES


class Section(BaseModel):
    """A part of a profile: strict types, no unknown keys, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def distinct(values: list) -> list:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("values repeat")
    return values


PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)]
Models = Annotated[list[str], Field(min_length=1)]
Part = Annotated[float, Field(gt=0, lt=1)]  # of all pairs
Share = Annotated[float, Field(ge=0, le=1)]
Objective = Literal[*OBJECTIVES]  # type: ignore[valid-type]


class WorldTask(Section):
    """A task of the controlled world (``weaklib.data.world``); each number counts prompts of a part of its own."""

    kind: Literal["world"]
    name: Literal[*WORLDS]  # type: ignore[valid-type]
    prompts: Literal["both", "harmless", "helpful"] = "both"
    corpus: PositiveInt
    demonstrations: PositiveInt
    pairs: PositiveInt
    validation_prompts: PositiveInt
    test_prompts: PositiveInt
    seed: Seed = 0

    @model_validator(mode="after")
    def only_dialogue_has_kinds(self):
        if self.name != "dialogue" and self.prompts != "both":
            raise ValueError(f"prompts: {self.prompts} is for dialogue, the task is {self.name}")
        return self


class FileTask(Section):
    """Preference pairs of a file; each share is a part of its pairs, what they leave is D_l ∪ D_u."""

    kind: Literal["file"]
    path: str | None = None  # None in a file: to be named by an override or WEAKLIB_HH_FILE
    on_bad_row: Literal["error", "drop"] = "error"
    demonstrations_share: Part
    proxy_share: Part
    test_share: Part
    seed: Seed = 0

    @model_validator(mode="after")
    def leaves_pairs(self):
        if self.demonstrations_share + self.proxy_share + self.test_share >= 1:
            raise ValueError("demonstrations_share + proxy_share + test_share must be less than 1")
        return self


# Folders of hh-rlhf that hold preference pairs.
HHPart = Literal["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]


class DatasetTask(Section):
    """Preference pairs of a published dataset, by hub id or from a copy of its repository.

    The shares are of the prompts of its training pairs; what they leave is D_l ∪ D_u. ``demonstrations`` for SFT come from a part of
    their own, or are the chosen responses of D_l ∪ D_u, as in the papers, which leaks the hidden labels of D_u.
    """

    kind: Literal["dataset"]
    name: Literal[*FORMS]  # type: ignore[valid-type]
    parts: Annotated[list[HHPart], Field(min_length=1), AfterValidator(distinct)] | None = None  # hh-rlhf only
    source: str  # hub id, or a folder
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None  # the hub's commit
    max_tokens: PositiveInt  # pairs with a longer dialogue are left out
    tokenizer: str  # whose tokens are counted: one of models.published, a folder, or a hub id at a commit
    max_pairs: PositiveInt | None = None  # no more training pairs than so many, all parts together, drawn by the seed
    on_bad_row: Literal["error", "drop"] = "drop"
    demonstrations: Literal["separate", "chosen"] = "separate"
    demonstrations_share: Share = 0.0
    proxy_share: Share = 0.0
    test_prompts: PositiveInt  # of the dataset's own test split
    seed: Seed = 0

    @model_validator(mode="after")
    def parts_are_of_hh(self):
        if self.name == "hh-rlhf" and self.parts is None:
            raise ValueError("parts is required: which folders of hh-rlhf, such as harmless-base")
        if self.name != "hh-rlhf" and self.parts is not None:
            raise ValueError(f"parts: {self.name} has none")
        return self

    @model_validator(mode="after")
    def a_hub_id_is_pinned(self):
        folder = local_folder(self.source)
        if folder is None and self.revision is None:
            raise ValueError(f"revision is required: which commit of the hub's dataset {self.source}")
        if folder is not None and self.revision is not None:
            raise ValueError(f"revision: {self.source} is a folder, which has none")
        return self

    @model_validator(mode="after")
    def leaves_pairs(self):
        if (self.demonstrations == "separate") != (self.demonstrations_share > 0):
            needed = "above 0" if self.demonstrations == "separate" else "0"
            raise ValueError(f"demonstrations: {self.demonstrations} needs demonstrations_share {needed}")
        if self.demonstrations_share + self.proxy_share >= 1:
            raise ValueError("demonstrations_share + proxy_share must be less than 1")
        return self


class ModelChoice(Section):
    """Which base models: names of ``pretrained_here`` or ``published``, local folders, or hub ids at a commit (``owner/model@COMMIT``)."""

    weak: Models
    strong: Models
    proxy: str | None = None
    gold: str | None = None  # the one of gold_models that is the task's own gold reward, where no truth is known
    # name → the local folder or hub id that it stands for
    published: dict[str, str] = {}
    # name → the configuration from which a model is made and pre-trained here, in transformers' own terms
    pretrained_here: dict[str, dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def one_is_a_list(cls, values):
        if isinstance(values, dict):
            return {k: [v] if k in ("weak", "strong") and isinstance(v, str) else v for k, v in values.items()}
        return values

    @model_validator(mode="after")
    def pair_up(self):
        if len(self.weak) != len(self.strong) and 1 not in (len(self.weak), len(self.strong)):
            raise ValueError("weak and strong must be of one length, or one of them a single model")
        return self

    def source(self, name: str) -> tuple[str, str | None]:
        """Where a model that is not made here comes from: a folder and ``None``, or a hub id and its commit (``None`` if not named)."""
        source, _, commit = self.published.get(name, name).rpartition("@")
        return (source, commit) if re.fullmatch("[0-9a-f]{40}", commit) else (self.published.get(name, name), None)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(weak, strong), one for each of the longer list."""
        count = max(len(self.weak), len(self.strong))
        return list(zip(*(models * count if len(models) == 1 else models for models in (self.weak, self.strong))))


class Lora(Section):
    """Low-rank adapters instead of all weights (Hu et al. 2021): arguments of ``peft.LoraConfig``."""

    r: PositiveInt
    lora_alpha: PositiveFloat
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[str], Field(min_length=1), AfterValidator(distinct)]


class Training(Section):
    epochs: PositiveFloat
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    lora: Lora | None = None


class TextTraining(Training):
    """Of a language model on texts. (Pairs are put into batches of ``batch_tokens``, however many a step has.)"""

    gradient_accumulation_steps: PositiveInt = 1

    @model_validator(mode="after")
    def steps_divide(self):
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(f"gradient_accumulation_steps must divide batch_size, {self.batch_size}")
        return self


class Pretraining(TextTraining):
    vocabulary: PositiveInt


class Annotator(Training):
    kind: Literal[*ANNOTATORS, "judge"]  # type: ignore[valid-type]
    calibrated: bool = False
    confidently_wrong: Share = 0.0

    @model_validator(mode="after")
    def only_scalar_heads_are_calibrated(self):
        if self.calibrated and self.kind != "scalar_head":
            raise ValueError(f"calibrated: temperature scaling is for scalar heads, the annotator is {self.kind}")
        return self


class PolicyTraining(Section):
    epochs: PositiveFloat
    batch_size: PositiveInt
    lora: Lora | None = None


class GoldModel(Section):
    """A reward model that scores responses beside the task's own gold reward.

    One that is made here (``model`` of ``pretrained_here``) is trained on ``pairs`` pairs labelled by the truth, which no arm sees.
    Any other is a local folder or hub id of a sequence-classification model: ``format`` says how it is given a dialogue,
    and ``output`` which of its logits is the reward.
    """

    model: str
    pairs: PositiveInt | None = None
    training: Training | None = None
    format: Literal["text", "text_pair", "chat"] = "text"
    output: Annotated[int, Field(ge=0)] = 0


class Sampling(Section):
    temperature: PositiveFloat
    max_new_tokens: PositiveInt
    batch_tokens: PositiveInt


class Hardware(Section):
    """How the stages of large models run; the defaults are those of small ones on a CPU."""

    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    checkpoint_steps: PositiveInt | None = None  # a stopped training goes on from its last checkpoint
