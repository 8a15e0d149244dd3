"""A trained network on images: the class of every pixel, and how often that is right."""

import numpy as np

from ..backend import to_device, to_host
from ..errors import InputError
from ..metrics import ConfusionMatrix
from .sliding_window import cut


def predict(model, image, tile=None):
    """The class of every pixel.   image (H, W, 3) uint8 RGB, of any size -> (H, W) uint8

    tile: work in overlapping squares of at most so many pixels (`tiles`), which needs less memory; None: all at once.
    """
    labels = np.empty(image.shape[:2], np.uint8)
    for seen, kept, place in cut(image.shape[:2], tile or max(image.shape[:2])):
        logits = model.forward(to_device(model.card.preprocessing.apply(image[seen])[None]))
        if logits.shape[1] > 256:
            raise InputError(
                f"predict: expected at most 256 classes, which uint8 labels can hold, got {logits.shape[1]}"
            )
        labels[place] = to_host(logits[0].argmax(axis=0))[kept]
    return labels


def evaluate(model, samples, num_classes, tile=None):
    """The ConfusionMatrix of a model's predictions on labelled samples, each at its own size, whole or by tiles."""
    matrix = ConfusionMatrix(num_classes)
    for sample in samples:
        matrix.update(sample.label, predict(model, sample.image, tile))
    return matrix
