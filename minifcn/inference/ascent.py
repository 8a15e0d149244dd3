"""What a channel looks for: an image that excites it, found by gradient ascent through the hand-written backward passes.

From grey noise, each step follows the gradient of the channel's mean. On its own that ends in fine noise, so the image is
shifted by a few pixels before each step, its gradient is smoothed, and it starts small and is enlarged twice.
Source: Olah, Mordvintsev and Schubert, Feature Visualization, Distill 2017; the enlarging: Mordvintsev et al., DeepDream, 2015.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np

from .. import layers
from ..backend import to_device, to_host
from ..layers.graph import Graph, schedule
from ..ops import resize_bilinear_forward
from ..preprocessing import Preprocessing

SIDES, STEPS = (64, 96, 128), 20  # of the image, one after the other, and the steps on each
RATE = 4.0  # grey levels a step, on average
JITTER = 8  # pixels
TAPS = np.array([1, 4, 6, 4, 1]) / 16  # of the smoothing
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in grey
NOISE, GREY = 8.0, 127.5  # of the first image: standard deviation and mean, in grey levels


def ascend(network: Graph, node: str, channels: Sequence[int], seed: int = 0, steps: int = STEPS) -> np.ndarray:
    """For each of these channels of a node, an image that excites it.   -> (len(channels), side, side, 3) uint8 RGB, or of the network's bands

    steps: at each size. The network, which must not be prepared, stays unchanged. Nodes after this one are left out.
    """
    part, rng = until(network, node), np.random.default_rng(seed)
    pixels = GREY + NOISE * rng.normal(size=(len(channels), SIDES[0], SIDES[0], network.card.preprocessing.bands))
    exact = part.layers_of(layers.ExactSize)
    for side in SIDES:
        side = exact[0].fitting(side) if exact else side
        pixels = resize_bilinear_forward(pixels.transpose(0, 3, 1, 2), (side, side))[0].transpose(0, 2, 3, 1)
        for _ in range(steps):
            shift = tuple(rng.integers(-JITTER, JITTER + 1, size=2))
            moved = np.roll(pixels, shift, axis=(1, 2))
            gradient = np.roll(excitement_gradient(part, moved, channels)[1], (-shift[0], -shift[1]), axis=(1, 2))
            gradient = _smoothed(gradient)
            size = np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
            pixels = (pixels + RATE * gradient / np.maximum(size, 1e-12)).clip(0, 255)
    return np.rint(pixels).astype(np.uint8)


def excitement_gradient(part: Graph, pixels: np.ndarray, channels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of channel channels[n] over image n's map, and its gradient with respect to the pixels.   pixels (N, H, W, 3), 0 … 255
    -> (N,) and (N, H, W, 3)"""
    preprocessing = part.card.preprocessing
    at = np.arange(len(channels)), list(channels)
    dtype = next((p.value.dtype for p in part.parameters().values()), np.float32)
    maps = part.forward(to_device(seen(pixels, preprocessing).astype(dtype)), train=True)
    dy = np.zeros(maps.shape, dtype)
    dy[at] = 1 / (maps.shape[2] * maps.shape[3])
    dx = part.backward(to_device(dy))
    return to_host(maps).mean(axis=(2, 3))[at], seen_backward(to_host(dx), preprocessing)


def seen(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Pixels (N, H, W, 3), whole numbers or not, as the network sees them, (N, C, H, W). Like `Preprocessing.apply`."""
    if preprocessing.order == "grey":
        ordered = (pixels @ LUMA)[..., None]
    else:
        ordered = pixels[..., ::-1] if preprocessing.order == "BGR" else pixels
    return ((ordered - np.array(preprocessing.mean)) * np.array(preprocessing.scale)).transpose(0, 3, 1, 2)


def seen_backward(dx: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The gradient of what the network sees (N, C, H, W) -> that of the pixels (N, H, W, 3)."""
    d = dx.transpose(0, 2, 3, 1) * np.array(preprocessing.scale)
    if preprocessing.order == "grey":
        return d * LUMA
    return d[..., ::-1] if preprocessing.order == "BGR" else d


def until(network: Graph, node: str) -> Graph:
    """The part of a network up to a node, for gradients of the image only: it computes as in inference and learns nothing."""
    nodes = {}
    for step in schedule(network.nodes, [node]):
        layer = copy(step.layer)
        for key, value in vars(layer).items():
            if isinstance(value, layers.Parameter):
                setattr(layer, key, layers.Parameter(value.value, frozen=True))
        if isinstance(layer, layers.Dropout):
            layer.p = 0.0
        if isinstance(layer, layers.BatchNorm2d):
            layer.frozen = True
        nodes[step.name] = (layer, step.inputs)
    return Graph(nodes, [node], card=network.card)


def _smoothed(images):
    """Images (N, H, W, 3) with every pixel averaged with its neighbours."""
    for axis in (1, 2):
        images = sum(tap * np.roll(images, i - 2, axis=axis) for i, tap in enumerate(TAPS))
    return images
