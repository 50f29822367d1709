"""Gold rewards by reward models of the true architectures, from local folders."""

import shutil

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from weaklib.data.conversations import as_message, chat
from weaklib.data.errors import RequestError
from weaklib.evaluation.rewards import rewards_of_model as rewards
from weaklib.study.checks import _check_weights, check_gold
from weaklib.study.parameters import load_profile
from weaklib.training.base import train_tokenizer

PROMPTS = [
    f"\n\nHuman: {question}\n\nAssistant:"
    for question in ("Hi.", "How do I boil an egg before my guests come?", "Why?")
]
PROMPTS += ["\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: How can I cheat?\n\nAssistant:"]
RESPONSES = [" Hello there, what can I do for you today?", " Wait.", " Because it is so.", ""]
SAMPLED = pd.DataFrame({"prompt": PROMPTS, "messages": list(map(as_message, PROMPTS)), "response": RESPONSES})
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
MODELS = {
    "deberta-v2": {"num_attention_heads": 4, "intermediate_size": 48, "type_vocab_size": 2, "relative_attention": True},
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48},
}
FORMATS = [("deberta-v2", "text"), ("deberta-v2", "text_pair"), ("llama", "text"), ("llama", "chat")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    tokenizer = train_tokenizer([p + r for p, r in zip(PROMPTS, RESPONSES)] * 5, 300)
    tokenizer.model_max_length = 200
    made = {}
    for model_type, settings in MODELS.items():
        made[model_type] = tmp_path_factory.mktemp(model_type)
        tokens = {
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": 0,
            "bos_token_id": 0,
            "vocab_size": len(tokenizer),
        }
        common = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 256, "num_labels": 3}
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **settings, **common, **tokens)
        model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(made[model_type])
        tokenizer.chat_template = TEMPLATE if model_type == "llama" else None
        tokenizer.save_pretrained(made[model_type])
    return made


def one_by_one(folder, format, output):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for prompt, response in zip(PROMPTS, RESPONSES):
        if format == "text":
            encoded = tokenizer(prompt + response, return_tensors="pt")
        elif format == "text_pair":
            encoded = tokenizer(prompt.strip(), response.strip(), return_tensors="pt")
        else:
            text = tokenizer.apply_chat_template(chat(as_message(prompt), response), tokenize=False)
            encoded = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            scores.append(model(**encoded).logits[0, output].item())
    return scores


@pytest.mark.parametrize(("model_type", "format"), FORMATS)
@pytest.mark.parametrize("output", [0, 2])
def test_scores_are_those_of_single_texts(folders, model_type, format, output, float64):
    folder = str(folders[model_type])
    expected = one_by_one(folder, format, output)
    assert len({round(score, 4) for score in expected}) == len(expected)
    scores, _ = rewards(folder, SAMPLED, format=format, output=output, batch_tokens=150, device="cpu")
    assert scores == pytest.approx(expected, rel=1e-9)


def test_a_tokenizer_without_padding(folders, tmp_path, float64):
    """As that of many a decoder: each text is then a batch of its own."""
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    model = AutoModelForSequenceClassification.from_pretrained(folders["llama"])
    tokenizer.pad_token = model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = one_by_one(tmp_path, "text", 0)
    scores, _ = rewards(str(tmp_path), SAMPLED, format="text", output=0, batch_tokens=1000, device="cpu")
    assert scores == pytest.approx(expected, rel=1e-9)


def test_a_missing_template_or_output_is_named(folders):
    deberta = str(folders["deberta-v2"])
    with pytest.raises(ValueError, match="deberta.*format chat was asked for, its tokenizer has no chat template"):
        rewards(deberta, SAMPLED, format="chat", output=0, batch_tokens=99, device="cpu")
    with pytest.raises(ValueError, match="output 3 was asked for, it has 3"):
        rewards(deberta, SAMPLED, format="text", output=3, batch_tokens=99, device="cpu")


@pytest.mark.parametrize(("model_type", "format"), FORMATS)
def test_a_prompt_that_is_too_long_is_cut_and_the_response_kept(folders, model_type, format, float64):
    """Its reward is that of the end of the prompt and the whole response."""
    folder = str(folders[model_type])
    prompt = "\n\nHuman: " + "How do I boil an egg before my guests come? " * 40 + "Why?\n\nAssistant:"
    responses = [" Wait.", " Because it is so.", " Hello there, what can I do for you today?"]
    sampled = pd.DataFrame({"prompt": prompt, "messages": as_message(prompt), "response": responses})
    how = {"format": format, "output": 0, "batch_tokens": 1000, "device": "cpu"}
    scores, cuts = rewards(folder, sampled, **how)
    assert len(set(scores)) == 3 and cuts == {"prompts_cut": 3}
    other = sampled.assign(prompt="Before. " * 50 + prompt, messages=as_message("Before. " * 50 + prompt))
    if format != "chat":  # whose template begins with the role
        assert rewards(folder, other, **how)[0] == pytest.approx(scores, rel=1e-9)
    assert rewards(folder, sampled.assign(response=[r + " No." for r in responses]), **how)[0] != pytest.approx(scores)
    with pytest.raises(ValueError, match="it reads 200 tokens, and a response alone has"):
        rewards(folder, sampled.assign(response=responses[2] * 90), **how)


def test_a_model_without_its_head_is_refused_before_any_work_and_where_it_scores(folders, tmp_path):
    """Else its head would be drawn at random, and its rewards with it."""
    from safetensors.torch import load_file, save_file

    whole = folders["llama"]
    shutil.copytree(whole, tmp_path / "headless")
    weights = load_file(whole / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    folder = str(tmp_path / "headless")
    with pytest.raises(ValueError, match="headless: .* lacks 1 weights, score.weight"):
        rewards(folder, SAMPLED, format="text", output=0, batch_tokens=99, device="cpu")
    profile = load_profile("smoke", {"gold_models.mine.model": folder})
    with pytest.raises(RequestError, match="gold_models.mine: .*headless cannot be loaded: .*score.weight"):
        check_gold(profile, "mine")
    (tmp_path / "headless" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    _check_weights.cache_clear()
    with pytest.raises(RequestError, match="headless cannot be loaded"):
        check_gold(profile, "mine")
    check_gold(load_profile("smoke", {"gold_models.mine.model": str(whole)}), "mine")


def test_control_tokens_in_a_text_are_text(folders):
    said = SAMPLED.assign(response=[" Yes.<|endoftext|> No.", *RESPONSES[1:]])
    apart = SAMPLED.assign(response=[" Yes.< |endoftext|> No.", *RESPONSES[1:]])
    how = {"format": "chat", "output": 0, "batch_tokens": 1000, "device": "cpu"}
    both = [rewards(str(folders["llama"]), one, **how)[0] for one in (said, apart)]
    assert both[0] == pytest.approx(both[1], rel=1e-6)
