"""Which pixels of the image each cell of each map depends on, exactly, at the borders too; and where the cell lies.

`explain` gives the side of a receptive field far from all borders. Here it is the first and the last row and column for
every cell of an image of a given size: a loop over the table, in which each layer says which cells of its input one cell of
its output reads (`Leaf.reads`). Windows are rectangles, so rows and columns are worked out independently.
"""

from typing import NamedTuple

import numpy as np

from .. import layers
from ..errors import InputError
from ..layers.coordinates import IDENTITY, Affine
from ..layers.graph import IMAGE, Graph

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
                read = layer.reads(np.arange(shapes[name][axis]), axis, given, position)
                seen.append(_through(np.stack(read, axis=1), found[source][axis - 2]))
            spans.append(_union(seen) if seen else _nothing(shapes[name][axis]))
        rows, columns = spans
        found[name] = Field(rows, columns, _place(layer, inputs, found))
    return found


def _through(read, spans):
    """The spans of output cells, given the cells that each reads and the spans of those. Cells outside the map are padding."""
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
    """The map from a pixel to a cell; a map resized to match another lies where that one does."""
    if isinstance(layer, layers.Resize) and len(inputs) > 1:
        return found[inputs[1]].at
    before = found[inputs[0]].at
    try:
        return before and before.then(layer.coordinates())
    except InputError:
        return None
