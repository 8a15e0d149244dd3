"""How the library's own GPU kernels are written, and what has to be in front of them.

A kernel is a function in a CUDA source file. Thread i works out result i, or the few values that make one up: it reads
whatever it needs and writes to no place but its own. So there is nothing to synchronise, nothing atomic, and the same
input gives the same bits in every run. Four macros hide what differs between a GPU and a C++ compiler, which runs the
same text thread after thread (`testing.bounds_checked`), so that a machine without a GPU can test it:

    KERNEL void twice(unsigned count, ARRAY(const T) x, ARRAY(T) y) {
        EACH(i, count) y[i] = 2 * x[i];
    }

T is float or double, as the arrays are. DEVICE marks a function that kernels call. Whole numbers arrive as int, other
numbers as T, arrays contiguous. Most kernels get maps as (N, H, W, C), so that neighbouring threads have neighbouring
channels and read neighbouring addresses, which a GPU joins into one access.
"""

import numbers
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import DtypeError, InputError

# So that i, and i plus one stride of the grid, fit into 32 bits, whose divisions are fast on a GPU.
MOST_THREADS = 1 << 31
C_TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Source:
    """A file of kernels."""

    path: Path

    @classmethod
    def beside(cls, module: str) -> Self:
        """The file of the same name as a Python module, given as its __file__."""
        return cls(Path(module).with_suffix(".cu"))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def complete(self, prelude: str, dtype: str) -> str:
        """The source for arrays of this dtype, with what has to be in front of it."""
        return f"{prelude}\ntypedef {C_TYPES[str(dtype)]} T;\n{self.text}"


def checked(name: str, count: int, arguments: tuple) -> tuple:
    """(dtype of T, the arguments with their numbers in the kernel's types). T is what the floating arrays are.

    Raises InputError where an array is not contiguous, TypeError where arrays are of two floating types.
    """
    if not 0 <= count < MOST_THREADS:
        raise InputError(
            f"{name}: expected fewer than {MOST_THREADS} results at once, got {count}; use smaller batches"
        )
    arrays = [a for a in arguments if not isinstance(a, numbers.Real)]
    if not all(a.flags.c_contiguous for a in arrays):
        raise InputError(f"{name}: expected contiguous arrays, got strides {[a.strides for a in arrays]}")
    dtypes = {a.dtype for a in arrays if a.dtype.kind == "f"}
    if len(dtypes) != 1:
        raise DtypeError(f"{name}: expected arrays of one floating dtype, got {sorted(map(str, dtypes))}")
    (dtype,) = dtypes
    return dtype, [_typed(a, dtype) for a in arguments]


def _typed(argument, dtype):
    if isinstance(argument, numbers.Integral):
        return np.int32(argument)  # an OverflowError where that does not fit
    return dtype.type(argument) if isinstance(argument, numbers.Real) else argument
