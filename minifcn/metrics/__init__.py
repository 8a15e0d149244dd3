"""What predictions are judged by: counts that are added up over images, and scores from them."""

from .boundary import BoundaryIoU
from .confusion import ConfusionMatrix
from .instances import AveragePrecision, InstanceScores

__all__ = ["AveragePrecision", "BoundaryIoU", "ConfusionMatrix", "InstanceScores"]
