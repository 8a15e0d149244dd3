"""What predictions are judged by: counts that are added up over images, and scores from them."""

from .confusion import ConfusionMatrix
from .instances import AveragePrecision, InstanceScores

__all__ = ["AveragePrecision", "ConfusionMatrix", "InstanceScores"]
