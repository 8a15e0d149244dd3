"""Large images in overlapping windows, each counting only with its inside.

At a window's edge a network sees zeros where the whole image goes on, so its prediction there is worth less. Windows
therefore overlap, and a pixel is taken from the window in which it lies further inside: `MARGIN` of a window's side,
rounded to whole cells, is dropped on each side where the image goes on. Windows begin at multiples of the networks'
stride, so that the cells of a window are cells of the whole image: beyond the reach of its edges, a window's logits are
exactly the whole's.

A network of unpadded convolutions predicts the middle of a window only, so that nothing has to be dropped: the image is
mirrored at its borders, and windows overlap by the context that they lose. Ronneberger et al., 2015, figure 2.
"""

from typing import Any

import numpy as np

from ..errors import InputError
from ..layers import ExactSize

STRIDE = 32  # image pixels per cell of the coarsest maps, in every FCN here
LEAST = 128
MARGIN = 1 / 8


def check_tile(tile: int | None) -> None:
    """Raise InputError unless a window's side is None or a multiple of 32 from 128 up."""
    if tile is not None and (not isinstance(tile, int | np.integer) or tile < LEAST or tile % STRIDE):
        raise InputError(f"tile: expected a multiple of {STRIDE} of at least {LEAST} pixels, got {tile}")


def check_unpadded_tile(tile: int | None, sizes: ExactSize) -> None:
    """Raise InputError for a window's side from which a network of unpadded convolutions would give nothing."""
    least = sizes.fitting(2 * sizes.context + sizes.step)
    if tile is not None and (not isinstance(tile, int | np.integer) or tile < least):
        raise InputError(
            f"tile: expected at least {-(-least // STRIDE) * STRIDE} pixels, a multiple of {STRIDE}, for this network, got {tile}"
        )


def windows(size: tuple, tile: int) -> list[tuple]:
    """The windows of an image of `size` (height, width): [(window, inside, place)], each a pair of slices, down and across.

    window: the part of the image that the network gets. inside: the part of the window whose prediction counts. place:
    where in the image that lies. The places cover the image exactly once. A window as large as the image is the image.
    """
    down, across = (_spans(length, tile) for length in size)
    return [tuple(zip(rows, columns, strict=True)) for rows in down for columns in across]


def _spans(length, tile):
    """(window, inside, place) slices along one side."""
    margin = max(STRIDE, int(tile * MARGIN) // STRIDE * STRIDE)
    spans, start = [], 0
    while True:
        stop = min(start + tile, length)
        first = start + margin if start else 0
        last = length if stop == length else stop - margin
        spans.append((slice(start, stop), slice(first - start, last - start), slice(first, last)))
        if stop == length:
            return spans
        start += tile - 2 * margin


def unpadded_windows(image: Any, tile: int | None, sizes: ExactSize) -> tuple[np.ndarray, list[tuple]]:
    """The image (H, W, C) with its mirrored surroundings, and the windows of that for a network that takes these sizes.

    -> (mirrored, [(window, inside, place)]) as `windows` gives them; `inside` counts in the network's output, which is
    smaller than the window. tile: the largest side, None for one window. Raises InputError for a tile that is too small.
    """
    if not isinstance(image, np.ndarray):
        raise InputError("tile: a network of unpadded convolutions takes no image larger than memory; make it smaller")
    check_unpadded_tile(tile, sizes)
    spans = [_unpadded_spans(length, tile, sizes) for length in image.shape[:2]]
    before = sizes.context
    around = [(before, some[-1][0].stop - length - before) for some, length in zip(spans, image.shape[:2], strict=True)]
    mirrored = np.pad(image, (*around, (0, 0)), mode="reflect")
    return mirrored, [tuple(zip(rows, columns, strict=True)) for rows in spans[0] for columns in spans[1]]


def _unpadded_spans(length, tile, sizes):
    """(window, inside, place) slices along one side; windows begin at multiples of the step, on the same cells as one window would."""
    side = sizes.fitting(length + 2 * sizes.context)
    if tile is not None:
        side = min(side, sizes.fitting(tile - sizes.step + 1))
    spans, start = [], 0
    while True:
        output = side - 2 * sizes.context
        stop = min(length, start + output)
        if stop < length:
            stop = start + output // sizes.step * sizes.step
        spans.append((slice(start, start + side), slice(0, stop - start), slice(start, stop)))
        if stop == length:
            return spans
        start = stop
