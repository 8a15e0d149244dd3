"""CUDA kernels without a GPU: compiled as C++ and run by the CPU, one thread after the other, last to first.

It is slow, and it reports what a GPU would not: an access outside an array is an error here. It cannot find what only
many threads at once get wrong, which is why kernels are written so that no thread needs another (`backend.source`).
Results may differ in the last bit: a GPU multiplies and adds in one rounding, and CuPy lets it flush tiny numbers to 0.
Compiled libraries are cached in the user's cache folder, by the hash of their source.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from ..backend.source import checked

COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
OPTIONS = ["-std=c++14", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unknown-pragmas"]

PRELUDE = """
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
};
#define KERNEL extern "C"
#define DEVICE static inline
#define ARRAY(type) Bounded<type>
#define EACH(i, count) for (unsigned i = count; i-- > 0;)
"""


class CompileError(RuntimeError):
    """A source is not C++; the message has the compiler's first words."""


class _Bounded(ctypes.Structure):
    _fields_ = [("values", ctypes.c_void_p), ("size", ctypes.c_longlong)]


def launch(source, name, count, *arguments):
    """Run the kernel `name` for i = count − 1 … 0 on NumPy arrays. Raises IndexError if it reached outside of one."""
    dtype, arguments = checked(name, count, arguments)
    library = _library(source, str(dtype))
    getattr(library, name)(ctypes.c_uint(count), *map(_as_c, arguments))
    outside = ctypes.c_longlong.in_dll(library, "outside")
    if outside.value:
        reached, outside.value = outside.value, 0
        raise IndexError(f"{source.path.name}: {name} reached outside of an array {reached} times")


def _as_c(argument):
    if isinstance(argument, np.ndarray):
        return _Bounded(argument.ctypes.data, argument.size)
    return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())


@cache
def _folder():
    """The folder of compiled libraries: in the user's cache, or, where that is not writable, one for this process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minifcn"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="minifcn-"))


@cache
def _library(source, dtype):
    """The compiled library of a source for arrays of a dtype. Raises CompileError."""
    text = source.complete(PRELUDE, dtype)
    name = hashlib.sha256("\n".join([text, COMPILER, *OPTIONS]).encode()).hexdigest()
    folder = _folder()
    cached = folder / f"{source.path.stem}-{name[:32]}.so"
    if not cached.exists():
        with tempfile.TemporaryDirectory(dir=folder) as workplace:
            code, made = Path(workplace) / "kernels.cpp", Path(workplace) / "kernels.so"
            code.write_text(text, encoding="utf-8")
            done = subprocess.run([COMPILER, *OPTIONS, "-o", made, code], capture_output=True, text=True)
            if done.returncode:
                raise CompileError(f"{source.path.name}: {COMPILER}: {done.stderr[:2000]}")
            os.replace(made, cached)
    return ctypes.CDLL(str(cached))
