"""Two responses to one prompt in one sequence give the numbers of two sequences, in real models of every architecture."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from weaklib.training import language_models as pairs
from weaklib.training.losses import preference_loss

VOCABULARY, PAD, LONGEST = 97, 0, 24
pytestmark = pytest.mark.usefixtures("float64")
CONFIGURATIONS = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gpt_neox": {"intermediate_size": 48, "rotary_pct": 0.5},
    "qwen2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2},
}
OTHERS = {
    "mistral": {"intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 8},
    "bloom": {"n_head": 4},  # ALiBi
    "gemma2": {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8},
}


def network(model_type: str, auto=AutoModelForCausalLM, lora: bool = False, **more):
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": LONGEST}
    settings |= (CONFIGURATIONS | OTHERS)[model_type] | {
        "vocab_size": VOCABULARY,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    model = auto.from_config(AutoConfig.for_model(model_type, **settings | more)).eval()
    with torch.no_grad():  # away from the start, where biases are 0 and all responses alike
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if lora:
        adapters = LoraConfig(r=4, target_modules="all-linear", modules_to_save=["score"], init_lora_weights=False)
        model = get_peft_model(model, adapters).eval()
    return model.double()


def some_rows() -> list[dict]:
    """Pairs of all lengths: prompts of 1, responses of 1, responses that begin alike, and the longest the positions allow."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count):
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    sizes = [(1, 1, 1), (1, 5, 9), (6, 1, 7), (9, 7, 1), (5, 6, 6), (LONGEST - 8, 8, 3), (LONGEST - 9, 2, 9)]
    rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(tokens, size))) for size in sizes]
    return [*rows, {"prompt_ids": tokens(4), "chosen_ids": [7, 8, 9, 2], "rejected_ids": [7, 8, 5, 2]}]


def one_by_one(model, row, side) -> torch.Tensor:
    """log π of a response from the model's own logits, one sequence, no padding."""
    ids = torch.tensor([row["prompt_ids"] + row[side]])
    logps = model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    return logps[len(row["prompt_ids"]) - 1 :].sum()


def padded(model, rows, side, padding_side) -> torch.Tensor:
    """log π of all responses from the model's own logits, one padded batch."""
    sequences = [row["prompt_ids"] + row[side] for row in rows]
    width = max(map(len, sequences))
    fill = [[PAD] * (width - len(s)) for s in sequences]
    left = padding_side == "left"
    ids = torch.tensor([f + s if left else s + f for f, s in zip(fill, sequences)])
    mask = torch.tensor(
        [[0] * len(f) + [1] * len(s) if left else [1] * len(s) + [0] * len(f) for f, s in zip(fill, sequences)]
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logps = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.log_softmax(-1)
    logps = logps[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    starts = [(len(f) if left else 0) + len(row["prompt_ids"]) - 1 for f, row in zip(fill, rows)]
    return torch.stack(
        [logps[i, start : start + len(row[side])].sum() for i, (start, row) in enumerate(zip(starts, rows))]
    )


def gradient(model, loss) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).norm() <= 1e-9 * b.norm())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model_type", pairs.SHARED)
def test_log_probs_losses_and_gradients_are_those_of_separate_sequences(model_type, lora):
    model, rows = network(model_type, lora=lora), some_rows()
    assert pairs.form(model) == "shared"
    separate = torch.stack(
        [torch.stack([one_by_one(model, row, s) for row in rows]) for s in ("chosen_ids", "rejected_ids")]
    )
    shared = pairs.response_logps(model, pairs.collate(rows, "shared"))
    assert same(shared, separate)

    references = torch.zeros(len(rows)), torch.ones(len(rows))
    settings = {"objective": "dpo", "beta": 0.3}
    losses = [preference_loss(*logps, *references, **settings) for logps in (shared, separate)]
    assert same(*losses)
    ours, theirs = (gradient(model, loss.mean()) for loss in losses)
    assert theirs.norm() > 1e-3 and same(ours, theirs)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("model_type", pairs.SHARED)
def test_log_probs_are_those_of_padded_batches(model_type, padding_side):
    model, rows = network(model_type), some_rows()
    separate = torch.stack([padded(model, rows, side, padding_side) for side in ("chosen_ids", "rejected_ids")])
    assert same(pairs.response_logps(model, pairs.collate(rows, "shared")), separate)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("model_type", pairs.SHARED)
def test_rewards_and_gradients_are_those_of_the_stock_classifier(model_type, lora):
    model, rows = network(model_type, AutoModelForSequenceClassification, lora, num_labels=1), some_rows()
    separate = torch.stack(
        [
            torch.cat([model(input_ids=torch.tensor([row["prompt_ids"] + row[side]])).logits[0] for row in rows])
            for side in ("chosen_ids", "rejected_ids")
        ]
    )
    shared = pairs.response_rewards(model, pairs.collate(rows, "shared"))
    assert same(shared, separate)
    ours, theirs = (gradient(model, -logsigmoid(chosen - rejected).mean()) for chosen, rejected in (shared, separate))
    assert theirs.norm() > 1e-3 and same(ours, theirs)


@pytest.mark.parametrize("model_type", OTHERS)
def test_other_architectures_take_the_plain_form(model_type):
    model, rows = network(model_type), some_rows()
    assert pairs.form(model) == "plain"
    separate = torch.stack(
        [torch.stack([one_by_one(model, row, s) for row in rows]) for s in ("chosen_ids", "rejected_ids")]
    )
    assert same(pairs.response_logps(model, pairs.collate(rows, "plain")), separate)


def test_a_sliding_window_or_another_attention_takes_the_plain_form():
    sliding = network("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=0)
    assert pairs.form(sliding) == "plain"
    assert pairs.form(network("llama", attn_implementation="eager")) == "plain"
    turning = network("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    assert pairs.form(turning) == "plain"


def test_the_rejected_response_does_not_see_the_chosen_one():
    model, row = network("llama"), some_rows()[4]
    other = row | {"chosen_ids": [11] * len(row["chosen_ids"])}
    one, two = (pairs.response_logps(model, pairs.collate([r], "shared"))[1] for r in (row, other))
    assert same(one, two)


def test_batches_keep_to_the_budget_and_lose_no_row():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (500,), generator=generator).tolist()
    batches = list(pairs.batches(lengths, 256))
    assert sorted(n for batch in batches for n in batch) == list(range(500))
    assert all(max(lengths[n] for n in batch) * len(batch) <= 256 for batch in batches)
    padding = 1 - sum(lengths) / sum(max(lengths[n] for n in batch) * len(batch) for batch in batches)
    assert padding < 0.05
    assert list(pairs.batches([300, 5], 256)) == [[1], [0]]  # a row over the budget is a batch by itself
    assert list(pairs.batches([], 256)) == []


@pytest.mark.parametrize("form", ["shared", "plain"])
def test_scores_come_in_the_rows_order(form, monkeypatch):
    model, rows = network("opt"), some_rows()
    monkeypatch.setattr(pairs, "form", lambda model: form)
    alone = [pairs.response_logps(model, pairs.collate([row], form))[:, 0].tolist() for row in rows]
    scores = pairs.score(model, rows, pairs.response_logps, batch_tokens=40)
    np.testing.assert_allclose(scores, np.transpose(alone), rtol=1e-9)
