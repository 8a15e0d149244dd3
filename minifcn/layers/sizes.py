"""Sizes that are computed from the sizes of maps, as sums that can be compared before any map exists: "height of x, minus 3"."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InputError

_LARGEST, _MOST_PARTS = 1 << 63, 1000  # of a number; of a size


class Dimension(NamedTuple):
    """The size of a map along an axis. of: a layer's input by its position, a map of a network by its name."""

    of: int | str
    axis: int


class Rounded(NamedTuple):
    """size / divisor, rounded towards zero (operator "Div"), or size mod divisor, with the divisor's sign ("Mod")."""

    operator: str
    size: "int | Size"
    divisor: "int | Size"


class Size:
    """constant + Σ factor · term, over terms {Dimension or Rounded: factor}. Sums without terms are plain integers.

    Equal sizes are equal whatever the image. Raises InputError for one of more than 1000 parts, as a file could ask for.
    """

    def __init__(self, terms: dict, constant: int = 0):
        self.terms, self.constant = terms, constant
        self.parts = 1 + sum(1 + sum(_parts(x) for x in t[1:]) for t in terms)
        if self.parts > _MOST_PARTS:
            raise InputError("a size computed in too many steps")
        self._hash = hash((frozenset(terms.items()), constant))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and (self.terms, self.constant) == (other.terms, other.constant)

    def __add__(self, other: "int | Size") -> "int | Size":
        terms = dict(self.terms)
        for term, factor in (other.terms if isinstance(other, Size) else {}).items():
            terms[term] = terms.get(term, 0) + factor
        return _simplest(terms, self.constant + (other.constant if isinstance(other, Size) else other))

    def __mul__(self, factor: int) -> "int | Size":
        if isinstance(factor, Size):
            raise InputError("the product of two sizes of maps")
        return _simplest({term: n * factor for term, n in self.terms.items()}, self.constant * factor)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other: "int | Size") -> "int | Size":
        return self + -1 * other

    def __rsub__(self, other: int) -> "int | Size":
        return -1 * self + other

    def __neg__(self) -> "int | Size":
        return -1 * self

    def __mod__(self, divisor: "int | Size") -> "int | Size":
        return rounded("Mod", self, divisor)

    def replaced(self, by: Callable) -> "int | Size":
        """The Size, or the number, with by(Dimension) in place of each Dimension."""
        total = self.constant
        for term, factor in self.terms.items():
            if isinstance(term, Dimension):
                total += factor * by(term)
            else:
                total += factor * rounded(term.operator, replaced(term.size, by), replaced(term.divisor, by))
        return total


def dimension(of: int | str, axis: int) -> Size:
    """The size of a map along an axis, see Dimension."""
    return Size({Dimension(of, axis): 1})


def rounded(operator: str, size: "int | Size", divisor: "int | Size") -> "int | Size":
    """size / divisor ("Div") or size mod divisor ("Mod"), see Rounded."""
    if isinstance(size, Size) or isinstance(divisor, Size):
        return Size({Rounded(operator, size, divisor): 1})
    if divisor == 0:
        raise InputError("a division by zero")
    if operator == "Mod":
        return size % divisor
    quotient = abs(size) // abs(divisor)
    return quotient if (size < 0) == (divisor < 0) else -quotient


def replaced(value: Any, by: Callable) -> Any:
    """A number, a Size, or tuples and slices of them, with by(Dimension) in place of each Dimension."""
    if isinstance(value, Size):
        return value.replaced(by)
    if isinstance(value, slice):
        return slice(*(replaced(x, by) for x in (value.start, value.stop, value.step)))
    return tuple(replaced(x, by) for x in value) if isinstance(value, tuple) else value


def for_shapes(value: Any, shapes: tuple) -> Any:
    """The numbers that Sizes of a layer's inputs become for inputs of the given shapes."""
    return replaced(value, lambda dimension: shapes[dimension.of][dimension.axis])


def lenders(value: Any) -> tuple:
    """The positions of the inputs, other than the first, whose sizes occur in a number, a Size, or tuples and slices of them."""
    seen = {0}

    def see(found):
        seen.add(found.of)
        return dimension(*found)

    replaced(value, see)
    return tuple(range(1, max(seen) + 1))


def bounded(number: "int | Size") -> "int | Size":
    """Refuse a number beyond the 64 bits of a file's own arithmetic: here it could grow without limit."""
    if isinstance(number, int) and abs(number) >= _LARGEST:
        raise InputError("a size of 2⁶³ or more")
    return number


def _parts(size):
    return size.parts if isinstance(size, Size) else 1


def _simplest(terms, constant):
    terms = {term: bounded(factor) for term, factor in terms.items() if factor}
    return Size(terms, bounded(constant)) if terms else constant
