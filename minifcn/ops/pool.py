"""Max and average pooling, with floor or ceil rounding, padding and overlapping windows; adaptive and global averages."""

import numpy as np

from ..backend import Array, Source, array_module, constant, has_kernels, launch, run_tiles, runs, threads, tuning
from ..errors import InputError
from .geometry import Cache, Pair, Window, conv_params, pair, require_gradient, require_maps, window
from .maps import Band, channels_last, new_maps, row_tiles, taps, to_nhwc, windows

SOURCE = Source.beside(__file__)


def max_pool2d_forward(
    x: Array, kernel: Pair, *, stride: Pair | None = None, pad: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False
) -> tuple[Array, Cache]:
    """y = the greatest value in each window; padding never wins, a NaN always.   x (N, C, H, W) -> y (N, C, Ho, Wo)

    kernel, stride (default: the kernel), dilation: integer or (height, width); pad as in conv2d_forward. ceil_mode keeps a
    last window that only partly fits, as long as it starts inside the image or the padding before it.
    Raises InputError for sizes that do not fit, and where a window would see no pixel, only padding.
    """
    require_maps("max_pool2d", x)
    where = pool_window("max_pool2d", x.shape[2:], kernel, stride, pad, dilation, ceil_mode)
    xp = array_module(x)
    y = new_maps(x, x.shape[1], where.output_size)
    x_last, y_last = channels_last(x), channels_last(y)
    if runs(SOURCE, x):
        winner = xp.empty(y_last.shape, "int32" if x.dtype == "float32" else "int64")  # which tap of each window
        params = conv_params(where, x.shape[1])
        grid = len(x) * y_last.shape[1], *y_last.shape[2:]
        launch(SOURCE, "max_pool", grid, to_nhwc(x), y_last, winner, float("-inf"), *params)
        return y, (winner, y.shape, where)

    def tile(images, rows):
        seen, best = _seen(x_last[images], where, rows, fill=-xp.inf), y_last[images, rows]
        best[...] = seen[:, :, :, 0, 0]
        for u, v in taps(where)[1:]:
            xp.maximum(best, seen[:, :, :, u, v], out=best)

    run_tiles(x, tile, _tiles(y, where))
    return y, ((x, y), y.shape, where)


def max_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dx: each dy goes to the pixel that won its window, on a tie to the first.   dy (N, C, Ho, Wo) -> dx (N, C, H, W)"""
    winner, shape, where = cache
    dtype = winner[0].dtype if isinstance(winner, tuple) else f"float{8 * winner.dtype.itemsize}"
    require_gradient("max_pool2d", dy, shape, dtype)
    xp = array_module(dy)
    if not isinstance(winner, tuple):
        apart = all(stride >= extent for stride, extent in zip(where.stride, where.extent, strict=True))
        kernel, size = (
            ("max_pool_gradient_apart", where.output_size) if apart else ("max_pool_gradient", where.input_size)
        )
        dx = new_maps(dy, shape[1], where.input_size, zeros=apart and not _each_once(where))
        arrays = to_nhwc(dy), winner, channels_last(dx)
        launch(SOURCE, kernel, (len(dy) * size[0], size[1], shape[1]), *arrays, *conv_params(where, shape[1]))
        return dx
    x, y = winner
    x_last, y_last, dy_last = channels_last(x), channels_last(y), channels_last(dy)

    def shares(images, rows):
        seen = _seen(x_last[images], where, rows, fill=-xp.inf)
        best, upstream = y_last[images, rows], dy_last[images, rows]
        unclaimed = xp.ones(best.shape, bool)  # windows whose winner is still to come
        some_nan = bool(xp.isnan(best).any())
        inside = None  # where taps lie in the map, if only that tells -inf from the padding
        if bool((best == -xp.inf).any()):
            inside = _seen(xp.ones((1, *x_last.shape[1:3], 1), bool), where, rows)
        for u, v in taps(where):
            wins = seen[:, :, :, u, v] == best
            if inside is not None:
                wins &= inside[:, :, :, u, v]
            if some_nan:  # NaN equals nothing, itself included
                wins |= xp.isnan(seen[:, :, :, u, v])
            wins &= unclaimed
            unclaimed ^= wins
            yield (u, v), upstream * wins

    return _spread(shares, dy, where)


def avg_pool2d_forward(
    x: Array,
    kernel: Pair,
    *,
    stride: Pair | None = None,
    pad: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Array, Cache]:
    """y = the mean of each window.   x (N, C, H, W) -> y (N, C, Ho, Wo)

    Arguments and errors as in max_pool2d_forward. With count_include_pad the zeros of the padding count as values; what a window of
    ceil_mode covers beyond the padding never does.
    """
    require_maps("avg_pool2d", x)
    where = pool_window("avg_pool2d", x.shape[2:], kernel, stride, pad, 1, ceil_mode)
    area = constant(x, _areas, where, count_include_pad, str(x.dtype))
    y = new_maps(x, x.shape[1], where.output_size)
    x_last, y_last = channels_last(x), channels_last(y)

    def tile(images, rows):
        seen, total = _seen(x_last[images], where, rows), y_last[images, rows]
        total[...] = 0
        for u, v in taps(where):
            total += seen[:, :, :, u, v]
        total /= area[rows]

    run_tiles(x, tile, _tiles(y, where))
    return y, (area, where)


def avg_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dx: each dy is shared equally among its window's pixels.   dy (N, C, Ho, Wo) -> dx (N, C, H, W)"""
    area, where = cache
    require_gradient("avg_pool2d", dy, dy.shape[:2] + where.output_size, area.dtype)
    dy_last = channels_last(dy)

    def shares(images, rows):
        share = dy_last[images, rows] / area[rows]
        for tap in taps(where):
            yield tap, share

    return _spread(shares, dy, where)


def adaptive_avg_pool2d_forward(x: Array, size: Pair) -> tuple[Array, Cache]:
    """y = the mean of each part of a map that is cut into `size` (height, width) parts.   x (N, C, H, W) -> y (N, C, *size)

    Part i of n covers the positions ⌊i·H/n⌋ … ⌈(i + 1)·H/n⌉ − 1, as in PyTorch, so parts may share a row; y = A x Bᵀ with
    the shares as matrices A (height, H) and B (width, W). size: integer or pair.
    """
    require_maps("adaptive_avg_pool2d", x)
    sizes = zip(x.shape[2:], pair("size", size), strict=True)
    a, b = (constant(x, _shares, have, want, str(x.dtype)) for have, want in sizes)
    return array_module(x).matmul(a @ x, b.T), (a, b)


def adaptive_avg_pool2d_backward(dy: Array, cache: Cache) -> Array:
    """dx = Aᵀ dy B.   dy (N, C, *size) -> dx (N, C, H, W)"""
    a, b = cache
    require_gradient("adaptive_avg_pool2d", dy, dy.shape[:2] + (len(a), len(b)), a.dtype)
    return array_module(dy).matmul(a.T @ dy, b)


def global_avg_pool_forward(x: Array) -> tuple[Array, Cache]:
    """y = the mean of each map; positions within the map are lost.   x (N, C, H, W) -> y (N, C)"""
    require_maps("global_avg_pool", x)
    return channels_last(x).mean(axis=2).mean(axis=1), (x.shape, x.dtype)


def global_avg_pool_backward(dy: Array, cache: Cache) -> Array:
    """dx: every pixel gets an equal share of its map's dy.   dy (N, C) -> dx (N, C, H, W)"""
    shape, dtype = cache
    require_gradient("global_avg_pool", dy, shape[:2], dtype)
    dx = new_maps(dy, shape[1], shape[2:])
    dx[...] = (dy / (shape[2] * shape[3]))[:, :, None, None]
    return dx


def _shares(size, parts, dtype):
    """The matrix (parts, size) whose row i averages part i."""
    shares = np.zeros((parts, size), dtype)
    for i in range(parts):
        first, end = i * size // parts, -(-(i + 1) * size // parts)
        shares[i, first:end] = 1 / (end - first)
    return shares


def _seen(x, where, rows, fill=0):
    """What the windows of output rows `rows` see of x (n, H, W, C): (n, rows, Wo, kh, kw, C)."""
    return windows(Band.of(where, rows).read(x, fill), where, rows.stop - rows.start)


def _spread(shares, dy, where):
    """dx (N, C, H, W). shares(images, rows) yields each tap and what the pixels at that tap get from these rows of dy."""
    xp = array_module(dy)
    overlap_down, overlap_across = (extent > stride for extent, stride in zip(where.extent, where.stride, strict=True))
    overlap = overlap_down or overlap_across
    dx = new_maps(dy, dy.shape[1], where.input_size, zeros=not _each_once(where))
    dx_last = channels_last(dx)

    def tile(images, rows):
        band = Band.of(where, rows)
        pixels = dx_last[images, band.rows, band.columns]
        in_place = pixels.shape[1:3] == band.size  # nothing of it lies in the padding
        target = pixels if in_place else xp.zeros((len(pixels), *band.size, dy.shape[1]), dy.dtype)
        seen = windows(target, where, rows.stop - rows.start)
        for (u, v), share in shares(images, rows):
            if overlap:
                seen[:, :, :, u, v] += share
            else:
                seen[:, :, :, u, v] = share
        if not in_place:
            pixels[...] = band.inside(target)

    tiles = _tiles(dy, where)
    if overlap_down:  # windows of neighbouring rows share pixels, so a thread owns an image
        tiles = [(slice(i, i + 1), slice(0, where.output_size[0])) for i in range(len(dy))]
    run_tiles(dy, tile, tiles)
    return dx


def _each_once(where):
    """Whether every pixel lies in one window."""
    covered = all(n * k >= size for n, k, size in zip(where.output_size, where.kernel, where.input_size, strict=True))
    return covered and where.kernel == where.stride == where.extent and where.pad == ((0, 0), (0, 0))


def _tiles(maps, where):
    """The tiles of the output maps, of about BLOCK_BYTES; a single one where every tile would cost many launches."""
    height, width = where.output_size
    if has_kernels(maps):
        return [(slice(0, len(maps)), slice(0, height))]
    return row_tiles(len(maps), height, maps.shape[1] * width * maps.itemsize, tuning.BLOCK_BYTES, threads())


def _areas(where, include_pad, dtype):
    """How many pixels each window covers, (Ho, Wo, 1)."""
    counts = []
    for size, count, (before, after), stride, extent in zip(
        where.input_size, where.output_size, where.pad, where.stride, where.extent, strict=True
    ):
        low, high = (-before, size + after) if include_pad else (0, size)
        starts = np.arange(count) * stride - before
        counts.append(np.minimum(starts + extent, high) - np.maximum(starts, low))
    return np.multiply.outer(*counts)[:, :, None].astype(dtype)


def pool_window(
    op: str, size: tuple, kernel: Pair, stride: Pair | None, pad: Pair, dilation: Pair, ceil_mode: bool
) -> Window:
    """The Window of a pooling over maps of `size` (height, width). Raises InputError if nothing fits."""
    where = window(op, kernel, kernel if stride is None else stride, pad, dilation, 1, size, ceil_mode)
    for n, count, s, (before, _), d, extent in zip(
        where.input_size, where.output_size, where.stride, where.pad, where.dilation, where.extent, strict=True
    ):
        last = (count - 1) * s - before
        for start in (*range(-before, min(last, 0), s), last):
            first_tap = start if start >= 0 else start % d  # the first in the image
            if first_tap >= n or start + extent <= 0:
                raise InputError(
                    f"{op}: with pad {where.pad} a {where.kernel} window sees no pixel of an input of {tuple(size)}; pad by less"
                )
    return where
