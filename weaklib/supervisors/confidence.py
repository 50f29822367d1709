"""The confidence of a weak label ([B])."""

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
