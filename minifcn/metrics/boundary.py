"""How good predictions are near outlines, where the scores over all pixels hardly differ. Kohli et al., IJCV 2009."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from ..backend import Array, to_host
from ..errors import InputError
from .confusion import ConfusionMatrix, check_same


class BoundaryIoU:
    """A ConfusionMatrix for each band around the true outlines, in `matrices` by the band's width.

    A band of b pixels is what has another label within b pixels down, across or both. The label to ignore counts as another: VOC's
    annotators drew it around objects. bands: widths in pixels, from 1 on.
    """

    def __init__(self, num_classes: int, bands: Sequence[int] = (1, 2, 4, 8)):
        self.bands = bands = tuple(bands)
        if not bands or not all(isinstance(band, int | np.integer) and band >= 1 for band in bands):
            raise InputError(f"boundary: expected bands of whole numbers of pixels from 1 on, got {bands}")
        self.matrices = {band: ConfusionMatrix(num_classes) for band in bands}

    def update(self, labels: Array, predictions: Array, ignore: int = 255) -> None:
        """Count the pixels of the bands of one image.   labels, predictions (H, W); ignore, errors: as ConfusionMatrix.update"""
        labels = lowest = highest = to_host(labels)
        if labels.ndim != 2 or not labels.size:
            raise InputError(f"boundary: expected labels of an image, (H, W), got shape {labels.shape}")
        for width in range(1, max(self.matrices) + 1):
            lowest, highest = around(np.minimum, lowest), around(np.maximum, highest)
            if width in self.matrices:
                near = np.where(lowest != highest, labels.astype(np.int64), ignore)
                self.matrices[width].update(near, predictions, ignore)

    def merge(self, other: Self) -> None:
        """Count what another one has counted. Raises InputError where it is of other bands or classes."""
        check_same(self, other, "bands")
        for band, matrix in self.matrices.items():
            matrix.merge(other.matrices[band])

    def scores(self) -> dict[int, float]:
        """The mean IoU in each band, by its width in pixels."""
        return {band: matrix.mean_iou() for band, matrix in self.matrices.items()}


def around(extreme: np.ufunc, labels: np.ndarray) -> np.ndarray:
    """The extreme, np.minimum or np.maximum, of the 3×3 pixels around each that the picture has.   labels (H, W) -> (H, W)"""
    for _ in range(2):  # down, then, on the transpose, across
        padded = np.pad(labels, ((1, 1), (0, 0)), mode="edge")
        labels = extreme(extreme(padded[:-2], labels), padded[2:]).T
    return labels
