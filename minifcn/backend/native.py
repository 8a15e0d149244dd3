"""The library's own kernels on a CPU: compiled once by the C++ compiler that is there, for this processor.

A kernel's text (`source`) is compiled for vectors of 16, of 4 and of a single value, which make up any number of channels.
Calls go through ctypes, which lets go of Python's lock: two threads are two threads. Nothing is compiled before it is
needed, and then kept in the user's cache folder (`compiler`). Without a compiler, or where it fails, there is NumPy.
"""

import ctypes
import logging
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import compiler, cpu, tuning
from .source import C_TYPES, Source, checked
from .threads import threads

log = logging.getLogger("minifcn.backend")
VARIABLE = "MINIFCN_NATIVE"
WIDTHS = (16, 4, 1)
OPTIONS = (
    "-std=c++14", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-w",
)  # fmt: skip

PRELUDE = """
#include <math.h>
template <class V, int N> struct Vector {
    typedef V type __attribute__((vector_size(N * sizeof(V)), aligned(sizeof(V)), may_alias));
};
template <class V> struct Vector<V, 1> { typedef V type; };
template <class lanes, class V> inline auto& vector_at(V* p) {
    return *(typename Vector<V, int(sizeof(lanes) / sizeof(T))>::type*)p;
}
#define LANES int(sizeof(lanes) / sizeof(T))
#define whole_lanes typename Vector<WHOLE, LANES>::type
#define KERNEL template <class lanes> static
#define DEVICE static inline
#define LANES_DEVICE template <class lanes> static inline
#define ARRAY(type) type* __restrict__
#define AT(array, index) vector_at<lanes>(&(array)[index])
#define RANGE int begin, int end, int from, int to
#define RUN(results) results
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define EACH(i) for (int i = from; i < to; i += LANES)
#define EACH_LANES(line, column, channel, columns, channels, results) \\
    for (int line = begin; line < end; line++) \\
        for (int column = 0; column < (columns); column += results) \\
            for (int channel = from; channel < to; channel += LANES)
template <class V, class lanes, int N = LANES> struct Converted {
    static typename Vector<V, N>::type of(lanes x) { return __builtin_convertvector(x, typename Vector<V, N>::type); }
};
template <class V, class lanes> struct Converted<V, lanes, 1> {
    static V of(lanes x) { return V(x); }
};
LANES_DEVICE lanes square_root(lanes x) {
    lanes roots;
    for (int i = 0; i < LANES; i++) ((T*)&roots)[i] = T(sqrt(((T*)&x)[i]));
    return roots;
}
LANES_DEVICE lanes logarithm(lanes x) {
    lanes logarithms;
    for (int i = 0; i < LANES; i++) ((T*)&logarithms)[i] = sizeof(T) == 4 ? T(logf(((T*)&x)[i])) : T(log(((T*)&x)[i]));
    return logarithms;
}
// e^x for x <= 0: 2^n times the series of e^r, |r| <= log(2) / 2; 0 where that is smaller than any normal number.
LANES_DEVICE lanes exponential(lanes x) {
    const bool single = sizeof(T) == 4;
    const T lowest = single ? T(-87.3) : T(-708.3);
    lanes far = x < lowest ? lanes() + lowest : x;
    whole_lanes n = Converted<WHOLE, lanes>::of(far * T(1.4426950408889634) - T(0.5));
    lanes times = Converted<T, whole_lanes, LANES>::of(n);
    lanes r = far - times * (single ? T(0.693359375) : T(0.6931471803691238));
    r = r - times * (single ? T(-2.12194440054690583e-4) : T(1.9082149292705877e-10));
    lanes sum = lanes() + T(1);
    UNROLL for (int k = single ? 7 : 13; k > 0; k--) sum = T(1) + sum * r * (T(1) / T(k));
    whole_lanes bits = (n + WHOLE(single ? 127 : 1023)) << WHOLE(single ? 23 : 52);
    lanes power;
    __builtin_memcpy(&power, &bits, sizeof power);
    lanes scaled = sum * power;
    return x < lowest ? lanes() : scaled;
}
"""

_wanted = None  # what `use_native` was told


def use_native(on: bool | None = True) -> None:
    """Run kernels on the CPU, compiled, from now on, or (False) leave it all to NumPy; None: as the environment says.

    MINIFCN_NATIVE=0 in the environment means NumPy. Results differ by rounding.
    """
    global _wanted
    _wanted = on


def problem() -> str | None:
    """Why kernels do not run on the CPU, in words; None where they do, or will once they are compiled."""
    if _wanted is False or (_wanted is None and os.environ.get(VARIABLE, "").strip() == "0"):
        return "switched off" if _wanted is False else f"{VARIABLE}=0"
    return None if compiler.compiler() else "no C++ compiler was found (g++, clang++, or pip install ziglang)"


def runs(source: Source, dtype: np.dtype) -> bool:
    """Whether the kernels of a source run on the CPU for arrays of this dtype. The first call compiles them."""
    return (_environment_allows() if _wanted is None else _wanted) and _is_compiled(source, dtype)


@cache
def _is_compiled(source, dtype):
    return not source.gpu_only and _libraries(str(dtype)).get(source.path) is not None


@cache
def _environment_allows():
    return os.environ.get(VARIABLE, "").strip() != "0"


def launch(source: Source, name: str, grid: tuple | int, *arguments: Any) -> None:
    """Run the kernel `name` over a grid, (lines, columns, channels) or so many values, its lines shared out among threads."""
    dtype = arguments[0].dtype
    passed, read = [], 0
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            if not argument.flags.c_contiguous or (argument.dtype is not dtype and argument.dtype.kind == "f"):
                checked(name, grid, arguments)  # which says what is wrong
            read += argument.nbytes
            argument = argument.ctypes.data
        passed.append(argument)
    functions, count = _functions(source, name, dtype), 1 if read < tuning.BYTES_WORTH_A_THREAD else threads()
    flat = isinstance(grid, int)
    lines, channels = (grid, grid) if flat else (grid[0], grid[2])

    def part(begin, end):
        start, stop = (begin, end) if flat else (0, channels)
        for width, function in functions:
            if start + width <= stop:
                whole = stop - (stop - start) % width
                function(begin, end, start, whole, *passed)
                start = whole

    if count == 1:
        part(0, lines)
        return
    # Some more parts than threads: they do not all go equally fast.
    step = -(-lines // (4 * count))
    step = -(-step // WIDTHS[0]) * WIDTHS[0] if flat else step
    cpu.run_tiles(part, [(first, min(first + step, lines)) for first in range(0, lines, step)])


@cache
def _functions(source, name, dtype):
    """[(width, the kernel for it)]"""
    library = _libraries(str(dtype))[source.path]
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    kinds = {"ARRAY": ctypes.c_void_p, "int": ctypes.c_int, "T": number}
    kind = ctypes.CFUNCTYPE(None, *4 * [ctypes.c_int], *(kinds[kind] for kind in source.parameters(name)))
    return [(width, kind(ctypes.c_void_p.in_dll(library, f"{name}_{width}").value)) for width in WIDTHS]


@cache
def _libraries(dtype):
    """{path of a source: its library for arrays of this dtype, or None where it does not compile}; all of minifcn's at once."""
    if dtype not in C_TYPES or problem():
        return {}
    start = time.perf_counter()
    paths = sorted(Path(__file__).parents[1].rglob("*.cu"))
    sources = [source for path in paths if "AT(" in (source := Source(path)).text]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip([s.path for s in sources], pool.map(lambda s: _library(s, dtype), sources), strict=True))
    if (seconds := time.perf_counter() - start) > 0.2:
        log.info("kernels compiled for this processor in %.1f s by %s", seconds, " ".join(compiler.compiler()))
    return found


def _library(source, dtype):
    number, _ = C_TYPES[dtype]
    pointers = [
        f'extern "C" {{ void* {name}_{width} = (void*){name}<Vector<{number}, {width}>::type>; }}'
        for name in source.kernels
        for width in WIDTHS
    ]
    text = "\n".join([source.complete(PRELUDE, dtype), *pointers])
    try:
        return ctypes.CDLL(str(compiler.library(source.path.stem, text, OPTIONS, _processor())))
    except (compiler.CompileError, OSError) as error:
        log.warning("kernels are left to NumPy: %s", str(error).strip().splitlines()[0])
        return None


@cache
def _processor():
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
