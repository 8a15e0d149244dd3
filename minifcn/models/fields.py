"""Which pixels of the image each cell of each map depends on, exactly, at the borders too; and where the cell lies.

`explain` gives the side of a receptive field far from all borders. Here it is the first and the last row and column for
every cell of an image of a given size: a loop over the table, in which each layer says which cells of its input one cell of
its output reads. Windows are rectangles, so rows and columns are worked out each by themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import layers
from ..errors import InputError
from ..layers.coordinates import IDENTITY, Affine
from ..layers.general import Resize, Slice
from ..layers.graph import IMAGE, Graph
from ..layers.plain import _WholeMap
from ..layers.windowed import Transposed, Windowed
from ..ops.geometry import pads, pair, same_pads

Spans = np.ndarray  # (cells, 2) integers: the first and the last


class Field(NamedTuple):
    """Of a node: rows (h, 2) and columns (w, 2), the first and the last pixel of the image that each row and column of cells
    depends on, last < first where it sees padding only. at: the map from a pixel to the cell that lies there, None where a
    cell has no place (the mean of a whole map)."""

    rows: Spans
    columns: Spans
    at: Affine | None


def fields(network: Graph, shape: tuple) -> dict[str, Field]:
    """{name: Field} of every node with maps, for an image of shape (N, C, H, W).

    Raises InputError, naming the layer, where the size does not fit.
    """
    shapes = network.shapes(shape)
    rows, columns = (np.repeat(np.arange(n)[:, None], 2, axis=1) for n in shape[2:])
    found = {IMAGE: Field(rows, columns, IDENTITY)}
    for name, (layer, inputs) in network.nodes.items():
        layer = layer.conv if isinstance(layer, layers.FusedConv2d) else layer
        given = [shapes[i] for i in inputs]
        if len(shapes[name]) != 4 or any(len(s) != 4 for s in given):
            continue
        spans = []
        for axis in (2, 3):
            seen = []
            for position, source in enumerate(inputs):
                if position in layer.size_only:
                    continue
                spans_in = found[source][axis - 2]
                read = reads(layer, given, position, shapes[name], axis)
                seen.append(_through(read, spans_in))
            spans.append(_union(seen) if seen else _nothing(shapes[name][axis]))
        rows, columns = spans
        found[name] = Field(rows, columns, _place(layer, inputs, found))
    return found


def reads(layer: layers.Layer, given: list, position: int, shape: tuple, axis: int) -> Spans:
    """Which cells of an input the cells of the output read along an axis, padding included. given, shape: those of the inputs
    and of the output.   -> (cells of the output, 2)"""
    cells, n = np.arange(shape[axis]), given[position][axis]
    if isinstance(layer, _WholeMap | layers.Mean):
        return np.stack([0 * cells, 0 * cells + n - 1], axis=1)
    if isinstance(layer, Resize):
        return _seen_by(lambda x: layer.run(x, *(_lent(s, axis) for s in given[1:]), train=False)[0], n)
    first = last = cells
    if isinstance(layer, Windowed):
        kernel, stride, before, rate = _along(layer, given[0], axis)
        reach = rate * (kernel - 1)
        if isinstance(layer, Transposed):  # input cell i stamps i·stride − before … + reach
            first, last = -(-(cells + before - reach) // stride), (cells + before) // stride
        else:
            first, last = cells * stride - before, cells * stride - before + reach
    elif isinstance(layer, layers.PadToMultiple | layers.Pad):
        by = layer.pad_for(given[0][2:]) if isinstance(layer, layers.PadToMultiple) else layer.numbers_for(*given)
        first = last = cells - pads(by)[axis - 2][0]
    elif isinstance(layer, Slice):
        parts = layer.numbers_for(*given)
        if axis < len(parts):
            first = last = np.arange(n)[parts[axis]]
    elif n == 1:  # a single value, for all
        first = last = 0 * cells
    return np.stack([first, last], axis=1)


def _along(layer, shape, axis):
    """(kernel, stride, pad before, dilation) of a window along an axis."""
    stride, rate = (pair(key, layer.settings.get(key, 1)) for key in ("stride", "dilation"))
    pad = layer.settings["pad"]
    both = same_pads(shape[2:], layer.kernel, stride, rate) if pad == "same" else pads(pad)
    i = axis - 2
    return layer.kernel[i], stride[i], both[i][0], rate[i]


def _seen_by(run: Callable, n: int) -> Spans:
    """The spans of a layer that moves every channel alike, by giving each cell of one line a channel of its own."""
    lines = np.eye(n, dtype=np.float32)[None, :, :, None]
    used = run(lines)[0, :, :, 0] != 0  # (cells of the input, cells of the output)
    return np.stack([used.argmax(axis=0), n - 1 - used[::-1].argmax(axis=0)], axis=1)


def _lent(shape, axis):
    """What lends its size to a line."""
    return np.empty((1, 1, shape[axis], 1), np.float32)


def _through(read, spans):
    """What cells depend on that read these cells, which depend on these spans. Cells outside the map are padding."""
    n = len(spans)
    found = _nothing(len(read))
    for cell, (first, last) in enumerate(np.clip(read, [0, -1], [n, n - 1])):
        if first <= last:
            found[cell] = spans[first : last + 1, 0].min(), spans[first : last + 1, 1].max()
    return found


def _union(spans):
    """The smallest spans that hold these."""
    return np.stack([np.min([s[:, 0] for s in spans], axis=0), np.max([s[:, 1] for s in spans], axis=0)], axis=1)


def _nothing(cells):
    return np.tile(np.array([np.iinfo(np.int32).max, -1]), (cells, 1))


def _place(layer, inputs, found):
    """The map from a pixel to a cell; what was resized to lie on another map lies where that does."""
    if isinstance(layer, Resize) and len(inputs) > 1:
        return found[inputs[1]].at
    before = found[inputs[0]].at
    try:
        return before and before.then(layer.coordinates())
    except InputError:
        return None
