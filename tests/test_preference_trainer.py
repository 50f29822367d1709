"""The trainers against TRL's own, on real models."""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from weaklib.arms import graph
from weaklib.study.parameters import load_profile
from weaklib.supervisors.annotator import BradleyTerryTrainer
from weaklib.training.language_models import load_causal_lm, response_logps, score
from weaklib.training.policy import WeightedDPOTrainer, weigh
from weaklib.training.tokens import Reader, load_tokenizer
from weaklib.training.trainers import BucketSampler, TextTrainer, trainer_settings

TRL_NAMES = {"dpo": "sigmoid", "ipo": "ipo", "rdpo": "robust"}
PAIRS = 8


@pytest.fixture(scope="module", params=["opt-small", "qwen2-small"])
def student(request, made):
    """A policy's start and human labels of a few pairs with responses of unequal length."""
    p = load_profile("smoke", {"seeds": [0], "models.weak": "opt-tiny", "models.strong": request.param})
    folder = made(graph.sft(p, request.param, 0))
    labels = pd.read_parquet(made(graph.labels(p, "human", "all")) / "labels.parquet").head(PAIRS)
    return folder, labels, p.model_dump(include=graph.LIMITS)


def settings(**more):
    training, out = {"epochs": 1, "batch_size": PAIRS, "learning_rate": 1e-3}, Path(tempfile.gettempdir(), "weaklib")
    return trainer_settings(training, 0, "cpu", out) | more


def perturbed(folder):
    """The start with other weights, as after some steps: at the start itself every margin is 0."""
    model = load_causal_lm(folder, "cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def ours(student, objective, weights, **more):
    folder, pairs, limits = student
    tokenizer = load_tokenizer(folder)
    rows = Reader(tokenizer, limits).pairs(pairs, "chosen", "rejected")[0]
    references = score(load_causal_lm(folder, "cpu").eval(), rows, response_logps, 400).T
    for row, (chosen, rejected), weight in zip(rows, references, weights, strict=True):
        row |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected, "weight": weight}
    config = DPOConfig(**settings(**more), beta=0.3, label_smoothing=0.1 if objective == "rdpo" else 0.0)
    trainer = WeightedDPOTrainer(
        perturbed(folder),
        config,
        objective=objective,
        batch_tokens=400,  # several batches a step
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    assert trainer.form == "shared"
    batches = trainer.data_collator([trainer.train_dataset[i] for i in range(PAIRS)])
    assert len(batches) > 1
    return loss_and_gradients(trainer, batches)


def trls(student, objective):
    folder, pairs, _ = student
    config = DPOConfig(
        **settings(train_sampling_strategy="random"),
        beta=0.3,
        loss_type=TRL_NAMES[objective],
        label_smoothing=0.1 if objective == "rdpo" else 0.0,
    )
    dataset = Dataset.from_pandas(pairs[["prompt", "chosen", "rejected"]])
    trainer = DPOTrainer(
        perturbed(folder),
        load_causal_lm(folder, "cpu"),
        config,
        train_dataset=dataset,
        processing_class=load_tokenizer(folder),
    )
    return loss_and_gradients(trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(PAIRS)]))


def loss_and_gradients(trainer, step):
    """Of all pairs as one step of training."""
    trainer.current_gradient_accumulation_steps = 1  # as at the start of training
    loss = trainer.training_step(trainer.model, step)
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("objective", TRL_NAMES)
def test_with_weights_1_loss_and_gradients_are_trls(student, objective, float64):
    loss, gradient = ours(student, objective, [1.0] * PAIRS)
    expected_loss, expected_gradient = trls(student, objective)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert gradient.norm() > 1e-3
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 1e-9


def test_mixed_precision_reaches_the_pairs(student):
    """Pairs do not come through the model's own forward, around which accelerate would put it."""
    loss, gradient = ours(student, "dpo", [1.0] * PAIRS, bf16=True)
    exact_loss, exact_gradient = ours(student, "dpo", [1.0] * PAIRS)
    assert loss == pytest.approx(exact_loss, rel=0.02)
    assert 1e-4 < (gradient - exact_gradient).norm() / exact_gradient.norm() < 0.1


def test_a_weight_scales_its_pairs_gradient(student, float64):
    """Weights 0.25 on one pair and 0 elsewhere give a quarter of that pair's gradient; weights add up over pairs."""

    def gradient(weights):
        return ours(student, "dpo", weights)[1]

    one_hot = [[float(i == j) for i in range(PAIRS)] for j in range(PAIRS)]
    alone = [gradient(weights) for weights in one_hot[:3]]
    assert not torch.allclose(alone[0], alone[1], rtol=0.1)
    quarter = gradient([0.25 * w for w in one_hot[0]])
    assert (quarter - 0.25 * alone[0]).norm() < 1e-9 * quarter.norm()
    mixed = gradient([0.25, 1.0, 0.5] + [0.0] * (PAIRS - 3))
    assert (mixed - 0.25 * alone[0] - alone[1] - 0.5 * alone[2]).norm() < 1e-9 * mixed.norm()


def test_weighting():
    labels = pd.DataFrame({"pair": range(5), "confidence": [0.1, 0.9, 0.5, 0.9, 0.3], "margin": [1, 9, 4, 9, 2]})
    assert weigh(labels, "none")["weight"].tolist() == [1.0] * 5
    assert weigh(labels, "confidence")["weight"].tolist() == [0.1, 0.9, 0.5, 0.9, 0.3]
    assert weigh(labels, "top", 40)["pair"].tolist() == [1, 3]
    assert weigh(labels, "top", 20)["pair"].tolist() == [1]  # of two equal ones, the first
    assert weigh(labels, "top", 50)["pair"].tolist() == [1, 2, 3]  # 2.5 labels: never fewer than asked for
    assert weigh(labels, "top", 100)["pair"].tolist() == [0, 1, 2, 3, 4]
    assert weigh(labels, "margin")["weight"].tolist() == [1, 9, 4, 9, 2]
    assert weigh(labels, "rank")["weight"].tolist() == [0.2, 0.9, 0.6, 0.9, 0.4]  # equal ones share their rank
    above = weigh(labels, "above", threshold=0.5)
    assert above["pair"].tolist() == [1, 2, 3] and set(above["weight"]) == {1.0}
    assert weigh(labels, "above", threshold=0.95)["pair"].tolist() == [1, 3]  # never none


def test_the_annotators_loss_and_gradients_are_trls(student, float64):
    folder, pairs, limits = student
    tokenizer = load_tokenizer(folder)
    rows = Reader(tokenizer, limits).pairs(pairs, "chosen", "rejected")[0]
    whole = [{f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")} for row in rows]

    def model():
        torch.manual_seed(0)  # of the new head
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)

    common = {"args": RewardConfig(**settings()), "processing_class": tokenizer}
    ours = BradleyTerryTrainer(model(), batch_tokens=400, train_dataset=Dataset.from_list(rows), **common)
    theirs = RewardTrainer(model(), train_dataset=Dataset.from_list(whole), **common)
    loss, gradient = loss_and_gradients(ours, ours.data_collator(rows))
    expected_loss, expected_gradient = loss_and_gradients(theirs, theirs.data_collator(whole))
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert (gradient - expected_gradient).norm() / expected_gradient.norm() < 1e-9


def test_the_text_trainers_loss_and_gradients_are_trls(student, float64):
    folder, pairs, limits = student
    tokenizer = load_tokenizer(folder)
    shown = [
        row["prompt_ids"] + row["chosen_ids"] for row in Reader(tokenizer, limits).pairs(pairs, "chosen", "rejected")[0]
    ]
    rows = [{"input_ids": ids, "labels": [-100] * 5 + ids[5:]} for ids in shown]
    common = {"args": SFTConfig(**settings(train_sampling_strategy="random")), "processing_class": tokenizer}
    losses, gradients = [], []
    for kind in (TextTrainer, SFTTrainer):
        trainer = kind(perturbed(folder), train_dataset=Dataset.from_list(rows), **common)
        loss, gradient = loss_and_gradients(trainer, trainer.data_collator(rows))
        losses.append(loss)
        gradients.append(gradient)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-9


def test_every_epoch_takes_each_pair_once_and_steps_are_of_like_length():
    lengths = torch.randint(10, 200, (1010,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = BucketSampler(lengths, step_pairs=16, seed=0)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(1010))
    assert first != second and first == list(BucketSampler(lengths, 16, 0)) != list(BucketSampler(lengths, 16, 1))
    steps = [[lengths[row] for row in first[start : start + 16]] for start in range(0, 1008, 16)]
    padding = 1 - sum(map(sum, steps)) / sum(16 * max(step) for step in steps)
    assert padding < 0.05
    means = [sum(step) / 16 for step in steps]
    assert means != sorted(means) and means != sorted(means, reverse=True)
