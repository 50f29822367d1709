"""The table of published sizes against transformers' own classes, built without memory."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from weaklib.training import pairs
from weaklib.architectures import DEFAULTS, UNKNOWN, architecture, of_model, published
from weaklib.study.parameters import load_profile

# What the models' cards and papers call them, in billions.
NAMED = {
    "facebook/opt-125m": 0.125,
    "facebook/opt-350m": 0.331,
    "facebook/opt-1.3b": 1.3,
    "facebook/opt-2.7b": 2.7,
    "facebook/opt-6.7b": 6.7,
    "facebook/opt-13b": 13,
    "Qwen/Qwen2.5-0.5B": 0.49,
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.61,
    "Qwen/Qwen2.5-14B": 14.7,
    "meta-llama/Llama-2-7b-hf": 6.74,
    "meta-llama/Meta-Llama-3-8B": 8.03,
    "meta-llama/Llama-3.1-8B": 8.03,
    "mistralai/Mistral-7B-v0.1": 7.24,
    "google/gemma-7b": 8.54,
    "OpenAssistant/reward-model-deberta-v3-large-v2": 0.435,
    "weqweasdas/RM-Mistral-7B": 7.11,
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": 7.5,
}


def network(configuration: dict, automatic=AutoModelForCausalLM):
    with torch.device("meta"):
        return automatic.from_config(AutoConfig.for_model(**configuration))


@pytest.mark.parametrize("model", [model for model in published() if not model.endswith("-Instruct")])
def test_published_sizes_are_those_of_the_real_classes(model):
    configuration, counted = published()[model], of_model(model)
    classifies = "architectures" in configuration
    real = network(configuration, AutoModelForSequenceClassification if classifies else AutoModelForCausalLM)
    assert counted.parameters == real.num_parameters()
    assert counted.parameters / 1e9 == pytest.approx(NAMED[model], rel=0.03)
    assert counted.shared_pairs == (pairs.form(real) == "shared")


@pytest.mark.parametrize("model", published())
def test_an_instruct_model_has_its_base_models_size(model):
    assert of_model(model) == of_model(model.removesuffix("-Instruct"))


@pytest.mark.parametrize(("name", "configuration"), load_profile("smoke").models.pretrained_here.items())
def test_models_made_here_and_their_scalar_heads(name, configuration):
    configuration = configuration | {"vocab_size": 800}
    counted = architecture(configuration)
    assert counted.parameters == network(configuration).num_parameters()
    with_head = network(configuration | {"num_labels": 1}, AutoModelForSequenceClassification)
    assert counted.with_scalar_head().parameters == with_head.num_parameters()


@pytest.mark.parametrize("family", DEFAULTS)
def test_defaults_are_those_of_the_configuration_classes(family):
    real = AutoConfig.for_model(family)
    assert {name: getattr(real, name, value) for name, value in DEFAULTS[family].items() if value is not None} == {
        name: value for name, value in DEFAULTS[family].items() if value is not None
    }


def test_matrices_have_the_names_that_lora_targets():
    from peft import LoraConfig, get_peft_model

    for family, configuration in load_profile("smoke").models.pretrained_here.items():
        counted = architecture(configuration | {"vocab_size": 800})
        targets = list(counted.matrices)[:2]
        adapted = get_peft_model(network(configuration), LoraConfig(r=4, target_modules=targets))
        assert counted.adapters(4, targets) == adapted.get_nb_trainable_parameters()[0], family


def test_a_folders_size_is_read_from_its_configuration(tmp_path):
    configuration = AutoConfig.for_model(**published()["facebook/opt-350m"])
    configuration.save_pretrained(tmp_path)
    assert of_model(str(tmp_path)).parameters == of_model("facebook/opt-350m").parameters


@pytest.mark.parametrize("configuration", [{}, {"model_type": "mamba"}, {"model_type": "opt", "hidden_size": 8}])
def test_what_is_not_known_is_not_zero(tmp_path, configuration):
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    assert of_model(str(tmp_path)) is UNKNOWN
    assert of_model("somebody/unheard-of") is UNKNOWN
    for counted in (UNKNOWN, UNKNOWN.with_scalar_head()):
        assert counted.parameters != counted.parameters
        assert counted.adapters(8, ["q_proj"]) != counted.adapters(8, ["q_proj"])
