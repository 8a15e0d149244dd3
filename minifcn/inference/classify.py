"""What a photograph shows, and where: a classifier's best guesses, and its heat-map for a class."""

import numpy as np
from PIL import Image

from .. import models
from ..backend import to_device, to_host

CROP_SHARE = 224 / 256  # of the shorter side: what ImageNet networks are shown when they are tested
WINDOW = 3  # cells that a heat-map averages over: single cells are restless, the native map's side is blunt


def top(model, image, count=5):
    """The `count` likeliest classes of an image (H, W, 3) uint8 RGB, of any size. -> [(class number, probability)], best first

    As such networks are tested: the shorter side to 8/7 of the native size, then the middle.
    """
    photo = Image.fromarray(image)
    factor = model.card.native / CROP_SHARE / min(photo.size)
    photo = photo.resize(
        [max(model.card.native, round(side * factor)) for side in photo.size], Image.Resampling.BICUBIC
    )
    left, upper = ((side - model.card.native) // 2 for side in photo.size)
    middle = photo.crop((left, upper, left + model.card.native, upper + model.card.native))
    batch = to_device(model.card.preprocessing.apply(np.asarray(middle))[None])
    logits = to_host(model.forward(batch))[0].astype(np.float64)
    likely = np.exp(logits - logits.max())
    likely /= likely.sum()
    return [(int(i), float(likely[i])) for i in np.argsort(-likely)[:count]]


def heat_map(model, image, classes):
    """The sum of the scores of `classes` (numbers) at every place of the image. -> (rows, columns) float32

    The classifier made convolutional, run on the image at its own size. An image smaller than the network's native size
    is enlarged to it first.
    """
    window = WINDOW if models.surgery.averages(model) else None
    network = models.surgery.convolutionalize(model, window)
    photo = Image.fromarray(image)
    factor = max(1.0, model.card.native / min(photo.size))
    photo = photo.resize([round(side * factor) for side in photo.size], Image.Resampling.BICUBIC)
    scores = network.forward(to_device(model.card.preprocessing.apply(np.asarray(photo))[None]))[0]
    return to_host(scores[list(classes)].sum(axis=0))


def peak(heat, size):
    """The pixel (row, column) of an image of `size` (height, width) where its heat-map is highest: the middle of that cell."""
    cell = np.unravel_index(heat.argmax(), heat.shape)
    return tuple(int((i + 0.5) * pixels / cells) for i, pixels, cells in zip(cell, size, heat.shape, strict=True))
