"""How well objects are found, each by its own pixels: the measure of the 2018 Data Science Bowl, and average precision.

An object is the set of pixels with its number; 0 is no object. A predicted object matches a true one where their IoU is
above a threshold of at least 0.5. So each matches at most one, and nothing has to be chosen: predicted objects do not
overlap, and of a true object two of them would each hold more than half.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from ..backend import Array, to_host
from ..errors import DtypeError, InputError
from .confusion import check_same

THRESHOLDS = tuple(i / 20 for i in range(10, 20))  # 0.50:0.05:0.95


class InstanceScores:
    """TP / (TP + FP + FN) of each image's objects, averaged over images: the measure of the 2018 Data Science Bowl.

    Source: https://www.kaggle.com/c/data-science-bowl-2018/overview/evaluation
    """

    def __init__(self) -> None:
        self._images = []  # (the best IoU of each predicted object, how many true objects)

    def update(self, true: Array, predicted: Array) -> None:
        """Count one image. true, predicted: integer arrays of one shape, 0 where no object is, else an object's number.

        Raises InputError for different shapes and numbers outside 0 … 2³¹ − 1; DtypeError for other numbers than integers.
        """
        _, ious, count = best_overlaps(true, predicted)
        self._images.append((ious, count))

    def merge(self, other: Self) -> None:
        """Count the images that another one has counted, behind these."""
        self._images += other._images

    def at(self, threshold: float) -> float:
        """The mean over images where an IoU above `threshold` matches. An image without any object, found or true, counts 1.

        NaN without images. Raises InputError for a threshold below 0.5.
        """
        check_threshold(threshold)
        if not self._images:
            return float("nan")
        hits = [(np.count_nonzero(ious > threshold), len(ious) + count) for ious, count in self._images]
        return float(np.mean([hit / (objects - hit) if objects else 1 for hit, objects in hits]))

    def mean(self) -> float:
        """The mean over the thresholds 0.50:0.05:0.95."""
        return float(np.mean([self.at(threshold) for threshold in THRESHOLDS]))

    def scores(self) -> dict[str, float]:
        """Both figures by name, as plain numbers: at 0.5, and the mean over the thresholds."""
        return {"bowl_50": self.at(0.5), "bowl": self.mean()}


class AveragePrecision:
    """The area under precision over recall, as the objects of all images are accepted one score after the other.

    Precision is the highest at this recall or beyond, and every step of recall counts ("all points", as in PASCAL VOC from
    2010 on). Objects of equal score are accepted together, so that their order does not matter. For several classes: one
    AveragePrecision each, updated with the objects of that class alone.

    Source: VOCap.m in PASCAL VOC's development kit of 2010. http://host.robots.ox.ac.uk/pascal/VOC/voc2010/
    """

    def __init__(self, thresholds: Sequence[float] = (0.5,)):
        for threshold in thresholds:
            check_threshold(threshold)
        self.thresholds = tuple(thresholds)
        self._ious, self._scores, self._true = [], [], 0

    def update(self, true: Array, predicted: Array, scores: Array) -> None:
        """Count one image. true, predicted: as for InstanceScores. scores: (n,), that of the predicted object i at i − 1.

        Raises, beside the errors of InstanceScores, InputError for objects without a score and for scores that are not finite.
        """
        numbers, ious, count = best_overlaps(true, predicted)
        scores = np.asarray(to_host(scores), np.float64)
        if scores.ndim != 1 or scores.size < numbers.max(initial=0) or not np.isfinite(scores).all():
            raise InputError(
                f"average precision: expected a finite score for each object 1..{numbers.max(initial=0)}, "
                f"got an array {scores.shape} with {np.count_nonzero(~np.isfinite(scores))} that are not finite"
            )
        self._ious.append(ious)
        self._scores.append(scores[numbers - 1])
        self._true += count

    def merge(self, other: Self) -> None:
        """Count the images that another one has counted, behind these. Raises InputError where it is of other thresholds."""
        check_same(self, other, "thresholds")
        self._ious += other._ious
        self._scores += other._scores
        self._true += other._true

    def ap(self, threshold: float = 0.5) -> float:
        """The average precision where an IoU above `threshold` matches; NaN where no image has a true object.

        Raises InputError for a threshold below 0.5.
        """
        check_threshold(threshold)
        if not self._true:
            return float("nan")
        return average_precision(np.concatenate(self._scores), np.concatenate(self._ious) > threshold, self._true)

    def scores(self) -> dict[str, float]:
        """{"ap_50": the average precision at 0.5, and so on for each of the thresholds}"""
        return {f"ap_{100 * threshold:g}": self.ap(threshold) for threshold in self.thresholds}


def average_precision(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    """The area under precision over recall, as `AveragePrecision` describes it. scores (n,); hits (n,) bool; total: true objects"""
    order = np.argsort(-scores)
    step = np.diff(scores[order], append=-np.inf) != 0  # the last of each score
    right, accepted = np.cumsum(hits[order])[step], np.flatnonzero(step) + 1
    highest = np.maximum.accumulate((right / accepted)[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * highest) / total)


def check_threshold(threshold: float) -> None:
    """Raise InputError for a threshold that does not make matches unique, or that nothing exceeds."""
    if not 0.5 <= threshold < 1:
        raise InputError(f"objects: expected a threshold of IoU from 0.5 to below 1, got {threshold}")


def best_overlaps(true: Array, predicted: Array) -> tuple[np.ndarray, np.ndarray, int]:
    """The numbers of the predicted objects (n,), the highest IoU of each with a true one (n,), and how many true ones there are.

    Arguments and errors: as for InstanceScores.update.
    """
    true, predicted = to_host(true), to_host(predicted)
    if {true.dtype.kind, predicted.dtype.kind} - set("biu"):
        raise DtypeError(f"objects: expected integers, got {true.dtype} and {predicted.dtype}")
    if true.shape != predicted.shape:
        raise InputError(f"objects: true {true.shape} and predicted {predicted.shape} differ in shape")
    for what, numbers in (("true", true), ("predicted", predicted)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < 1 << 31:
            raise InputError(
                f"objects: expected {what} numbers 0..{(1 << 31) - 1}, got {numbers.min()}..{numbers.max()}"
            )
    base = int(predicted.max(initial=0)) + 1
    pairs, pixels = np.unique(true.astype(np.int64) * base + predicted, return_counts=True)
    of_true, of_predicted = np.divmod(pairs, base)
    true_numbers, i = np.unique(of_true, return_inverse=True)
    numbers, j = np.unique(of_predicted, return_inverse=True)
    unions = np.bincount(i, pixels)[i] + np.bincount(j, pixels)[j] - pixels
    best = np.zeros(len(numbers))
    np.maximum.at(best, j, np.where(of_true > 0, pixels / unions, 0))
    found = numbers > 0
    return numbers[found], best[found], int(np.count_nonzero(true_numbers))
