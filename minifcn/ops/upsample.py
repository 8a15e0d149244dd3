"""Enlarging by a fixed, separable kernel: what a frozen bilinear transposed convolution computes, as two matrix products."""

import numpy as np

from ..backend import array_module, to_device_of, to_host
from .window import require_nchw, require_same_dtype, require_shape


def upsample_forward(x, line, *, stride, pad=0):
    """y = A x Bᵀ, map by map: the transposed convolution whose kernel is line ⊗ line in every channel.

    x (N, C, H, W), line (k,) -> y (N, C, Ho, Wo), Ho = (H − 1)·stride + k − 2·pad. Column i of A (Ho, H) holds the line
    from row i·stride − pad on: where input row i stamps it. B is the same for columns. stride, pad: integers.
    Raises ValueError for shapes that do not fit.
    """
    require_same_dtype("upsample", x, line)
    require_nchw("upsample", x)
    if line.ndim != 1 or any((size - 1) * stride + line.size <= 2 * pad for size in x.shape[2:]):
        raise ValueError(f"upsample: a line {line.shape}, stride {stride} and pad {pad} leave nothing of {x.shape[2:]}")
    a, b = (to_device_of(x, _stamps(to_host(line), size, stride, pad)) for size in x.shape[2:])
    return array_module(x).matmul(a @ x, b.T), (a, b)


def upsample_backward(dy, cache):
    """dx = Aᵀ dy B.   dy (N, C, Ho, Wo) -> dx (N, C, H, W). The line is fixed and gets no gradient."""
    a, b = cache
    require_shape("upsample backward", "dy", dy, dy.shape[:2] + (a.shape[0], b.shape[0]))
    return array_module(dy).matmul(a.T @ dy, b)


def _stamps(line, size, stride, pad):
    """The matrix (output size, size) whose column i is the line, shifted down by i·stride − pad."""
    whole = np.zeros(((size - 1) * stride + line.size, size), line.dtype)
    for i in range(size):
        whole[i * stride : i * stride + line.size, i] = line
    return whole[pad : len(whole) - pad]
