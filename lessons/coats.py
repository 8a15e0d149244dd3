"""What lesson 10 learns from, and how: shapes that all wear the same coat, so that a network must see them whole."""

import numpy as np

import shapes
from minifcn import data
from minifcn.data.toyvoc import SHAPES
from minifcn.training.optimizers import Adam

KINDS = ("disc", "ring", "cross")
CLASSES = ("background", *KINDS)
SIDE = 96
STEPS, RATE = 240, 4e-3


def scene(seed):
    """One shape in front of noise: image (96, 96, 3), label (96, 96)."""
    rng = np.random.default_rng([11, seed])
    kind, radius = rng.integers(len(KINDS)), rng.uniform(26, 44)
    middle, angle = rng.uniform(0.3 * SIDE, 0.7 * SIDE, 2), rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE] - middle[:, None, None]
    u = np.cos(angle) * columns - np.sin(angle) * rows  # turned, in pixels
    v = np.sin(angle) * columns + np.cos(angle) * rows
    outside, _ = SHAPES[KINDS[kind]]  # the distance to the outline, below 0 inside
    distance = outside(u / radius, v / radius) * radius
    checks = ((u / 6) % 1 < 0.5) ^ ((v / 6) % 1 < 0.5)
    one, other = rng.uniform(20, 235, (2, 3))
    coat = np.where(checks[:, :, None], one, other)
    image = np.where(distance[:, :, None] < 0, coat, rng.uniform(60, 200))
    image = image + rng.normal(0, 15, image.shape)
    label = np.where(distance < 0, kind + 1, 0)
    label[abs(distance) < 1] = 255
    pixels = image.clip(0, 255).astype(np.uint8)
    return data.Sample(pixels, label.astype(np.uint8), str(seed))


def fit(network, train, seed, steps=STEPS):
    """Train a network on scenes as lesson 9 does."""
    adam = Adam(network.parameters(), weight_decay=5e-4)
    shapes.fit(network, train, adam, RATE, steps, batch=4, seed=seed)
