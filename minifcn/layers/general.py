"""Layers that networks of other libraries have and ours do without: general forms of clip, crop, padding, product, resize, softmax."""

import numpy as np

from .. import ops
from ..backend import Array, array_module
from ..errors import InputError
from ..ops.geometry import Cache, Pair, pads
from .base import Leaf
from .coordinates import Affine


class Clip(Leaf):
    """y = min(max(x, low), high). The gradient passes where x was not clipped."""

    onnx_operator = "Clip"
    caches_input = owns_results = True

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high
        self.onnx_attributes = {"min": low, "max": high}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return array_module(x).clip(x, self.low, self.high), x

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        x = cache
        return dy * ((x > self.low) & (x < self.high))


class Softmax(Leaf):
    """y = exp(x) / Σ exp(x), along an axis."""

    onnx_operator = "Softmax"
    caches_output = owns_results = True

    def __init__(self, axis: int = 1):
        self.axis = axis
        self.onnx_attributes = {"axis": axis}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        y = array_module(x).exp(x - x.max(axis=self.axis, keepdims=True))
        y /= y.sum(axis=self.axis, keepdims=True)
        return y, y

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        """dx = y · (dy − Σ y · dy)"""
        y = cache
        return y * (dy - (y * dy).sum(axis=self.axis, keepdims=True))


class Multiply(Leaf):
    """y = a · b, of one shape, or b with a single value along some axes: a weight for each map."""

    onnx_operator = "Mul"
    caches_input = owns_results = True

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        self.output_shape(a.shape, b.shape)
        return a * b, (a, b)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        a, b = cache
        once = tuple(axis for axis, n in enumerate(b.shape) if n == 1)
        return dy * b, (dy * a).sum(axis=once, keepdims=True)

    def output_shape(self, a: tuple, b: tuple) -> tuple:
        if len(a) != len(b) or any(n not in (1, whole) for whole, n in zip(a, b, strict=True)):
            raise InputError(f"multiply: expected maps of one shape, or one value a map in the second; got {a} and {b}")
        return a


class Slice(Leaf):
    """y = x[parts]: a slice for each axis, of fixed bounds; bounds beyond the end stop there, as in Python."""

    onnx_operator = "Slice"

    def __init__(self, parts: tuple):
        self.parts = parts

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        self.output_shape(x.shape)
        return x[self.parts], x.shape

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        dx = array_module(dy).zeros(cache, dy.dtype)
        dx[self.parts] = dy
        return dx

    def output_shape(self, shape: tuple) -> tuple:
        found = tuple(len(range(n)[part]) for n, part in zip(shape, self.parts, strict=False))
        if len(shape) < len(self.parts) or 0 in found:
            raise InputError(f"slice: expected some part of an input of {shape}, got {self.parts}")
        return found + shape[len(found) :]

    def is_view(self, shape: tuple, train: bool) -> bool:
        return True

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: cuts anywhere, so no fixed coordinates belong to it")


class SliceLike(Slice):
    """The part of x that begins at starts {axis: position}, and is as large along these axes as a second map, which gets no gradient."""

    size_only = (1,)

    def __init__(self, starts: dict):
        self.starts = starts

    def run(self, x: Array, like: Array, train: bool) -> tuple[Array, Cache]:
        return Slice(self._parts(x.shape, like.shape)).run(x, train)[0], (x.shape, like.shape)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        x, like = cache
        return Slice(self._parts(x, like)).run_backward(dy, x), None

    def output_shape(self, x: tuple, like: tuple) -> tuple:
        return Slice(self._parts(x, like)).output_shape(x)

    def _parts(self, x, like):
        bounds = ((self.starts.get(axis), like[axis]) for axis in range(len(x)))
        return tuple(slice(None) if start is None else slice(start, start + n) for start, n in bounds)


class Pad(Leaf):
    """Zeros around maps; pad as in ops.pad_forward."""

    onnx_operator = "Pad"

    def __init__(self, pad: Pair):
        self.pad = pads(pad)
        begin, end = zip(*self.pad, strict=True)
        self.onnx_attributes = {"pads": [0, 0, *begin, 0, 0, *end]}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.pad_forward(x, self.pad)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return ops.pad_backward(dy, cache)

    def output_shape(self, shape: tuple) -> tuple:
        return (*shape[:2], *(n + sum(both) for n, both in zip(shape[2:], self.pad, strict=True)))

    def is_view(self, shape: tuple, train: bool) -> bool:
        return self.output_shape(shape) == shape

    def coordinates(self) -> Affine:
        return Affine(1, self.pad[0][0])


class Resize(Leaf):
    """x brought to a size, `scale` times its size, or the size of a second map where neither is given.

    size, scale: (height, width). nearest, positions: as in ops.resize_forward.
    """

    onnx_operator = "Resize"
    owns_results = True

    def __init__(
        self,
        *,
        size: tuple | None = None,
        scale: tuple | None = None,
        nearest: str | None = None,
        positions: str = "half_pixel",
    ):
        self.size, self.scale = size, scale
        self.settings = {"nearest": nearest, "positions": positions}
        self.size_only = () if size or scale else (1,)
        self.onnx_attributes = {
            "mode": "nearest" if nearest else "linear",
            "coordinate_transformation_mode": positions,
        }
        if nearest:
            self.onnx_attributes["nearest_mode"] = nearest

    def run(self, x: Array, *like: Array, train: bool) -> tuple[Array, Cache]:
        size = self.output_shape(x.shape, *(other.shape for other in like))[2:]
        return ops.resize_forward(x, size, scale=self.scale, **self.settings)

    def run_backward(self, dy: Array, cache: Cache) -> Array | tuple:
        dx = ops.resize_backward(dy, cache)
        return (dx, None) if self.size_only else dx

    def output_shape(self, x: tuple, like: tuple = ()) -> tuple:
        if self.scale:
            return (*x[:2], *(int(np.float32(n) * np.float32(s)) for n, s in zip(x[2:], self.scale, strict=True)))
        return (*x[:2], *(self.size or like[2:]))

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: its scale depends on the sizes, so no fixed coordinates belong to it")
