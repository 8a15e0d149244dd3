"""A trained network on images: the class of every pixel, and how often that is right."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from ..backend import Array, to_device, to_host
from ..card import Card
from ..data import Sample
from ..data.large import LargeImage
from ..data.transforms import resize, shrink
from ..errors import InputError
from ..layers import ExactSize
from ..metrics import BoundaryIoU, ConfusionMatrix
from ..models import Graph
from ..ops import resize_bilinear_forward
from ..preprocessing import require_image, spread_table
from ..tasks import SEGMENTATION
from .dense_crf import check_settings, dense_crf
from .shared_work import computed
from .sliding_window import check_tile, unpadded_windows, windows

MOST_SCALE = 100  # so that no view is larger than what can be held


def shrunk(image: np.ndarray, longest: int | None) -> np.ndarray:
    """The image (H, W, C) uint8 with a longer side of at most `longest` pixels, such as a network's `card.longest`; None for any."""
    require_image(image, bands=None)
    return shrink(image, image[:, :, 0], longest)[0] if longest else image


def likeliest(probabilities: np.ndarray, size: tuple) -> np.ndarray:
    """The likeliest class of every pixel of an image of `size` (height, width), which the network may have seen smaller.

    Probabilities (K, h, w) are upsampled, not labels, whose outlines would come out as stairs. -> (H, W) uint8
    """
    if probabilities.shape[1:] == size:
        return probabilities.argmax(axis=0).astype(np.uint8)
    labels, highest = np.zeros(size, np.uint8), np.zeros(size, np.float32)
    for number, probability in enumerate(probabilities):
        enlarged = np.asarray(Image.fromarray(probability).resize(size[::-1], Image.Resampling.BILINEAR))
        labels[enlarged > highest] = number
        np.maximum(highest, enlarged, out=highest)
    return labels


def predict(
    network: Graph, image: np.ndarray | LargeImage, tile: int | None = None, *, longest: int | None = None, **more: Any
) -> np.ndarray:
    """The class of every pixel.   image (H, W, 3) uint8 RGB, or (H, W, C) of the network's bands, of any size -> (H, W) uint8

    tile: the largest side in pixels of overlapping windows (`sliding_window`), which need less memory; None: all at once.
    longest: the network sees the image shrunk to this longer side (`shrunk`). more: as for `probabilities`, whose likeliest class is
    taken. A LargeImage, or a memory map with a tile, is read one window at a time; longest and more need an array.
    For many images, give `network.prepare()`.
    """
    _check(network, image)
    if longest or more:
        given = shrunk(require_image(image, network.card.preprocessing.bands), longest)
        if more or given.shape != image.shape:
            return likeliest(probabilities(network, given, tile, **more), image.shape[:2])
    labels = np.empty(image.shape[:2], np.uint8)
    for part, place in parts(network, image, tile):
        labels[place] = part
    return labels


def parts(
    network: Graph, image: np.ndarray | LargeImage, tile: int | None
) -> Iterator[tuple[np.ndarray, tuple[slice, slice]]]:
    """The classes (h, w) uint8 of the parts of an image, row after row, and where each lies in it.

    Arguments and errors: as for `predict`.
    """
    _check(network, image)
    for outputs, place in pieces(network, image, tile):
        yield to_host(SEGMENTATION.predict(semantic(outputs))[0]).astype(np.uint8), place


def card_of(network: Graph) -> Card:
    """The card of a network. Raises InputError where it has none."""
    if network.card is None:
        raise InputError("expected a network with a card, which says what images it takes; got one without")
    return network.card


def _check(network, image):
    """Raise InputError if there can be no labels (H, W) uint8: too many classes, or no image."""
    if (count := card_of(network).num_classes) > 256:
        raise InputError(f"predict: expected at most 256 classes, as many as uint8 labels hold, got {count}")
    preprocessing = network.card.preprocessing
    if isinstance(image, LargeImage):
        preprocessing.check_bands(image.shape[2], image.name)
    else:
        require_image(image, preprocessing.bands)


def probabilities(
    network: Graph, image: np.ndarray, tile: int | None = None, *,
    scales: Sequence[float] = (1.0,), flip: bool = False, turns: bool = False, crf: Mapping[str, Any] | None = None,
) -> np.ndarray:  # fmt: skip
    """The softmax of the scores of every pixel.   image (H, W, C) uint8, tile: as for `predict` -> (K, H, W) float32

    They are averaged over the image at these scales (1.0: as it is); flip: also mirrored left to right; turns: in all eight
    rotations and reflections. Each adds time. crf: settings of `dense_crf`, which then refines them; {}: its defaults.
    Raises InputError as `check_views`.

    Source of the turns: Ronneberger et al., MICCAI 2015, section 4; of the scales: Chen et al., arXiv 1606.00915, section 4.
    """
    require_image(image, network.card.preprocessing.bands)
    check_views(scales, crf)
    if crf is not None:
        require_image(image)  # before the network runs: colours are what the CRF goes by
    quarters, steps = range(4 if turns else 1), (1, -1) if turns or flip else (1,)
    ways = list(product(np.atleast_1d(scales).tolist(), quarters, steps))
    found = sum(_seen(network, image, tile, *way) for way in ways) / len(ways)
    return found if crf is None else to_host(dense_crf(to_device(found), image, **crf))


def check_views(scales: Sequence[float] = (1.0,), crf: Mapping[str, Any] | None = None) -> None:
    """Raise InputError for scales that are none, not above 0, or above 100, and for settings that `dense_crf` does not take."""
    factors = np.atleast_1d(scales).tolist()
    if not factors or not all(0 < factor <= MOST_SCALE for factor in factors):
        given = ", ".join(map(str, factors))
        raise InputError(
            f"scales: expected factors above 0 and up to {MOST_SCALE}, such as 0.75 1 1.25; got {given or 'none'}"
        )
    if crf is not None:
        known = signature(check_settings).parameters
        if unknown := crf.keys() - known:
            raise InputError(f"crf: expected settings of {', '.join(known)}; got {min(unknown)}")
        check_settings(**crf)


def _seen(network, image, tile, scale, quarters, step):
    """The probabilities from the image scaled, rotated by quarter turns and, if `step` is -1, mirrored; transformed back."""
    size = image.shape[:2]
    if scale != 1:
        image = resize(image, image[:, :, 0], tuple(max(1, round(scale * length)) for length in size))[0]
    image = np.ascontiguousarray(np.rot90(image, quarters)[:, ::step])
    found = np.empty((network.card.num_classes, *image.shape[:2]), np.float32)
    for outputs, place in pieces(network, image, tile):
        (scores,) = to_host(semantic(outputs))
        exponentials = np.exp(scores - scores.max(axis=0))
        found[:, *place] = exponentials / exponentials.sum(axis=0)
    found = np.rot90(found[:, :, ::step], -quarters, axes=(1, 2))
    return found if scale == 1 else resize_bilinear_forward(found[None], size)[0][0]


def pieces(network: Graph, image: np.ndarray | LargeImage, tile: int | None) -> Iterator[tuple[Array | dict, tuple]]:
    """The logits (1, K, h, w) of the parts of an image, or a dict of outputs by name, and the slices where each lies in the image."""
    preprocessing = card_of(network).preprocessing
    if not isinstance(image, LargeImage):
        image = preprocessing.stretched(image)
    elif preprocessing.stretch:
        image = image.through(spread_table(image.counts()))
    if unpadded := network.layers_of(ExactSize):
        image, pieces = unpadded_windows(image, tile, unpadded[0])
    else:
        check_tile(tile)
        pieces = windows(image.shape[:2], tile or max(image.shape[:2]))
    for window, inside, place in pieces:
        found = network.forward(to_device(preprocessing.apply(image[window])[None]))
        if not isinstance(found, dict) and found.ndim != 4:
            raise InputError(f"expected a network with scores for every pixel, got a {network.card.title}")
        if isinstance(found, dict):
            yield {name: maps[:, :, *inside] for name, maps in found.items()}, place
        else:
            yield found[:, :, *inside], place


def semantic(outputs: Array | dict) -> Array:
    """The logits of the classes among what a network gave."""
    return outputs["semantic"] if isinstance(outputs, dict) else outputs


def evaluate(
    network: Graph, samples: Iterable[Sample], num_classes: int, tile: int | None = None, *,
    boundary: BoundaryIoU | None = None, cached: Callable = computed, **more: Any,
) -> ConfusionMatrix:  # fmt: skip
    """The ConfusionMatrix of a network's predictions on labelled samples, each at its own size.

    tile, more: as for `predict`. boundary: also counts the predictions, near outlines. cached: a `PredictionCache`, which reuses
    earlier predictions.
    """
    network, matrix = network.prepare(), SEGMENTATION.metric(num_classes)
    for sample in samples:
        labels = cached(sample.id, predict, network, sample.image, tile, **more)
        for metric in (matrix, boundary) if boundary else (matrix,):
            metric.update(sample.label, labels)
    return matrix
