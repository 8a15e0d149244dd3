"""Large images in pieces: overlapping squares, of each of which the middle is kept.

At a tile's edge a network sees zeros where the whole image goes on, so what it says there is worth less. Tiles
therefore overlap, and a pixel is taken from the tile in which it lies further inside: `MARGIN` of a tile's side, rounded
to whole cells, is thrown away on each side where the image goes on. Tiles begin at multiples of the networks' stride,
so that the cells of a tile are cells of the whole image: beyond the reach of its edges, a tile's logits are exactly the whole's.
"""

from ..errors import InputError

STRIDE = 32  # image pixels per cell of the coarsest maps, in every FCN here
LEAST = 128
MARGIN = 1 / 8


def check_tile(tile):
    """Raise InputError unless a tile's side is None or a multiple of 32 from 128 up."""
    if tile is not None and (tile < LEAST or tile % STRIDE):
        raise InputError(f"tile: expected a multiple of {STRIDE} of at least {LEAST} pixels, got {tile}")


def cut(size, tile):
    """The tiles of an image of `size` (height, width): [(seen, kept, place)], each a pair of slices, down and across.

    seen: the part of the image that the network gets. kept: the part of its answer that counts. place: where in the
    image that belongs. The places cover the image exactly once. A tile that is no smaller than the image is the image.
    """
    down, across = (_spans(length, tile) for length in size)
    return [tuple(zip(rows, columns, strict=True)) for rows in down for columns in across]


def _spans(length, tile):
    """(seen, kept, place) slices along one side."""
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
