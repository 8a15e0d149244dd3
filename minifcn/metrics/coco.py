"""COCO's average precision of objects by their pixels. Lin et al., ECCV 2014, https://cocodataset.org/#detection-eval

The arithmetic is that of `cocoeval.py` in pycocotools, to the last bits, ties included.
"""

from collections.abc import Iterable
from typing import Self

import numpy as np

from ..backend import Array
from ..errors import InputError
from .confusion import check_same, mean
from .overlaps import match, overlaps

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # objects of a class in an image, those with the highest scores
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # pixels


class COCOAveragePrecision:
    """Precision at the recalls 0, 0.01 … 1 and the IoU 0.50:0.05:0.95, averaged; of at most `MOST` objects an image and class.

    Pixels of an object that is unknown (65535) are a crowd of their class: found objects in it count neither way. Nor do pixels
    of void. Small, medium and large: of up to 32², up to 96² and more pixels. Images count in the order of their updates.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._true = {area: np.zeros(num_classes, np.int64) for area in AREAS}
        self._found = {
            area: [[] for _ in range(num_classes)] for area in AREAS
        }  # (scores (m,), hits (T, m), counted (T, m))

    def update(self, label: Array, instances: Array, prediction: tuple) -> None:
        """Count one image. Arguments and errors: as for `overlaps.overlaps`."""
        table = overlaps(label, instances, prediction, self.num_classes)
        areas = table.areas - table.void
        in_crowd, ious = table.crowds / np.maximum(areas, 1), table.ious(table.void)
        for number in np.union1d(table.true_classes, table.classes):
            own = np.flatnonzero(table.classes == number)
            own = own[np.argsort(-table.scores[own], kind="stable")][:MOST]
            rows = np.flatnonzero(table.true_classes == number)
            of_class = np.vstack([ious[np.ix_(rows, own)], in_crowd[number, own]])  # the crowd is the last true object
            crowd = np.arange(len(of_class)) == len(rows)
            for area, (low, high) in AREAS.items():
                sizes, found_sizes = np.append(table.true_areas[rows], -1), areas[own]
                ignored = (sizes < low) | (sizes > high)
                matches = match(of_class, THRESHOLDS, ignored, crowd)
                hits = (matches >= 0) & ~ignored[matches]
                counted = hits | ((matches < 0) & (found_sizes >= low) & (found_sizes <= high))
                self._true[area][number] += np.count_nonzero(~ignored)
                self._found[area][number].append((table.scores[own], hits, counted))

    def merge(self, other: Self) -> None:
        """Count the images that another one has counted, behind these. Raises InputError where it is of other classes."""
        check_same(self, other, "num_classes")
        for area in AREAS:
            self._true[area] += other._true[area]
            for own, found in zip(self._found[area], other._found[area], strict=True):
                own += found

    def ap(self, threshold: float | None = None, area: str = "all") -> np.ndarray:
        """Average precision of each class, (num_classes,) float64; NaN for a class without a true object of that size.

        threshold: 0.5, 0.55 … 0.95, None for the mean over them. area: "all", "small", "medium" or "large".
        """
        if area not in AREAS:
            raise InputError(f"COCO's AP: expected an area of {', '.join(AREAS)}, got {area!r}")
        rows = np.arange(len(THRESHOLDS)) if threshold is None else np.flatnonzero(np.isclose(THRESHOLDS, threshold))
        if not rows.size:
            raise InputError(f"COCO's AP: expected a threshold of 0.5, 0.55 … 0.95, got {threshold}")
        precisions = np.full(self.num_classes, np.nan)
        for number in np.flatnonzero(self._true[area]):
            scores, *judged = zip(*self._found[area][number], strict=True)
            order = np.argsort(-np.concatenate(scores), kind="stable")
            hits, counted = (np.concatenate(parts, axis=1)[rows][:, order] for parts in judged)
            precisions[number] = np.mean(
                [_interpolated(h, c, self._true[area][number]) for h, c in zip(hits, counted, strict=True)]
            )
        return precisions

    def scores(self, classes: Iterable[int] | None = None) -> dict[str, float]:
        """{"coco_ap", "coco_ap_50", "coco_ap_75", "coco_ap_small", …: the mean over classes with true objects}, over the listed ones if given."""
        chosen = None if classes is None else list(classes)
        values = {"coco_ap": self.ap(), "coco_ap_50": self.ap(0.5), "coco_ap_75": self.ap(0.75)}
        values |= {f"coco_ap_{area}": self.ap(area=area) for area in ("small", "medium", "large")}
        return {name: mean(of_classes, chosen) for name, of_classes in values.items()}


def _interpolated(hits, counted, total):
    """The mean of the highest precision at each of RECALLS or beyond.   hits, counted (m,) bool, by score; total: true objects"""
    right, wrong = np.cumsum(hits), np.cumsum(counted & ~hits)
    precision = right / (right + wrong + np.spacing(1))
    precision = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return precision[np.searchsorted(right / total, RECALLS)].mean()
