"""From weights to labels: segmentation, sliding windows, classification."""

from .segment import evaluate, predict, prepared

__all__ = ["evaluate", "predict", "prepared"]
