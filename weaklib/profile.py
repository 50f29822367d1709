"""What a profile may say as a whole: its sections (:mod:`weaklib.sections`), its sweeps, and what must fit together."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from weaklib.sections import (
    Annotator,
    DatasetTask,
    FileTask,
    GoldModel,
    Hardware,
    Judge,
    ModelChoice,
    Models,
    Numbers,
    Objective,
    Pair,
    Part,
    Percents,
    PolicyTraining,
    PositiveFloat,
    PositiveInt,
    Pretraining,
    Sampling,
    Section,
    Seeds,
    Share,
    Shares,
    TextTraining,
    WorldTask,
    distinct,
)

# Notebooks that compare tasks of the controlled world, or change its noise and ask its truth.
NEED_A_WORLD = ("09_tasks", "13_label_noise")

# The sweeps that a notebook needs its profile to name.
SWEEPS = {
    "01_supervisor_size": ("supervisors", "judge"),
    "02_student_size": ("students",),
    "03_model_families": ("families",),
    "04_labeled_split": ("labeled_sixteenths", "labeled_fractions"),
    "06_cw_po": ("objectives",),
    "08_judge": ("judge",),
    "10_feedback_quality": ("judge",),
    "11_confidence_function": ("confidence_thresholds", "confidently_wrong"),
    "12_beta": ("betas", "epochs"),
    "13_label_noise": ("human_noises", "noise_fractions"),
}


class Profile(Section):
    """One file of ``params/``; the comments there explain each key."""

    title: str
    notebooks: Annotated[list[str], Field(min_length=1)]
    task: Annotated[WorldTask | FileTask | DatasetTask, Field(discriminator="kind")]
    models: ModelChoice
    device: Annotated[str, Field(pattern="^(cpu|cuda)$")]
    hardware: Hardware = Hardware()
    dialogue: Literal["plain", "chat"] = "plain"  # how a prompt is put to a model: HH-RLHF's form, or its chat template
    seeds: Seeds
    labeled_fraction: Part
    unlabeled_fraction: Part | None = None
    human_noise: Share = 0.0
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    batch_tokens: PositiveInt
    pretraining: Pretraining | None = None
    annotator: Annotator
    sft: TextTraining
    objective: Objective
    beta: PositiveFloat
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    learning_rate: PositiveFloat
    policy: PolicyTraining
    sampling: Sampling
    gold_models: dict[str, GoldModel] = {}
    judge: Judge | None = None
    confidence_threshold: Share = 0.5
    supervisors: Annotated[Models, AfterValidator(distinct)] | None = None
    students: Annotated[Models, AfterValidator(distinct)] | None = None
    families: Annotated[list[Pair], Field(min_length=1), AfterValidator(distinct)] | None = None
    labeled_sixteenths: (
        Annotated[list[Annotated[int, Field(ge=1, le=15)]], Field(min_length=1), AfterValidator(distinct)] | None
    ) = None
    labeled_fractions: Annotated[list[Part], Field(min_length=1), AfterValidator(distinct)] | None = None
    top_percents: Percents
    objectives: Annotated[list[Objective], Field(min_length=1), AfterValidator(distinct)] | None = None
    confidence_thresholds: Shares | None = None
    confidently_wrong: Shares | None = None
    betas: Numbers | None = None
    epochs: Numbers | None = None
    human_noises: Shares | None = None
    noise_fractions: Annotated[list[Part], Field(min_length=1), AfterValidator(distinct)] | None = None

    @model_validator(mode="after")
    def every_notebook_has_its_sweep(self):
        for notebook in self.notebooks:
            for key in SWEEPS.get(notebook, ()):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is required by {notebook}")
            if notebook in NEED_A_WORLD and self.task.kind != "world":
                raise ValueError(f"{notebook} needs a task of the controlled world")
        return self

    @model_validator(mode="after")
    def models_made_here_are_pretrained(self):
        if self.models.pretrained_here and self.pretraining is None:
            raise ValueError("pretraining is required: models.pretrained_here has models to make")
        return self

    @model_validator(mode="after")
    def adapters_are_not_sharded(self):
        adapted = any(section.lora for section in (self.annotator, self.sft, self.policy))
        if adapted and self.hardware.gpus > 1 and self.hardware.strategy != "ddp":
            raise ValueError(f"hardware.strategy: LoRA on several GPUs is for ddp, not {self.hardware.strategy}")
        return self

    @model_validator(mode="after")
    def the_parts_fit(self):
        if self.unlabeled_fraction is not None and self.labeled_fraction + self.unlabeled_fraction > 1:
            raise ValueError("labeled_fraction + unlabeled_fraction must be at most 1")
        return self

    @model_validator(mode="after")
    def a_gold_reward_is_named(self):
        gold = self.models.gold
        if gold is not None and gold not in self.gold_models:
            raise ValueError(f"models.gold: {gold} is not one of gold_models")
        if self.task.kind != "world" and self.models.proxy is None and gold is None:
            raise ValueError(f"models.proxy is required: a {self.task.kind} has no gold reward")
        return self

    @model_validator(mode="after")
    def a_dataset_has_what_it_needs(self):
        if self.task.kind != "dataset":
            return self
        if self.models.proxy is not None and self.task.proxy_share == 0:
            raise ValueError("task.proxy_share must be above 0: models.proxy is trained on that part")
        return self

    @model_validator(mode="after")
    def gold_models_are_whole(self):
        for name, gold in self.gold_models.items():
            made_here = gold.model in self.models.pretrained_here
            if made_here and (gold.pairs is None or gold.training is None):
                raise ValueError(f"gold_models.{name}: {gold.model} is made here, which needs pairs and training")
            if made_here and self.task.kind != "world":
                raise ValueError(
                    f"gold_models.{name}: {gold.model} would be trained on the truth, which a file does not have"
                )
            if not made_here and (gold.pairs or gold.training):
                raise ValueError(f"gold_models.{name}: pairs and training are for models of pretrained_here")
        return self

    @model_validator(mode="after")
    def the_judge_has_enough_to_judge(self):
        if self.judge and self.task.kind == "world" and self.judge.prompts > self.task.test_prompts:
            raise ValueError(
                f"judge.prompts is {self.judge.prompts}, the task has {self.task.test_prompts} test prompts"
            )
        if self.judge and self.task.kind != "world" and self.judge.base_url is None:
            raise ValueError("judge.base_url is required: without the truth no judge can be simulated")
        return self

    @model_validator(mode="after")
    def texts_fit_the_models(self):
        needed = self.max_prompt_tokens + max(self.max_response_tokens, self.sampling.max_new_tokens)
        for name, configuration in self.models.pretrained_here.items():
            if configuration.get("max_position_embeddings", needed) < needed:
                raise ValueError(
                    f"models.pretrained_here.{name}.max_position_embeddings is less than the {needed} tokens of "
                    "max_prompt_tokens and the longer of max_response_tokens and sampling.max_new_tokens"
                )
        return self
