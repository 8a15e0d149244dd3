"""Operations of fully connected layers: linear and dropout."""

from numpy.random import Generator

from ..backend import Array, matmul, to_device_of
from ..errors import InputError
from .geometry import Cache, require_gradient, require_same_dtype, require_shape


def linear_forward(x: Array, w: Array, b: Array | None = None) -> tuple[Array, Cache]:
    """y = x · Wᵀ + b.   x (N, D), w (K, D), b (K,) or None -> y (N, K). Raises InputError for shapes that do not fit."""
    require_same_dtype("linear", x, w, b)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise InputError(f"linear: expected x (N, D) and w (K, D), got {x.shape} and {w.shape}")
    if b is not None:
        require_shape("linear", "a bias", b, w.shape[:1])
    return matmul(x, w.T, bias=b), (x, w, b is not None)


def linear_backward(dy: Array, cache: Cache, *, weights: bool = True) -> tuple[Array, Array, Array]:
    """dy (N, K) -> (dx, dw, db), shaped as x, w and b; db is None without a bias, dw with weights=False, for a frozen matrix."""
    x, w, has_bias = cache
    require_gradient("linear", dy, (x.shape[0], w.shape[0]), x.dtype)
    return matmul(dy, w), matmul(dy.T, x) if weights else None, dy.sum(axis=0) if has_bias else None


def dropout_forward(
    x: Array, p: float, rng: Generator, train: bool, part: tuple[int, int] | None = None
) -> tuple[Array, Cache]:
    """y = x · mask / (1 − p): each value is dropped with probability p, and the rest are scaled up to keep the mean.

    rng: a numpy.random.Generator, drawn on the host. Without `train`, or at p = 0, y is x. Srivastava et al., 2014.
    part: (first, whole) if x holds the images from `first` on of a batch of `whole`: rng then draws for the whole batch.
    Raises InputError unless 0 ≤ p < 1.
    """
    require_same_dtype("dropout", x)
    if not 0 <= p < 1:
        raise InputError(f"dropout: expected 0 <= p < 1, got {p}")
    if not train or p == 0:
        return x, None
    p = float(p)  # a NumPy float would turn float32 into float64
    first, whole = part or (0, len(x))
    survives = rng.random((whole, *x.shape[1:]), dtype="float32")[first : first + len(x)] >= p
    mask = to_device_of(x, survives.astype(x.dtype) / (1 - p))
    return x * mask, mask


def dropout_backward(dy: Array, cache: Cache) -> Array:
    """dx = dy · mask / (1 − p), with the forward's mask."""
    mask = cache
    return dy if mask is None else dy * mask
