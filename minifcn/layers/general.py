"""Layers that other libraries' networks have and ours do not need: general forms of clip, crop, padding, mean, resize, softmax."""

from fractions import Fraction
from math import prod

import numpy as np

from .. import ops
from ..backend import Array, array_module
from ..errors import InputError
from ..ops.geometry import Cache, Pair, pads
from .base import Leaf
from .coordinates import IDENTITY, Affine
from .plain import WholeMap
from .sizes import Size, for_shapes, lenders


class Clip(Leaf):
    """y = min(max(x, low), high). The gradient passes where x was not clipped."""

    onnx_operator = "Clip"
    caches_input = owns_results = True

    def __init__(self, low: float, high: float):
        self.low, self.high = float(low), float(high)
        self.onnx_attributes = {"min": self.low, "max": self.high}

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


class Mean(WholeMap):
    """The mean along axes, counted from 0; with keep they stay, with size 1. Over channels alone, every value keeps its position."""

    onnx_operator = "ReduceMean"

    def __init__(self, axes: tuple, keep: bool = True):
        self.axes, self.keep = axes, keep
        self.onnx_attributes = {"axes": list(axes), "keepdims": int(keep)}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return x.mean(axis=self.axes, keepdims=self.keep), x.shape

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        count = prod(cache[axis] for axis in self.axes)
        xp, kept = array_module(dy), tuple(1 if axis in self.axes else n for axis, n in enumerate(cache))
        return xp.broadcast_to(dy.reshape(kept) / count, cache).copy()

    def output_shape(self, shape: tuple) -> tuple:
        kept = ((axis in self.axes, n) for axis, n in enumerate(shape))
        return tuple(1 if gone else n for gone, n in kept if self.keep or not gone)

    def coordinates(self) -> Affine:
        return super().coordinates() if max(self.axes) > 1 else IDENTITY

    def receptive_field(self, field: float, step: Fraction) -> tuple:
        return super().receptive_field(field, step) if max(self.axes) > 1 else (field, step)

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return super().reads(cells, axis, shapes, position) if axis in self.axes else (cells, cells)


class Lending(Leaf):
    """A layer whose settings are numbers, or Sizes of its inputs. Inputs besides x only lend their size and get no gradient."""

    def __init__(self, numbers: tuple):
        self.numbers = numbers
        self.size_only = lenders(numbers)

    def numbers_for(self, *shapes: tuple) -> tuple:
        """The numbers for inputs of these shapes."""
        return for_shapes(self.numbers, shapes)

    def of_all(self, dx: Array) -> Array | tuple:
        """The gradient of every input, given that of x."""
        return (dx, *(None for _ in self.size_only)) if self.size_only else dx


class Slice(Lending):
    """y = x[parts]: a slice for each axis; bounds beyond the end stop there, as in Python."""

    onnx_operator = "Slice"

    def run(self, x: Array, *like: Array, train: bool) -> tuple[Array, Cache]:
        shapes = x.shape, *(other.shape for other in like)
        self.output_shape(*shapes)
        parts = self.numbers_for(*shapes)
        return x[parts], (x.shape, parts)

    def run_backward(self, dy: Array, cache: Cache) -> Array | tuple:
        shape, parts = cache
        dx = array_module(dy).zeros(shape, dy.dtype)
        dx[parts] = dy
        return self.of_all(dx)

    def output_shape(self, shape: tuple, *like: tuple) -> tuple:
        parts = self.numbers_for(shape, *like)
        found = tuple(len(range(n)[part]) for n, part in zip(shape, parts, strict=False))
        if len(shape) < len(parts) or 0 in found:
            raise InputError(f"slice: expected some part of an input of {shape}, got {parts}")
        return found + shape[len(found) :]

    def is_view(self, shape: tuple, train: bool) -> bool:
        return True

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: cuts anywhere, so no fixed coordinates belong to it")

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        parts = self.numbers_for(*shapes)
        read = np.arange(shapes[0][axis])[parts[axis]] if axis < len(parts) else cells
        return read, read


def _pads(pad):
    """`pad` as ((top, bottom), (left, right)). Where Sizes are among them, it has that form already."""
    return pad if any(isinstance(n, Size) for n in np.ravel(np.array(pad, object))) else pads(pad)


class Pad(Lending):
    """Padding around maps with one value; pad as in ops.pad_forward, or ((top, bottom), (left, right)) with Sizes among them."""

    onnx_operator = "Pad"

    def __init__(self, pad: Pair, value: float = 0.0):
        super().__init__(_pads(pad))
        self.value = value

    def run(self, x: Array, *like: Array, train: bool) -> tuple[Array, Cache]:
        pad = self.numbers_for(x.shape, *(other.shape for other in like))
        return ops.pad_forward(x, pad, value=self.value)

    def run_backward(self, dy: Array, cache: Cache) -> Array | tuple:
        return self.of_all(ops.pad_backward(dy, cache))

    def output_shape(self, shape: tuple, *like: tuple) -> tuple:
        pad = pads(self.numbers_for(shape, *like))
        return (*shape[:2], *(n + sum(both) for n, both in zip(shape[2:], pad, strict=True)))

    def is_view(self, shape: tuple, train: bool) -> bool:
        return self.numbers == ((0, 0), (0, 0))

    def coordinates(self) -> Affine:
        (above, _), _ = self.numbers
        if not isinstance(above, int):
            raise InputError(f"{self.title}: pads by the size, so no fixed coordinates belong to it")
        return Affine(1, above)

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        read = cells - pads(self.numbers_for(*shapes))[axis - 2][0]
        return read, read


class Resize(Lending):
    """x resized to a size, or to `scale` times its own.

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
        super().__init__(size)
        self.scale = scale
        self.settings = {"nearest": nearest, "positions": positions}
        self.onnx_attributes = {"mode": "nearest" if nearest else "linear", "coordinate_transformation_mode": positions}
        if nearest:
            self.onnx_attributes["nearest_mode"] = nearest

    def run(self, x: Array, *like: Array, train: bool) -> tuple[Array, Cache]:
        size = self.output_shape(x.shape, *(other.shape for other in like))[2:]
        return ops.resize_forward(x, size, scale=self.scale, **self.settings)

    def run_backward(self, dy: Array, cache: Cache) -> Array | tuple:
        return self.of_all(ops.resize_backward(dy, cache))

    def output_shape(self, x: tuple, *like: tuple) -> tuple:
        size = self.numbers_for(x, *like)
        if self.scale:
            size = tuple(int(np.float32(n) * np.float32(s)) for n, s in zip(x[2:], self.scale, strict=True))
        if min(size) < 1:
            raise InputError(f"resize: expected a positive size, got {size}")
        return (*x[:2], *size)

    def multiply_adds(self, x: tuple, *like: tuple) -> int:
        """Two weights per value, along the rows first; none for the nearest value, whose weight is 1."""
        height, width = self.output_shape(x, *like)[2:]
        return 0 if self.settings["nearest"] else 2 * x[0] * x[1] * (x[2] * width + height * width)

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: its scale depends on the sizes, so no fixed coordinates belong to it")

    def reads(self, cells: np.ndarray, axis: int, shapes: list, position: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The cells with nonzero weight in the matrix (output cells, input cells) along the axis."""
        _, matrices = self.run(*(np.zeros((1, 1, *shape[2:]), np.float32) for shape in shapes), train=False)
        used = matrices[axis - 2] != 0
        return used.argmax(axis=1)[cells], (used.shape[1] - 1 - used[:, ::-1].argmax(axis=1))[cells]
