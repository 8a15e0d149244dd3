"""From a panoptic network's maps to objects: the peaks of its centre map, and every pixel to the peak that its offset leads to.

Nothing is chosen among overlapping masks, since there are none: a pixel votes for one centre.
Cheng et al., Panoptic-DeepLab, CVPR 2020, section 3.3, https://arxiv.org/abs/1911.10194
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..backend import to_host
from ..data.labels import AMBIGUOUS
from ..data.targets import scipy_ndimage
from ..errors import InputError
from ..models import Graph
from ..preprocessing import require_image
from ..tasks import PanopticScores
from . import segment
from .shared_work import computed

log = logging.getLogger("minifcn.inference")
LEAST_CENTRE = 0.1  # a peak rises at least so far above zero, and above the saddle to a higher one
MOST = 200  # objects in an image


class Objects(NamedTuple):
    """What is in an image: labels (H, W) uint8, the class of every pixel, one and the same within an object; instances (H, W) uint16,
    the number of the object from 1, or 0 for none; classes (n,) uint8 and scores (n,) float64, those of object i at i − 1."""

    labels: np.ndarray
    instances: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def enlarged(numbers: np.ndarray, size: tuple) -> np.ndarray:
    """A map of classes or of objects' numbers, (h, w) uint8 or uint16, resized by nearest neighbour to (height, width)."""
    return np.asarray(Image.fromarray(numbers).resize(size[::-1], Image.Resampling.NEAREST))


def panoptic(
    network: Graph, image: np.ndarray, tile: int | None = None, name: str = "image", longest: int | None = None
) -> Objects:
    """The Objects in an image (H, W, C) uint8 of any size, by a panoptic network. tile, longest: as for `predict`. name: of the image,
    in warnings.

    For many images, give `network.prepare()`.
    """
    return Objects(*_found(network, name, image, tile, longest))


def objects_in(network: Graph, maps: dict, name: str = "image") -> Objects:
    """The Objects in a panoptic network's maps, as its card says what they are (`group`)."""
    window, least = (network.card.options[option] for option in ("peak_window", "least"))
    return group(maps["semantic"], maps["centre"][0], maps["offset"], things_of(network), window, least, name)


def maps_of(network: Graph, image: np.ndarray, tile: int | None = None) -> dict[str, np.ndarray]:
    """A panoptic network's outputs for an image, by name, (channels, H, W) float32 on the host."""
    require_image(image, segment.card_of(network).preprocessing.bands)
    maps: dict = {}
    for outputs, place in segment.pieces(network, image, tile):
        if not isinstance(outputs, dict):
            raise InputError(f"expected a panoptic network, got a {network.card.title}")
        for name, (found,) in outputs.items():
            whole = maps.setdefault(name, np.empty((len(found), *image.shape[:2]), np.float32))
            whole[:, *place] = to_host(found)
    return maps


def evaluate_panoptic(
    network: Graph,
    samples: Iterable[Any],
    num_classes: int,
    tile: int | None = None,
    *,
    longest: int | None = None,
    connected: PanopticScores | None = None,
    cached: Callable = computed,
) -> PanopticScores:
    """The PanopticScores of a network on ObjectSamples, each at its own size. tile, longest: as for `predict`.

    connected: also scores the connected components of the same classes as objects (`components`). cached: as for `evaluate`.
    """
    network, things = network.prepare(), things_of(network)
    scores = PanopticScores(num_classes, things)
    for sample in samples:
        found = cached(sample.id, _found, network, sample.id, sample.image, tile, longest, connected is not None)
        scores.update_objects(sample.label, sample.instances, found[:4])
        if connected:
            connected.update_objects(sample.label, sample.instances, found[4:])
    return scores


def _found(network, name, image, tile, longest, connected=False):
    """The four arrays of the Objects in an image, followed, if asked for, by those of its connected components."""
    maps = maps_of(network, segment.shrunk(image, longest), tile)
    found = objects_in(network, maps, name) + (components(maps["semantic"], things_of(network)) if connected else ())
    return tuple(enlarged(part, image.shape[:2]) if part.ndim == 2 else part for part in found)


def components(logits: np.ndarray, things: Sequence[int]) -> Objects:
    """The 4-connected components of each of `things` as Objects: what the classes alone can tell.   logits (K, H, W)

    The score of an object is the mean probability of its class. Raises MissingFileError where SciPy is not installed.
    """
    ndimage = scipy_ndimage("connected components")
    labels = logits.argmax(axis=0).astype(np.uint8)
    likely = 1 / np.exp(logits - logits.max(axis=0)).sum(axis=0)  # of the likeliest class
    instances, classes, scores = np.zeros(labels.shape, np.uint16), [], []
    for thing in things:
        parts, count = ndimage.label(labels == thing)
        if len(classes) + count >= AMBIGUOUS:
            raise InputError(
                f"connected components: expected fewer than {AMBIGUOUS}, got {len(classes) + count} or more"
            )
        instances[parts > 0] = parts[parts > 0] + len(classes)
        classes += [thing] * count
        scores += list(ndimage.mean(likely, parts, range(1, count + 1)))
    return Objects(labels, instances, np.array(classes, np.uint8), np.array(scores, np.float64))


def things_of(network: Graph) -> Sequence[int]:
    """The classes that have instances in a panoptic network."""
    things = network.card.options["things"]
    return range(1, network.card.num_classes) if things is None else things


def group(
    logits: np.ndarray, centre: np.ndarray, offset: np.ndarray, things: Sequence[int], window: int = 7, least: int = 1,
    name: str = "image",
) -> Objects:  # fmt: skip
    """The Objects of one image's maps.   logits (K, H, W), centre (H, W), offset (2, H, W), down and across in pixels

    A pixel of one of `things` (class numbers) belongs to the object whose peak is nearest to where its offset leads; at equal
    distances, to that of the higher peak. Peaks that no saddle separates belong to one object (`apart`).
    An object's class is the most frequent among its pixels, on a tie the first; its score is the mean probability of that class
    in it, times the height of the centre map at the mean position of its pixels, from 0 to 1. window: as for `peaks`. least: a
    group of fewer pixels is no object, and keeps its classes. Objects are numbered from the highest peak down. Only the 200
    highest peaks count; if there are more, a warning says so, once per image name. Without a peak there are no objects.
    """
    labels, width = logits.argmax(axis=0).astype(np.uint8), logits.shape[2]
    instances, is_thing = np.zeros(labels.shape, np.uint16), np.zeros(len(logits), bool)
    is_thing[list(things)] = True
    at, found = np.flatnonzero(is_thing[labels]), peaks(centre, window)  # flat pixel numbers, row by row
    if len(found) > MOST:
        _warn_of_more(name)
        found = found[:MOST]
    found = apart(centre, found)
    if not (len(found) and len(at)):
        return Objects(labels, instances, np.empty(0, np.uint8), np.empty(0))
    rows, columns = np.divmod(at, width)
    down, across = (part.reshape(-1)[at] + side for part, side in zip(offset, (rows, columns), strict=True))
    which, nearest = np.zeros(len(at), np.int64), np.full(len(at), np.inf)
    for i, (row, column) in enumerate(found):
        distance = (down - row) ** 2 + (across - column) ** 2
        which[distance < nearest] = i
        np.minimum(nearest, distance, out=nearest)
    pixels = np.bincount(which, minlength=len(found))
    used = np.flatnonzero(pixels >= max(1, least))
    number = np.full(len(found), -1)
    number[used] = np.arange(len(used))
    kept = number[which] >= 0
    at, which, rows, columns = at[kept], which[kept], rows[kept], columns[kept]
    which, pixels, own = number[which], pixels[used], labels.reshape(-1)[at]
    votes = np.bincount(which * len(logits) + own, minlength=len(used) * len(logits)).reshape(len(used), len(logits))
    classes = votes.argmax(axis=1).astype(np.uint8)
    labels.reshape(-1)[at], instances.reshape(-1)[at] = classes[which], which + 1
    scores, order = logits.reshape(len(logits), -1)[:, at], np.arange(len(at))
    largest = scores[own, order]
    likely = np.exp(scores[classes[which], order] - largest) / np.exp(scores - largest).sum(axis=0)
    middle = [np.rint(np.bincount(which, side) / pixels).astype(int) for side in (rows, columns)]
    return Objects(labels, instances, classes, np.bincount(which, likely) / pixels * centre[*middle].clip(0, 1))


@cache
def _warn_of_more(name):
    log.warning("%s: more than %d centres of objects, of which the highest %d count", name, MOST, MOST)


def peaks(centre: np.ndarray, window: int = 7) -> np.ndarray:
    """The positions (n, 2), row and column, where a map (H, W) is at least 0.1 and the highest in the window around it, which is
    `window` pixels a side (an odd number); the highest first.

    Of equal heights in such a window only the first, row by row, can be a peak; equally high peaks come in that order.
    """
    sides = [np.flatnonzero((centre >= LEAST_CENTRE).any(axis=axis)) for axis in (1, 0)]
    if not len(sides[0]):
        return np.empty((0, 2), np.int64)
    centre = centre[
        tuple(slice(side[0], side[-1] + 1) for side in sides)
    ]  # what is lower all around is higher than no peak
    reach, corner = window // 2, [side[0] for side in sides]
    padded = np.pad(centre, reach, constant_values=-np.inf)
    highest = _running_maximum(_running_maximum(padded, window).T, window).T
    rows, columns = np.nonzero((centre == highest) & (centre >= LEAST_CENTRE))
    first = np.ones(len(rows), bool)
    for before in range(window * window // 2):  # the pixels of the window that come before its middle
        i, j = divmod(before, window)
        first &= padded[rows + i, columns + j] != centre[rows, columns]
    rows, columns = rows[first], columns[first]
    order = np.argsort(-centre[rows, columns], kind="stable")
    return np.stack([rows[order], columns[order]], axis=1) + corner


def apart(centre: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The peaks that are objects of their own, out of the peaks (n, 2) of a map (H, W), the highest first.

    On the straight line from such a peak to every higher one that is kept, the map falls at least 0.1 below it. A large object,
    whose middle is uncertain, has several peaks on one ridge, which the published rule (a window around each) keeps if they are far
    enough apart. The depth was chosen on VOC's training images; values from 0.05 to 0.15 do almost as well there, and on toys and
    nuclei it hardly matters.
    """
    kept = found[:0]
    for peak in found:
        steps = np.abs(kept - peak).max(initial=1)  # one for each pixel of the longest line
        line = peak + (2 * (kept - peak) * np.arange(steps + 1)[:, None, None] + steps) // (2 * steps)  # rounded
        if (centre[line[..., 0], line[..., 1]].min(axis=0) <= centre[*peak] - LEAST_CENTRE).all():
            kept = np.vstack([kept, peak])
    return kept


def _running_maximum(x, window):
    """The maximum of every `window` successive rows, by windows that double in length.   x (H, W) -> (H - window + 1, W)"""
    length = 1
    while length < window:
        step = min(length, window - length)
        x, length = np.maximum(x[:-step], x[step:]), length + step
    return x
