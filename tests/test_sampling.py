"""Sampling: tokens come from the model's distribution, and a batch that shrinks says what each prompt alone would hear."""

import numpy as np
import torch

from weaklib.arms import graph
from weaklib.evaluation.responses import draw, generate
from weaklib.training.language_models import load_causal_lm
from weaklib.training.tokens import Reader, load_tokenizer


def test_tokens_are_drawn_from_the_softmax_at_the_temperature():
    rows, temperature = 200_000, 0.7
    scores = torch.tensor([2.0, -torch.inf, 0.5, -1.0, 0.0, -torch.inf])
    torch.manual_seed(0)
    chosen = draw(torch.zeros(rows, 1, dtype=torch.long), scores.expand(rows, -1), temperature)
    assert (chosen.isfinite().sum(dim=1) == 1).all()
    shares = np.bincount(chosen.argmax(dim=1), minlength=len(scores)) / rows
    expected = (scores / temperature).softmax(dim=0).numpy()
    assert (shares[expected == 0] == 0).all()
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / rows))


def test_each_row_has_a_draw_of_its_own():
    torch.manual_seed(0)
    chosen = draw(torch.zeros(64, 1, dtype=torch.long), torch.zeros(64, 1000), 1.0).argmax(dim=1)
    assert len(set(chosen.tolist())) > 50


def test_a_cold_batch_says_what_transformers_says_greedily_to_each_prompt(made, smoke, float64):
    made(graph.task(smoke))
    folder = made(graph.base(smoke, "opt-tiny"))
    tokenizer, network = load_tokenizer(folder), load_causal_lm(folder, "cpu").eval()
    torch.manual_seed(0)
    for parameter in network.parameters():  # the trained one says the same to all
        torch.nn.init.normal_(parameter, std=0.5)
    prompts = [torch.randint(len(tokenizer), (length,)).tolist() for length in range(2, 26)]
    alone = [
        network.generate(torch.tensor([prompt]), eos_token_id=-1, max_new_tokens=30, do_sample=False)[0, len(prompt) :]
        for prompt in prompts
    ]
    # the end is to be the token that comes at the most different places
    firsts = {token: {said.tolist().index(token) for said in alone if token in said} for token in range(len(tokenizer))}
    end = max(firsts, key=lambda token: len(firsts[token]))
    assert len(firsts[end]) > 5
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)

    together = generate(network, Reader(tokenizer, {}), prompts, 30, temperature=1e-3)
    for said, response in zip(alone, together, strict=True):
        expected = said.tolist()
        expected = expected[: expected.index(end) + 1] if end in expected else expected
        assert response[: len(expected)] == expected


def test_sampling_stops_where_the_template_ends_a_turn(made, smoke):
    """And at the end of text, if that is another token."""
    made(graph.task(smoke))
    folder = made(graph.base(smoke, "opt-tiny"))
    tokenizer, network = load_tokenizer(folder), load_causal_lm(folder, "cpu").eval()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}<|pad|>{% endfor %}"  # any token that is not the end of text
    )
    reader = Reader(tokenizer, {"dialogue": "chat"})
    ends = [tokenizer.convert_tokens_to_ids("<|pad|>"), tokenizer.eos_token_id]
    assert reader.ends == ends and ends[0] != ends[1]
    with torch.no_grad():  # one that says what it likes
        network.get_output_embeddings().weight.normal_(std=0.05)
    torch.manual_seed(0)
    responses = generate(network, reader, [[5, 6, 7]] * 400, 40, temperature=5.0)
    last = [response[-1] for response in responses if len(response) < 40]
    assert set(last) == set(ends)
    assert not any(token in ends for response in responses for token in response[:-1])
