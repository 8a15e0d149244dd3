"""Computations with sizes in an ONNX file: on lists of integers, and of sizes that depend on the image."""

from math import prod

import numpy as np

from ...errors import InputError
from ...layers.sizes import bounded, rounded

LONGEST = 64  # of a list of sizes


def _binary(operation):
    by_element = np.frompyfunc(lambda a, b: bounded(operation(a, b)), 2, 1)

    def compute(attributes, a, b):
        if np.broadcast(a, b).size > LONGEST:
            raise InputError(f"a list of more than {LONGEST} sizes")
        return by_element(a, b)

    return compute


def _slice(attributes, x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return x[slices(x.ndim, axes, starts, ends, steps)]


def slices(rank, axes, starts, ends, steps):
    """A slice for each of `rank` axes, the whole axis where none is given."""
    parts = [slice(None)] * rank
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(*bounds[:2], None if bounds[2] == 1 else bounds[2])
    return tuple(parts)


def _axes(attributes, axes):
    axes = attributes.get("axes") if axes is None else axes
    return None if axes is None else tuple(int(axis) for axis in axes)


def _filled(attributes, shape):
    value = np.asarray(attributes.get("value", 0.0))  # a float, unless it is given
    if value.size != 1 or value.dtype.kind not in "iu" or prod(shape) > LONGEST:
        raise InputError(f"expected a whole number, at most {LONGEST} times")
    return np.full([int(n) for n in shape], value.item(), object)


# Operators on lists of sizes: (attributes, inputs) -> output. Inputs and output are arrays of integers and Sizes.
COMPUTED = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(lambda a, b: rounded("Div", a, b)),
    "Mod": _binary(lambda a, b: rounded("Mod", a, b)),
    "Neg": lambda attributes, x: -x,
    "Gather": lambda attributes, x, i: np.take(x, i.astype(np.int64), attributes.get("axis", 0)),
    "Concat": lambda attributes, *xs: np.concatenate(xs, attributes.get("axis", 0)),
    "Slice": _slice,
    "Unsqueeze": lambda attributes, x, axes=None: np.expand_dims(x, _axes(attributes, axes)),
    "Squeeze": lambda attributes, x, axes=None: np.squeeze(x, _axes(attributes, axes)),
    "Reshape": lambda attributes, x, shape: x.reshape([int(n) for n in shape]),
    "Transpose": lambda attributes, x: np.transpose(x, attributes.get("perm")),
    "ConstantOfShape": _filled,
    **dict.fromkeys(("Cast", "Floor", "Ceil"), lambda attributes, x: x),
}
_ATTRIBUTES = {
    **dict.fromkeys(("Gather", "Concat"), "axis"), **dict.fromkeys(("Unsqueeze", "Squeeze"), "axes"), "Cast": "to",
    "Transpose": "perm", "ConstantOfShape": "value",
}  # fmt: skip
_INTEGERS = (6, 7)  # ONNX's type codes of int32 and int64


def computed(operator, attributes, inputs):
    """An operator applied to lists of sizes. -> a list of sizes.   inputs: integer or object arrays, None where left out"""
    if operator not in COMPUTED:
        raise InputError(f"a size computed by {operator}; known: {', '.join(COMPUTED)}")
    if unknown := [n for n, value in attributes.items() if n != _ATTRIBUTES.get(operator) and value != 0]:
        raise InputError(f"the attribute {min(unknown)!r} of a size, which is not known")
    if operator == "Cast" and attributes.get("to") not in _INTEGERS:
        raise InputError("a size that becomes no whole number; known: int32, int64")
    if any(x is not None and (x.size > LONGEST or x.dtype.kind not in "iuO") for x in inputs):
        raise InputError(f"sizes that are no list of at most {LONGEST} integers")
    found = COMPUTED[operator](attributes, *(x if x is None else x.astype(object) for x in inputs))
    found = np.asarray(found, object)
    if found.size > LONGEST:
        raise InputError(f"a list of more than {LONGEST} sizes")
    return found
