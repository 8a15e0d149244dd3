"""What predictions are judged by: counts that are added up over images, and scores from them."""

from .boundary import BoundaryIoU
from .coco import COCOAveragePrecision
from .confusion import ConfusionMatrix
from .instances import AveragePrecision, InstanceScores
from .panoptic import PanopticQuality
from .regions import RegionAveragePrecision

__all__ = [
    "AveragePrecision",
    "BoundaryIoU",
    "COCOAveragePrecision",
    "ConfusionMatrix",
    "InstanceScores",
    "PanopticQuality",
    "RegionAveragePrecision",
]
