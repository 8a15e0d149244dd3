"""The four figures that segmentation is judged by, from one confusion matrix. Long et al., 2015, section 5.

n_ij: pixels of class i predicted as class j.  t_i = Σ_j n_ij.  A class that occurs in neither labels nor predictions
has no IoU (NaN), and means are taken over the classes that have one.
"""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from ..backend import Array, to_host
from ..errors import DtypeError, InputError


class ConfusionMatrix:
    """Counts of (true class, predicted class), added up over images."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, labels: Array, predictions: Array, ignore: int = 255) -> None:
        """Count all pixels whose label is not `ignore`. labels, predictions: integer arrays of one shape.

        With more than 255 classes `ignore` has to be a number that is no class.

        Raises InputError for different shapes, for classes that do not exist, and for a dtype too small for all classes;
        DtypeError for other numbers than integers.
        """
        labels, predictions = to_host(labels), to_host(predictions)
        if {labels.dtype.kind, predictions.dtype.kind} - set("biu"):
            raise DtypeError(f"confusion matrix: expected integers, got {labels.dtype} and {predictions.dtype}")
        if labels.shape != predictions.shape:
            raise InputError(
                f"confusion matrix: labels {labels.shape} and predictions {predictions.shape} differ in shape"
            )
        counted = labels != ignore
        true, predicted = labels[counted].astype(np.int64), predictions[counted].astype(np.int64)
        for what, dtype, values in (("label", labels.dtype, true), ("prediction", predictions.dtype, predicted)):
            if dtype.kind != "b" and np.iinfo(dtype).max < self.num_classes - 1:
                raise InputError(
                    f"confusion matrix: {what}s of dtype {dtype} cannot hold {self.num_classes} classes; "
                    "use a wider dtype, and an ignore that is no class"
                )
            if (wrong := values[(values < 0) | (values >= self.num_classes)]).size:
                raise InputError(f"confusion matrix: expected a {what} of 0..{self.num_classes - 1}, got {wrong[0]}")
        pairs = true * self.num_classes + predicted
        self.counts += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.counts.shape)

    def merge(self, other: Self) -> None:
        """Count what another one has counted. Raises InputError where it is of other classes."""
        check_same(self, other, "num_classes")
        self.counts += other.counts

    def pixel_accuracy(self) -> float:
        """Σ_i n_ii / Σ_i t_i"""
        return float(ratio(np.trace(self.counts), self.counts.sum()))

    def mean_accuracy(self) -> float:
        """The mean of n_ii / t_i over the classes that occur in the labels."""
        return mean(ratio(np.diag(self.counts), self.counts.sum(axis=1)))

    def per_class_iou(self) -> np.ndarray:
        """n_ii / (t_i + Σ_j n_ji − n_ii) for each class, (num_classes,); NaN for a class that occurs nowhere."""
        hits = np.diag(self.counts)
        return ratio(hits, self.counts.sum(axis=1) + self.counts.sum(axis=0) - hits)

    def mean_iou(self, classes: Iterable[int] | None = None) -> float:
        """The mean IoU over the classes that have one; over the listed ones only, if `classes` is given. Raises InputError for others."""
        return mean(self.per_class_iou(), classes)

    def frequency_weighted_iou(self) -> float:
        """Σ_i t_i · IoU_i / Σ_i t_i"""
        frequency = self.counts.sum(axis=1)
        present = frequency > 0
        return float(ratio((frequency[present] * self.per_class_iou()[present]).sum(), frequency.sum()))

    def scores(self) -> dict[str, float]:
        """The four figures by name, as plain numbers."""
        names = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
        return {name: getattr(self, name)() for name in names}


def check_same(own: Any, other: Any, *names: str) -> None:
    """Raise InputError where a metric is to be merged with one of which an attribute, such as the classes, differs."""
    for name in names:
        ours, theirs = getattr(own, name), getattr(other, name, None)
        if ours != theirs:
            raise InputError(f"{type(own).__name__}: expected one of the same {name} to merge, {ours}; got {theirs}")


def ratio(part: Array, whole: Array) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def mean(values: np.ndarray, classes: Iterable[int] | None = None) -> float:
    """The mean of the values that exist, NaN if none does; of the listed classes only, if given. Raises InputError for others."""
    if classes is not None:
        classes = list(classes)
        if wrong := [number for number in classes if number not in range(len(values))]:
            raise InputError(f"mean: expected classes 0..{len(values) - 1}, got {wrong[0]}")
        values = values[classes]
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
