"""ReLU and ReLU6, as operations of their own and as the activation fused into a convolution."""

from collections.abc import Callable
from math import inf

import numpy as np

from ..backend import Array, Source, array_module, constant, launch, run_blocks, runs
from ..errors import InputError
from .geometry import Cache, require_gradient, require_same_dtype
from .maps import channels_last

SOURCE = Source.beside(__file__)
LIMITS = {"none": (-inf, inf), "relu": (0.0, inf), "relu6": (0.0, 6.0)}  # what an activation clips values to


PASSED = {"relu": lambda y: y > 0, "relu6": lambda y: (y > 0) & (y < 6)}  # where the gradient passes, given the results


def relu_forward(x: Array, *, out: Array | None = None) -> tuple[Array, Cache]:
    """y = max(x, 0).   x, y: any shape. out: an array to write y to (x itself, if nobody needs x any more)."""
    return _forward("relu", x, out)


def relu_backward(dy: Array, cache: Cache, *, out: Array | None = None) -> Array:
    """dx = dy where the forward let x through; at x = 0 the gradient is 0. out: an array to write dx to, such as dy."""
    return _backward("relu", dy, cache, out)


def relu6_forward(x: Array, *, out: Array | None = None) -> tuple[Array, Cache]:
    """y = min(max(x, 0), 6).   x, y: any shape; out as in relu_forward. Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010."""
    return _forward("relu6", x, out)


def relu6_backward(dy: Array, cache: Cache, *, out: Array | None = None) -> Array:
    """dx = dy where the forward let x through unchanged; at x = 0 and x = 6 the gradient is 0. out as in relu_backward."""
    return _backward("relu6", dy, cache, out)


def _forward(activation, x, out):
    require_same_dtype(activation, x)
    y = array_module(x).empty_like(x) if out is None else out
    activate(x, activation, y)
    return y, y  # y shows where x was clipped, which is all that backward needs


def _backward(activation, dy, y, out):
    require_gradient(activation, dy, y.shape, y.dtype)
    xp = array_module(dy)
    dx = xp.empty_like(y) if out is None else out

    def block(y, dy, dx):
        alike = y.dtype == dy.dtype == dx.dtype
        if (
            alike
            and runs(SOURCE, y)
            and y.ndim == 1
            and y.flags.c_contiguous
            and dy.flags.c_contiguous
            and dx.flags.c_contiguous
        ):
            launch(SOURCE, "clip_gradient", y.size, y, dy, dx, *LIMITS[activation])
        else:
            xp.multiply(dy, PASSED[activation](y), out=dx)

    run_blocks(block, y, dy, dx)
    return dx


def require_activation(op: str, activation: str) -> None:
    """Raise InputError unless `activation` is a known one."""
    if activation not in LIMITS:
        raise InputError(f"{op}: expected activation {', '.join(LIMITS)}; got {activation!r}")


def activate(x: Array, activation: str, out: Array | None = None) -> None:
    """Apply an activation to an array, in place or into `out`."""
    if activation != "none":
        # NumPy's maximum of an array and a number takes three times as long.
        xp, (low, high) = array_module(x), LIMITS[activation]
        run_blocks(lambda x, y: xp.clip(x, low, high, out=y), x, x if out is None else out)


def finishing(activation: str) -> Callable:
    """A function that adds a bias (K,) or None to a block of rows (P, K) of a product, and activates it, in place."""

    def finish(block, bias):
        if runs(SOURCE, block) and block.flags.c_contiguous:
            _add_bias_and_clip(block, bias, activation)
            return
        if bias is not None:
            block += bias
        activate(block, activation)

    return finish


def add_bias_and_activate(y: Array, bias: Array | None, activation: str) -> None:
    """Add a bias (C,) or None to maps y (N, C, H, W), channels last in memory, and activate them in place: one kernel."""
    _add_bias_and_clip(channels_last(y), bias, activation)


def _add_bias_and_clip(values, bias, activation):
    """Add the bias and clip, in one kernel, for contiguous values (..., C)."""
    channels = values.shape[-1]
    if bias is not None or activation != "none":
        arrays = values, bias_or_zeros(bias, values, channels)
        launch(
            SOURCE, "add_bias_and_clip", (values.size // channels, 1, channels), *arrays, *LIMITS[activation], channels
        )


def bias_or_zeros(bias: Array | None, like: Array, channels: int) -> Array:
    """A bias for a kernel: contiguous, and zeros where there is none."""
    if bias is None:
        return constant(like, np.zeros, channels, str(like.dtype))
    return array_module(bias).ascontiguousarray(bias)
