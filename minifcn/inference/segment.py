"""A trained network on images: the class of every pixel, and how often that is right."""

from collections.abc import Iterable

import numpy as np

from ..backend import to_device, to_host
from ..data import Sample
from ..errors import InputError
from ..layers import ExactSize
from ..metrics import ConfusionMatrix
from ..models import Graph
from ..preprocessing import require_image
from ..tasks import SEGMENTATION
from .sliding_window import unpadded_windows, windows


def predict(network: Graph, image: np.ndarray, tile: int | None = None, turns: bool = False) -> np.ndarray:
    """The class of every pixel.   image (H, W, 3) uint8 RGB, of any size -> (H, W) uint8

    tile: work in overlapping windows of at most so many pixels a side (`sliding_window`), which needs less memory;
    None: all at once. turns: the likeliest class on the average over eight ways of turning and mirroring the image, which takes
    eight times as long. For many images, give `network.prepare()`.
    """
    if (count := network.card.num_classes) > 256:
        raise InputError(f"predict: expected at most 256 classes, as many as uint8 labels hold, got {count}")
    require_image(image)
    if turns:
        return probabilities(network, image, tile, turns).argmax(axis=0).astype(np.uint8)
    labels = np.empty(image.shape[:2], np.uint8)
    for logits, place in _pieces(network, image, tile):
        labels[place] = to_host(SEGMENTATION.predict(logits)[0])
    return labels


def probabilities(network: Graph, image: np.ndarray, tile: int | None = None, turns: bool = False) -> np.ndarray:
    """The softmax of the scores of every pixel.   image (H, W, 3) uint8 RGB, tile, turns: as for `predict` -> (K, H, W) float32

    Source of the turns: Ronneberger et al., MICCAI 2015, section 4.
    """
    require_image(image)
    if turns:
        return (
            sum(_turned(network, image, tile, quarters, mirrored) for quarters in range(4) for mirrored in (1, -1)) / 8
        )
    found = np.empty((network.card.num_classes, *image.shape[:2]), np.float32)
    for logits, place in _pieces(network, image, tile):
        (scores,) = to_host(logits)
        exponentials = np.exp(scores - scores.max(axis=0))
        found[:, *place] = exponentials / exponentials.sum(axis=0)
    return found


def _turned(network, image, tile, quarters, mirrored):
    """The probabilities by the image turned so many quarters, and mirrored where `mirrored` is -1, turned back."""
    seen = np.rot90(image, quarters)[:, ::mirrored]
    found = probabilities(network, np.ascontiguousarray(seen), tile)[:, :, ::mirrored]
    return np.rot90(found, -quarters, axes=(1, 2))


def _pieces(network, image, tile):
    """The logits (1, K, h, w) of the parts of an image, and the slices where in it each lies."""
    image = network.card.preprocessing.stretched(image)
    if unpadded := network.layers_of(ExactSize):
        image, pieces = unpadded_windows(image, tile, unpadded[0])
    else:
        pieces = windows(image.shape[:2], tile or max(image.shape[:2]))
    for window, inside, place in pieces:
        logits = network.forward(to_device(network.card.preprocessing.apply(image[window])[None]))
        yield logits[:, :, *inside], place


def evaluate(
    network: Graph, samples: Iterable[Sample], num_classes: int, tile: int | None = None, turns: bool = False
) -> ConfusionMatrix:
    """The ConfusionMatrix of a network's predictions on labelled samples, each at its own size. tile, turns: as for `predict`."""
    network, matrix = network.prepare(), SEGMENTATION.metric(num_classes)
    for sample in samples:
        matrix.update(sample.label, predict(network, sample.image, tile, turns))
    return matrix
