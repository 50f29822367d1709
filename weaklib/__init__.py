"""weaklib: the helper library of a reproducible study of preference alignment with weak LLM supervisors."""

import importlib

from weaklib.losses import confidence, preference_loss

__all__ = ["Study", "confidence", "gra", "gra_difference", "preference_loss", "reported", "share_correct"]

# Workers import this package, too, and need nothing of what notebooks call: it comes when it is asked for.
_MODULES = {
    "Study": "study",
    "gra": "metrics",
    "gra_difference": "metrics",
    "reported": "papers",
    "share_correct": "metrics",
}


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(f"weaklib.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'weaklib' has no attribute {name!r}")
