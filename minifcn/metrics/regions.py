"""AP^r: average precision of objects by their pixels, for each class. Hariharan et al., Simultaneous Detection and
Segmentation, ECCV 2014, https://arxiv.org/abs/1407.1808, and `generalized_det_eval.m` of its code."""

from collections.abc import Iterable
from typing import Self

import numpy as np

from ..backend import Array
from ..errors import InputError
from .confusion import check_same, mean
from .instances import average_precision
from .overlaps import match, overlaps

THRESHOLDS = tuple(i / 10 for i in range(1, 10))


class RegionAveragePrecision:
    """AP^r: found objects choose, from the highest score on, the true object of their class and image, among those left, with
    which their IoU is highest; above the threshold it is a match. The area under precision over recall is that of `AveragePrecision`.

    Void, and pixels of an object that is unknown, do not count: they are in no union, and a found object without a match of which
    they are more than half counts neither way. (The source has no void.)
    """

    def __init__(self, num_classes: int):
        self.num_classes, self._true = num_classes, np.zeros(num_classes, np.int64)
        self._found = [[] for _ in range(num_classes)]  # of each class: (scores (m,), hits (T, m), counted (T, m))

    def update(self, label: Array, instances: Array, prediction: tuple) -> None:
        """Count one image. Arguments and errors: as for `overlaps.overlaps`."""
        table = overlaps(label, instances, prediction, self.num_classes)
        uncounted = table.void + table.crowds.sum(axis=0)
        ious, least = table.ious(uncounted), np.nextafter(THRESHOLDS, 1)  # above, not at
        self._true += np.bincount(table.true_classes, minlength=self.num_classes)
        for number in np.unique(table.classes):
            own = np.flatnonzero(table.classes == number)
            own = own[np.argsort(-table.scores[own], kind="stable")]
            rows = np.flatnonzero(table.true_classes == number)
            none = np.zeros(len(rows), bool)
            hits = match(ious[np.ix_(rows, own)], least, none, none) >= 0
            self._found[number].append((table.scores[own], hits, hits | (2 * uncounted <= table.areas)[own]))

    def merge(self, other: Self) -> None:
        """Count the images that another one has counted, behind these. Raises InputError where it is of other classes."""
        check_same(self, other, "num_classes")
        self._true += other._true
        for own, found in zip(self._found, other._found, strict=True):
            own += found

    def ap(self, threshold: float = 0.5) -> np.ndarray:
        """AP^r of each class, (num_classes,) float64; NaN for a class without a true object. threshold: 0.1, 0.2, … 0.9."""
        if threshold not in THRESHOLDS:
            raise InputError(f"AP^r: expected a threshold of {', '.join(map(str, THRESHOLDS))}, got {threshold}")
        row, precisions = THRESHOLDS.index(threshold), np.full(self.num_classes, np.nan)
        for number in np.flatnonzero(self._true):
            parts = [(scores[counted[row]], hits[row][counted[row]]) for scores, hits, counted in self._found[number]]
            scores, hits = map(np.concatenate, zip((np.zeros(0), np.zeros(0, bool)), *parts, strict=True))
            precisions[number] = average_precision(scores, hits, self._true[number])
        return precisions

    def volume(self) -> np.ndarray:
        """AP^r_vol of each class: the mean of AP^r over 0.1 … 0.9, (num_classes,) float64."""
        return np.mean([self.ap(threshold) for threshold in THRESHOLDS], axis=0)

    def scores(self, classes: Iterable[int] | None = None) -> dict[str, float]:
        """{"apr_50", "apr_70", "apr_vol": the mean over the classes with true objects}; over the listed ones only, if given."""
        chosen = None if classes is None else list(classes)
        values = {"apr_50": self.ap(0.5), "apr_70": self.ap(0.7), "apr_vol": self.volume()}
        return {name: mean(of_classes, chosen) for name, of_classes in values.items()}
