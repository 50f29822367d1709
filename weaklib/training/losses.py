"""Preference losses as pure functions. A new one takes the same arguments, under its name in ``OBJECTIVES``."""


def preference_loss(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, *, objective: str, beta: float,
    label_smoothing: float = 0.0, chosen_lengths=None, rejected_lengths=None,
):  # fmt: skip
    """One loss an example, (B,), equal to TRL's for the same objective. All arguments are (B,), too: log π of whole
    responses in nats under policy and reference, and the responses' tokens, without which ``ipo`` raises ValueError.
    Log-ratio r⁺ = log[π(y⁺|x)/π_ref(y⁺|x)] of the chosen response, r⁻ of the other: h = r⁺ − r⁻,
    - ``dpo``: −log σ(β·h) (Rafailov et al. 2023, Eq. 7);
    - ``rdpo``: [(1 − ε)·(−log σ(β·h)) − ε·(−log σ(−β·h))] / (1 − 2ε), ε = ``label_smoothing``
      (Ray Chowdhury et al. 2024, robust DPO, Eq. 12);
    - ``ipo``: (h̄ − 1/(2β))², h̄ as h with each log-ratio divided by its response's number of tokens
      (Azar et al. 2024, Eq. 17, in the length-normalised form that its authors confirmed to TRL's)."""
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}: {', '.join(OBJECTIVES)}")
    ratios = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    return OBJECTIVES[objective](*ratios, beta, label_smoothing, chosen_lengths, rejected_lengths)


def _dpo(chosen, rejected, beta, label_smoothing, chosen_lengths, rejected_lengths):
    from torch.nn.functional import logsigmoid  # torch takes seconds to import, and a profile needs only the names

    return -logsigmoid(beta * (chosen - rejected))


def _rdpo(chosen, rejected, beta, label_smoothing, chosen_lengths, rejected_lengths):
    from torch.nn.functional import logsigmoid

    h, flip = beta * (chosen - rejected), label_smoothing
    return (-(1 - flip) * logsigmoid(h) + flip * logsigmoid(-h)) / (1 - 2 * flip)


def _ipo(chosen, rejected, beta, label_smoothing, chosen_lengths, rejected_lengths):
    if chosen_lengths is None or rejected_lengths is None:
        raise ValueError("ipo needs chosen_lengths and rejected_lengths")
    h = chosen / chosen_lengths.clamp(min=1) - rejected / rejected_lengths.clamp(min=1)
    return (h - 1 / (2 * beta)) ** 2


OBJECTIVES = {"dpo": _dpo, "ipo": _ipo, "rdpo": _rdpo}
