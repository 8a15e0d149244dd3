"""The layers that hold no parameters: each binds one operation to its settings."""

from fractions import Fraction
from math import inf, prod

import numpy as np
from numpy.random import Generator

from .. import ops
from ..backend import Array
from ..errors import InputError
from ..ops.geometry import Cache, Pair, pair
from ..ops.pool import pool_window
from .base import Leaf, Operation
from .coordinates import Affine
from .windowed import Windowed


class ReLU(Operation):
    """y = max(x, 0), in place where it may be."""

    operation, onnx_operator = "relu", "Relu"
    caches_output = True

    def run(self, x: Array, train: bool, overwrite: bool = False) -> tuple[Array, Cache]:
        return getattr(ops, f"{self.operation}_forward")(x, out=x if overwrite else None)

    def run_backward(self, dy: Array, cache: Cache, overwrite: bool = False) -> Array:
        return getattr(ops, f"{self.operation}_backward")(dy, cache, out=dy if overwrite else None)


class ReLU6(ReLU):
    """y = min(max(x, 0), 6), in place where it may be."""

    operation = "relu6"
    onnx_operator, onnx_attributes = "Clip", {"min": 0.0, "max": 6.0}


class Dropout(Leaf):
    """Drops each value with probability p while training; rng, a numpy.random.Generator, is its own.

    part: as for ops.dropout_forward, where several processes share a batch.
    """

    onnx_operator = "Dropout"
    part: tuple[int, int] | None = None

    def __init__(self, p: float, rng: Generator):
        self.p = p
        self.rng = rng

    @property
    def onnx_attributes(self) -> dict:
        return {"ratio": float(self.p)}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.dropout_forward(x, self.p, self.rng, train, self.part)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return ops.dropout_backward(dy, cache)

    def extra_cached(self, shape: tuple) -> int:
        return prod(shape) if self.p else 0

    def is_view(self, shape: tuple, train: bool) -> bool:
        return not train or self.p == 0


class _Pool(Windowed):
    """What max and average pooling share. settings: kernel, stride, pad and the rest, as the operation takes them."""

    @property
    def kernel(self):
        return self.settings["kernel"]

    def output_shape(self, shape):
        settings = {key: self.settings.get(key, 1) for key in ("kernel", "stride", "pad", "dilation", "ceil_mode")}
        return (*shape[:2], *pool_window(self.operation, shape[2:], **settings).output_size)


class MaxPool2d(_Pool):
    """Max pooling; kernel, stride, pad, dilation, ceil_mode as in ops.max_pool2d_forward."""

    operation, onnx_operator = "max_pool2d", "MaxPool"
    caches_input = caches_output = True

    def __init__(
        self, kernel: Pair, *, stride: Pair | None = None, pad: Pair = 0, dilation: Pair = 1, ceil_mode: bool = False
    ):
        self.settings = {"kernel": pair("kernel", kernel), "stride": kernel if stride is None else stride, "pad": pad}
        self.settings |= {"dilation": dilation, "ceil_mode": ceil_mode}


class AvgPool2d(_Pool):
    """Average pooling; kernel, stride, pad, ceil_mode, count_include_pad as in ops.avg_pool2d_forward."""

    operation, onnx_operator = "avg_pool2d", "AveragePool"

    def __init__(
        self,
        kernel: Pair,
        *,
        stride: Pair | None = None,
        pad: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        self.settings = {"kernel": pair("kernel", kernel), "stride": kernel if stride is None else stride, "pad": pad}
        self.settings |= {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}


class WholeMap(Operation):
    """A layer that sees the whole map: its output values have no position in it."""

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: its output has no coordinates in the image")

    def receptive_field(self, field: float, step: Fraction) -> tuple:
        return inf, step

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return 0 * cells, 0 * cells + shapes[0][axis] - 1


class AdaptiveAvgPool2d(WholeMap):
    """The means of `size` (height, width) parts of a map, whatever its size."""

    operation = "adaptive_avg_pool2d"

    def __init__(self, size: Pair):
        self.settings = {"size": size}
        if pair("size", size) == (1, 1):  # ONNX's keeps the axes that GlobalAvgPool drops
            self.onnx_operator = "GlobalAveragePool"

    def output_shape(self, shape: tuple) -> tuple:
        return (*shape[:2], *pair("size", self.settings["size"]))


class GlobalAvgPool(WholeMap):
    """The mean of each map: (N, C, H, W) -> (N, C)."""

    operation, onnx_operator = "global_avg_pool", "GlobalAveragePool"

    def output_shape(self, shape: tuple) -> tuple:
        return shape[:2]


class Flatten(WholeMap):
    """(N, C, H, W) -> (N, C·H·W), channel by channel, row by row. features: the required C·H·W, if given."""

    owns_results = False
    onnx_operator = "Flatten"

    def __init__(self, features: int | None = None):
        self.features = features

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return x.reshape(self.output_shape(x.shape)), x.shape

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return dy.reshape(cache)

    def output_shape(self, shape: tuple) -> tuple:
        if self.features not in (None, prod(shape[1:])):
            raise InputError(f"flatten: expected {self.features} values an image, got {prod(shape[1:])}")
        return shape[0], prod(shape[1:])

    def is_view(self, shape: tuple, train: bool) -> bool:
        """A copy where a pixel's channels lie together in memory, which is not the order of the result."""
        return shape[1] == 1 or shape[2:] == (1, 1)


class LRN(Operation):
    """Local response normalisation across channels; size, alpha, beta, k as in ops.lrn_forward."""

    operation, onnx_operator = "lrn", "LRN"
    caches_input = True

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        self.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}
        self.onnx_attributes = {"size": size, "alpha": alpha, "beta": beta, "bias": k}

    def extra_cached(self, shape: tuple) -> int:
        return prod(shape)


class PadToMultiple(Leaf):
    """`pad` zeros on every side, and more below and to the right, up to the next multiple of `multiple`."""

    onnx_operator, onnx_attributes = "Pad", {"mode": "constant"}

    def __init__(self, multiple: int, pad: int = 0):
        self.multiple, self.pad = multiple, pad

    def pad_for(self, size: tuple) -> tuple:
        """((top, bottom), (left, right)) for an input of `size` (height, width)."""
        return tuple((self.pad, self.pad + -(n + 2 * self.pad) % self.multiple) for n in size)

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.pad_forward(x, self.pad_for(x.shape[2:]))

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return ops.pad_backward(dy, cache)

    def output_shape(self, shape: tuple) -> tuple:
        return (*shape[:2], *(n + sum(both) for n, both in zip(shape[2:], self.pad_for(shape[2:]), strict=True)))

    def is_view(self, shape: tuple, train: bool) -> bool:
        return self.output_shape(shape) == shape

    def coordinates(self) -> Affine:
        return Affine(1, self.pad)

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return cells - self.pad, cells - self.pad


class ExactSize(Leaf):
    """Passes on images whose sides are `least` + k · `step`, as unpadded convolutions between pools need; refuses others.

    context: by how many pixels the network's output is smaller than the image, on every side.
    """

    onnx_operator = "Identity"

    def __init__(self, least: int, step: int, context: int):
        self.least, self.step, self.context = least, step, context

    def fitting(self, side: int) -> int:
        """The smallest side of at least `side` that fits."""
        return max(self.least, side + (self.least - side) % self.step)

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        self.output_shape(x.shape)
        return x, None

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return dy

    def output_shape(self, shape: tuple) -> tuple:
        if len(shape) != 4:
            raise InputError(f"expected (N, C, H, W), got shape {shape}")
        for side in shape[2:]:
            above = self.fitting(side)
            if above != side:
                nearest = f"{above - self.step} or {above}" if above > self.least else f"{above}"
                raise InputError(
                    f"unpadded convolutions take sides of {self.least} + {self.step}k; got {shape[2]}x{shape[3]}, nearest to {side}: {nearest}"
                )
        return shape

    def is_view(self, shape: tuple, train: bool) -> bool:
        return True
