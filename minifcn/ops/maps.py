"""How feature maps lie in memory, and how windows read them.

Maps have the shape (N, C, H, W). In memory, the convolutions write the channels of a pixel side by side, as if the
shape were (N, H, W, C): a patch is then a few long runs of values, and a pixel's channels are one row of a matrix.
Any other order is read as well, only more slowly.
"""

from itertools import product
from math import prod

import numpy as np

from ..backend import array_module, cut, run_tiles, sum_parts, tuning

CACHE_LINE = 64  # bytes


def channels_last(maps):
    """The view (N, H, W, C) of maps (N, C, H, W)."""
    return maps.transpose(0, 2, 3, 1)


def to_nhwc(maps):
    """Maps (N, C, H, W) as (N, H, W, C), contiguous, as kernels read them; a view where memory allows."""
    return array_module(maps).ascontiguousarray(channels_last(maps))


def new_maps(like, channels, size, zeros=False):
    """Maps (N, channels, *size) for the N images of `like`, in its dtype and on its device, channels last in memory.

    They are uninitialised unless zeros=True.
    """
    maps = new_array(like, (len(like), *size, channels))
    if zeros:
        maps[...] = 0
    return maps.transpose(0, 3, 1, 2)


def new_array(like, shape):
    """An uninitialised array in the dtype and on the device of `like`, aligned to a CPU's cache lines: a vector that straddles
    two lines takes two reads."""
    xp = array_module(like)
    if xp is not np:
        return xp.empty(shape, like.dtype)
    size = prod(shape) * like.itemsize
    memory = np.empty(size + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : first + size].view(like.dtype).reshape(shape)


def pixels(maps):
    """Maps (N, C, H, W) as a matrix with a row for each pixel, (N · H · W, C); a view where memory allows."""
    return channels_last(maps).reshape(-1, maps.shape[1])


def channel_sums(maps):
    """Σ over images, rows and columns, (N, C, H, W) -> (C,); row by row first, as one long float32 sum would lose digits."""
    return channels_last(maps).sum(axis=2).sum(axis=(0, 1))


class Band:
    """A rectangle of the padded image: what some output rows read. The unit in which maps are read and written.

    top, left: where it begins, negative in the padding. size, image: (height, width), its own and the image's.
    """

    def __init__(self, top, left, size, image):
        self.size = size
        self.rows, self._down = _overlap(top, size[0], image[0])
        self.columns, self._across = _overlap(left, size[1], image[1])

    @classmethod
    def of(cls, window, rows):
        """The band that the output rows `rows` (a slice) of a window read."""
        (top, _), (left, _) = window.pad
        height = (rows.stop - rows.start - 1) * window.stride[0] + window.extent[0]
        width = (window.output_size[1] - 1) * window.stride[1] + window.extent[1]
        return cls(rows.start * window.stride[0] - top, -left, (height, width), window.input_size)

    def read(self, x, fill=0):
        """x (n, H, W, C) -> the band (n, height, width, C), contiguous, `fill` where it lies outside the image."""
        inside = x[:, self.rows, self.columns]
        if inside.shape[1:3] == self.size and inside.flags.c_contiguous:
            return inside
        band = array_module(x).empty(x.shape[:1] + self.size + x.shape[3:], x.dtype)
        down, across = self._down, self._across
        band[:, : down.start] = band[:, down.stop :] = fill
        band[:, down, : across.start] = band[:, down, across.stop :] = fill
        band[:, down, across] = inside
        return band

    def inside(self, band):
        """The view of a band (n, height, width, C) that lies inside the image, where `rows` and `columns` of it are."""
        return band[:, self._down, self._across]


def _overlap(start, length, size):
    """Where start … start + length − 1 meets 0 … size − 1: as a slice of the latter, and as a slice of the former."""
    first = min(max(start, 0), size)
    last = max(min(start + length, size), first)
    return slice(first, last), slice(first - start, last - start)


def windows(band, window, row_count):
    """What each window sees, as a view of a band (n, height, width, C): (n, row_count, output width, kh, kw, C).

    Neighbouring windows share pixels, so write to one tap (…, u, v, :) at a time.
    """
    n, down, across, channel = band.strides
    (stride_down, stride_across), (gap_down, gap_across) = window.stride, window.dilation
    return array_module(band).lib.stride_tricks.as_strided(
        band,
        (len(band), row_count, window.output_size[1], *window.kernel, band.shape[3]),
        (n, stride_down * down, stride_across * across, gap_down * down, gap_across * across, channel),
    )


def taps(window):
    """Every (u, v) of the kernel."""
    return list(product(*map(range, window.kernel)))


def row_tiles(n, height, row_bytes, bound, least):
    """Cut n images with `height` rows of row_bytes each into tiles [(images, rows)] of about `bound` bytes: several small
    images, or some rows of one. There are at least `least` tiles, given enough rows and enough bytes to be worth it."""
    if n * height * row_bytes < tuning.BYTES_WORTH_A_THREAD:
        least = 1
    if height * row_bytes <= bound and n >= least:
        count = max(least, -(-n // (bound // (height * row_bytes))))
        return [(images, slice(0, height)) for images in cut(n, count)]
    count = max(-(-height // max(1, bound // row_bytes)), -(-least // n))
    return [(slice(i, i + 1), rows) for i in range(n) for rows in cut(height, count)]


def sum_of_tiles(like, shape, write, tiles, shares=None):
    """Σ over tiles of what write(out, *tile) writes to `out`, an array of this shape; each thread adds up a share of them.

    The shares are fixed and added up in a fixed order, so that the same batch gives the same bits in every run.
    """
    xp = array_module(like)
    shares = shares or min(sum_parts(), len(tiles))
    sums = xp.empty((shares, *shape), like.dtype)

    def share(worker):
        first, *others = tiles[worker::shares]
        write(sums[worker], *first)
        out = xp.empty(shape, like.dtype) if others else None
        for tile in others:
            write(out, *tile)
            sums[worker] += out

    run_tiles(like, share, [(worker,) for worker in range(shares)])
    return sums[0] if shares == 1 else sums.sum(axis=0)
