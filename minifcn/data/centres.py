"""Targets for objects by their centres: a heat map of the centres, and each pixel's offset to the centre of its object."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from .labels import AMBIGUOUS, VOID


class CentreTargets(NamedTuple):
    """labels (N, H, W) uint8, the rest float32: centre (N, 1, H, W), 1 at the centre of an object; offset (N, 2, H, W), from each pixel
    to that centre, down and across in pixels; known (N, H, W), 1 where centre counts; inside (N, H, W), 1 where offset counts."""

    labels: np.ndarray
    centre: np.ndarray
    offset: np.ndarray
    known: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[np.ndarray], instances: Sequence[np.ndarray], sigma: float) -> Self:
        """Those of a batch: `centres` of each image's labels and instances."""
        found = [centres(one, numbers, sigma) for one, numbers in zip(labels, instances, strict=True)]
        return cls(np.stack(labels), *map(np.stack, zip(*found, strict=True)))


def centres(
    label: np.ndarray, instances: np.ndarray, sigma: float = 8.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The targets of one image.   label (H, W) uint8, instances (H, W) uint16
    -> (centre (1, H, W), offset (2, H, W), known, inside (H, W)), float32

    The centre c of an object is the mean of its pixels. centre = max over objects of exp(−|x − c|² / 2σ²), cut off 3σ away along either axis; sigma: σ in
    pixels. offset = c − x in objects, 0 elsewhere. Void and ambiguous pixels count in neither; pixels outside objects do not count
    in the offset.
    Source: Cheng et al., CVPR 2020, section 3.2, https://arxiv.org/abs/1911.10194
    """
    inside = (instances > 0) & (instances != AMBIGUOUS) & (label != VOID)
    known = (label != VOID) & (instances != AMBIGUOUS)
    rows, columns = np.nonzero(inside)
    numbers, which, pixels = np.unique(instances[inside], return_inverse=True, return_counts=True)
    middles = np.stack([np.bincount(which, at, len(numbers)) / pixels for at in (rows, columns)], axis=1)
    offset = np.zeros((2, *label.shape), np.float32)
    offset[:, rows, columns] = middles[which].T - np.stack([rows, columns])
    centre, reach = np.zeros(label.shape, np.float32), math.ceil(3 * sigma)
    for middle in middles:
        near = tuple(slice(max(0, int(at) - reach), int(at) + reach + 1) for at in middle)
        y, x = (np.arange(side)[part] - at for side, part, at in zip(label.shape, near, middle, strict=True))
        bell = np.exp(-(y[:, None] ** 2 + x**2) / (2 * sigma**2))
        centre[near] = np.maximum(centre[near], bell)
    return centre[None], offset, known.astype(np.float32), inside.astype(np.float32)
