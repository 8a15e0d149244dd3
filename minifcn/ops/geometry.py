"""The geometry of a window that slides over an image (kernel, stride, pad, dilation, the sizes that follow), and checks of arguments."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from numbers import Real
from typing import Any

from ..errors import DtypeError, InputError

Pair = int | tuple | list  # an integer for both, or (height, width); of a pad also ((top, bottom), (left, right))
Cache = Any  # what a forward keeps for its backward; each operation has its own form


def pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """`value` as (height, width): an integer stands for both. Raises InputError below `least`."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(_is_whole(v) and v >= least for v in both):
        raise InputError(f"{name}: expected an integer or a (height, width) pair, at least {least}; got {value!r}")
    return int(both[0]), int(both[1])


def _is_whole(value):
    return isinstance(value, Real) and isfinite(value) and int(value) == value


def pads(value: Pair) -> tuple[tuple[int, int], tuple[int, int]]:
    """`value` as ((top, bottom), (left, right)): an integer, a (height, width) pair, or that form itself."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise InputError(f"pad: expected an integer, a pair or a pair of pairs; got {value!r}")
    return pair("pad", both[0], least=0), pair("pad", both[1], least=0)


def same_pads(size, kernel, stride, dilation=1):
    """TensorFlow's SAME padding: ((top, bottom), (left, right)) that make an output of ⌈size / stride⌉.

    size: the input's (height, width). An odd pixel goes to the bottom and to the right.
    """
    both = []
    for n, k, s, d in zip(
        size, pair("kernel", kernel), pair("stride", stride), pair("dilation", dilation), strict=True
    ):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        both.append((total // 2, total - total // 2))
    return tuple(both)


def require_nchw(op, x, channels=None):
    """Raise InputError unless x is (N, C, H, W), with C = channels if given, and no empty axis."""
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(f"{op}: expected an array (N, C, H, W) with no empty axis, got shape {x.shape}")
    if channels is not None and x.shape[1] != channels:
        raise InputError(f"{op}: expected {channels} input channels, got {x.shape[1]} in shape {x.shape}")


def require_same_dtype(op, x, *others):
    """Raise DtypeError unless all arrays are float32 or all are float64: nothing is promoted silently."""
    if x.dtype not in ("float32", "float64"):
        raise DtypeError(f"{op}: expected float32 or float64, got {x.dtype}")
    for other in others:
        if other is not None and other.dtype != x.dtype:
            raise DtypeError(f"{op}: expected {x.dtype} like its input, got {other.dtype} of shape {other.shape}")


def require_maps(op, x, *others):
    """Raise InputError unless x is (N, C, H, W), DtypeError unless it and the others are of one floating dtype."""
    require_same_dtype(op, x, *others)
    require_nchw(op, x)


def require_shape(op, what, array, shape):
    """Raise InputError unless `array` has exactly this shape."""
    if array.shape != tuple(shape):
        raise InputError(f"{op}: expected {what} of shape {tuple(shape)}, got {array.shape}")


def require_gradient(op, dy, shape, dtype):
    """Raise InputError unless an upstream gradient has this shape, that of the output, DtypeError unless it has this dtype."""
    require_shape(f"{op} backward", "dy", dy, shape)
    if dy.dtype != dtype:
        raise DtypeError(f"{op} backward: expected an upstream gradient of {dtype}, like the output, got {dy.dtype}")


@dataclass(frozen=True)
class Window:
    """How a window of `kernel` taps goes from maps of `input_size` to maps of `output_size`.

    Output row i looks at the input rows  i·stride − top + dilation·tap,  tap = 0 … kernel−1;  columns likewise.
    """

    kernel: tuple
    stride: tuple
    pad: tuple  # ((top, bottom), (left, right))
    dilation: tuple
    groups: int
    input_size: tuple
    output_size: tuple

    @property
    def extent(self):
        """How far a window reaches, first tap to last, with its dilation: d(k − 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def mirrored(self):
        """At stride 1, the window of the backward pass: dx is the convolution of dy with mirrored kernels. Its pad may be negative."""
        pad = tuple(tuple(extent - 1 - p for p in both) for extent, both in zip(self.extent, self.pad, strict=True))
        return replace(self, pad=pad, input_size=self.output_size, output_size=self.input_size)


def window(op, kernel, stride, pad, dilation, groups, input_size, ceil_mode=False):
    """The Window of a convolution or a pooling. Raises InputError if nothing fits."""
    arguments = op, kernel, stride, pad, dilation, groups, input_size, ceil_mode
    try:
        return _window(*arguments)
    except TypeError:  # a list, which has no hash
        return _window.__wrapped__(*arguments)


@lru_cache(maxsize=1024)  # a network needs the same ones for every image
def _window(op, kernel, stride, pad, dilation, groups, input_size, ceil_mode):
    kernel, stride = pair("kernel", kernel), pair("stride", stride)
    dilation, pad = pair("dilation", dilation), pads(pad)
    output_size = []
    for size, (before, after), k, d, s in zip(input_size, pad, kernel, dilation, stride, strict=True):
        room = size + before + after - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= size + before:  # the last window would start in the padding after
            count -= 1
        if count < 1:
            raise InputError(
                f"{op}: a {kernel} window with dilation {dilation} does not fit into an input of {tuple(input_size)} padded by {pad}"
            )
        output_size.append(count)
    return Window(kernel, stride, pad, dilation, groups, tuple(input_size), tuple(output_size))


def conv_params(window, channels):
    """The numbers that describe a window over whole maps to a kernel: channels, sizes, and `window_params`."""
    return (channels, *window.input_size, *window.output_size, *window_params(window))


def window_params(window, first_row=0):
    """Kernel, stride, dilation, and where in the image output row `first_row` begins, as numbers for a kernel."""
    (top, _), (left, _) = window.pad
    return (*window.kernel, *window.stride, *window.dilation, top - first_row * window.stride[0], left)
