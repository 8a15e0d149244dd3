"""Targets for objects that touch: labels with gaps between them, and loss weights that are high in the gaps."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, MissingFileError
from ..metrics.boundary import around
from .labels import AMBIGUOUS, VOID

BORDER = "border"  # the name of the class of object borders
BORDER_COLOUR = (255, 128, 0)


class Targets(NamedTuple):
    """Labels (N, H, W) uint8, and the weight of each pixel in the loss, (N, H, W) float32."""

    labels: np.ndarray
    weights: np.ndarray


def separate(instances: np.ndarray) -> np.ndarray:
    """1 in objects; 0 elsewhere, and where a pixel touches an object other than its own, corners included.

    instances: (H, W) integers, the number of each pixel's object from 1, 0 for none. -> (H, W) uint8
    """
    return ((instances > 0) & ~_between(instances)).astype(np.uint8)


def border_weights(
    instances: np.ndarray,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence | None = None,
    label: np.ndarray | None = None,
) -> np.ndarray:
    """Loss weights that are high between objects: w_c + w0 · exp(−(d1 + d2)² / 2σ²).   instances (H, W) -> (H, W) float32

    d1, d2: the distances, in pixels, to the nearest and the second nearest object. The second term counts only in the
    background, where label (H, W) uint8 (`separate`'s unless given) is 0, and only with two objects or more. w_c: class_weights[label], 1
    unless given. Source: Ronneberger et al., MICCAI 2015, equation 2, https://arxiv.org/abs/1505.04597
    Raises InputError for w0 < 0 or sigma <= 0, and where SciPy, which measures the distances, is not installed.
    """
    if w0 < 0 or sigma <= 0:
        raise InputError(f"border weights: expected w0 >= 0 and sigma > 0, got {w0} and {sigma}")
    ndimage = scipy_ndimage("border weights")
    instances = np.where(instances == AMBIGUOUS, 0, instances)  # where objects end there is unknown
    label = separate(instances) if label is None else label
    first, second = np.full((2, *instances.shape), np.inf)
    reach = math.ceil(sigma * math.sqrt(2 * math.log1p(w0 * 2**24)))  # beyond it, float32 adds nothing to a weight of 1
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box:
            near = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
            distance = ndimage.distance_transform_edt(instances[near] != number)
            second[near] = np.minimum(second[near], np.maximum(first[near], distance))
            first[near] = np.minimum(first[near], distance)
    by_class = np.ones(256)
    if class_weights is not None:
        by_class[: len(class_weights)] = class_weights
    term = w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    return (by_class[label] + term * (label == 0)).astype(np.float32)


def scipy_ndimage(what: str) -> Any:
    """The module scipy.ndimage, which `what` needs. Raises MissingFileError, saying how to install it, where it is not installed."""
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingFileError(f"{what}: SciPy is not installed; run pip install 'minifcn[objects]'") from None
    return ndimage


class WithBorderClass(Sequence):
    """A data set with a further class, "border", as the last: the result of `with_border_class`. All else is the data set's own."""

    def __init__(self, dataset: Any):
        self.dataset, self._number = dataset, len(dataset.classes)
        if self._number >= VOID:
            raise InputError(
                f"the border class: expected fewer than {VOID} classes beside it, got {self._number}; train without"
            )
        self.classes, self.num_classes = (*dataset.classes, BORDER), self._number + 1
        self.palette = np.array(dataset.palette)
        self.palette[self._number] = BORDER_COLOUR

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # asked for while there is none yet, as by copy and pickle
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        return sample._replace(label=self.label_of(sample.label, numbered(sample, "the border class")))

    def label_of(self, label: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """The labels redrawn where objects lie now, (H, W) uint8. label: the previous labels; their void stays void, and pixels that touch
        ambiguous ones become void."""
        unknown = (label == VOID) | (around(np.maximum, instances) == AMBIGUOUS)
        beyond = np.where(label == VOID, np.iinfo(instances.dtype).max, instances)  # the picture's edge is no rim
        rim = (instances > 0) & (around(np.minimum, beyond) == 0)
        labels = np.where(rim | _between(instances), np.uint8(self._number), self.dataset.label_of(label, instances))
        return np.where(unknown, np.uint8(VOID), labels)


def with_border_class(dataset: Any) -> WithBorderClass:
    """The data set with a further class, "border": the outermost pixels of every object, and pixels that touch two objects.

    The border is one pixel wide, two or three where objects touch or nearly do. Objects cut by the image's edge have none there.
    dataset: one of samples with instances; a sample without them raises InputError.
    """
    return WithBorderClass(dataset)


def labels_of(dataset: Any, label: np.ndarray, instances: np.ndarray | None) -> np.ndarray:
    """The labels after objects were moved, scaled or bent: redrawn if the data set can (`label_of`), else unchanged."""
    again = getattr(dataset, "label_of", None)
    return label if instances is None or again is None else again(label, instances)


def numbered(sample: Any, what: str) -> np.ndarray:
    """The instances of a Sample. Raises InputError, saying that `what` needs them, where it has none."""
    if sample.instances is None:
        raise InputError(
            f"{what}: expected images whose objects are told apart by one mask for each object (<id>/images and <id>/masks), got "
            f"{sample.id!r} with classes only; train without {what}, or with --network panoptic, which takes objects of other layouts, too"
        )
    return sample.instances


def join(label: np.ndarray, instances: np.ndarray | None) -> np.ndarray:
    """Both in one map, so that a transform moves both: label + 256 · instances (H, W) int32; the label alone without instances."""
    return label if instances is None else label + 256 * instances.astype(np.int32)


def part(joined: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What `join` put together: (label (H, W) uint8, instances (H, W) uint16, or None)"""
    if joined.dtype == np.uint8:
        return joined, None
    return (joined & 255).astype(np.uint8), (joined >> 8).astype(np.uint16)


def _between(instances):
    """Where a pixel's 3×3 neighbourhood holds two objects or more."""
    lowest = around(np.minimum, np.where(instances > 0, instances, np.iinfo(instances.dtype).max))
    return lowest < around(np.maximum, instances)
