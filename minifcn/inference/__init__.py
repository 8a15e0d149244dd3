"""From weights to labels: segmentation, sliding windows, classification."""

from .classify import evaluate_windows
from .segment import evaluate, predict, probabilities

__all__ = ["evaluate", "evaluate_windows", "predict", "probabilities"]
