"""Which true and which found objects share how many pixels, and which of them belong together.

A prediction is (labels (H, W), objects (H, W), classes (n,), scores (n,)): integers, object i having the number i + 1 in the
second, the class classes[i] and the score scores[i]; 0 is no object. Labels may be 255, of no class.
"""

from typing import NamedTuple

import numpy as np

from ..backend import Array, to_host
from ..errors import DtypeError, InputError

VOID, AMBIGUOUS = 255, 65535  # as in data.labels, which may not be imported here


class Overlaps(NamedTuple):
    """Pixels that true segments (n) and found segments (m) share. true_classes (n,), classes (m,), scores (m,); shared (n, m);
    true_areas (n,), areas (m,): their pixels; void (m,): those of the found in void; crowds (num_classes, m): those in pixels of
    objects of a class, unknown of which."""

    true_classes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    shared: np.ndarray
    true_areas: np.ndarray
    areas: np.ndarray
    void: np.ndarray
    crowds: np.ndarray

    def ious(self, uncounted: np.ndarray) -> np.ndarray:
        """(n, m): intersection over union. uncounted (m,): pixels of the found segments that do not count, such as `void`."""
        unions = self.true_areas[:, None] + (self.areas - uncounted) - self.shared
        return self.shared / np.maximum(unions, 1)


def overlaps(
    label: Array, instances: Array, prediction: tuple, num_classes: int, stuff: tuple = (), things: tuple = ()
) -> Overlaps:
    """The Overlaps of one image.

    label (H, W): classes, 255 for void; instances (H, W): 0 where no object is, else its number, 65535 where it is unknown which.
    An object is of the class that most of its pixels have. prediction: as above.
    stuff: classes whose pixels without an object are a segment each, behind the objects. things: classes whose pixels without an
    object are void.
    Raises InputError for maps of different shapes and for classes, numbers and scores that do not fit; DtypeError for other numbers than integers.
    """
    labels, found, classes, scores = check_prediction(prediction, num_classes)
    label, instances = _whole("true labels", label), _whole("true objects", instances)
    if not label.shape == instances.shape == labels.shape == found.shape or label.ndim != 2:
        shapes = ", ".join(str(array.shape) for array in (label, instances, labels, found))
        raise InputError(
            f"objects: expected true labels, true objects, labels and objects of one shape (H, W), got {shapes}"
        )
    void = label == VOID
    _check_range("true labels", label[~void], num_classes - 1)
    _check_range("true objects", instances, AMBIGUOUS)
    # Rows: the objects; the classes where there is no object; the classes of what is some object; void.
    numbers = np.setdiff1d(instances[~void], [0, AMBIGUOUS])
    n, m, background = len(numbers), len(classes), np.where(void, 0, label.astype(np.int64))
    rows: Array = np.searchsorted(numbers, instances)
    rows = np.where(instances == 0, n + background, rows)
    rows = np.where(instances == AMBIGUOUS, n + num_classes + background, rows)
    rows = np.where(void, n + 2 * num_classes, rows)
    columns = np.where(found == 0, m + np.minimum(labels, num_classes), found.astype(np.int64) - 1)
    height, width = n + 2 * num_classes + 1, m + num_classes + 1  # the last column: found to be nothing
    counts = np.bincount((rows * width + columns).reshape(-1), minlength=height * width).reshape(height, width)
    of_objects = np.bincount((rows * num_classes + background).reshape(-1), minlength=height * num_classes)
    true_classes = of_objects.reshape(height, num_classes)[:n].argmax(axis=1)
    there = np.array([c for c in stuff if counts[n + c].any()], np.int64)
    seen = np.array([c for c in stuff if counts[:, m + c].any()], np.int64)
    segments, of_found = np.append(np.arange(n), n + there), counts[:, np.append(np.arange(m), m + seen)]
    return Overlaps(
        np.append(true_classes, there),
        np.append(classes, seen),
        np.append(scores, np.ones(len(seen))),
        of_found[segments],
        counts[segments].sum(axis=1),
        of_found.sum(axis=0),
        of_found[[n + 2 * num_classes, *(n + c for c in things)]].sum(axis=0),
        of_found[n + num_classes : n + 2 * num_classes],
    )


def check_prediction(prediction: tuple, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four parts of a prediction on the host: labels and classes as int64, scores as float64. Raises InputError for parts that do
    not fit together and numbers that are no class or object, DtypeError for others than integers."""
    if not isinstance(prediction, tuple) or len(prediction) != 4:
        raise InputError("objects: expected a prediction of labels, objects, classes and scores")
    labels, found, classes = (
        _whole(what, part) for what, part in zip(("labels", "objects", "classes"), prediction, strict=False)
    )
    scores = np.asarray(to_host(prediction[3]), np.float64)
    if classes.ndim != 1 or classes.shape != scores.shape or not np.isfinite(scores).all():
        raise InputError(
            f"objects: expected a class and a finite score for each, got classes {classes.shape} and scores {scores.shape}, "
            f"{np.count_nonzero(~np.isfinite(scores))} not finite"
        )
    for what, values, highest in (
        ("labels", labels[labels != VOID], num_classes - 1),
        ("objects", found, len(classes)),
        ("classes", classes, num_classes - 1),
    ):
        _check_range(what, values, highest)
    return labels.astype(np.int64), found, classes.astype(np.int64), scores


def match(ious: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Which true object each found one matches, at each threshold: the best that is left, and those that count before others.

    ious (n, m): the found in the order in which they choose. thresholds (T,): the least IoU. ignored (n,) bool: true objects that do
    not count; crowd (n,) bool: those of them that any number may match. -> (T, m), −1 for none
    """
    matches, taken = np.full((len(thresholds), ious.shape[1]), -1), np.zeros((len(thresholds), len(ious)), bool)
    every, order = np.arange(len(thresholds)), np.argsort(ignored, kind="stable")
    for column, of_found in enumerate(ious.T):
        best, chosen = thresholds.astype(np.float64), matches[:, column]  # a view
        for row in order[of_found[order] >= thresholds.min()]:
            better = (~taken[:, row] | crowd[row]) & (of_found[row] >= best)
            if ignored[row]:
                better &= (chosen < 0) | ignored[chosen]
            chosen[better], best[better] = row, of_found[row]
        taken[every[chosen >= 0], chosen[chosen >= 0]] = True
    return matches


def _whole(what, values):
    values = np.asarray(to_host(values))
    if values.dtype.kind not in "biu" and values.size:
        raise DtypeError(f"objects: expected {what} of integers, got {values.dtype}")
    return values


def _check_range(what, values, highest):
    if values.size and not 0 <= values.min() <= values.max() <= highest:
        raise InputError(f"objects: expected {what} of 0..{highest}, got {values.min()}..{values.max()}")
