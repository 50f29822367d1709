"""Confidence and preference losses: the papers' equations as pure functions."""

import numpy as np


def confidence(margin):
    """Confidence of a weak label, C = 2·(σ(|margin|) − ½), in [0, 1] ([B], the weight of CW-PO).

    Args:
        margin: the annotator's reward of one response minus that of the other; a number, array or tensor.

    Returns:
        the same shape; computed as tanh(|margin|/2), which is equal and loses no digits near 0.
    """
    if hasattr(margin, "detach"):  # a torch tensor, without importing torch
        return (margin.abs() / 2).tanh()
    return np.tanh(np.abs(margin) / 2)


def preference_loss(
    policy_chosen_logps,
    policy_rejected_logps,
    ref_chosen_logps,
    ref_rejected_logps,
    *,
    objective: str,
    beta: float,
    label_smoothing: float = 0.0,
    chosen_lengths=None,
    rejected_lengths=None,
):
    """One loss an example, equal to TRL's for the same objective.

    With h = log[π(y⁺|x)/π_ref(y⁺|x)] − log[π(y⁻|x)/π_ref(y⁻|x)]:

    - ``dpo``: −log σ(β·h) (Rafailov et al. 2023, Eq. 7);
    - ``rdpo``: [(1 − ε)·(−log σ(β·h)) − ε·(−log σ(−β·h))] / (1 − 2ε), ε = ``label_smoothing``
      (Ray Chowdhury et al. 2024, robust DPO, Eq. 12);
    - ``ipo``: (h̄ − 1/(2β))², h̄ as h with each log-ratio divided by its response's number of tokens
      (Azar et al. 2024, Eq. 17, in the length-normalised form that its authors confirmed to TRL's).

    Args:
        policy_chosen_logps, policy_rejected_logps: log π of whole responses in nats, tensors of shape (B,).
        ref_chosen_logps, ref_rejected_logps: the same under the reference model.
        chosen_lengths, rejected_lengths: tokens of each response, shape (B,); ``ipo`` needs them.

    Returns:
        a tensor of shape (B,).

    Raises:
        ValueError: unknown objective, or ``ipo`` without lengths.
    """
    from torch.nn.functional import logsigmoid  # torch is slow to import, and a notebook's kernel needs only confidence

    chosen = policy_chosen_logps - ref_chosen_logps
    rejected = policy_rejected_logps - ref_rejected_logps
    if objective == "dpo":
        return -logsigmoid(beta * (chosen - rejected))
    if objective == "rdpo":
        h, flip = beta * (chosen - rejected), label_smoothing
        return (-(1 - flip) * logsigmoid(h) + flip * logsigmoid(-h)) / (1 - 2 * flip)
    if objective == "ipo":
        if chosen_lengths is None or rejected_lengths is None:
            raise ValueError("ipo needs chosen_lengths and rejected_lengths")
        h = chosen / chosen_lengths.clamp(min=1) - rejected / rejected_lengths.clamp(min=1)
        return (h - 1 / (2 * beta)) ** 2
    raise ValueError(f"unknown objective {objective!r}: dpo, ipo or rdpo")
