"""The layers where branches meet, and what makes them fit: sum, concatenation, crop, resize, scale.

A join has several inputs. Its backward gives a gradient for each, None for one that only lends its size.
"""

from fractions import Fraction

from .. import ops
from ..backend import Array
from ..errors import InputError
from ..ops.geometry import Cache
from .base import Leaf
from .coordinates import Affine
from .general import Resize


class Add(Leaf):
    """y = a + b, two maps of one shape. Both get dy."""

    onnx_operator = "Add"

    def run(self, a: Array, b: Array, train: bool) -> tuple[Array, Cache]:
        self.output_shape(a.shape, b.shape)
        return a + b, None

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        return dy, dy

    def output_shape(self, a: tuple, b: tuple) -> tuple:
        if a != b:
            raise InputError(f"add: expected two maps of one shape, got {a} and {b}")
        return a


class Concat(Leaf):
    """The channels of several maps, one after the other. Each gets its part of dy."""

    onnx_operator, onnx_attributes = "Concat", {"axis": 1}

    def run(self, *maps: Array, train: bool) -> tuple[Array, Cache]:
        return ops.concat_forward(maps)

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        return ops.concat_backward(dy, cache)

    def output_shape(self, *shapes: tuple) -> tuple:
        first = shapes[0]
        if any((shape[0], *shape[2:]) != (first[0], *first[2:]) for shape in shapes):
            raise InputError(f"concat: expected maps that differ in channels only, got {shapes}")
        return (first[0], sum(shape[1] for shape in shapes), *first[2:])


class CropLike(Leaf):
    """The part of x that begins at `offset` and has the height and width of a second map, which gets no gradient."""

    onnx_operator = "Slice"
    size_only = (1,)

    def __init__(self, offset: int):
        self.offset = offset

    def run(self, x: Array, like: Array, train: bool) -> tuple[Array, Cache]:
        return ops.crop_forward(x, self.offset, like.shape[2:])

    def run_backward(self, dy: Array, cache: Cache) -> tuple:
        return ops.crop_backward(dy, cache), None

    def output_shape(self, x: tuple, like: tuple) -> tuple:
        if any(self.offset + part > whole for part, whole in zip(like[2:], x[2:], strict=True)):
            raise InputError(f"crop: {like[2:]} at offset {self.offset} does not lie inside a map of {x[2:]}")
        return (*x[:2], *like[2:])

    def is_view(self, shape: tuple, train: bool) -> bool:
        return True

    def coordinates(self) -> Affine:
        return Affine(Fraction(1), Fraction(-self.offset))


class ResizeLike(Resize):
    """x brought to the height and width of a second map, which gets no gradient, by bilinear interpolation."""

    def __init__(self, *, align_corners: bool = False):
        super().__init__(positions="align_corners" if align_corners else "half_pixel")

    def multiply_adds(self, x: tuple, like: tuple) -> int:
        return 2 * x[0] * x[1] * (x[2] * like[3] + like[2] * like[3])


class Scale(Leaf):
    """y = factor · x, by a fixed number: the published at-once training scales what its skips are given."""

    onnx_operator = "Mul"
    owns_results = True

    def __init__(self, factor: float):
        self.factor = factor
        self.onnx_attributes = {"factor": factor}

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return x * self.factor, None

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return dy * self.factor
