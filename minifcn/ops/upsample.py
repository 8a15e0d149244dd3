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
    a, b = (
        to_device_of(x, _stamps(to_host(line), size, stride, *p)) for size, p in zip(x.shape[2:], both, strict=True)
    )
    return _both_sides(a, x, b.T).reshape(*x.shape[:2], len(a), len(b)), (a, b)


def upsample_backward(dy, cache):
    """dx = Aᵀ dy B.   dy (N, C, Ho, Wo) -> dx (N, C, H, W). The line is fixed and gets no gradient."""
    a, b = cache
    require_shape("upsample backward", "dy", dy, dy.shape[:2] + (a.shape[0], b.shape[0]))
    return _both_sides(a.T, dy, b).reshape(*dy.shape[:2], a.shape[1], b.shape[1])


def _both_sides(left, maps, right):
    """left (P, H) · maps (N, C, H, W) · right (W, Q), map by map. -> (N, C, P, Q)"""
    xp = array_module(maps)
    maps = xp.ascontiguousarray(maps).reshape(-1, *maps.shape[2:])
    y = xp.empty((len(maps), left.shape[0], right.shape[1]), maps.dtype)
    run_tiles(
        maps, lambda some: xp.matmul(left @ maps[some], right, out=y[some]), [(m,) for m in cut(len(maps), threads())]
    )
    return y


def _stamps(line, size, stride, before, after):
    """The matrix (output size, size) whose column i is the line, shifted down by i·stride − before."""
    whole = np.zeros(((size - 1) * stride + line.size, size), line.dtype)
    for i in range(size):
        whole[i * stride : i * stride + line.size, i] = line
    return whole[before : len(whole) - after]
