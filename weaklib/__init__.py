"""weaklib: the helper library of a reproducible study of preference alignment with weak LLM supervisors."""

from weaklib.losses import confidence, preference_loss

__all__ = ["confidence", "preference_loss"]
