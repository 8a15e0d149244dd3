"""Interpolation to any size, up or down, as two matrix products."""

import numpy as np

from ..backend import Array, array_module, constant
from ..errors import InputError
from .geometry import Cache, Pair, pair, require_gradient, require_maps

POSITIONS = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
NEAREST = {  # how a position between two values is rounded
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize_bilinear_forward(x: Array, size: Pair, *, align_corners: bool = False) -> tuple[Array, Cache]:
    """y = A x Bᵀ: each value from the two nearest rows and columns, without smoothing where the map shrinks, as in PyTorch.

    x (N, C, H, W), size: integer or (height, width) -> y (N, C, *size). align_corners: the outermost pixels' centres
    coincide; otherwise their outer edges do. Raises InputError for sizes that do not fit.
    """
    return resize_forward(x, size, positions="align_corners" if align_corners else "half_pixel")


def resize_bilinear_backward(dy: Array, cache: Cache) -> Array:
    """dx = Aᵀ dy B.   dy (N, C, *size) -> dx (N, C, H, W)"""
    return resize_backward(dy, cache)


def resize_forward(
    x: Array, size: Pair, *, scale: tuple | None = None, nearest: str | None = None, positions: str = "half_pixel"
) -> tuple[Array, Cache]:
    """y = A x Bᵀ, as ONNX's operator Resize defines it.   x (N, C, H, W), size: integer or (height, width) -> y (N, C, *size)

    scale: (vertical, horizontal), if it is not exactly size / (H, W). positions: how positions correspond, one of POSITIONS.
    nearest: take the nearest value, rounded as one of NEAREST, instead of averaging two. Raises InputError for others.
    Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md#Resize
    """
    require_maps("resize", x)
    if positions not in POSITIONS or nearest not in (None, *NEAREST):
        raise InputError(f"resize: expected positions {POSITIONS}, nearest {(*NEAREST,)}; got {positions}, {nearest}")
    size = pair("size", size)
    if scale is None:
        scale = tuple(want / have for want, have in zip(size, x.shape[2:], strict=True))
    elif len(scale) != 2 or not all(0 < factor < np.inf for factor in scale):
        raise InputError(f"resize: expected a scale of two numbers above 0, got {scale}")
    sides = zip(x.shape[2:], size, scale, strict=True)
    a, b = (constant(x, _weights, *side, nearest, positions, str(x.dtype)) for side in sides)
    return array_module(x).matmul(a @ x, b.T), (a, b)


def resize_backward(dy: Array, cache: Cache) -> Array:
    """dx = Aᵀ dy B.   dy (N, C, *size) -> dx (N, C, H, W)"""
    a, b = cache
    require_gradient("resize", dy, (*dy.shape[:2], len(a), len(b)), a.dtype)
    return array_module(dy).matmul(a.T @ dy, b)


def _weights(have, want, scale, nearest, positions, dtype):
    """The matrix (want, have) whose row i weighs the values nearest to where output i lies."""
    i = np.arange(want)
    exact = want if scale == want / have else have * scale  # before it was rounded
    if positions == "align_corners":
        # Whatever the scale, as in PyTorch and ONNX Runtime; ONNX's reference takes have · scale for `want`.
        at = i * ((have - 1) / (want - 1)) if want > 1 else np.zeros(1)
    elif positions == "asymmetric":
        at = i * have / exact
    elif positions == "pytorch_half_pixel" and want == 1:
        at = np.zeros(1)
    else:
        at = (i + 0.5) * have / exact - 0.5
    at = np.clip(NEAREST[nearest](at) if nearest else at, 0, have - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, have - 1)
    weights = np.zeros((want, have))
    weights[i, low] += 1 - (at - low)
    weights[i, high] += at - low
    return weights.astype(dtype)
