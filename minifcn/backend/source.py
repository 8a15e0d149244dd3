"""How the library's own kernels are written, and what is put in front of them.

A kernel is a function in a `.cu` file. It works out each of its results from whatever it reads, and writes to no other
place. So there is nothing to synchronise, nothing atomic, and the same input gives the same bits in every run. One text
serves two machines; macros hide what differs between them:

    KERNEL void twice(RANGE, ARRAY(const T) x, ARRAY(T) y, int columns, int channels) {
        EACH_LANES(line, column, channel, columns, channels, 1) {
            long long i = ((long long)line * columns + column) * channels + channel;
            AT(y, i) = 2 * AT(x, i);
        }
    }

Maps are (N, H, W, C), so that neighbouring channels are neighbouring values. On a GPU a thread works out one value: `lanes`
is T, AT(y, i) is y[i], and neighbouring threads have neighbouring channels, so that their reads coalesce into one
access. On a CPU (`native`) a thread takes some of the lines, and `lanes` is a vector register: AT(y, i) stands for the
values of i and of the channels that follow it. What depends on the pixel, such as whether a tap lies in the padding, is the
same for all lanes, of which there are LANES, at most WIDEST. The last argument of EACH_LANES is how many columns a CPU works out at once; RUN(n) is n there, and 1 on
a GPU. EACH(i) goes over arrays without a shape.

T is float or double, as the arrays are, and WHOLE an integer of its size. DEVICE marks a function that kernels call,
LANES_DEVICE one with lanes among its arguments. Whole numbers arrive as int, other numbers as T, arrays contiguous. A
source for a GPU alone does without lanes and AT.
"""

import numbers
import re
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import DtypeError, InputError

# So that i, and i plus one stride of the grid, fit into 32 bits, whose divisions are fast on a GPU.
MOST_THREADS = 1 << 31
C_TYPES = {"float32": ("float", "int"), "float64": ("double", "long long")}  # T and WHOLE
# What is the same wherever a thread works out one value; it follows a prelude that defines EACH.
ONE_LANE = """#define LANES_DEVICE DEVICE
#define AT(array, index) (array)[index]
#define RANGE unsigned count
#define RUN(results) 1
#define LANES 1
#define WIDEST 1
#define EACH_LANES(line, column, channel, columns, channels, results) EACH(each) \\
    for (int channel = each % (channels), column = each / (channels) % (columns), \\
             line = each / (channels) / (columns), once = 1; once && (line | column | channel) >= 0; once = 0)
typedef T lanes;
typedef WHOLE whole_lanes;
#define square_root sqrt
#define exponential exp
#define logarithm log
"""
_COMMON = Path(__file__).with_name("common.cuh")


@dataclass(frozen=True, eq=False)
class Source:
    """A file of kernels. gpu_only: they are not written with lanes."""

    path: Path
    gpu_only: bool = False

    @classmethod
    def beside(cls, module: str, gpu_only: bool = False) -> Self:
        """The file of the same name as a Python module, given as its __file__."""
        return cls(Path(module).with_suffix(".cu"), gpu_only)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def complete(self, prelude: str, dtype: str) -> str:
        """The source for arrays of this dtype, with what has to be in front of it."""
        number, whole = C_TYPES[str(dtype)]
        common = _COMMON.read_text(encoding="utf-8")
        return f"typedef {number} T;\ntypedef {whole} WHOLE;\n{prelude}\n{common}\n{self.text}"

    @cached_property
    def kernels(self) -> list[str]:
        """The names of the kernels in it."""
        return re.findall(r"^KERNEL void (\w+)\(", self.text, re.MULTILINE)

    def parameters(self, name: str) -> list[str]:
        """What a kernel is given after its range, in order: "ARRAY", "OUT", an array that it writes to, "int" or "T"."""
        found = re.search(rf"^KERNEL void {name}\(RANGE,([^{{]*)\) {{", self.text, re.MULTILINE)
        return [self._kind(parameter) for parameter in found.group(1).split(",")]

    @staticmethod
    def _kind(parameter: str) -> str:
        if "ARRAY" in parameter:
            return "ARRAY" if "const" in parameter else "OUT"
        return parameter.split()[0]


def results(grid: tuple | int) -> int:
    """How many results a grid has."""
    return grid if isinstance(grid, int) else prod(grid)


def checked(name: str, grid: tuple | int, arguments: tuple) -> tuple:
    """(dtype of T, the arguments with their numbers in the kernel's types). T is what the floating arrays are.

    Raises InputError where an array is not contiguous, TypeError where arrays are of two floating types.
    """
    if not 0 <= (count := results(grid)) < MOST_THREADS:
        raise InputError(
            f"{name}: expected fewer than {MOST_THREADS} results at once, got {count}; use smaller batches"
        )
    arrays = [a for a in arguments if not isinstance(a, numbers.Real)]
    if not all(a.flags.c_contiguous for a in arrays):
        raise InputError(f"{name}: expected contiguous arrays, got strides {[a.strides for a in arrays]}")
    dtypes = {a.dtype for a in arrays if a.dtype.kind == "f"}
    if len(dtypes) != 1 or any(a.dtype.itemsize != next(iter(dtypes)).itemsize for a in arrays):
        raise DtypeError(f"{name}: expected arrays of one floating dtype, got {sorted(map(str, dtypes))}")
    (dtype,) = dtypes
    return dtype, [_typed(a, dtype) for a in arguments]


def _typed(argument, dtype):
    if isinstance(argument, numbers.Integral):
        return np.int32(argument)  # an OverflowError where that does not fit
    return dtype.type(argument) if isinstance(argument, numbers.Real) else argument
