"""Enlarging by a fixed, separable kernel: what a frozen bilinear transposed convolution computes, as two matrix products."""

import numpy as np

from ..backend import array_module, cut, run_tiles, threads, to_device_of, to_host
from .window import pads, require_nchw, require_same_dtype, require_shape


def upsample_forward(x, line, *, stride, pad=0):
    """y = A x Bᵀ, map by map: the transposed convolution whose kernel is line ⊗ line in every channel.

    x (N, C, H, W), line (k,) -> y (N, C, Ho, Wo), Ho = (H − 1)·stride + k − top − bottom. Column i of A (Ho, H) holds the
    line from row i·stride − top on: where input row i stamps it. B is the same for columns. stride: integer; pad: integer,
    pair, or ((top, bottom), (left, right)). Raises ValueError for shapes that do not fit.
    """
    require_same_dtype("upsample", x, line)
    require_nchw("upsample", x)
    both = pads(pad)
    if line.ndim != 1 or any((n - 1) * stride + line.size <= sum(p) for n, p in zip(x.shape[2:], both, strict=True)):
        raise ValueError(f"upsample: a line {line.shape}, stride {stride} and pad {pad} leave nothing of {x.shape[2:]}")
    a, b = (_stamps(to_host(line), size, stride, *p) for size, p in zip(x.shape[2:], both, strict=True))
    return _both_sides(a, x, b.T), (a, b)


def upsample_backward(dy, cache):
    """dx = Aᵀ dy B.   dy (N, C, Ho, Wo) -> dx (N, C, H, W). The line is fixed and gets no gradient."""
    a, b = cache
    require_shape("upsample backward", "dy", dy, dy.shape[:2] + (a.shape[0], b.shape[0]))
    return _both_sides(a.T, dy, b)


def _both_sides(left, maps, right):
    """left (P, H) · maps (N, C, H, W) · right (W, Q), map by map. -> (N, C, P, Q)"""
    xp = array_module(maps)
    n, c, height, _ = maps.shape
    maps = xp.ascontiguousarray(maps).reshape(n * c, height, -1)
    y = xp.empty((n * c, len(left), right.shape[1]), maps.dtype)
    lefts = [(rows, columns, to_device_of(maps, left[rows, columns])) for rows, columns in _filled(left)]
    rights = [(rows, columns, to_device_of(maps, right[rows, columns])) for columns, rows in _filled(right.T)]

    def some_maps(some):
        wide = xp.empty((some.stop - some.start, height, right.shape[1]), maps.dtype)
        for rows, columns, block in rights:
            xp.matmul(maps[some, :, rows], block, out=wide[:, :, columns])
        for rows, columns, block in lefts:
            xp.matmul(block, wide[:, columns], out=y[some, rows])

    run_tiles(maps, some_maps, [(some,) for some in cut(len(maps), threads())])
    return y.reshape(n, c, *y.shape[1:])


def _filled(matrix, side=64):
    """The blocks of at most `side` rows or columns outside of which a matrix is zero: [(rows, columns)], all rows in turn.

    A stamp is small, so that these matrices are zero but near the diagonal.
    """
    blocks = []
    for rows in cut(len(matrix), -(-max(matrix.shape) // side)):
        (columns,) = np.nonzero(matrix[rows].any(axis=0))
        blocks.append((rows, slice(columns[0], columns[-1] + 1) if columns.size else slice(0, 0)))
    return blocks


def _stamps(line, size, stride, before, after):
    """The matrix (output size, size) whose column i is the line, shifted down by i·stride − before."""
    whole = np.zeros(((size - 1) * stride + line.size, size), line.dtype)
    for i in range(size):
        whole[i * stride : i * stride + line.size, i] = line
    return whole[before : len(whole) - after]
