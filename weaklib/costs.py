"""What a stage costs before it is run: tokens, FLOPs, memory, disk, and hours on a GPU, from its parameters and those of its inputs.

An estimate by rules that are written here, each a line; nothing is downloaded or loaded. A number that cannot be known is NaN, and so is
every sum it enters.

- A token costs 2 FLOPs a parameter that it passes through, forward; the backward pass twice that, or as much where LoRA leaves the weights as
  they are; gradient checkpointing adds a forward pass. The output embeddings count for predicted tokens only. Attention costs
  4 · layers · width · length² a sequence, the whole square, three times that in training (Kaplan et al. 2020, arXiv 2001.08361).
- Of a pair's texts the means are taken, cut at the limits; a sampled response is as long as it may be.
- Hours are FLOPs over the GPU's dense bfloat16 rate times its utilisation. Decoding reads weights and cache for every token of a batch, and
  takes at least as long as that does at the same share of the memory's bandwidth.
- Memory is that of one GPU, at the most tokens that a batch may hold.
"""

from dataclasses import dataclass
from math import nan

import numpy as np

from weaklib import architectures
from weaklib.amounts import Amounts
from weaklib.architectures import Architecture
from weaklib.profile import Profile
from weaklib.stage import Stage

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """Dense bfloat16 FLOP/s and memory bandwidth as the maker states them, memory as the driver does."""

    tera_flops: float
    gib: float
    gb_per_s: float


GPUS = {
    "l40s": Gpu(362, 44, 864),
    "a100-40gb": Gpu(312, 39, 1555),
    "a100-80gb": Gpu(312, 79, 2039),
    "h100": Gpu(989, 79, 3350),
    "h200": Gpu(989, 139, 4800),
}

# Of D_l, what weaklib.stages.temperature learns from; it scores the rest.
KEPT_BY_TEMPERATURE = 0.8

# Bytes of a trained parameter: weight, gradient and Adam's two moments, float32 under bfloat16 autocast, too.
TRAINED_BYTES = 16
# A checkpoint has weight and moments. A new one is written before the last one goes.
CHECKPOINT_BYTES = 2 * 12
# A token of text in a parquet file, about as many as it has letters.
TEXT_BYTES = 4
# Columns of the vocabulary that are projected at once on a GPU (weaklib.language_models).
VOCABULARY_TILE = 8192


@dataclass(frozen=True)
class Cost:
    """``parameters`` of the model that the stage trains or runs, ``tokens`` that pass through it, ``peak_gib`` of one GPU's memory,
    ``disk_gib`` that the store keeps, ``scratch_gib`` of disk while the stage runs, ``gpu_hours``."""

    model: str | None = None
    parameters: float = 0
    tokens: float = 0
    flops: float = 0
    peak_gib: float = 0
    disk_gib: float = 0
    scratch_gib: float = 0
    gpu_hours: float = 0


@dataclass(frozen=True)
class Sequences:
    """What passes through a model: ``count`` sequences of ``length`` tokens, of which ``predicted`` each are looked up in the vocabulary."""

    count: float
    length: float
    predicted: float = 0

    @property
    def tokens(self) -> float:
        return self.count * self.length

    def times(self, factor: float) -> "Sequences":
        return Sequences(self.count * factor, self.length, self.predicted)


class Costs:
    """Costs of the stages of ``profile`` on one ``gpu`` at ``utilisation`` of its rates, between 0 and 1."""

    def __init__(self, profile: Profile, gpu: Gpu, utilisation: float = 0.4):
        self.hardware, self.utilisation, self.gpu = profile.hardware, utilisation, gpu
        self.amounts = Amounts(profile)
        self.float_bytes = 2 if profile.hardware.precision == "bfloat16" else 4
        self._known: dict[str, Cost] = {}

    def of(self, stage: Stage) -> Cost:
        """The cost of ``stage`` alone, without its inputs'; all NaN for a stage that no rule here is for."""
        if stage.key not in self._known:
            rule = getattr(self, f"_cost_of_{stage.name}", None)
            self._known[stage.key] = rule(stage) if rule else Cost(None, *[nan] * 7)
        return self._known[stage.key]

    def disk(self, stages: list[Stage], at_once: int) -> float:
        """GiB that the store of ``stages`` takes at most when ``at_once`` of them run: what they keep, and the scratch of the largest.
        What is not known is left out."""
        costs = [self.of(stage) for stage in stages]
        scratch = sorted(np.nan_to_num([cost.scratch_gib for cost in costs]), reverse=True)
        return float(np.nansum([cost.disk_gib for cost in costs]) + sum(scratch[:at_once]))

    # One rule a stage.

    def _cost_of_task(self, stage: Stage) -> Cost:
        sizes, (prompt, response) = self.amounts.sizes(stage), self.amounts.texts(stage)
        pairs = sizes["pairs"] + sizes["proxy"]
        tokens = pairs * (prompt + 2 * response) + (sizes["demonstrations"] + sizes["corpus"]) * (prompt + response)
        return self._table(tokens)

    def _cost_of_split(self, stage: Stage) -> Cost:
        return self._table(2 * self.amounts.sizes(stage)["pairs"])

    def _cost_of_gold_pairs(self, stage: Stage) -> Cost:
        return self._labelled(stage)

    def _cost_of_judge_labels(self, stage: Stage) -> Cost:
        return self._labelled(stage)

    def _cost_of_base(self, stage: Stage) -> Cost:
        if "pretraining" not in stage.parameters:
            size = self._architecture(stage).parameters
            return Cost(_name(stage), size, disk_gib=size * self.float_bytes / GIB)
        length = min(sum(self.amounts.texts(stage)), stage.parameters["max_tokens"])
        corpus = Sequences(self.amounts.sizes(stage)["corpus"], length, length)
        return self._training(stage, stage.parameters["pretraining"], corpus, stage.parameters["max_tokens"])

    def _cost_of_sft(self, stage: Stage) -> Cost:
        prompt, response = self.amounts.texts(stage)
        labels = stage.inputs.get("labels")
        count = self.amounts.pairs(labels) if labels else self.amounts.sizes(stage)["demonstrations"]
        shown = Sequences(count, prompt + response, response)
        return self._training(stage, stage.parameters["training"], shown, _longest(stage))

    def _cost_of_annotator(self, stage: Stage) -> Cost:
        learned = self._of_pairs(stage, self.amounts.pairs(stage.inputs["labels"]), scored=False)
        return self._training(stage, stage.parameters["training"], learned, self._longest_pair(stage))

    def _cost_of_temperature(self, stage: Stage) -> Cost:
        known = self._of_pairs(stage, self.amounts.pairs(stage.inputs["labels"]), scored=False)
        trained = self._training(
            stage, stage.parameters["training"], known.times(KEPT_BY_TEMPERATURE), self._longest_pair(stage)
        )
        scored = self._scoring(
            stage, known.times(1 - KEPT_BY_TEMPERATURE), stage.parameters["training"]["batch_tokens"]
        )
        return Cost(
            trained.model,
            trained.parameters,
            trained.tokens + scored.tokens,
            trained.flops + scored.flops,
            trained.peak_gib,
            scratch_gib=trained.scratch_gib,
            gpu_hours=trained.gpu_hours + scored.gpu_hours,
        )

    def _cost_of_policy(self, stage: Stage) -> Cost:
        learned = self._of_pairs(stage, self.amounts.pairs(stage))
        return self._training(stage, stage.parameters["training"], learned, self._longest_pair(stage))

    def _cost_of_reference(self, stage: Stage) -> Cost:
        pairs = self._of_pairs(stage, self.amounts.sizes(stage)["pairs"])
        return self._scoring(stage, pairs, stage.parameters["batch_tokens"])

    def _cost_of_labels(self, stage: Stage) -> Cost:
        kept = self._labelled(stage)
        if "annotator" not in stage.inputs:
            return kept
        scored = self._of_pairs(stage, self.amounts.pairs(stage), scored=stage.parameters["by"] == "implicit_reward")
        return self._scoring(stage, scored, stage.parameters["batch_tokens"], kept.disk_gib)

    def _cost_of_responses(self, stage: Stage) -> Cost:
        prompt, response = self.amounts.sampled(stage)
        count = self.amounts.prompts(stage)
        sampled = Sequences(count, prompt + response, response)
        network, budget = self._architecture(stage), stage.parameters["sampling"]["batch_tokens"]
        cache = 2 * network.keys * network.layers * self.float_bytes * max(budget, prompt + response)
        weights = network.parameters * self.float_bytes
        batches = np.ceil(sampled.tokens / budget)
        reading = batches * response * (weights + cache) / (self.gpu.gb_per_s * 1e9 * self.utilisation) / 3600
        flops = _forward(network, sampled)
        return Cost(
            _name(stage),
            network.parameters,
            sampled.tokens,
            flops,
            (weights + cache + self._passing(stage, budget)) / GIB,
            disk_gib=sampled.tokens * TEXT_BYTES / GIB,
            gpu_hours=float(np.maximum(self._hours(flops), reading)),
        )

    def _cost_of_rewards(self, stage: Stage) -> Cost:
        responses = stage.inputs["responses"]
        kept = self.of(responses).disk_gib
        if "world" in stage.parameters:
            return Cost(disk_gib=kept)
        prompt, response = self.amounts.sampled(responses)
        dialogues = Sequences(self.amounts.prompts(responses), prompt + response)
        return self._scoring(stage, dialogues, stage.parameters["batch_tokens"], kept)

    def _cost_of_kl(self, stage: Stage) -> Cost:
        prompt, response = self.amounts.sampled(stage.inputs["responses"])
        count = 2 * self.amounts.prompts(stage.inputs["responses"])  # by the policy and by its start
        return self._scoring(stage, self._pair(stage, count, prompt, response), stage.parameters["batch_tokens"])

    # What the rules are made of.

    def _training(self, stage: Stage, training: dict, once: Sequences, longest: int) -> Cost:
        """``once`` is what an epoch shows; ``longest`` the most tokens that one row may have."""
        network, lora = self._architecture(stage), training.get("lora")
        shown = once.times(training["epochs"])
        adapters = network.adapters(lora["rank"], lora["targets"]) if lora else 0
        forward, attention = _forward(network, shown), _attention(network, shown)
        flops = (2 if lora else 3) * (forward - attention) + 3 * attention + 6 * adapters * shown.tokens
        if self.hardware.gradient_checkpointing:
            flops += forward

        trained = adapters if lora else network.parameters
        states = trained * TRAINED_BYTES
        if lora or self.float_bytes == 2:  # frozen weights, or what autocast makes of the trained ones
            states += network.parameters * self.float_bytes
        if self.hardware.strategy != "ddp":
            states /= self.hardware.gpus
        # SFT's batches hold so many rows, the others' so many tokens, but one row at least
        rows = training["batch_size"] // training.get("gradient_accumulation_steps", 1)
        budget = max(training.get("batch_tokens") or rows * longest, longest)
        layer = _activations(network)
        kept = (
            network.layers * network.hidden + layer if self.hardware.gradient_checkpointing else network.layers * layer
        )
        predicting = budget * self._columns(stage, network) * 4
        kept_on_disk = 4 * adapters if lora and stage.name != "sft" else self.float_bytes * network.parameters
        return Cost(
            _name(stage),
            network.parameters,
            shown.tokens,
            flops,
            (states + budget * kept * self.float_bytes + predicting) / GIB,
            kept_on_disk / GIB,
            trained * CHECKPOINT_BYTES / GIB if self.hardware.checkpoint_steps else 0,
            self._hours(flops),
        )

    def _scoring(self, stage: Stage, sequences: Sequences, budget: int, disk_gib: float = 0) -> Cost:
        network = self._architecture(stage)
        flops = _forward(network, sequences)
        memory = network.parameters * self.float_bytes + self._passing(stage, budget)
        shape = network.parameters, sequences.tokens, flops, memory / GIB
        return Cost(_name(stage), *shape, disk_gib, gpu_hours=self._hours(flops))

    def _passing(self, stage: Stage, tokens: int) -> float:
        """Bytes of the activations that pass through one layer and the head; without gradients no layer keeps them."""
        network = self._architecture(stage)
        return tokens * (_activations(network) * self.float_bytes + self._columns(stage, network) * 4)

    def _columns(self, stage: Stage, network: Architecture) -> float:
        whole = stage.parameters.get("device") == "cpu"
        return network.vocabulary if whole else min(network.vocabulary, VOCABULARY_TILE)

    def _hours(self, flops: float) -> float:
        return flops / (self.gpu.tera_flops * 1e12 * self.utilisation) / 3600

    def _table(self, tokens: float) -> Cost:
        return Cost(disk_gib=tokens * TEXT_BYTES / GIB)

    def _labelled(self, stage: Stage) -> Cost:
        prompt, response = self.amounts.texts(stage)
        return self._table(self.amounts.pairs(stage) * (prompt + 2 * response))

    def _of_pairs(self, stage: Stage, count: float, scored: bool = True) -> Sequences:
        return self._pair(stage, count, *self.amounts.texts(stage), scored)

    def _pair(self, stage: Stage, count: float, prompt: float, response: float, scored: bool = True) -> Sequences:
        """``count`` pairs as :mod:`weaklib.pairs` lays them out; ``scored`` by their tokens' probabilities, not by a scalar head."""
        if self._architecture(stage).shared_pairs:
            return Sequences(count, prompt + 2 * response, 2 * response * scored)
        return Sequences(2 * count, prompt + response, response * scored)

    def _longest_pair(self, stage: Stage) -> int:
        prompt, response = (
            stage.parameters["limits"]["max_prompt_tokens"],
            stage.parameters["limits"]["max_response_tokens"],
        )
        return prompt + 2 * response if self._architecture(stage).shared_pairs else 2 * (prompt + response)

    def _architecture(self, stage: Stage) -> Architecture:
        """Of the model that ``stage`` trains or runs."""
        source = _model_of(stage)
        model = source.parameters["model"]
        if source.name == "rewards":
            return architectures.of_model(model["model"])
        if isinstance(model, dict):
            made = model | {"vocab_size": source.parameters["pretraining"]["vocabulary"]}
            network = architectures.architecture(made)
        else:
            network = architectures.of_model(model)
        return network.with_scalar_head() if _has_scalar_head(stage) else network


def _forward(network: Architecture, sequences: Sequences) -> float:
    head = network.head * sequences.count * sequences.predicted
    return 2 * (network.body * sequences.tokens + head) + _attention(network, sequences)


def _attention(network: Architecture, sequences: Sequences) -> float:
    return 4 * network.layers * network.queries * sequences.tokens * sequences.length


def _activations(network: Architecture) -> float:
    """Numbers a token that a layer holds: about the inputs and outputs of its linear modules. For a plain layer that is 36 bytes a unit
    of width in bfloat16, where Korthikanti et al. 2022 (arXiv 2205.05198) count 34."""
    return sum(map(sum, network.matrices.values()))


def _longest(stage: Stage) -> int:
    return sum(stage.parameters["limits"][of] for of in ("max_prompt_tokens", "max_response_tokens"))


# The input that a stage's model comes from.
_MODEL = {
    "annotator": "base",
    "kl": "policy",
    "labels": "annotator",
    "policy": "start",
    "reference": "start",
    "responses": "model",
    "rewards": "scalar_head",
    "sft": "base",
    "temperature": "base",
}


def _model_of(stage: Stage) -> Stage:
    """The stage that names the model of ``stage``: its base, or itself where it takes a finished reward model."""
    while stage.name in _MODEL and _MODEL[stage.name] in stage.inputs:
        stage = stage.inputs[_MODEL[stage.name]]
    return stage


def _has_scalar_head(stage: Stage) -> bool:
    while stage.name not in ("annotator", "temperature") and _MODEL.get(stage.name) in stage.inputs:
        stage = stage.inputs[_MODEL[stage.name]]
    return stage.name in ("annotator", "temperature")


def _name(stage: Stage) -> str:
    source = _model_of(stage)
    model = source.parameters["model"]
    if isinstance(model, str):
        return model
    return model["model"] if source.name == "rewards" else f"{model['model_type']} made here"
