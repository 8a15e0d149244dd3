"""What is predicted: the loss of a task, its prediction, its metric, and the score by which networks are compared."""

from .classification import CLASSIFICATION, Classification
from .panoptic import PanopticScores, PanopticSegmentation
from .semantic import SEGMENTATION, SemanticSegmentation, grid_of

__all__ = [
    "CLASSIFICATION",
    "SEGMENTATION",
    "Classification",
    "PanopticScores",
    "PanopticSegmentation",
    "SemanticSegmentation",
    "grid_of",
]
