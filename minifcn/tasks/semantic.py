"""Semantic segmentation: a class for every pixel."""

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..backend import Array, to_device
from ..data.labels import VOID
from ..metrics import ConfusionMatrix
from ..ops.geometry import Cache


class SemanticSegmentation:
    """Softmax cross-entropy over the labelled pixels; judged by the mean IoU.

    reduction: "mean" divides the loss by the number of labelled pixels, each counted as its class's weight; "sum", as in the
    published solver, does not. class_weights: one number for each class, None for 1.
    """

    score_name = "mean_iou"  # which of the metric's scores says that a network is better

    def __init__(self, reduction: str = "mean", class_weights: Sequence[float] | None = None):
        self.reduction = reduction
        self.class_weights = None if class_weights is None else np.array(class_weights, np.float64)

    def loss(self, logits: Array, labels: np.ndarray) -> tuple[Array, float, Cache]:
        """The loss of a batch, or of a part of it.   logits (N, C, H, W), labels (N, H, W) on the host -> (total, weight, cache)

        The batch's loss is Σ total / Σ weight over its parts, and Σ total where nothing has weight: reduction "sum", or
        no labelled pixel. total is a float64 of shape () on the logits' device.
        """
        weights, counted = self.class_weights, labels[labels != VOID]
        of_classes = None if weights is None else to_device(weights.astype(logits.dtype))
        loss, cache = ops.softmax_cross_entropy_forward(
            logits, to_device(labels), weight=of_classes, reduction=self.reduction
        )
        weight: float = 0
        if self.reduction == "mean":
            weight = counted.size if weights is None else float(weights[counted].sum())
        # In float64 the product is exact, and total / weight is the mean to the last bit.
        return loss.astype("float64") * (weight or 1), weight, (cache, weight or 1)

    def loss_backward(self, scale: float, cache: Cache) -> Array:
        """The gradient of scale · total; scale is 1 / Σ weight of the whole batch.   -> dlogits (N, C, H, W)"""
        cache, weight = cache
        return ops.softmax_cross_entropy_backward(scale * weight, cache)

    def predict(self, logits: Array) -> Array:
        """The likeliest class of every pixel.   (N, C, H, W) -> (N, H, W) integers"""
        return logits.argmax(axis=1)

    def metric(self, num_classes: int) -> ConfusionMatrix:
        """What labels and predictions are counted in, from the start."""
        return ConfusionMatrix(num_classes)


SEGMENTATION = SemanticSegmentation()
