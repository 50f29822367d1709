"""Sizes of language models, counted from their configurations: no weights, no network, and torch is not imported.

``architectures.yaml`` holds the published configurations of the papers' models; a model made here and a local folder bring their own.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from math import nan
from pathlib import Path
from types import SimpleNamespace

from weaklib.parameters import read_yaml

PUBLISHED = Path(__file__).with_suffix(".yaml")

# What transformers' configuration classes say where a configuration is silent.
_BERT = {"conv_kernel_size": 0, "norm_rel_ebd": "none", "position_biased_input": True, "position_buckets": -1}
_BERT |= {"relative_attention": False, "share_att_key": False, "type_vocab_size": 0, "max_position_embeddings": 512}
_GATED = {"attention_bias": False, "head_dim": None, "mlp_bias": False, "tie_word_embeddings": False}
DEFAULTS = {
    "deberta-v2": _BERT,
    "gemma": _GATED | {"head_dim": 256, "num_key_value_heads": 16, "tie_word_embeddings": True},
    "gpt_neox": {"attention_bias": True, "tie_word_embeddings": False},
    "llama": _GATED | {"num_key_value_heads": None},
    "mistral": _GATED | {"num_key_value_heads": 8, "sliding_window": 4096},
    "opt": {"do_layer_norm_before": True, "enable_bias": True, "max_position_embeddings": 2048}
    | {"tie_word_embeddings": True, "word_embed_proj_dim": None},
    "qwen2": _GATED | {"num_key_value_heads": 32, "use_sliding_window": False},
}


@dataclass(frozen=True)
class Architecture:
    """What a language model costs a token; every number is NaN where the model is not known."""

    layers: int
    hidden: int
    queries: int  # width of a layer's queries, all heads together
    keys: int  # and of its keys, which is that of its values
    matrices: dict[str, tuple[int, int]]  # linear modules of a layer: (inputs, outputs)
    vocabulary: int  # rows of the head
    head: int  # parameters of the output embeddings or of the classification head
    embeddings: int  # parameters that are looked up
    body: int  # all others: every token passes through them
    tied: bool  # the head is the token embeddings'
    shared_pairs: bool  # weaklib.pairs lays both responses to a prompt out in one sequence

    @property
    def parameters(self) -> int:
        return self.body + self.embeddings + (0 if self.tied else self.head)

    def with_scalar_head(self) -> "Architecture":
        """The same with one output a sequence, as ``AutoModelForSequenceClassification`` loads it."""
        return replace(self, head=self.head // self.vocabulary, vocabulary=1, tied=False)

    def adapters(self, rank: int, targets: list[str]) -> int:
        """Parameters of LoRA's adapters on the modules called ``targets``."""
        sizes = [sum(size) for name, size in self.matrices.items() if name in targets]
        return self.layers * rank * sum(sizes)


UNKNOWN = Architecture(nan, nan, nan, nan, {}, nan, nan, nan, nan, tied=False, shared_pairs=False)


@cache
def published() -> dict[str, dict]:
    """Hub id → configuration."""
    return read_yaml(PUBLISHED.read_text(encoding="utf-8"), str(PUBLISHED))


@cache
def of_model(model: str) -> Architecture:
    """The architecture of a local folder or hub id; ``UNKNOWN`` if the folder has no configuration or the table not this id."""
    configuration = Path(model).expanduser() / "config.json"
    if configuration.is_file():
        return architecture(json.loads(configuration.read_text(encoding="utf-8")))
    return architecture(published().get(model, {}))


def architecture(configuration: dict) -> Architecture:
    """From a configuration in transformers' terms; ``UNKNOWN`` if it is of another architecture than ours or leaves a size open."""
    family = configuration.get("model_type")
    if family not in _FAMILIES:
        return UNKNOWN
    try:
        return _FAMILIES[family](SimpleNamespace(**DEFAULTS[family] | configuration))
    except AttributeError:
        return UNKNOWN


def _opt(c: SimpleNamespace) -> Architecture:
    width = c.word_embed_proj_dim or c.hidden_size
    attention = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (c.hidden_size, c.hidden_size))
    mlp = {"fc1": (c.hidden_size, c.ffn_dim), "fc2": (c.ffn_dim, c.hidden_size)}
    projections = 0 if width == c.hidden_size else 2 * width * c.hidden_size
    final_norm = 2 * c.hidden_size if c.do_layer_norm_before else 0
    return _architecture(
        c,
        attention | mlp,
        biases=c.enable_bias * _outputs(attention | mlp),
        norms=4 * c.hidden_size,
        rest=projections + final_norm,
        width=width,
        positions=(c.max_position_embeddings + 2) * c.hidden_size,  # OPT's positions start at 2
        shared_pairs=True,
    )


def _gated(c: SimpleNamespace) -> Architecture:
    """Llama and its relatives: rotary positions, RMS norms, an MLP with a gate."""
    head = c.head_dim or c.hidden_size // c.num_attention_heads
    queries, keys = head * c.num_attention_heads, head * (c.num_key_value_heads or c.num_attention_heads)
    inputs = {"q_proj": (c.hidden_size, queries), "k_proj": (c.hidden_size, keys), "v_proj": (c.hidden_size, keys)}
    output = {"o_proj": (queries, c.hidden_size)}
    mlp = dict.fromkeys(("gate_proj", "up_proj"), (c.hidden_size, c.intermediate_size))
    mlp |= {"down_proj": (c.intermediate_size, c.hidden_size)}
    biased = inputs if c.model_type == "qwen2" else inputs | output if c.attention_bias else {}
    return _architecture(
        c,
        inputs | output | mlp,
        biases=_outputs(biased) + c.mlp_bias * _outputs(mlp),
        norms=2 * c.hidden_size,
        rest=c.hidden_size,
        queries=queries,
        keys=keys,
        # as weaklib.pairs has it: those shown equal in both forms, without a sliding window
        shared_pairs=c.model_type == "llama" or c.model_type == "qwen2" and not c.use_sliding_window,
    )


def _gpt_neox(c: SimpleNamespace) -> Architecture:
    attention = {"query_key_value": (c.hidden_size, 3 * c.hidden_size), "dense": (c.hidden_size, c.hidden_size)}
    mlp = {"dense_h_to_4h": (c.hidden_size, c.intermediate_size), "dense_4h_to_h": (c.intermediate_size, c.hidden_size)}
    biases = c.attention_bias * _outputs(attention) + _outputs(mlp)
    norms, final_norm = 4 * c.hidden_size, 2 * c.hidden_size
    return _architecture(c, attention | mlp, biases=biases, norms=norms, rest=final_norm, shared_pairs=True)


def _deberta(c: SimpleNamespace) -> Architecture:
    """As a sequence classifier: with its pooler and its head."""
    if c.conv_kernel_size or not (c.relative_attention and c.share_att_key and c.position_buckets > 0):
        return UNKNOWN
    attention = dict.fromkeys(
        ("query_proj", "key_proj", "value_proj", "attention.dense"), (c.hidden_size, c.hidden_size)
    )
    mlp = {"intermediate.dense": (c.hidden_size, c.intermediate_size)}
    mlp |= {"output.dense": (c.intermediate_size, c.hidden_size)}
    norms = 2 * c.hidden_size * (2 if "layer_norm" in c.norm_rel_ebd else 1)  # of the embeddings, and of the distances
    positions = 2 * c.position_buckets + c.type_vocab_size
    positions += c.max_position_embeddings if c.position_biased_input else 0
    return _architecture(
        c,
        attention | mlp,
        biases=_outputs(attention | mlp),
        norms=4 * c.hidden_size,
        rest=norms + c.hidden_size**2 + c.hidden_size,
        positions=positions * c.hidden_size,
        head_bias=True,
    )


_FAMILIES = {
    "deberta-v2": _deberta,
    "gemma": _gated,
    "gpt_neox": _gpt_neox,
    "llama": _gated,
    "mistral": _gated,
    "opt": _opt,
    "qwen2": _gated,
}


def _architecture(
    c: SimpleNamespace,
    matrices: dict[str, tuple[int, int]],
    *,
    biases: int,
    norms: int,
    rest: int,
    width: int | None = None,
    queries: int | None = None,
    keys: int | None = None,
    positions: int = 0,
    shared_pairs: bool = False,
    head_bias: bool = False,
) -> Architecture:
    """``biases`` and ``norms`` of one layer, ``rest`` outside of the layers, ``width`` of the token embeddings."""
    width, layers = width or c.hidden_size, c.num_hidden_layers
    classifies = any("SequenceClassification" in name for name in getattr(c, "architectures", None) or ())
    outputs = len(getattr(c, "id2label", ())) or getattr(c, "num_labels", 2) if classifies else c.vocab_size
    return Architecture(
        layers=layers,
        hidden=c.hidden_size,
        queries=queries or c.hidden_size,
        keys=keys or c.hidden_size,
        matrices=matrices,
        vocabulary=outputs,
        head=outputs * (width + head_bias),
        embeddings=c.vocab_size * width + positions,
        body=layers * (sum(inputs * outputs for inputs, outputs in matrices.values()) + biases + norms) + rest,
        tied=not classifies and c.tie_word_embeddings,
        shared_pairs=shared_pairs,
    )


def _outputs(matrices: dict[str, tuple[int, int]]) -> int:
    return sum(outputs for _, outputs in matrices.values())
