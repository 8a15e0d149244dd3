"""Bilinear interpolation to any size, up or down, as two matrix products."""

import numpy as np

from ..backend import Array, array_module, constant
from .geometry import Cache, Pair, pair, require_maps, require_shape


def resize_bilinear_forward(x: Array, size: Pair, *, align_corners: bool = False) -> tuple[Array, Cache]:
    """y = A x Bᵀ: each value from the two nearest rows and columns, without smoothing where the map shrinks, as in PyTorch.

    x (N, C, H, W), size: integer or (height, width) -> y (N, C, *size). align_corners: the outer pixels' centres meet;
    otherwise their outer edges. Raises InputError for sizes that do not fit.
    """
    require_maps("resize_bilinear", x)
    sizes = zip(x.shape[2:], pair("size", size), strict=True)
    a, b = (constant(x, _weights, have, want, align_corners, str(x.dtype)) for have, want in sizes)
    return array_module(x).matmul(a @ x, b.T), (a, b)


def resize_bilinear_backward(dy: Array, cache: Cache) -> Array:
    """dx = Aᵀ dy B.   dy (N, C, *size) -> dx (N, C, H, W)"""
    a, b = cache
    require_shape("resize_bilinear backward", "dy", dy, (*dy.shape[:2], len(a), len(b)))
    return array_module(dy).matmul(a.T @ dy, b)


def _weights(have, want, align_corners, dtype):
    """The matrix (want, have) whose row i weighs the two values nearest to where output i lies."""
    i = np.arange(want)
    if align_corners:
        at = i * ((have - 1) / (want - 1)) if want > 1 else np.zeros(1)
    else:
        at = np.clip((i + 0.5) * (have / want) - 0.5, 0, have - 1)
    low = np.minimum(np.floor(at).astype(int), have - 1)
    high = np.minimum(low + 1, have - 1)
    weights = np.zeros((want, have))
    weights[i, low] += 1 - (at - low)
    weights[i, high] += at - low
    return weights.astype(dtype)
