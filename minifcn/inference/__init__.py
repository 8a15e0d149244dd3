"""From weights to labels: segmentation, objects, sliding windows, classification."""

from .classify import evaluate_windows
from .objects import evaluate_objects, objects, objects_of
from .segment import evaluate, predict, probabilities

__all__ = [
    "evaluate",
    "evaluate_objects",
    "evaluate_windows",
    "objects",
    "objects_of",
    "predict",
    "probabilities",
]
