"""The switch between array modules: NumPy on the CPU, CuPy on a GPU.

An operation never asks which device is "current"; it follows the arrays it is given (`array_module(x)`).
Only code that brings new data in, such as parameters at birth and batches in the training loop, goes through
`to_device`, and only code that takes results out goes through `to_host`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from ..errors import DeviceError, InputError
from . import cupy_kernels, numpy_kernels, tuning
from .cuda import Source as Source
from .memory import out_of_memory as out_of_memory
from .numpy_kernels import one_blas_thread as one_blas_thread
from .threads import set_threads as set_threads
from .threads import threads as threads
from .threads import threads_because as threads_because

log = logging.getLogger("minifcn.backend")


@dataclass(frozen=True)
class Device:
    """Everything the library needs to know about one kind of array."""

    name: str
    array_type: type
    xp: ModuleType  # the NumPy-like module that makes and transforms such arrays
    to_device: Callable  # NumPy array -> this device's array
    to_host: Callable  # this device's array -> NumPy array
    run_tiles: Callable  # run_tiles(task, tiles): call task(*tile) for each tile
    kept: Callable = lambda array, make: make(array)  # what was made of an array before, unless it has changed
    launch: Callable | None = None  # launch(source, name, count, *arguments): run a kernel of ours, where that can be
    set_tf32: Callable | None = None  # set_tf32(on): whether products round their float32 factors, where that can be
    in_tf32: Callable = lambda: False  # whether they do


_numpy = Device("numpy", np.ndarray, np, np.asarray, np.asarray, numpy_kernels.run_tiles, numpy_kernels.kept)
_devices = {"numpy": _numpy}
_current = _numpy


def register(device):
    """Make arrays of another kind known, so that `array_module` recognises them and `use` accepts their name."""
    _devices[device.name] = device


def use(name):
    """Choose where new parameters and batches are placed, and return one line that says what was chosen and why.

    name: "auto", which takes a working GPU and otherwise NumPy; "numpy" or "cpu"; "cupy" or "cuda"; or "cuda:1", the GPU
    of that number, for the thread that asks, as CUDA has it. The line also goes to the logger `minifcn.backend`; it is a
    warning if CuPy is installed and cannot be used.
    Raises InputError for an unknown name, RuntimeError if a GPU was asked for and does not work or is not there.
    """
    global _current
    meant, number = _meant(name)
    level, reason = logging.INFO, "as asked"
    if meant in ("auto", "cupy"):
        cupy, found = cupy_kernels.probe() if number is None else cupy_kernels.probe(number)
        if cupy is None and meant == "cupy":
            raise DeviceError(f"backend: CuPy cannot be used: {found}")
        if cupy is None:
            chosen, reason = "numpy", found
            level = logging.INFO if found == cupy_kernels.NOT_INSTALLED else logging.WARNING
        else:
            names = ("run_tiles", "launch", "set_tf32", "in_tf32")
            tools = {name: getattr(cupy_kernels, name) for name in names}
            register(Device("cupy", cupy.ndarray, cupy, cupy.asarray, cupy.asnumpy, **tools))
            chosen, reason = "cupy", found
    else:
        chosen = meant
    _current = _devices[chosen]
    line = f"backend {name}: using {chosen} ({reason})"
    log.log(level, line)
    return line


def use_tf32(on=True):
    """From now on let the chosen device multiply float32 matrices in TF32, or (False) no longer. For the thread that asks.

    NVIDIA's tensor cores, from Ampere on, then do the products, several times as fast: factors are rounded to 10 bits
    after the point, sums are float32. It is off unless somebody asks for it. Convolutions come out some 3e-4 off
    (relative, by norm), which is why Winograd's way, where it would be 3e-3, is then left alone. float64 stays as it is.
    Raises InputError on a device that cannot.
    """
    if _current.set_tf32 is None:
        raise InputError(f"TF32: only a GPU multiplies in it, and the device is {_current.name}")
    _current.set_tf32(on)


def multiplies_in_tf32(array):
    """Whether products with `array` are in TF32."""
    return array.dtype == "float32" and _device_of(array).in_tf32()


def _meant(name):
    """(auto, cupy or the name of a known device; the number of the GPU, or None) for a name that `use` was given."""
    kind, _, number = str(name).partition(":")
    if kind == "cuda" and number.isdecimal():
        return "cupy", int(number)
    meant = {"cpu": "numpy", "cuda": "cupy"}.get(name, name)
    if meant not in ("auto", "cupy", *_devices):
        raise InputError(
            f"backend: expected one of auto, cupy, {', '.join(_devices)}, cpu, cuda, or cuda:0 and so on; got {name!r}"
        )
    return meant, None


def _device_of(array):
    for device in _devices.values():
        if isinstance(array, device.array_type):
            return device
    known = ", ".join(device.array_type.__name__ for device in _devices.values())
    raise TypeError(f"expected an array ({known}), got {type(array).__name__}")


def array_module(array):
    """The NumPy-like module that `array` belongs to. Raises TypeError for anything but a known array."""
    return _device_of(array).xp


def to_device(array):
    """Place a NumPy array (or an array that is there already) on the chosen device."""
    if isinstance(array, _current.array_type):
        return array
    return _current.to_device(to_host(array))


def to_device_of(array, host):
    """Place the NumPy array `host` where `array` lives."""
    return _device_of(array).to_device(host)


def constant(like, make, *arguments):
    """make(*arguments), a NumPy array that is always the same for these arguments, where `like` lives. Not to be written to.

    It is sent there once and kept: a transfer in every call would let a GPU wait.
    """
    return _sent(_device_of(like).to_device, str(getattr(like, "device", "")), make, arguments)


@lru_cache(maxsize=256)
def _sent(to_device, place, make, arguments):
    """place: which of several GPUs, as part of what is remembered; in words, as CuPy's Device cannot be looked up."""
    made = make(*arguments)
    made.flags.writeable = False
    return to_device(made)


def to_host(array):
    """The same values as a NumPy array; NumPy arrays and Python numbers pass through."""
    for device in _devices.values():
        if isinstance(array, device.array_type):
            return device.to_host(array)
    return np.asarray(array)


def run_tiles(array, task, tiles):
    """Call task(*tile) for every tile on the device that `array` lives on: in threads on a CPU, in order on a GPU.

    Tasks must write to disjoint places, because nothing says in which order they run.
    """
    _device_of(array).run_tiles(task, tiles)


def einsum_into(out, subscripts, *operands):
    """out[...] = einsum(subscripts, *operands). NumPy's writes there directly; CuPy's einsum knows no `out`."""
    xp = array_module(out)
    if xp is np:
        np.einsum(subscripts, *operands, out=out)
    else:
        out[...] = xp.einsum(subscripts, *operands)


def has_kernels(array):
    """Whether the device that `array` lives on runs CUDA kernels: a GPU, or what stands in for one.

    Such a device takes an operation as a whole. What is cut into tiles for a CPU's caches would only be many launches.
    """
    return _device_of(array).launch is not None


def launch(source, name, count, *arguments):
    """Run the kernel `name` of a Source for i = 0 … count − 1, where the first of its arguments, an array, lives.

    arguments: contiguous arrays on that device, and numbers, which become int, or T where they are floats (`cuda`).
    Raises InputError for an array that is not contiguous.
    """
    if count:
        _device_of(arguments[0]).launch(source, name, count, *arguments)


def run_blocks(task, *arrays):
    """Call task(*blocks) for corresponding blocks of arrays of one shape, spread as `run_tiles` does.

    For what is done value by value. The blocks follow the order in which the first array lies in memory; their shape is
    nobody's business.
    """
    if arrays[0].nbytes <= tuning.BLOCK_BYTES or has_kernels(arrays[0]):
        task(*arrays)
        return
    order = sorted(range(arrays[0].ndim), key=lambda axis: -arrays[0].strides[axis])
    arrays = [a.transpose(order) for a in arrays]
    if all(a.flags.c_contiguous for a in arrays):
        arrays = [a.reshape(-1) for a in arrays]
    count = max(1, -(-arrays[0].nbytes // tuning.BLOCK_BYTES))
    axis = next((axis for axis, size in enumerate(arrays[0].shape) if size > 1), 0)  # the first that can be cut
    ahead = (slice(None),) * axis
    tiles = [tuple(a[(*ahead, part)] for a in arrays) for part in cut(arrays[0].shape[axis], count)]
    run_tiles(arrays[0], task, tiles)


def cut(size, count):
    """range(size) as at most `count` slices of nearly equal length, none of them empty unless size is 0."""
    step = max(1, -(-size // count))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)] or [slice(0, 0)]


def matmul(a, b, out=None, bias=None, then=None):
    """a @ b + bias, each thread working out some rows or some columns.   a (M, D), b (D, N), bias (N,) or None -> (M, N)

    What BLAS would do with threads of its own, were they not left asleep. out: where to write it.
    then: what changes each part of the result in place, as soon as it is there.
    """
    xp = array_module(a)
    rows, columns = len(a), b.shape[1]
    out = xp.empty((rows, columns), a.dtype) if out is None else out
    if bias is not None:
        bias = xp.broadcast_to(bias, out.shape)

    def part(piece):
        xp.matmul(a[piece[0]], b[:, piece[1]], out=out[piece])
        if bias is not None:
            out[piece] += bias[piece]
        if then is not None:
            then(out[piece])

    count = threads()
    if has_kernels(a) or 2 * rows * columns * a.shape[1] < tuning.WORTH_A_THREAD:
        count = 1
    elif rows >= columns:  # in pieces that are still warm when the bias is added
        count *= -(-out.nbytes // (count * tuning.PIECE_BYTES))
    everything = slice(None)
    if rows >= columns:
        tiles = [((piece, everything),) for piece in cut(rows, count)]
    else:
        tiles = [((everything, piece),) for piece in cut(columns, count)]
    run_tiles(out, part, tiles)
    return out


def kept(array, make):
    """make(array), or what it gave before if `array` still has the same values; where looking would cost more, make(array)."""
    return _device_of(array).kept(array, make)
