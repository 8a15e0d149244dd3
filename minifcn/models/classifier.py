"""The parts that VGG and both AlexNets are made of, by name, and where a network's initial weights come from."""

import numpy as np

from .. import layers
from ..errors import require_counts


def generator(where, seed, **counts):
    """The generator that draws a network's weights. Raises InputError unless its seed and its counts are whole numbers, of at least 0 and 1."""
    require_counts(where, counts)
    require_counts(where, {"seed": seed}, least=0)
    return np.random.default_rng(seed)


def convolution(kind, number, inputs, outputs, kernel, rng, *, batch_norm=False, **settings):
    """A convolution, its normalisation if wanted (which makes a bias pointless), its ReLU: "conv1", "bn1", "relu1"."""
    chain = {kind + number: layers.Conv2d(inputs, outputs, kernel, rng, bias=not batch_norm, **settings)}
    if batch_norm:
        chain["bn" + number] = layers.BatchNorm2d(outputs)
    chain["relu" + number] = layers.ReLU()
    return chain


def separable(inputs, outputs, rng, kernel=3, rate=1):
    """A depthwise convolution with a dilation rate, then a 1×1, each with normalisation and ReLU: a fraction of a dense one's cost."""
    where = {"pad": rate * (kernel // 2), "dilation": rate, "groups": inputs}
    chain = convolution("depthwise", "1", inputs, inputs, kernel, rng, batch_norm=True, **where)
    return chain | convolution("pointwise", "2", inputs, outputs, 1, rng, batch_norm=True)


def fully_connected(inputs, num_classes, rng):
    """The upper half that VGG16 and CaffeNet share: two hidden layers of 4096, each with dropout of one half, and the scores."""
    return {
        "flatten": layers.Flatten(),
        "fc6": layers.Linear(inputs, 4096, rng),
        "relu6": layers.ReLU(),
        "drop6": layers.Dropout(0.5, rng),
        "fc7": layers.Linear(4096, 4096, rng),
        "relu7": layers.ReLU(),
        "drop7": layers.Dropout(0.5, rng),
        "fc8": layers.Linear(4096, num_classes, rng),
    }


def fully_convolutional(inputs, width, kernel, pad, rng, *, dropout=0.5, batch_norm=False):
    """Its two hidden layers as convolutions, of `kernel` × `kernel` and 1×1. Long et al., 2015, section 3.1."""
    chain = convolution("fc", "6", inputs, width, kernel, rng, pad=pad, batch_norm=batch_norm)
    chain["drop6"] = layers.Dropout(dropout, rng)
    chain |= convolution("fc", "7", width, width, 1, rng, batch_norm=batch_norm)
    chain["drop7"] = layers.Dropout(dropout, rng)
    return chain
