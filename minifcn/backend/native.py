"""The library's own kernels on a CPU: compiled once, by the C++ compiler at hand, for this processor.

A kernel's text (`source`) is compiled for vectors of 16, of 4 and of a single value, which make up any number of channels.
Calls go through ctypes, which releases Python's lock, so threads run in parallel. Nothing is compiled before it is
needed; what is compiled is kept in the user's cache folder (`compiler`). Without a compiler, or where it fails, there is NumPy.
"""

import ctypes
import platform
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import compiler, cpu, helpers, tuning
from .source import C_TYPES, MOST_THREADS, Source, checked
from .threads import threads

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
template <class V, int N> struct Vector<const V, N> { typedef const typename Vector<V, N>::type type; };
template <class V> struct Vector<const V, 1> { typedef const V type; };
template <class lanes, class V> inline auto& vector_at(V* p) {
    return *(typename Vector<V, int(sizeof(lanes) / sizeof(T))>::type*)p;
}
#define LANES int(sizeof(lanes) / sizeof(T))
#define WIDEST 16
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
struct Argument {  // of a kernel, as Python packs it
    long long bits;
    operator int() const { return int(bits); }
    operator T() const { double number; __builtin_memcpy(&number, &bits, 8); return T(number); }
    template <class V> operator V*() const { return (V*)(__UINTPTR_TYPE__)bits; }
};
typedef void (*Part)(const void* job, int part);
typedef void (*Share)(Part part, const void* job, int parts, int helpers);
struct Grid {
    void (*kernel)(int begin, int end, int from, int to, const Argument* arguments);
    const Argument* arguments;
    long long lines, channels, step;  // channels 0: lines are values
};
static void part_of(const void* job, int part) {
    const Grid& grid = *(const Grid*)job;
    long long begin = part * grid.step, end = begin + grid.step < grid.lines ? begin + grid.step : grid.lines;
    bool flat = grid.channels == 0;
    grid.kernel(begin, end, flat ? begin : 0, flat ? end : grid.channels, grid.arguments);
}
static void share_out(Share share, const Grid& grid, int helpers) {
    int parts = (int)((grid.lines + grid.step - 1) / grid.step);
    if (share) return share(part_of, &grid, parts, helpers);
    for (int part = 0; part < parts; part++) part_of(&grid, part);
}
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


def runs(source: Source, dtype: np.dtype) -> bool:
    """Whether the kernels of a source run on the CPU for arrays of this dtype. The first call compiles them."""
    return compiler.is_wanted() and _is_compiled(source, dtype) and compiler.problem() is None


def problem() -> str | None:
    """Why NumPy does the kernels' work on the CPU, in words; None where they run. This compiles them, the only way to know."""
    if compiler.problem() is None and _libraries("float32"):
        helpers.share()
    return compiler.problem()


@cache
def _is_compiled(source, dtype):
    return not source.gpu_only and _libraries(str(dtype)).get(source.path) is not None


def has_wide_registers() -> bool:
    """Whether a vector of 16 float32 is one register of this processor: AVX-512."""
    return "avx512f" in _processor()


def launch(source: Source, name: str, grid: tuple | int, *arguments: Any) -> None:
    """Run the kernel `name` over a grid, (lines, columns, channels) or a number of values, its lines shared out among threads."""
    dtype = arguments[0].dtype
    passed, read = [], 0
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            if not argument.flags.c_contiguous or argument.itemsize != dtype.itemsize:
                checked(name, grid, arguments)  # which says what is wrong
            read += argument.nbytes
            argument = _address(argument)
        passed.append(argument)
    call, layout, written = _call(source, name, dtype)
    for i in written:
        if not arguments[i].flags.writeable:
            raise ValueError(f"{name}: an array to write to is read-only")
    worth = read >= tuning.BYTES_WORTH_A_HELPER and not cpu.in_a_tile()
    helping = helpers.ready(threads() - 1) if worth else 0
    lines, _, channels = (grid, 1, 0) if isinstance(grid, int) else grid
    if lines >= MOST_THREADS:
        checked(name, grid, arguments)
    # A few more parts than threads, which do not all run equally fast.
    step = -(-lines // (4 * (helping + 1) if helping else 1))
    if not channels:  # values, in whole vectors
        step = -(-step // WIDTHS[0]) * WIDTHS[0]
    call(helpers.share(), layout.pack(*passed), lines, channels, step, helping)


def _address(array):
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data  # which takes four times as long


@cache
def _call(source, name, dtype):
    """(the C function that runs a kernel over its grid, how its arguments are packed, eight bytes each, which it writes to)"""
    run = getattr(_libraries(str(dtype))[source.path], f"run_{name}")
    run.argtypes, run.restype = [ctypes.c_void_p, ctypes.c_char_p, *4 * [ctypes.c_int]], None
    kinds = source.parameters(name)
    layout = struct.Struct("".join({"ARRAY": "Q", "OUT": "Q", "int": "q", "T": "d"}[kind] for kind in kinds))
    return run, layout, [i for i, kind in enumerate(kinds) if kind == "OUT"]


@cache
def _libraries(dtype):
    """{path of a source: its library for arrays of this dtype, or None where it does not compile}; all of minifcn's at once."""
    if dtype not in C_TYPES or compiler.problem():
        return {}
    paths = sorted(Path(__file__).parents[1].rglob("*.cu"))
    sources = [source for path in paths if "AT(" in (source := Source(path)).text]
    if _library(sources[0], dtype) is None:  # a compiler that cannot do this one need not try the others
        return {}
    with ThreadPoolExecutor(threads()) as pool:
        return dict(zip([s.path for s in sources], pool.map(lambda s: _library(s, dtype), sources), strict=True))


def _library(source, dtype):
    text = "\n".join(
        [source.complete(PRELUDE, dtype), *(_entry(name, source.parameters(name)) for name in source.kernels)]
    )
    try:
        return compiler.opened(source.path.name, text, OPTIONS, _processor())
    except (compiler.CompileError, OSError) as error:
        compiler.give_up(error)
        return None


def _entry(name, parameters):
    """The C function through which Python runs a kernel."""
    arguments = "".join(f", a[{i}]" for i in range(len(parameters)))
    widths = "".join(
        f"if (int whole = (to - from) / {width} * {width}) "
        f"{name}<Vector<T, {width}>::type>(begin, end, from, from + whole{arguments}), from += whole;\n"
        for width in WIDTHS
    )
    return f"""static void part_of_{name}(int begin, int end, int from, int to, const Argument* a) {{\n{widths}}}
extern "C" void run_{name}(Share share, const Argument* a, int lines, int channels, int step, int helpers) {{
    Grid grid = {{part_of_{name}, a, lines, channels, step}};
    share_out(share, grid, helpers);
}}"""


@cache
def _processor(description=Path("/proc/cpuinfo")):
    """What -march=native depends on."""
    try:
        lines = description.read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
