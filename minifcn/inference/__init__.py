"""From weights to labels: segmentation, sliding windows, classification."""

from .segment import evaluate, predict

__all__ = ["evaluate", "predict"]
