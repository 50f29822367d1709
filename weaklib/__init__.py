"""weaklib: the helper library of a reproducible study of preference alignment with weak LLM supervisors."""

import importlib

# What notebooks call, and the room it lies in. It comes when it is asked for: workers import this package, too, and need none of it.
_ROOMS = {
    "evaluation.intervals": "correct_family pooled",
    "evaluation.judging": "judge_reliability win_rates",
    "evaluation.label_metrics": "agreement_across_seeds calibration_error group_means labels_against_human mean_difference "
    "reliability_curve share_correct share_difference",
    "evaluation.metrics": "contrasts difference gain gold_gap gra mean_of over_start paired_scores rank_agreement win_rate",
    "study.labels": "baseline_labels gold_model_labels label_costs parameter_counts weak_labels",
    "study.papers": "reported",
    "study.study": "Study",
    "study.verdicts": "judge_verdicts judged_twice",
    "supervisors.confidence": "confidence",
    "training.losses": "preference_loss",
}
_MODULES = {name: f"weaklib.{module}" for module, names in _ROOMS.items() for name in names.split()}

__all__ = list(_MODULES)


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'weaklib' has no attribute {name!r}")
