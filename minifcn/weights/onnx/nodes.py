"""A node of an ONNX file: its inputs are resolved, its settings are checked when they are read."""

from math import isfinite
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ...layers import Constant, Parameter
from ...layers.sizes import Dimension, Size, dimension, replaced

LARGEST = 1 << 31  # of a kernel, a stride, a pad


class Map(NamedTuple):
    """A value that depends on the image: the network node that computes it, its number of axes, its channels or None."""

    node: str
    rank: int
    channels: int | None


class Transposed(NamedTuple):
    """A map whose axes a node has put into another order; only a Softmax may follow, and the way back.

    axis: the map's own axis along which the softmax goes, None before it.
    """

    map: Map
    order: list
    axis: int | None = None


class Node:
    """A node of a file with its inputs resolved. Reading an attribute removes it from `attributes`."""

    def __init__(self, network, inputs, names, attributes, name):
        self.network, self.opset, self.name = network, network.opset, name
        self.inputs, self.names, self.attributes = inputs, names, attributes

    def given(self, position):
        """An input, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def map(self, position=0, rank=None):
        """An input that depends on the image."""
        value = self.given(position)
        if not isinstance(value, Map):
            found = {type(None): "none", Transposed: "a transposed map"}.get(type(value), "an array")
            raise InputError(f"expected a map as input {position}, got {found}")
        if rank not in (None, value.rank):
            raise InputError(f"expected an input of {rank} axes, got {value.rank}")
        return value

    def operand(self, position):
        """An input of arithmetic: a map, or constants as a layer that outputs them; a single number is not trained."""
        value = self.given(position)
        if isinstance(value, Map):
            return value
        like, array = next(value for value in self.inputs if isinstance(value, Map)), self.array(position)
        if array.ndim > like.rank:
            raise InputError(
                f"numbers of shape {array.shape} with a map of {like.rank} axes; known: no more axes than the map"
            )
        layer = Constant(Parameter(array, frozen=array.size == 1))
        name = self.network.name_of(
            self.names[position].rpartition(".")[0], self.names[position], f"{self.name}.constant"
        )
        channels = (1,) * (like.rank - array.ndim) + array.shape
        return self.network.put(name, layer, [like], like.rank, channels[1] if like.rank > 1 else None)

    def array(self, position, shape=None):
        """A constant input, in the network's dtype. shape: the expected one, with None for any size."""
        value = self.given(position)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise InputError(f"expected fixed numbers as input {position}")
        if shape and (
            value.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True))
        ):
            raise InputError(f"expected an array of shape {shape} as input {position}, got {value.shape}")
        if value.size == 0:
            raise InputError(f"expected numbers as input {position}, got an array of shape {value.shape}")
        if value.size == 1 and not np.isfinite(value).all():  # larger arrays were checked with the file
            raise InputError(f"expected a finite number as input {position}")
        return value.astype(self.network.dtype)  # a copy: it is trained, and the file's is read-only

    def parameter(self, position, shape=None):
        """A kernel or matrix, or the bias after it, as a Parameter, which all nodes that read the same arrays share.

        A bias is shared only together with its kernel: PyTorch's exporter merges small arrays that happen to have equal values.
        """
        key = tuple(self.names[1 : position + 1])
        if key not in self.network.parameters:
            self.network.parameters[key] = Parameter(self.array(position, shape))
        return self.network.parameters[key]

    def sizes(self, position, attribute=None):
        """An input, or in older versions an attribute, as a list of integers and Sizes; None where it is left out."""
        value = self.given(position)
        if value is None and attribute:
            value = self.attributes.pop(attribute, None)
        if value is None:
            return None
        if isinstance(value, Map) or np.asarray(value).dtype.kind not in "iuO" or np.size(value) > 64:
            raise InputError(f"expected a short list of integers as input {position}")
        return [n if isinstance(n, Size) else int(n) for n in np.ravel(value)]

    def integers(self, position, attribute=None):
        found = self.sizes(position, attribute)
        if found and any(isinstance(n, Size) for n in found):
            raise InputError(f"expected fixed integers as input {position}, got sizes of maps")
        return found

    def axes(self, found, rank):
        """Axes counted from 0. Raises InputError for repeated ones and for those that `rank` axes do not have."""
        axes = [axis % rank for axis in found if -rank <= axis < rank]
        if len(set(axes)) < len(found):
            raise InputError(f"axes {found} of {rank}; known: each once, from {-rank} to {rank - 1}")
        return axes

    def lent(self, x, numbers):
        """Tuples in which Sizes of maps, by name, become Sizes of a layer's inputs. -> the tuples; these inputs, x first"""
        names = [x.node]

        def by_position(size):
            if size.of not in names:
                names.append(size.of)
            return dimension(names.index(size.of), size.axis)

        numbers = replaced(numbers, by_position)
        return numbers, [x, *(Map(name, 0, None) for name in names[1:])]

    def counts_images(self, size):
        """Whether a size is the number of images."""
        terms = [*size.terms.items()] if isinstance(size, Size) and not size.constant else []
        of_a_map = [isinstance(term, Dimension) and term.axis == 0 and factor == 1 for term, factor in terms]
        return size == self.network.shape[0] or of_a_map == [True]

    def number(self, position, attribute, default):
        """One number, given as an input or in older versions as an attribute."""
        value = self.given(position)
        value = self.attributes.pop(attribute, default) if value is None else value
        if isinstance(value, Map) or np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiub":
            raise InputError(f"expected a fixed number as {attribute!r}")
        if np.isnan(number := float(np.ravel(value)[0])):
            raise InputError(f"{attribute!r} that is no number (NaN)")
        return number

    def take(self, attribute, default):
        """An attribute of the default's type; for a list, of as many small integers."""
        value = self.attributes.pop(attribute, default)
        fits = isinstance(value, type(default)) and (not isinstance(value, list) or len(value) == len(default))
        fits = fits and (not isinstance(value, float) or isfinite(value))
        if not fits or any(not -LARGEST < n < LARGEST for n in (value if isinstance(value, list) else ())):
            raise InputError(f"the attribute {attribute!r}: expected values such as {default!r}, got {str(value)[:60]}")
        return value

    def only(self, attribute, known, default):
        """Take an attribute that may have only one value."""
        if (value := self.attributes.pop(attribute, default)) != known:
            raise InputError(f"{attribute} = {str(value)[:60]}; known: {known}")


def same(layer, x):
    """(layer, inputs, axes, channels) of an operator whose output has the axes and channels of its only input."""
    return layer, [x], x.rank, x.channels
