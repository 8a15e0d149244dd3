"""What lessons 7 and 9 learn from, and how: is a pixel part of a shape, whichever, or background?"""

import numpy as np

from minifcn import data
from minifcn.data.toyvoc import draw_scene
from minifcn.training import loop
from minifcn.training.schedule import poly


def samples(count, drawn, size):
    """Corners (size, size, 3) of scenes drawn at a size, with their labels: 0, 1 (some shape) and void."""
    found = []
    for i in range(count):
        image, label = draw_scene(np.random.default_rng([7, i]), drawn)
        label = np.where((label > 0) & (label < 255), 1, label).astype(np.uint8)
        found.append(data.Sample(image[:size, :size], label[:size, :size], str(i)))
    return found


def fit(network, train, optimizer, rate, steps, batch, seed):
    """Train a network on samples of one size; the rate falls to 0. -> the losses"""
    order, size = np.random.default_rng(seed), train[0].label.shape
    stream = data.BatchStream(
        train, batch, network.card.preprocessing, order, crop=size
    )
    rates = [rate * poly(i, steps) for i in range(steps)]
    return [loop.update(network, *next(stream), optimizer, r) for r in rates]
