"""What a profile may say as a whole: its sections (:mod:`weaklib.study.sections`), its sweeps, and what must fit together."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from weaklib.study import sections
from weaklib.study.sections import Part, PositiveFloat, PositiveInt, Section, Share
from weaklib.supervisors.judge_settings import Judge


class Profile(Section):
    """One file of ``params/``; the comments there explain each key."""

    title: str
    notebooks: Annotated[list[str], Field(min_length=1)]
    task: Annotated[sections.WorldTask | sections.FileTask | sections.DatasetTask, Field(discriminator="kind")]
    models: sections.ModelChoice
    device: Annotated[str, Field(pattern="^(cpu|cuda)$")]
    hardware: sections.Hardware = sections.Hardware()
    dialogue: Literal["plain", "chat"] = "plain"  # how a prompt is put to a model: HH-RLHF's form, or its chat template
    seeds: sections.Seeds
    labeled_fraction: Part
    unlabeled_fraction: Part | None = None
    human_noise: Share = 0.0
    max_prompt_tokens: PositiveInt
    max_response_tokens: PositiveInt
    batch_tokens: PositiveInt
    pretraining: sections.Pretraining | None = None
    annotator: sections.Annotator
    sft: sections.TextTraining
    objective: sections.Objective
    beta: PositiveFloat
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    learning_rate: PositiveFloat
    policy: sections.PolicyTraining
    sampling: sections.Sampling
    gold_models: dict[str, sections.GoldModel] = {}
    judge: Judge | None = None
    confidence_threshold: Share = 0.5
    top_percent: Annotated[float, Field(gt=0, le=100)] = 30.0
    # name → {the key that is swept: its values}; of several keys (k, l) each value is a list; a plain list is for a notebook to use
    sweeps: dict[str, Any] = {}

    @model_validator(mode="after")
    def models_made_here_are_pretrained(self):
        if self.models.pretrained_here and self.pretraining is None:
            raise ValueError("pretraining is required: models.pretrained_here has models to make")
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

    @model_validator(mode="after")
    def a_sweep_has_one_list(self):
        for name, given in self.sweeps.items():
            if isinstance(given, dict) and len(given) != 1:
                raise ValueError(f"sweeps.{name}: one key with its values is needed, these are {len(given)}")
        return self

    def sweep(self, name: str) -> tuple[list[str], list]:
        """The keys that a sweep changes (none for a plain list) and its values; both empty if the profile does not have it."""
        given = self.sweeps.get(name) or []
        if isinstance(given, dict):
            ((keys, values),) = given.items()
            return keys.split(", "), values
        return [], given
