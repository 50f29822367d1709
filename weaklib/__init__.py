"""weaklib: the helper library of a reproducible study of preference alignment with weak LLM supervisors."""

import importlib

# What notebooks call, by room. It comes when it is asked for: workers import this package, too, and need none of it.
_ROOMS = {
    "evaluation.intervals": "correct_family pooled",
    "evaluation.judging": "judge_reliability win_rates",
    "evaluation.metrics": "agreement_across_seeds calibration_error contrasts difference label_means "
    "labels_against_human mean_of paired_scores rank_agreement reliability_curve",
    "study.labels": "baseline_labels judge_verdicts judged_twice label_costs parameter_count weak_labels",
    "study.study": "Study reported",
    "supervisors.labels": "confidence",
    "training.losses": "preference_loss",
}
_MODULES = {name: f"weaklib.{module}" for module, names in _ROOMS.items() for name in names.split()}
__all__ = list(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'weaklib' has no attribute {name!r}")
