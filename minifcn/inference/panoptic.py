"""From a panoptic network's maps to objects: the peaks of its centres, and every pixel to the one that its offset leads to.

Nothing is chosen among overlapping masks, since there are none: a pixel votes for one centre.
Cheng et al., Panoptic-DeepLab, CVPR 2020, section 3.3, https://arxiv.org/abs/1911.10194
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..backend import to_host
from ..data import Sample
from ..metrics import AveragePrecision, ConfusionMatrix
from ..models import Graph
from ..ops import max_pool2d_forward
from ..preprocessing import require_image
from . import segment

LEAST_CENTRE = 0.1  # what is lower is no peak
WINDOW = 7  # pixels a side, in which a peak is the highest
MOST = 200  # objects in an image


class Objects(NamedTuple):
    """What is in an image: labels (H, W) uint8, the class of every pixel, of an object's all the same; instances (H, W) uint16, 0 where no
    object is, else its number from 1; classes (n,) uint8 and scores (n,) float64, those of object i at i − 1."""

    labels: np.ndarray
    instances: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def panoptic(network: Graph, image: np.ndarray, tile: int | None = None) -> Objects:
    """The Objects in an image (H, W, 3) uint8 RGB of any size, by a panoptic network. tile: as for `predict`.

    For many images, give `network.prepare()`.
    """
    require_image(image)
    maps: dict = {}
    for outputs, place in segment.pieces(network, image, tile):
        for name, (found,) in outputs.items():
            whole = maps.setdefault(name, np.empty((len(found), *image.shape[:2]), np.float32))
            whole[:, *place] = to_host(found)
    return group(maps["semantic"], maps["centre"][0], maps["offset"], things_of(network))


def evaluate_panoptic(network: Graph, samples: Iterable[Sample], num_classes: int, tile: int | None = None) -> ConfusionMatrix:
    """TEMPORARY"""
    network, matrix = network.prepare(), ConfusionMatrix(num_classes)
    ap = AveragePrecision()
    for sample in samples:
        found = panoptic(network, sample.image, tile)
        matrix.update(sample.label, found.labels)
        true = np.where(sample.instances == 65535, 0, sample.instances)
        ap.update(true, found.instances, found.scores)
    print("AP", ap.ap(), flush=True)
    return matrix


def things_of(network: Graph) -> Sequence[int]:
    """The classes whose objects a panoptic network tells apart."""
    things = network.card.options["things"]
    return range(1, network.card.num_classes) if things is None else things


def group(logits: np.ndarray, centre: np.ndarray, offset: np.ndarray, things: Sequence[int]) -> Objects:
    """The Objects of one image's maps.   logits (K, H, W), centre (H, W), offset (2, H, W), down and across in pixels

    A pixel of one of `things`, classes by number, is of the object whose peak is nearest to where its offset leads; at equal distances, of the higher peak's.
    An object's class is the most frequent of its pixels, the first of several; its score the mean probability of that class in it,
    times the height of the centres at the mean of its pixels, from 0 to 1. Objects are numbered from the highest peak on. Without a peak there are none.
    """
    labels = logits.argmax(axis=0).astype(np.uint8)
    instances = np.zeros(labels.shape, np.uint16)
    is_thing = np.zeros(len(logits), bool)
    is_thing[list(things)] = True
    rows, columns = np.nonzero(is_thing[labels])
    found = peaks(centre)
    if not (len(found) and len(rows)):
        return Objects(labels, instances, np.empty(0, np.uint8), np.empty(0))
    down, across = offset[:, rows, columns] + np.stack([rows, columns]).astype(offset.dtype)
    which, least = np.zeros(len(rows), np.int64), np.full(len(rows), np.inf, offset.dtype)
    for i, (row, column) in enumerate(found):
        distance = (down - row) ** 2 + (across - column) ** 2
        which[distance < least] = i
        np.minimum(least, distance, out=least)
    used, which, pixels = np.unique(which, return_inverse=True, return_counts=True)
    votes = np.bincount(which * len(logits) + labels[rows, columns], minlength=len(used) * len(logits))
    classes = votes.reshape(len(used), -1).argmax(axis=1).astype(np.uint8)
    labels[rows, columns], instances[rows, columns] = classes[which], which + 1
    scores = logits[:, rows, columns]
    exponentials = np.exp(scores - scores.max(axis=0))
    likely = exponentials[classes[which], np.arange(len(rows))] / exponentials.sum(axis=0)
    middle = [np.rint(np.bincount(which, at) / pixels).astype(int) for at in (rows, columns)]
    return Objects(labels, instances, classes, np.bincount(which, likely) / pixels * centre[*middle].clip(0, 1))


def peaks(centre: np.ndarray) -> np.ndarray:
    """The places (n, 2), row and column, where a map (H, W) is at least 0.1 and the highest in the 7×7 pixels around, the highest first, at most 200.

    Of equal heights in such a window only the first, row by row, can be a peak; equally high peaks come in that order.
    """
    reach = WINDOW // 2
    highest = centre[None, None]
    for kernel, pad in (((WINDOW, 1), (reach, 0)), ((1, WINDOW), (0, reach))):
        highest, _ = max_pool2d_forward(highest, kernel, stride=1, pad=pad)
    found = (centre == highest[0, 0]) & (centre >= LEAST_CENTRE)
    rows, columns = np.nonzero(found)
    padded = np.pad(centre, reach, constant_values=-np.inf)
    first = np.ones(len(rows), bool)
    for before in range(WINDOW * WINDOW // 2):  # the pixels of the window that come before its middle
        i, j = divmod(before, WINDOW)
        first &= padded[rows + i, columns + j] != centre[rows, columns]
    rows, columns = rows[first], columns[first]
    order = np.argsort(-centre[rows, columns], kind="stable")[:MOST]
    return np.stack([rows[order], columns[order]], axis=1)
