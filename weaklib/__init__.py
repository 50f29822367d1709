"""weaklib: the helper library of a reproducible study of preference alignment with weak LLM supervisors."""

import importlib

from weaklib.losses import confidence, preference_loss

# Workers import this package, too, and need nothing of what notebooks call: it comes when it is asked for.
_MODULES = {
    "Study": "study",
    "agreement_across_seeds": "metrics",
    "baseline_labels": "annotations",
    "calibration_error": "metrics",
    "contrasts": "metrics",
    "correct_family": "statistics",
    "detectable": "statistics",
    "difference": "metrics",
    "gain": "metrics",
    "gold_gap": "metrics",
    "gold_model_labels": "annotations",
    "gra": "metrics",
    "label_costs": "annotations",
    "labels_against_human": "metrics",
    "mean_of": "metrics",
    "over_start": "metrics",
    "parameter_counts": "annotations",
    "paired_scores": "metrics",
    "pooled": "statistics",
    "rank_agreement": "metrics",
    "reliability_curve": "metrics",
    "reported": "papers",
    "share_correct": "metrics",
    "weak_labels": "annotations",
    "win_rate": "metrics",
}

__all__ = ["confidence", "preference_loss", *_MODULES]


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(f"weaklib.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'weaklib' has no attribute {name!r}")
