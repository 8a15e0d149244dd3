"""ONNX's operators as layers, each a function of a node. What a layer cannot do is refused by name.

Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

from math import inf
from typing import NamedTuple

import numpy as np

from .. import layers
from ..errors import InputError
from ..layers import Parameter
from ..layers.init import bilinear_1d
from ..ops.resize import NEAREST, POSITIONS
from .onnx_sizes import Dimension, Size, dimension, remainder, slices

_LARGEST = 1 << 31  # of a kernel, a stride, a pad
_RNG = np.random.default_rng  # of layers whose numbers are replaced, and of dropout


class Map(NamedTuple):
    """A value that depends on the image: the node of the network that gives it, how many axes it has, its channels or None."""

    node: str
    rank: int
    channels: int | None


class Node:
    """A node of a file, its inputs looked up. What is taken of `attributes` is gone from there."""

    def __init__(self, network, inputs, attributes, name):
        self.network, self.opset, self.name = network, network.opset, name
        self.inputs, self.attributes = inputs, attributes

    def given(self, position):
        """An input, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def map(self, position=0, rank=None):
        """An input that depends on the image."""
        value = self.given(position)
        if not isinstance(value, Map):
            raise InputError(f"expected a map as input {position}, got {'an array' if value is not None else 'none'}")
        if rank not in (None, value.rank):
            raise InputError(f"expected an input of {rank} axes, got {value.rank}")
        return value

    def array(self, position, shape=None):
        """An input of fixed numbers, in the network's dtype; shape: with None for any size."""
        value = self.given(position)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise InputError(f"expected fixed numbers as input {position}")
        if shape and (
            value.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True))
        ):
            raise InputError(f"expected an array of shape {shape} as input {position}, got {value.shape}")
        if value.size == 0:
            raise InputError(f"expected numbers as input {position}, got an array of shape {value.shape}")
        return value.astype(self.network.dtype)  # a copy: it is trained, and the file's is read-only

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

    def number(self, position, attribute, default):
        """One number, given as an input or in older versions as an attribute."""
        value = self.given(position)
        value = self.attributes.pop(attribute, default) if value is None else value
        if isinstance(value, Map) or np.size(value) != 1 or np.asarray(value).dtype.kind not in "fiub":
            raise InputError(f"expected a fixed number as {attribute!r}")
        return float(np.ravel(value)[0])

    def take(self, attribute, default):
        """An attribute of the default's type; a list of as many small integers."""
        value = self.attributes.pop(attribute, default)
        fits = isinstance(value, type(default)) and (not isinstance(value, list) or len(value) == len(default))
        if not fits or any(not -_LARGEST < n < _LARGEST for n in (value if isinstance(value, list) else ())):
            raise InputError(f"the attribute {attribute!r}: expected values such as {default!r}, got {str(value)[:60]}")
        return value

    def only(self, attribute, known, default):
        """An attribute of which one value is known."""
        if (value := self.attributes.pop(attribute, default)) != known:
            raise InputError(f"{attribute} = {str(value)[:60]}; known: {known}")


def _same(node, layer, x):
    return layer, [x], x.rank, x.channels


def _window(node, kernel=None):
    """The settings of what slides a window: kernel, stride, dilation and pad."""
    kernel = node.take("kernel_shape", list(kernel or (0, 0)))
    stride, dilation, pads = node.take("strides", [1, 1]), node.take("dilations", [1, 1]), node.take("pads", [0] * 4)
    top, left, bottom, right = pads
    auto = node.take("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER"):
        raise InputError(f"auto_pad = {auto}; known: NOTSET, VALID, SAME_UPPER")
    if auto != "NOTSET" and any(pads):
        raise InputError(f"auto_pad = {auto} and pads {pads}; known: one of the two")
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        raise InputError(f"expected a positive kernel, got {kernel}, stride {stride}, dilation {dilation}, pads {pads}")
    pad = "same" if auto == "SAME_UPPER" else ((top, bottom), (left, right))
    return {"kernel": tuple(kernel), "stride": tuple(stride), "dilation": tuple(dilation), "pad": pad}


def _conv(node):
    x, weight, group = node.map(rank=4), node.array(1, (None,) * 4), node.take("group", 1)
    outputs, per_group = weight.shape[:2]
    if group < 1 or outputs % group or x.channels not in (None, per_group * group):
        raise InputError(f"a kernel of shape {weight.shape} in {group} groups does not fit {x.channels} channels")
    bias = None if node.given(2) is None else Parameter(node.array(2, (outputs,)))
    settings = _window(node, weight.shape[2:])
    if settings.pop("kernel") != weight.shape[2:]:
        raise InputError(f"kernel_shape differs from the kernel's shape {weight.shape}")
    return layers.Conv2d.of(Parameter(weight), bias, groups=group, **settings), [x], 4, outputs


def _conv_transpose(node):
    x, weight, group = node.map(rank=4), node.array(1, (None,) * 4), node.take("group", 1)
    inputs, per_group, *kernel = weight.shape
    if group < 1 or inputs % group or x.channels not in (None, inputs):
        raise InputError(f"a kernel of shape {weight.shape} in {group} groups does not fit {x.channels} channels")
    settings, more = _window(node, kernel), node.take("output_padding", [0, 0])
    if list(settings.pop("kernel")) != kernel or settings["pad"] == "same":
        raise InputError("kernel_shape differs from the kernel's shape, or auto_pad; known: pads")
    if node.network.own and _is_bilinear(weight, group) and settings["stride"][0] == settings["stride"][1]:
        layer = layers.Upsample(settings["stride"][0], kernel=kernel[0], pad=settings["pad"])
        return _same(node, layer, x)
    bias = None if node.given(2) is None else Parameter(node.array(2, (per_group * group,)))
    layer = layers.ConvTranspose2d(group, group, 1, _RNG(0), output_pad=more, groups=group, **settings)
    layer.weight, layer.bias = Parameter(weight), bias
    return layer, [x], 4, per_group * group


def _is_bilinear(weight, group):
    """Whether minifcn wrote this kernel for a frozen upsampling: each channel by itself, bilinear."""
    line = bilinear_1d(weight.shape[3])
    return (
        group == weight.shape[0] and weight.shape[1:] == (1, *line.shape * 2) and (weight == np.outer(line, line)).all()
    )


def _batch_norm(node):
    x = node.map(rank=4)
    node.only("training_mode", 0, 0)
    names = ("gamma", "beta", "running_mean", "running_var")
    arrays = [node.array(position, (x.channels,)) for position in range(1, 5)]
    layer = layers.BatchNorm2d(len(arrays[0]), eps=node.take("epsilon", 1e-5), momentum=1 - node.take("momentum", 0.9))
    for name, array in zip(names, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise InputError(f"arrays of {len(arrays[0])} and {len(array)} channels")
        setattr(layer, name, Parameter(array) if name in names[:2] else array)
    return _same(node, layer, x)


def _clip(node):
    low, high = node.number(1, "min", -inf), node.number(2, "max", inf)
    return _same(node, layers.ReLU6() if (low, high) == (0, 6) else layers.Clip(low, high), node.map())


def _pool(kind, *options):
    def read(node):
        x, settings = node.map(rank=4), _window(node)
        if settings["pad"] == "same":
            raise InputError("auto_pad = SAME_UPPER; known: NOTSET, VALID")
        node.only("storage_order", 0, 0)
        settings |= {key: bool(node.take(key, 0)) for key in options}
        if kind is layers.AvgPool2d and settings.pop("dilation") != (1, 1):
            raise InputError("dilations; known: 1")
        return _same(node, kind(**settings), x)

    return read


def _global_average(node):
    return _same(node, layers.AdaptiveAvgPool2d(1), node.map(rank=4))


def _mean(node):
    axes, keep = node.integers(1, "axes"), node.take("keepdims", 1)
    node.only("noop_with_empty_axes", 0, 0)
    if sorted(axis % 4 for axis in axes or ()) != [2, 3]:
        raise InputError(f"axes {axes}; known: height and width")
    layer, maps, rank, channels = _global_average(node)
    return (layer, maps, rank, channels) if keep else (layers.GlobalAvgPool(), maps, 2, channels)


def _gemm(node):
    """y = alpha · x · W + beta · b"""
    x = node.map(rank=2)
    node.only("transA", 0, 0)
    weight = node.array(1, (None, None))
    weight = weight if node.take("transB", 0) else np.ascontiguousarray(weight.T)
    bias = np.zeros(len(weight), weight.dtype)
    if node.given(2) is not None:
        given = node.array(2)
        if given.shape not in ((), (1,), bias.shape, (1, *bias.shape)):
            raise InputError(f"expected a bias of {len(weight)} values, got shape {given.shape}")
        bias += given.ravel()
    if x.channels not in (None, weight.shape[1]):
        raise InputError(f"a matrix for {weight.shape[1]} values, got {x.channels}")
    weight *= weight.dtype.type(node.take("alpha", 1.0))
    bias *= weight.dtype.type(node.take("beta", 1.0))
    layer = layers.Linear(1, 1, _RNG(0))
    layer.weight, layer.bias = Parameter(weight), Parameter(bias)
    return layer, [x], 2, len(weight)


def _flat(node, x, features=None):
    """x as (N, the rest); the mean of each map where that is what comes before."""
    layer, inputs = node.network.nodes.get(x.node, (None, ()))
    features = features if isinstance(features, int) and features > 0 else None
    if isinstance(layer, layers.AdaptiveAvgPool2d):
        if features not in (None, x.channels):
            raise InputError(f"{features} values an image of {x.channels} channels")
        return layers.GlobalAvgPool(), [Map(*inputs, 4, x.channels)], 2, x.channels
    return layers.Flatten(features), [x], 2, features


def _flatten(node):
    x = node.map()
    if node.take("axis", 1) not in (1, 1 - x.rank):
        raise InputError("an axis other than 1")
    return _flat(node, x)


def _reshape(node):
    x, shape = node.map(), node.sizes(1)
    if node.take("allowzero", 0) and 0 in shape:
        raise InputError("a shape with a size of 0")
    batch = (-1, 0, node.network.shape[0], *(dimension(m, 0) for m in ("image", x.node)))
    if len(shape) != 2 or shape[0] not in batch or shape[0] == shape[1]:
        raise InputError(f"a shape of {len(shape)} axes; known: (N, the rest)")
    return _flat(node, x, shape[1])


def _softmax(node):
    x = node.map()
    axis = node.take("axis", -1 if node.opset >= 13 else 1)
    if not -x.rank <= axis < x.rank or (node.opset < 13 and axis % x.rank != x.rank - 1):
        raise InputError(f"axis {axis} of {x.rank} axes")
    return _same(node, layers.Softmax(axis % x.rank), x)


def _dropout(node):
    node.take("seed", 0)
    p = node.number(1, "ratio", 0.5)
    if not 0 <= p < 1:
        raise InputError(f"a ratio of {p}; known: 0 to 1")
    if node.number(2, "training_mode", 0) != 0:
        raise InputError("training_mode; export for inference")
    return _same(node, layers.Dropout(p, _RNG(0)), node.map())


def _add(node):
    if isinstance(node.given(0), Map) and isinstance(node.given(1), Map):
        a, b = node.map(0), node.map(1, node.map(0).rank)
        return layers.Add(), [a, b], a.rank, a.channels
    return _by_channel(node, 1, _constant(node))


def _multiply(node):
    if not (isinstance(node.given(0), Map) and isinstance(node.given(1), Map)):
        return _by_channel(node, _constant(node), 0)
    a, b = node.map(0), node.map(1, node.map(0).rank)
    nodes = node.network.nodes
    if isinstance(nodes.get(a.node, (None,))[0], layers.AdaptiveAvgPool2d) or (a.channels == 1 != b.channels):
        a, b = b, a  # the smaller second
    return layers.Multiply(), [a, b], a.rank, a.channels


def _subtract(node):
    return _by_channel(node, 1, -_second(node))


def _divide(node):
    return _by_channel(node, 1 / _second(node), 0)


def _constant(node):
    return node.array(0 if isinstance(node.given(1), Map) else 1)


def _second(node):
    node.map(0)
    return node.array(1)


def _by_channel(node, factor, offset):
    """factor · x + offset: numbers, or one for each channel, which are trained."""
    x = node.map(0 if isinstance(node.given(0), Map) else 1)
    numbers = np.asarray(offset if isinstance(factor, int) else factor)
    if numbers.ndim > x.rank:
        raise InputError(
            f"numbers of shape {numbers.shape} with a map of {x.rank} axes; known: no more axes than the map"
        )
    if numbers.size == 1 and not isinstance(factor, int):
        return _same(node, layers.Scale(numbers.item()), x)
    if x.rank != 4 or x.channels is None or numbers.size not in (1, x.channels):
        raise InputError(f"numbers of shape {numbers.shape} with a map of {x.channels} channels; known: one a channel")
    if numbers.size > 1 and numbers.shape[-3:] != (x.channels, 1, 1):
        raise InputError(f"numbers of shape {numbers.shape}; known: {(x.channels, 1, 1)}")
    values = np.broadcast_to(numbers.ravel(), x.channels).astype(node.network.dtype)
    ones = np.ones((x.channels, 1, 1, 1), node.network.dtype)
    if isinstance(factor, int):
        layer = layers.Conv2d.of(Parameter(ones, frozen=True), Parameter(values), groups=x.channels)
    else:
        layer = layers.Conv2d.of(Parameter(values.reshape(ones.shape)), groups=x.channels)
    return _same(node, layer, x)


def _concat(node):
    maps = [node.map(position, 4) for position in range(len(node.inputs))]
    if node.take("axis", 1) % 4 != 1 or not maps:
        raise InputError("an axis other than 1")
    channels = [m.channels for m in maps]
    return layers.Concat(), maps, 4, None if None in channels else sum(channels)


def _slice(node):
    x, starts, ends = node.map(), node.sizes(1), node.sizes(2)
    axes, steps = node.integers(3) or list(range(len(starts))), node.integers(4) or [1] * len(starts)
    axes = [axis % x.rank for axis in axes if -x.rank <= axis < x.rank]
    if not len(axes) == len(set(axes)) == len(starts) == len(ends) == len(steps) or min(steps, default=1) < 1:
        raise InputError("starts, ends, axes and steps that do not fit; known: one for each axis, steps of 1 or more")
    if all(isinstance(n, int) for n in (*starts, *ends)):
        parts = slices(x.rank, axes, starts, ends, steps)
        channels = x.channels and x.rank > 1 and len(range(x.channels)[parts[1]])
        return layers.Slice(parts), [x], x.rank, channels or None
    like = _lent([end - start for start, end in zip(starts, ends, strict=True)], axes)
    if like is None or set(steps) != {1} or not all(isinstance(n, int) and n >= 0 for n in starts):
        raise InputError("bounds that are computed; known: starts that are numbers, and the sizes of another map")
    whole = sorted(axes) == [2, 3] and starts[0] == starts[1]
    layer = layers.CropLike(starts[0]) if whole else layers.SliceLike(dict(zip(axes, starts, strict=True)))
    return layer, [x, Map(like, x.rank, None)], x.rank, None if 1 in axes else x.channels


def _lent(sizes, axes):
    """The node whose sizes along these axes these are; None if there is none."""
    for term in sizes[0].terms if isinstance(sizes[0], Size) else ():
        if isinstance(term, Dimension) and sizes == [dimension(term.map, axis) for axis in axes]:
            return term.map
    return None


def _pad(node):
    x, pads, axes = node.map(rank=4), node.sizes(1), node.integers(3)
    node.only("mode", "constant", "constant")
    if node.number(2, "value", 0) != 0:
        raise InputError("another value than 0")
    axes = [axis % 4 for axis in (range(4) if axes is None else axes)]
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) < len(axes):
        raise InputError("pads that do not fit the axes")
    both = [(0, 0)] * 4
    for position, axis in enumerate(axes):
        both[axis] = pads[position], pads[position + len(axes)]
    if both[:2] != [(0, 0)] * 2:
        raise InputError("a pad of images or channels; known: of height and width")
    numbers = [n for pair in both for n in pair]
    if all(isinstance(n, int) for n in numbers):
        if max(map(abs, numbers)) >= _LARGEST or min(numbers) < 0:
            raise InputError(f"pads {numbers}; known: 0 or more")
        return _same(node, layers.Pad(tuple(both[2:])), x)
    pad, behind = both[2]
    for term in behind.terms if isinstance(behind, Size) and isinstance(pad, int) else ():
        multiple = getattr(term, "divisor", None)
        if (
            isinstance(multiple, int)
            and multiple > 0
            and both[2:] == [(pad, pad + remainder(-2 * pad - dimension(x.node, axis), multiple)) for axis in (2, 3)]
        ):
            return _same(node, layers.PadToMultiple(multiple, pad), x)
    raise InputError("pads that are computed; known: numbers, and what is missing to a multiple")


def _resize(node):
    x, sizes = node.map(rank=4), node.sizes(3)
    mode, nearest = node.take("mode", "nearest"), node.take("nearest_mode", "round_prefer_floor")
    positions = node.take("coordinate_transformation_mode", "half_pixel")
    for attribute, known in {
        "antialias": 0,
        "exclude_outside": 0,
        "keep_aspect_ratio_policy": "stretch",
        "extrapolation_value": 0.0,
    }.items():
        node.only(attribute, known, known)
    node.attributes.pop("cubic_coeff_a", None)
    if mode not in ("nearest", "linear"):
        raise InputError(f"mode {mode!r}; known: nearest, linear")
    if positions not in POSITIONS or nearest not in NEAREST:
        raise InputError(f"{positions}, {nearest}; known: {', '.join((*POSITIONS, *NEAREST))}")
    settings = {"nearest": nearest if mode == "nearest" else None, "positions": positions}
    axes = node.attributes.pop("axes", None) or [0, 1, 2, 3]
    if sizes is None:
        found = node.given(2)
        if (
            not isinstance(found, np.ndarray)
            or found.shape != (len(axes),)
            or not (found > 1e-6).all() & (found < 1e6).all()
        ):
            raise InputError("expected sizes, or scales that are positive numbers")
        given = dict(zip(axes, found.tolist(), strict=True))
        if any(given.get(axis, 1) != 1 for axis in (0, 1)):
            raise InputError("a scale of images or channels")
        return _same(node, layers.Resize(scale=(given[2], given[3]), **settings), x)
    if len(sizes) != len(axes) or not {2, 3} <= set(axes) <= {0, 1, 2, 3}:
        raise InputError(f"{len(sizes)} sizes for axes {axes}")
    given = dict(zip(axes, sizes, strict=True))
    of_batch = (node.network.shape[0], dimension(x.node, 0), dimension("image", 0))
    of_channels = (x.channels, dimension(x.node, 1))
    if given.get(0, of_batch[1]) not in of_batch or given.get(1, of_channels[1]) not in of_channels:
        raise InputError("a size of images or channels; known: of height and width")
    size = given[2], given[3]
    if all(isinstance(n, int) for n in size):
        if not all(0 < n < 1 << 16 for n in size):
            raise InputError(f"a size of {size}")
        return _same(node, layers.Resize(size=size, **settings), x)
    like = _lent(list(size), (2, 3))
    if like is None:
        raise InputError("sizes that are computed; known: numbers, and the height and width of another map")
    if mode == "linear" and positions in ("half_pixel", "align_corners"):
        layer = layers.ResizeLike(align_corners=positions == "align_corners")
    else:
        layer = layers.Resize(**settings)
    return layer, [x, Map(like, 4, None)], 4, x.channels


def _lrn(node):
    size, k = node.take("size", 1), node.take("bias", 1.0)
    return _same(node, layers.LRN(size, node.take("alpha", 1e-4), node.take("beta", 0.75), k), node.map(rank=4))


OPERATORS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "Relu": lambda node: _same(node, layers.ReLU(), node.map()),
    "Clip": _clip,
    "MaxPool": _pool(layers.MaxPool2d, "ceil_mode"),
    "AveragePool": _pool(layers.AvgPool2d, "ceil_mode", "count_include_pad"),
    "GlobalAveragePool": _global_average,
    "ReduceMean": _mean,
    "Gemm": _gemm,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Concat": _concat,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "LRN": _lrn,
    "Softmax": _softmax,
    "Dropout": _dropout,
}
