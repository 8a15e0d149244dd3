"""What a photograph shows, and where: a classifier's likeliest classes, and its heat-map for a class."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from .. import models
from ..backend import to_device, to_host
from ..data import Sample
from ..metrics import ConfusionMatrix
from ..models import Graph
from ..tasks.classification import CLASSIFICATION, middle

CROP_SHARE = 224 / 256  # of the shorter side: what ImageNet networks are shown when they are tested
WINDOW = 3  # cells that a heat-map averages over: single cells are noisy, the native map's side blurs


def top(network: Graph, image: np.ndarray, count: int = 5) -> list[tuple[int, float]]:
    """The `count` likeliest classes of an image (H, W, 3) uint8 RGB, of any size. -> [(class number, probability)], best first

    As such networks are tested: the shorter side is scaled to 8/7 of the native size, then the middle is cropped.
    """
    image, native = network.card.preprocessing.stretched(image), network.card.native
    photo = _resized(image, native / CROP_SHARE / min(image.shape[:2]), native)
    left, upper = ((side - native) // 2 for side in photo.size)
    logits = to_host(_scores(network, photo.crop((left, upper, left + native, upper + native))))
    logits = logits.astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    return [(int(i), float(probabilities[i])) for i in np.argsort(-probabilities)[:count]]


def evaluate_windows(network: Graph, samples: Iterable[Sample], num_classes: int) -> ConfusionMatrix:
    """The ConfusionMatrix of a classifier on windows of its native size, a quarter of it apart: does it name the class in the middle?

    samples: labelled images; one smaller than a window has none.
    """
    side, matrix = network.card.native, CLASSIFICATION.metric(num_classes)
    for image, label, *_ in samples:
        image = network.card.preprocessing.stretched(image)
        down, across = (range(0, length - side + 1, side // 4) for length in label.shape)
        places = [(slice(y, y + side), slice(x, x + side)) for y in down for x in across]
        if places:
            pixels = np.stack([network.card.preprocessing.apply(image[place]) for place in places])
            found = CLASSIFICATION.predict(network.forward(to_device(pixels)))
            matrix.update(middle(np.stack([label[place] for place in places])), found)
    return matrix


def heat_map(network: Graph, image: np.ndarray, classes: Iterable[int], window: int = WINDOW) -> np.ndarray:
    """The sum of the scores of `classes` (numbers) at every place of the image. -> (rows, columns) float32

    The classifier made convolutional, run on the image at its own size. An image smaller than the network's native size
    is enlarged to it first. window: the side in cells of that average, for networks that average their last map.
    """
    image = network.card.preprocessing.stretched(image)
    window = window if models.surgery.averages(network) else None
    convolutional = models.surgery.convolutionalize(network, window)
    scores = _scores(convolutional, _resized(image, max(1.0, network.card.native / min(image.shape[:2]))))
    return to_host(scores[list(classes)].sum(axis=0))


def peak(heat: np.ndarray, size: tuple) -> tuple:
    """The pixel (row, column) of an image of `size` (height, width) where its heat-map is highest: the middle of that cell."""
    cell = np.unravel_index(heat.argmax(), heat.shape)
    return tuple(int((i + 0.5) * pixels / cells) for i, pixels, cells in zip(cell, size, heat.shape, strict=True))


def _resized(image, factor, least=0):
    """An image (H, W, 3) as a photograph with sides `factor` times as long, none below `least`."""
    photo = Image.fromarray(image)
    return photo.resize([max(least, round(side * factor)) for side in photo.size], Image.Resampling.BICUBIC)


def _scores(network, photo):
    return network.forward(to_device(network.card.preprocessing.apply(np.asarray(photo))[None]))[0]
