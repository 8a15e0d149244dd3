"""ONNX's operators on single values, or on all values of a map: for each, a function that makes a layer of a node.

Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

from math import inf

import numpy as np

from ... import layers
from ...errors import InputError
from .nodes import Map, Transposed, same


def _clip(node):
    low, high = node.number(1, "min", -inf), node.number(2, "max", inf)
    return same(layers.ReLU6() if (low, high) == (0, 6) else layers.Clip(low, high), node.map())


def _transpose(node):
    """Before opset 13, exporters write a softmax along another axis than the last between two transpositions: one layer."""
    x, order = node.given(0), node.attributes.pop("perm", None)
    if not isinstance(x, Transposed):
        x = node.map()
        order = order or list(range(x.rank))[::-1]
        if sorted(order) != list(range(x.rank)):
            raise InputError(f"perm {order} of {x.rank} axes; known: each once")
        return Transposed(x, order)
    if x.axis is None or [x.order[axis] for axis in order or ()] != list(range(x.map.rank)):
        raise InputError("a transposed map transposed; known: around a Softmax, there and back")
    return same(layers.Softmax(x.axis), x.map)


def _softmax(node):
    transposed = given if isinstance(given := node.given(0), Transposed) and given.axis is None else None
    x = transposed.map if transposed else node.map()
    (axis,) = node.axes([node.take("axis", -1 if node.opset >= 13 else 1)], x.rank)
    if node.opset < 13 and axis != x.rank - 1:
        raise InputError(f"axis {axis} of {x.rank}; known before opset 13: the last")
    if transposed:
        return transposed._replace(axis=transposed.order[axis])
    return same(layers.Softmax(axis), x)


def _dropout(node):
    node.take("seed", 0)
    p = node.number(1, "ratio", 0.5)
    if not 0 <= p < 1:
        raise InputError(f"a ratio of {p}; known: 0 to 1")
    if node.number(2, "training_mode", 0) != 0:
        raise InputError("training_mode; export for inference")
    return same(layers.Dropout(p, np.random.default_rng(0)), node.map())


def _two(node, layer):
    """Arithmetic of two maps, or of a map and constants, which are trained unless it is a single one."""
    a, b = node.operand(0), node.operand(1)
    if a.rank != b.rank:
        raise InputError(f"maps of {a.rank} and {b.rank} axes; known: as many")
    known = {a.channels, b.channels} - {1}
    if len(known - {None}) > 1:
        raise InputError(f"maps of {a.channels} and {b.channels} channels; known: as many, or one")
    channels = max((n for n in known if n), default=None if known else 1)
    return layer, [a, b], a.rank, channels if a.rank > 1 else None


def _scaled(node, position):
    """A map and the single number that scales it, which is not trained; None if the input here is not one.   -> (map, number)"""
    value, x = node.given(position), node.given(1 - position)
    if isinstance(value, np.ndarray) and value.size == 1 and isinstance(x, Map) and value.ndim <= x.rank:
        return x, node.array(position).item()
    return None


def _multiply(node):
    if found := _scaled(node, 1) or _scaled(node, 0):
        x, factor = found
        return same(layers.Scale(factor), x)
    return _two(node, layers.Multiply())


def _divide(node):
    if isinstance(node.given(1), np.ndarray) and not node.array(1).all():
        raise InputError("a division by zero")
    if found := _scaled(node, 1):
        x, divisor = found
        return same(layers.Scale(1 / divisor), x)
    return _two(node, layers.Divide())


def _mean(node):
    x, found, keep = node.map(), node.integers(1, "axes"), node.take("keepdims", 1)
    node.only("noop_with_empty_axes", 0, 0)
    axes = tuple(sorted(node.axes(found or range(x.rank), x.rank)))
    if 0 in axes:
        raise InputError("a mean of several images; known: of channels, height and width")
    if (x.rank, axes) == (4, (2, 3)):
        return (
            (layers.AdaptiveAvgPool2d(1), [x], 4, x.channels) if keep else (layers.GlobalAvgPool(), [x], 2, x.channels)
        )
    channels = x.channels if 1 not in axes else 1 if keep else None
    return layers.Mean(axes, bool(keep)), [x], x.rank if keep else x.rank - len(axes), channels


def _flat(node, x, features=None):
    """x as (N, the rest); after an average over whole maps, one layer for both."""
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
    images = len(shape) == 2 and (shape[0] in (-1, 0) or node.counts_images(shape[0]))
    if not images or shape[0] == shape[1]:
        raise InputError(f"a shape of {len(shape)} axes; known: (N, the rest)")
    return _flat(node, x, shape[1])


OPERATORS = {
    "Relu": lambda node: same(layers.ReLU(), node.map()),
    "Clip": _clip,
    "Transpose": _transpose,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "Add": lambda node: _two(node, layers.Add(broadcast=True)),
    "Sub": lambda node: _two(node, layers.Subtract()),
    "Mul": _multiply,
    "Div": _divide,
    "ReduceMean": _mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
}
