"""Enlarging by a fixed, separable kernel: what a frozen bilinear transposed convolution computes, as two matrix products."""

from typing import NamedTuple

import numpy as np

from ..backend import array_module, cut, has_kernels, run_tiles, threads
from ..errors import InputError
from .kernels import upsample as kernels
from .maps import BYTES_WORTH_A_THREAD
from .window import pads, require_nchw, require_same_dtype, require_shape


def upsample_forward(x, line, *, stride, pad=0):
    """y = A x Bᵀ, map by map: the transposed convolution whose kernel is line ⊗ line in every channel.

    x (N, C, H, W), line (k,) -> y (N, C, Ho, Wo), Ho = (H − 1)·stride + k − top − bottom. Column i of A (Ho, H) holds the
    line from row i·stride − top on: where input row i stamps it. B is the same for columns. stride: integer; pad: integer,
    pair, or ((top, bottom), (left, right)). Raises InputError for shapes that do not fit.
    """
    require_same_dtype("upsample", x, line)
    require_nchw("upsample", x)
    both = pads(pad)
    size = tuple((n - 1) * stride + line.size - sum(p) for n, p in zip(x.shape[2:], both, strict=True))
    if line.ndim != 1 or min(size) < 1:
        raise InputError(f"upsample: a line {line.shape}, stride {stride} and pad {pad} leave nothing of {x.shape[2:]}")
    if has_kernels(x):
        before = both[0][0], both[1][0]
        return kernels.upsample_forward(x, line, size, stride, before), (size, (line, x.shape[2:], stride, before))
    a, b = (_stamps(line, n, stride, *p) for n, p in zip(x.shape[2:], both, strict=True))
    return _both_sides(a, x, b.T), (size, (a, b))


def upsample_backward(dy, cache):
    """dx = Aᵀ dy B.   dy (N, C, Ho, Wo) -> dx (N, C, H, W). The line is fixed and gets no gradient."""
    size, rest = cache
    require_shape("upsample backward", "dy", dy, dy.shape[:2] + size)
    if has_kernels(dy):
        return kernels.upsample_backward(dy, *rest)
    a, b = rest
    return _both_sides(a.T, dy, b)


def _both_sides(left, maps, right):
    """left (P, H) · maps (N, C, H, W) · right (W, Q), map by map. -> (N, C, P, Q)"""
    xp = array_module(maps)
    n, c, height, _ = maps.shape
    maps = xp.ascontiguousarray(maps).reshape(n * c, height, -1)
    width = right.values.shape[1]
    y = xp.empty((n * c, len(left.values), width), maps.dtype)
    lefts = [(rows, columns, left.values[rows, columns]) for rows, columns in _blocks(left.filled)]
    rights = [(rows, columns, right.values[rows, columns]) for columns, rows in _blocks(right.filled.T)]

    def some_maps(some):
        wide = xp.empty((some.stop - some.start, height, width), maps.dtype)
        for rows, columns, block in rights:
            xp.matmul(maps[some, :, rows], block, out=wide[:, :, columns])
        for rows, columns, block in lefts:
            xp.matmul(block, wide[:, columns], out=y[some, rows])

    count = threads() if y.nbytes + maps.nbytes >= BYTES_WORTH_A_THREAD else 1
    run_tiles(maps, some_maps, [(some,) for some in cut(len(maps), count)])
    return y.reshape(n, c, *y.shape[1:])


def _blocks(filled, side=64):
    """The blocks of at most `side` rows or columns outside of which a matrix is zero: [(rows, columns)], all rows in turn.

    A stamp is small, so that these matrices are zero but near the diagonal. filled: where they are not.
    """
    blocks = []
    for rows in cut(len(filled), -(-max(filled.shape) // side)):
        (columns,) = np.nonzero(filled[rows].any(axis=0))
        blocks.append((rows, slice(columns[0], columns[-1] + 1) if columns.size else slice(0, 0)))
    return blocks


class _Stamps(NamedTuple):
    """A matrix where the maps are, and on the host where it is filled, so that nobody has to fetch it to know."""

    values: object
    filled: np.ndarray

    @property
    def T(self):
        return _Stamps(self.values.T, self.filled.T)


def _stamps(line, size, stride, before, after):
    """The matrix (output size, size) whose column i is the line, shifted down by i·stride − before."""

    def stamped(xp, dtype, value):
        whole = xp.zeros(((size - 1) * stride + line.size, size), dtype)
        columns = xp.arange(size)[:, None]
        whole[columns * stride + xp.arange(line.size), columns] = value
        return whole[before : len(whole) - after]

    return _Stamps(stamped(array_module(line), line.dtype, line), stamped(np, bool, True))
