"""Panoptic quality: how well an image falls into objects and stuff. Kirillov et al., CVPR 2019, https://arxiv.org/abs/1801.00868"""

from collections.abc import Iterable
from typing import Self

import numpy as np

from ..backend import Array
from ..errors import InputError
from .confusion import check_same, mean, ratio
from .overlaps import overlaps


class PanopticQuality:
    """PQ = Σ IoU of matches / (TP + FP/2 + FN/2) = SQ · RQ, the mean IoU of the matches times their F-measure; for each class.

    A segment is an object, or all pixels of one class of stuff. Two of a class match where their IoU is above 0.5; there is one at
    most. Void is in no union, and a found segment without a match, more than half of it in void or in pixels of its class of which the
    object is unknown, counts neither way: the rules of panopticapi's `evaluation.py`. Pixels of things that are of no object are void.

    things: the classes that have objects. stuff: those that have none; all others, unless given. Pixels of neither, such as a
    background that is not to count, are of no segment.
    """

    def __init__(self, num_classes: int, things: Iterable[int], stuff: Iterable[int] | None = None):
        self.num_classes, self.things = num_classes, tuple(things)
        self.stuff = tuple(c for c in range(num_classes) if c not in self.things) if stuff is None else tuple(stuff)
        if set(self.things) & set(self.stuff) or not {*self.things, *self.stuff} <= set(range(num_classes)):
            raise InputError(
                f"panoptic quality: expected things and stuff of 0..{num_classes - 1}, apart; got {self.things} and {self.stuff}"
            )
        self._tp, self._fp, self._fn = np.zeros((3, num_classes))
        self._matches = []  # (classes (m,), IoUs (m,)) of each image: summed in one order, however they were shared out

    def update(self, label: Array, instances: Array, prediction: tuple) -> None:
        """Count one image. Arguments and errors: as for `overlaps.overlaps`; InputError also for objects of a class of no things."""
        table = overlaps(label, instances, prediction, self.num_classes, self.stuff, self.things)
        objects = len(prediction[2])
        if wrong := set(table.classes[:objects].tolist()) - set(self.things):
            raise InputError(
                f"panoptic quality: expected objects of the classes {self.things}, got one of {wrong.pop()}"
            )
        same = table.true_classes[:, None] == table.classes
        ious = np.where(same, table.ious(table.void), 0)
        rows, columns = np.nonzero(ious > 0.5)
        missed = np.setdiff1d(np.arange(len(ious)), rows)
        uncounted = table.void + table.crowds[table.classes, np.arange(len(table.classes))]
        additional = np.setdiff1d(np.flatnonzero(2 * uncounted <= table.areas), columns)
        self._matches.append((table.true_classes[rows], ious[rows, columns]))
        for sums, classes in (
            (self._tp, table.true_classes[rows]),
            (self._fn, table.true_classes[missed]),
            (self._fp, table.classes[additional]),
        ):
            np.add.at(sums, classes, 1)

    def merge(self, other: Self) -> None:
        """Count the images that another one has counted, behind these. Raises InputError where it is of other classes."""
        check_same(self, other, "num_classes", "things", "stuff")
        self._matches += other._matches
        for own, found in ((self._tp, other._tp), (self._fp, other._fp), (self._fn, other._fn)):
            own += found

    def pq(self) -> np.ndarray:
        """Panoptic quality of each class, (num_classes,) float64; NaN for a class that is neither there nor found."""
        return ratio(self._iou(), self._halved())

    def sq(self) -> np.ndarray:
        """Segmentation quality of each class: the mean IoU of its matches, 0 where there is none, NaN as for `pq`."""
        return np.where(self._halved() > 0, self._iou() / np.maximum(self._tp, 1), np.nan)

    def rq(self) -> np.ndarray:
        """Recognition quality of each class: TP / (TP + FP/2 + FN/2), NaN as for `pq`."""
        return ratio(self._tp, self._halved())

    def _iou(self):
        """The sum of the matches' IoUs of each class."""
        sums = np.zeros(self.num_classes)
        for classes, ious in self._matches:
            np.add.at(sums, classes, ious)
        return sums

    def _halved(self):
        return self._tp + self._fp / 2 + self._fn / 2

    def scores(self) -> dict[str, float]:
        """{"pq", "sq", "rq", "pq_things", …, "rq_stuff": the mean over the classes that are there or found}"""
        groups = {"": self.things + self.stuff, "_things": self.things, "_stuff": self.stuff}
        return {
            f"{name}{group}": mean(getattr(self, name)(), classes)
            for group, classes in groups.items()
            for name in ("pq", "sq", "rq")
        }
