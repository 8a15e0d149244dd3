"""The layers where branches meet, and what makes them fit: sum, product, concatenation, crop, resize, scale.

A join has several inputs. Its backward gives a gradient for each, None for one that only lends its size.
"""

from fractions import Fraction

from .. import ops
from ..backend import Array
from ..errors import InputError
from ..ops.geometry import Cache, require_same_dtype
from .base import Leaf, Parameter
from .coordinates import Affine
from .general import Resize, Slice
from .sizes import dimension


def _broadcast(a, b):
    """The shape that two maps broadcast to: along each axis they are equally large, or one has a single value."""
    if len(a) != len(b) or any(n != m and 1 not in (n, m) for n, m in zip(a, b, strict=True)):
        raise InputError(f"expected maps as large, or with a single value, along each axis; got {a} and {b}")
    return tuple(m if n == 1 else n for n, m in zip(a, b, strict=True))


def _summed(dy, shape):
    """The gradient of a broadcast map: the sum over the axes along which it had a single value."""
    once = tuple(axis for axis, (n, whole) in enumerate(zip(shape, dy.shape, strict=True)) if n != whole)
    return dy.sum(axis=once, keepdims=True) if once else dy


class Add(Leaf):
    """y = a + b, two maps of one shape. Both get dy. broadcast: either may have a single value along an axis."""

    onnx_operator = "Add"

    def __init__(self, broadcast: bool = False):
        self.broadcast = broadcast

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        require_same_dtype("add", a, b)
        self.output_shape(a.shape, b.shape)
        return a + b, (a.shape, b.shape)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        a, b = cache
        return _summed(dy, a), _summed(dy, b)

    def output_shape(self, a: tuple, b: tuple) -> tuple:
        if a != b and not self.broadcast:
            raise InputError(f"add: expected two maps of one shape, got {a} and {b}")
        return _broadcast(a, b)


class _Elementwise(Leaf):
    """An elementwise operation on two maps; either may have a single value along an axis."""

    def output_shape(self, a: tuple, b: tuple) -> tuple:
        return _broadcast(a, b)


class Subtract(_Elementwise):
    """y = a − b."""

    onnx_operator = "Sub"

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        require_same_dtype("subtract", a, b)
        self.output_shape(a.shape, b.shape)
        return a - b, (a.shape, b.shape)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        a, b = cache
        return _summed(dy, a), -_summed(dy, b)


class Multiply(_Elementwise):
    """y = a · b: maps of one shape, or a weight for each map."""

    onnx_operator = "Mul"
    caches_input = owns_results = True

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        require_same_dtype("multiply", a, b)
        self.output_shape(a.shape, b.shape)
        return a * b, (a, b)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        a, b = cache
        return _summed(dy * b, a.shape), _summed(dy * a, b.shape)


class Divide(_Elementwise):
    """y = a / b."""

    onnx_operator = "Div"
    caches_input = owns_results = True

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        require_same_dtype("divide", a, b)
        self.output_shape(a.shape, b.shape)
        return a / b, (a, b)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        a, b = cache
        da = dy / b
        return _summed(da, a.shape), -_summed(da * a / b, b.shape)


class Constant(Leaf):
    """A learned array, with leading axes of size 1 so that it has as many axes as x; x is used for nothing else."""

    onnx_operator = "Constant"
    size_only = (0,)

    def __init__(self, weight: Parameter):
        self.weight = weight

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return self.weight.value.reshape(self.output_shape(x.shape)), None

    def run_backward(self, dy: Array, cache: Cache) -> None:
        self.weight.add_gradient(dy.reshape(self.weight.value.shape).copy())  # dy may be shared

    def output_shape(self, x: tuple) -> tuple:
        shape = self.weight.value.shape
        if len(shape) > len(x):
            raise InputError(f"constant: expected no more axes than those of {x}, got {shape}")
        return (1,) * (len(x) - len(shape)) + shape

    def coordinates(self) -> Affine:
        raise InputError(f"{self.title}: sees nothing of the image, so no coordinates belong to it")


class Concat(Leaf):
    """Several maps one after the other, along the channels unless another axis is given. Each gets its part of dy."""

    onnx_operator = "Concat"

    def __init__(self, axis: int = 1):
        self.axis = axis
        self.onnx_attributes = {"axis": axis}

    def run(self, *maps: Array, train: bool) -> tuple[Array, Cache]:
        return ops.concat_forward(maps, axis=self.axis)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        return ops.concat_backward(dy, cache)

    def output_shape(self, *shapes: tuple) -> tuple:
        first, axis = shapes[0], self.axis
        if any((*shape[:axis], *shape[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]) for shape in shapes):
            raise InputError(f"concat: expected maps that differ along axis {axis} only, got {shapes}")
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


class CropLike(Slice):
    """The part of x that begins at `offset` and has the height and width of a second map, which gets no gradient."""

    def __init__(self, offset: int):
        ends = (offset + dimension(1, axis) for axis in (2, 3))
        super().__init__((slice(None), slice(None), *(slice(offset, end) for end in ends)))
        self.offset = offset

    def run(self, x: Array, like: Array, train: bool) -> tuple[Array, Cache]:
        return ops.crop_forward(x, self.offset, like.shape[2:])

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        return ops.crop_backward(dy, cache), None

    def output_shape(self, x: tuple, like: tuple) -> tuple:
        if any(self.offset + part > whole for part, whole in zip(like[2:], x[2:], strict=True)):
            raise InputError(f"crop: {like[2:]} at offset {self.offset} does not lie inside a map of {x[2:]}")
        return (*x[:2], *like[2:])

    def coordinates(self) -> Affine:
        return Affine(Fraction(1), Fraction(-self.offset))


class ResizeLike(Resize):
    """x resized to the height and width of a second map, which gets no gradient, by bilinear interpolation."""

    def __init__(self, *, align_corners: bool = False):
        size = dimension(1, 2), dimension(1, 3)
        super().__init__(size=size, positions="align_corners" if align_corners else "half_pixel")


class Scale(Leaf):
    """y = factor · x, by a fixed number: the published at-once training scales its skips' inputs this way."""

    onnx_operator = "Mul"
    owns_results = True

    def __init__(self, factor: float):
        self.factor = float(factor)
        self.onnx_attributes = {"factor": self.factor}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return x * self.factor, None

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return dy * self.factor
