"""Masks of polygons, pixel by pixel as COCO draws them."""

import numpy as np

from ..errors import InputError

_SCALE = 5  # outlines are drawn on a grid so many times finer
_MOST = 1 << 22  # most points of an outline on that grid


def mask_of(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where a polygon is. corners (n, 2) float64: x to the right and y down, 0 at the upper left pixel's corner. -> (H, W) bool

    size: (height, width). The last corner is joined with the first. Raises InputError for an outline of more than some 800,000 pixels.
    Source: rleFrPoly in `maskApi.c` of pycocotools, to the pixel: https://github.com/cocodataset/cocoapi
    """
    height, width = size
    grid = np.trunc(_SCALE * corners + 0.5).astype(np.int64)
    x, y = _outline(grid, np.roll(grid, -1, axis=0))
    # Each time the outline crosses the middle of a pixel column, the pixels below change between inside and outside.
    passes = x[1:] != x[:-1]
    column = (np.minimum(x[1:], x[:-1])[passes] + 0.5) / _SCALE - 0.5
    row = np.ceil(((np.minimum(y[1:], y[:-1])[passes] + 0.5) / _SCALE - 0.5).clip(0, height)).astype(np.int64)
    inside = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    column, mask = column[inside].astype(np.int64), np.zeros(size, bool)
    if column.size:
        left, right = int(column.min()), int(column.max()) + 1
        pixels = height * (right - left)
        places = (column - left) * height + row[inside]  # down the columns
        changes = np.bincount(places, minlength=pixels)[:pixels]
        mask[:, left:right] = (np.cumsum(changes) % 2 == 1).reshape(right - left, height).T
    return mask


def _outline(starts, ends):
    """All points of the fine grid on the lines from starts to ends (n, 2), one line after the other. -> x, y"""
    steps = np.abs(ends - starts)
    longest = steps.max(axis=1)
    if longest.sum() + len(longest) > _MOST:
        raise InputError(f"expected an outline of at most {_MOST // _SCALE} pixels, got {int(longest.sum()) // _SCALE}")
    line = np.repeat(np.arange(len(starts)), longest + 1)
    step = np.arange(len(line)) - np.repeat(np.cumsum(longest + 1) - longest - 1, longest + 1)
    # A line is computed from its left end or, if it is steep, from its top end, whatever its direction.
    axis = (steps[:, 1] > steps[:, 0]).astype(int)  # along which it has a point at every step
    every = np.arange(len(starts))
    turned = starts[every, axis] > ends[every, axis]
    first, last = np.where(turned[:, None], ends, starts), np.where(turned[:, None], starts, ends)
    slope = (last - first)[every, 1 - axis] / np.maximum(longest, 1)
    step = np.where(turned[line], longest[line] - step, step)
    along = first[every, axis][line] + step
    across = np.trunc(first[every, 1 - axis][line] + slope[line] * step + 0.5).astype(np.int64)
    return np.where(axis[line] == 0, along, across), np.where(axis[line] == 0, across, along)
