"""Operations on single values or single vectors: ReLU, ReLU6, dropout, linear."""

from dataclasses import dataclass
from math import inf

from ..backend import array_module, matmul, run_blocks, to_device_of
from ..errors import InputError
from .window import require_same_dtype, require_shape


@dataclass(frozen=True)
class Clip:
    """What ReLU and ReLU6 do, for `then` in conv2d_forward: a function that clips an array to low … high in place.

    A kernel that sees from its limits what is to be done does it before it writes a result.
    """

    low: float
    high: float

    def __call__(self, x):
        _clip(x, self.low, self.high, x)


def _clip(x, low, high, out):
    # NumPy's maximum of an array and a number takes three times as long.
    xp = array_module(x)
    run_blocks(lambda x, y: xp.clip(x, low, high, out=y), x, out)


def relu_forward(x, *, out=None):
    """y = max(x, 0).   x, y: any shape. out: an array to write y to (x itself, if nobody needs x any more)."""
    require_same_dtype("relu", x)
    y = array_module(x).empty_like(x) if out is None else out
    _clip(x, 0, inf, y)
    return y, y  # where y > 0 is all that backward needs


def relu_backward(dy, cache, *, out=None):
    """dx = dy where the forward let x through; at x = 0 the gradient is 0. out: an array to write dx to, such as dy."""
    y = cache
    require_shape("relu backward", "dy", dy, y.shape)
    xp = array_module(dy)
    dx = xp.empty_like(y) if out is None else out
    run_blocks(lambda y, dy, dx: xp.multiply(dy, y > 0, out=dx), y, dy, dx)
    return dx


def relu6_forward(x, *, out=None):
    """y = min(max(x, 0), 6).   x, y: any shape; out as in relu_forward. Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010."""
    require_same_dtype("relu6", x)
    y = array_module(x).empty_like(x) if out is None else out
    _clip(x, 0, 6, y)
    return y, y  # where 0 < y < 6 is all that backward needs


def relu6_backward(dy, cache, *, out=None):
    """dx = dy where the forward let x through unchanged; at x = 0 and x = 6 the gradient is 0. out as in relu_backward."""
    y = cache
    require_shape("relu6 backward", "dy", dy, y.shape)
    xp = array_module(dy)
    dx = xp.empty_like(y) if out is None else out
    run_blocks(lambda y, dy, dx: xp.multiply(dy, (y > 0) & (y < 6), out=dx), y, dy, dx)
    return dx


def dropout_forward(x, p, rng, train):
    """y = x · mask / (1 − p): each value is dropped with probability p, and the rest grow so that the mean stays.

    rng: a numpy.random.Generator, drawn on the host. Without `train`, or at p = 0, y is x. Srivastava et al., 2014.
    Raises InputError unless 0 ≤ p < 1.
    """
    require_same_dtype("dropout", x)
    if not 0 <= p < 1:
        raise InputError(f"dropout: expected 0 <= p < 1, got {p}")
    if not train or p == 0:
        return x, None
    kept = rng.random(x.shape, dtype="float32") >= p
    mask = to_device_of(x, kept.astype(x.dtype) / (1 - p))
    return x * mask, mask


def dropout_backward(dy, cache):
    """dx = dy · mask / (1 − p), with the forward's mask."""
    mask = cache
    return dy if mask is None else dy * mask


def linear_forward(x, w, b=None):
    """y = x · Wᵀ + b.   x (N, D), w (K, D), b (K,) or None -> y (N, K). Raises InputError for shapes that do not fit."""
    require_same_dtype("linear", x, w, b)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise InputError(f"linear: expected x (N, D) and w (K, D), got {x.shape} and {w.shape}")
    if b is not None:
        require_shape("linear", "a bias", b, w.shape[:1])
    return matmul(x, w.T, bias=b), (x, w, b is not None)


def linear_backward(dy, cache, *, weights=True):
    """dy (N, K) -> (dx, dw, db), shaped as x, w and b; db is None without a bias, dw with weights=False, for a frozen matrix."""
    x, w, has_bias = cache
    require_shape("linear backward", "dy", dy, (x.shape[0], w.shape[0]))
    return matmul(dy, w), matmul(dy.T, x) if weights else None, dy.sum(axis=0) if has_bias else None
