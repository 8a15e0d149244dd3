"""Sizes that an ONNX file computes from the sizes of its maps, as sums that can be compared: "height of x, minus 3"."""

from typing import NamedTuple

import numpy as np

from ..errors import InputError

_LARGEST, _DEEPEST, _LONGEST = 1 << 63, 4, 64  # of a number; of remainders in one another; of a list of sizes


class Dimension(NamedTuple):
    """The size of a map along an axis."""

    map: str
    axis: int


class Rounded(NamedTuple):
    """size / divisor (operator "Div") or size mod divisor ("Mod")."""

    operator: str
    size: object
    divisor: object


class Size:
    """constant + Σ factor · term, over terms {Dimension or Rounded: factor}. Sums without terms are plain integers.

    Equal sizes are equal whatever the image.
    """

    def __init__(self, terms, constant=0):
        self.terms, self.constant = terms, constant
        self.depth = 1 + max((_depth(part) for t in terms if isinstance(t, Rounded) for part in t[1:]), default=0)
        if self.depth > _DEEPEST or len(terms) > _LONGEST:
            raise InputError("a size computed in too many steps")
        self._hash = hash((frozenset(terms.items()), constant))

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return isinstance(other, Size) and (self.terms, self.constant) == (other.terms, other.constant)

    def __add__(self, other):
        terms = dict(self.terms)
        for term, factor in (other.terms if isinstance(other, Size) else {}).items():
            terms[term] = terms.get(term, 0) + factor
        return _simplest(terms, self.constant + (other.constant if isinstance(other, Size) else other))

    def __mul__(self, factor):
        if isinstance(factor, Size):
            raise InputError("the product of two sizes of maps")
        return _simplest({term: n * factor for term, n in self.terms.items()}, self.constant * factor)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other):
        return self + -1 * other

    def __rsub__(self, other):
        return -1 * self + other


def dimension(map, axis):
    return Size({Dimension(map, axis): 1})


def remainder(size, divisor):
    return _rounded("Mod", size, divisor)


def _depth(size):
    return size.depth if isinstance(size, Size) else 0


def _simplest(terms, constant):
    terms = {term: _bounded(factor) for term, factor in terms.items() if factor}
    return Size(terms, _bounded(constant)) if terms else constant


def _bounded(number):
    """Refuse what a file's own arithmetic, of 64 bits, could not hold: it would grow without end here."""
    if isinstance(number, int) and abs(number) >= _LARGEST:
        raise InputError("a size of 2⁶³ or more")
    return number


def _rounded(operator, size, divisor):
    if isinstance(size, Size) or isinstance(divisor, Size):
        return Size({Rounded(operator, size, divisor): 1})
    if divisor == 0:
        raise InputError("a division by zero")
    if operator == "Mod":
        return size % divisor
    quotient = abs(size) // abs(divisor)  # ONNX rounds towards zero
    return quotient if (size < 0) == (divisor < 0) else -quotient


def _binary(operation):
    by_element = np.frompyfunc(lambda a, b: _bounded(operation(a, b)), 2, 1)

    def compute(attributes, a, b):
        if np.broadcast(a, b).size > _LONGEST:
            raise InputError(f"a list of more than {_LONGEST} sizes")
        return by_element(a, b)

    return compute


def _slice(attributes, x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return x[slices(x.ndim, axes, starts, ends, steps)]


def slices(rank, axes, starts, ends, steps):
    """A slice for each of so many axes, whole where none is given."""
    parts = [slice(None)] * rank
    for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(*bounds)
    return tuple(parts)


def _axes(attributes, axes):
    axes = attributes.get("axes") if axes is None else axes
    return None if axes is None else tuple(int(axis) for axis in axes)


# What a file does with lists of sizes: (attributes, inputs) -> output, all of them arrays of integers and Sizes.
COMPUTED = {
    "Add": _binary(lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b),
    "Div": _binary(lambda a, b: _rounded("Div", a, b)),
    "Mod": _binary(lambda a, b: _rounded("Mod", a, b)),
    "Gather": lambda attributes, x, i: np.take(x, i.astype(np.int64), attributes.get("axis", 0)),
    "Concat": lambda attributes, *xs: np.concatenate(xs, attributes.get("axis", 0)),
    "Slice": _slice,
    "Unsqueeze": lambda attributes, x, axes=None: np.expand_dims(x, _axes(attributes, axes)),
    "Squeeze": lambda attributes, x, axes=None: np.squeeze(x, _axes(attributes, axes)),
    "Reshape": lambda attributes, x, shape: x.reshape([int(n) for n in shape]),
    "Cast": lambda attributes, x: x,
    **dict.fromkeys(("Floor", "Ceil"), lambda attributes, x: x),
}
_ATTRIBUTES = {"Gather": ("axis",), "Concat": ("axis",), "Unsqueeze": ("axes",), "Squeeze": ("axes",), "Cast": ("to",)}
_INTEGERS = (6, 7)  # ONNX's numbers of int32 and int64


def computed(operator, attributes, inputs):
    """The list of sizes that an operator makes of lists of sizes.   inputs: integer or object arrays, None where left out"""
    if operator not in COMPUTED:
        raise InputError(f"a size computed by {operator}; known: {', '.join(COMPUTED)}")
    if unknown := [n for n, value in attributes.items() if value != 0 and n not in _ATTRIBUTES.get(operator, ())]:
        raise InputError(f"the attribute {min(unknown)!r} of a size, which is not known")
    if operator == "Cast" and attributes.get("to") not in _INTEGERS:
        raise InputError("a size that becomes no whole number; known: int32, int64")
    if any(x is not None and (x.size > _LONGEST or x.dtype.kind not in "iuO") for x in inputs):
        raise InputError(f"sizes that are no list of at most {_LONGEST} integers")
    found = COMPUTED[operator](attributes, *(x if x is None else x.astype(object) for x in inputs))
    found = np.asarray(found, object)
    if found.size > _LONGEST:
        raise InputError(f"a list of more than {_LONGEST} sizes")
    return found
