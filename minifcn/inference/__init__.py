"""From weights to labels: segmentation, the dense CRF, objects, sliding windows, classification."""

from .classify import evaluate_windows
from .dense_crf import dense_crf
from .objects import classed_objects, evaluate_objects, objects, objects_of
from .panoptic import Objects, components, evaluate_panoptic, panoptic, things_of
from .segment import evaluate, parts, predict, probabilities, shrunk

__all__ = [
    "Objects",
    "classed_objects",
    "components",
    "dense_crf",
    "evaluate",
    "evaluate_objects",
    "evaluate_panoptic",
    "evaluate_windows",
    "objects",
    "objects_of",
    "panoptic",
    "parts",
    "predict",
    "probabilities",
    "shrunk",
    "things_of",
]
