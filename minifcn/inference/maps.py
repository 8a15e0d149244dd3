"""The maps of a network for one image, as small pictures; and the windows of other images that excite a channel most."""

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..backend import to_device, to_host
from ..errors import InputError
from ..layers import ExactSize
from ..models import Graph
from ..models.fields import Field, fields
from .sliding_window import unpadded_windows

SIDE = 64  # cells, of the largest small pictures


class Seen(NamedTuple):
    """What the network is given of a photograph. picture (H, W, 3) uint8: it, with its mirrored surroundings for a network without padding.
    x (1, C, H, W): the same, as the network sees it. inside: the slices of the network's output that lie on the photograph."""

    picture: np.ndarray
    x: np.ndarray
    inside: tuple


class Pictures(NamedTuple):
    """A node's maps in 8 bits. cells (C, h, w) uint8, each the mean of `factor` × `factor` of the map's; low, high (C,) float32: what 0
    and 255 stand for."""

    factor: int
    low: np.ndarray
    high: np.ndarray
    cells: np.ndarray

    def spread(self) -> np.ndarray:
        """The standard deviation of each channel's values.   -> (C,)"""
        return (self.high - self.low) / 255 * self.cells.std(axis=(1, 2))


def seen(network: Graph, image: np.ndarray) -> Seen:
    """image (H, W, C) uint8 -> Seen"""
    image = network.card.preprocessing.stretched(image)
    inside = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    if unpadded := network.layers_of(ExactSize):
        mirrored, ((window, inside, _),) = unpadded_windows(image, None, unpadded[0])
        image = np.ascontiguousarray(mirrored[window])
    return Seen(image, network.card.preprocessing.apply(image)[None], inside)


def pictures(maps: np.ndarray, factor: int) -> Pictures:
    """Maps (C, h, w) as Pictures, `factor` × `factor` cells averaged."""
    c, h, w = maps.shape
    rows, columns = -(-h // factor), -(-w // factor)
    if factor > 1:
        padded = np.pad(maps, ((0, 0), (0, rows * factor - h), (0, columns * factor - w)), mode="edge")
        maps = padded.reshape(c, rows, factor, columns, factor).mean(axis=(2, 4))
    low, high = (extreme(axis=(1, 2)).astype(np.float32) for extreme in (maps.min, maps.max))
    span = np.where(high > low, high - low, 1)[:, None, None]
    return Pictures(factor, low, high, np.rint((maps - low[:, None, None]) / span * 255).astype(np.uint8))


def that_fit(values: dict[str, np.ndarray], most: int) -> dict[str, Pictures]:
    """Pictures of the maps {name: (C, h, w)} whose cells, compressed, fit into `most` bytes: of at most SIDE cells a side, the largest
    ones averaged further until all fit.

    Raises InputError if they cannot fit.
    """

    def averaged(name, factor):
        made = pictures(values[name], factor)
        return made, len(zlib.compress(made.cells.tobytes(), 6))

    found = {name: averaged(name, -(-max(maps.shape[1:]) // SIDE)) for name, maps in values.items()}
    while sum(size for _, size in found.values()) > most:
        name = max(found, key=lambda name: found[name][1])
        made = found[name][0]
        if made.cells[0].size == 1:
            raise InputError(f"maps of {len(values)} layers do not fit into {most:,} bytes")
        found[name] = averaged(name, made.factor + 1)
    return {name: made for name, (made, _) in found.items()}


class Window(NamedTuple):
    """A part of a picture that excites a channel: how much, the picture's number, and the pixels (h, w, 3)."""

    excitement: float
    source: int
    pixels: np.ndarray


def windows(
    network: Graph, images: Iterable[np.ndarray], channels: Sequence[tuple[str, int]], count: int = 9
) -> dict[tuple[str, int], list[Window]]:
    """The windows that excite channels (node, channel) most, at most one per image, cut out by receptive field.

    network: prepared. images: (H, W, 3) uint8. channels: those of nodes with maps. -> {channel: at most `count` Windows, the most exciting first}
    """
    names = list(dict.fromkeys(name for name, _ in channels))
    best: dict = {channel: [] for channel in channels}
    of_shape: dict = {}
    for number, image in enumerate(images):
        given = seen(network, image)
        values = network.features(to_device(given.x), names)
        for name, channel in channels:
            maps = to_host(values[name])[0, channel]
            row, column = np.unravel_index(maps.argmax(), maps.shape)
            found, kept = float(maps[row, column]), best[name, channel]
            if len(kept) < count or found > kept[-1].excitement:
                if given.x.shape not in of_shape:
                    of_shape[given.x.shape] = fields(network, given.x.shape)
                pixels = cut(given.picture, of_shape[given.x.shape][name], row, column)
                kept.append(Window(found, number, pixels))
                kept.sort(key=lambda window: -window.excitement)
                del kept[count:]
    return best


def cut(picture: np.ndarray, field: Field, row: int, column: int) -> np.ndarray:
    """The pixels of a picture (H, W, C) that a cell depends on; grey if it sees padding only."""
    (top, bottom), (left, right) = field.rows[row], field.columns[column]
    if bottom < top or right < left:
        return np.full((1, 1, picture.shape[2]), 127, np.uint8)
    return picture[top : bottom + 1, left : right + 1]
