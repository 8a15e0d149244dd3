"""Classification: one class for an image, which is segmentation of a single pixel."""

import numpy as np

from ..backend import Array
from ..ops.geometry import Cache
from .semantic import SemanticSegmentation


class Classification(SemanticSegmentation):
    """Softmax cross-entropy over the labelled images, logits (N, C) and labels (N,); judged by the accuracy.

    Labels may also be maps (N, H, W), of windows of larger images: then a window's class is that of the pixel in its middle.
    """

    score_name = "pixel_accuracy"  # the share of labels that are right, whether of pixels or of images

    def loss(self, logits: Array, labels: np.ndarray) -> tuple[Array, float, Cache]:
        return super().loss(logits, middle(labels))


def middle(labels: np.ndarray) -> np.ndarray:
    """The labels of windows: the middle pixel of maps (N, H, W); labels (N,) stay as they are.   -> (N,)"""
    return labels if labels.ndim == 1 else np.ascontiguousarray(labels[:, labels.shape[1] // 2, labels.shape[2] // 2])


CLASSIFICATION = Classification()
