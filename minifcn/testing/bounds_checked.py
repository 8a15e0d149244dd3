"""CUDA kernels without a GPU: compiled as C++ and run by the CPU, one thread after the other, last to first.

It is slow, and it reports what a GPU would not: an access outside an array is an error here. It cannot find what only
many threads at once get wrong, which is why kernels are written so that no thread needs another (`backend.source`).
Results may differ in the last bit: a GPU multiplies and adds in one rounding, and CuPy lets it flush tiny numbers to 0.
Compiled libraries are cached in the user's cache folder, by the hash of their source.
"""

import ctypes
from functools import cache

import numpy as np

from ..backend import compiler
from ..backend.source import ONE_LANE, checked, results

COMPILER = compiler.compiler()
OPTIONS = ("-std=c++14", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror")

PRELUDE = (
    """
#include <cmath>
#include <type_traits>
using std::exp; using std::log; using std::sqrt;
extern "C" long long outside;
long long outside = 0;
template <class V> struct Bounded {
    V* values;
    long long size;
    V& operator[](long long i) const {
        static typename std::remove_const<V>::type nowhere;
        if (i >= 0 && i < size) return values[i];
        outside++;
        return nowhere = {};
    }
    operator Bounded<typename std::conditional<std::is_const<V>::value, int, const V>::type>() const { return {values, size}; }
};
#define KERNEL extern "C"
#define DEVICE static inline
#define ARRAY(type) Bounded<type>
#define UNROLL
#define EACH(i) for (unsigned i = count; i-- > 0;)
"""
    + ONE_LANE
)


class _Bounded(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("size", ctypes.c_longlong)]


def launch(source, name, grid, *arguments):
    """Run the kernel `name` for the results of a grid, last to first, on NumPy arrays. Raises IndexError if it reached outside of one."""
    dtype, arguments = checked(name, grid, arguments)
    library = _library(source, str(dtype))
    getattr(library, name)(ctypes.c_uint(results(grid)), *map(_as_c, arguments))
    outside = ctypes.c_longlong.in_dll(library, "outside")
    if outside.value:
        reached, outside.value = outside.value, 0
        raise IndexError(f"{source.path.name}: {name} reached outside of an array {reached} times")


def _as_c(argument):
    if isinstance(argument, np.ndarray):
        return _Bounded(argument.ctypes.data, argument.size)
    return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())


@cache
def _library(source, dtype):
    """The compiled library of a source for arrays of a dtype. Raises CompileError."""
    text = source.complete(PRELUDE, dtype)
    return ctypes.CDLL(str(compiler.library(source.path.name, text, OPTIONS)))
