"""The devices that are known, and the one that is chosen: NumPy on the CPU, CuPy on a GPU.

An operation never asks which device is chosen; it follows the arrays it is given (`array_module(x)`).
Only code that brings new data in, such as new parameters and batches in the training loop, goes through
`to_device`, and only code that takes results out goes through `to_host`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DeviceError, InputError
from . import cpu, cuda, native
from .source import Source, results

log = logging.getLogger("minifcn.backend")
Array = Any  # of NumPy or CuPy: no type is common to both, and CuPy need not be installed


@dataclass(frozen=True)
class Device:
    """Everything the library needs to know about one kind of array."""

    name: str
    array_type: type
    xp: ModuleType  # the NumPy-like module that makes and transforms such arrays
    to_device: Callable  # NumPy array -> this device's array
    to_host: Callable  # this device's array -> NumPy array
    run_tiles: Callable  # run_tiles(task, tiles): call task(*tile) for each tile
    launch: Callable | None = None  # launch(source, name, grid, *arguments): run a kernel; None without kernels
    set_tf32: Callable | None = None  # set_tf32(on): let products round float32 factors; None where they cannot
    in_tf32: Callable = lambda: False  # whether they do


_current = Device("numpy", np.ndarray, np, np.asarray, np.asarray, cpu.run_tiles, native.launch)
_devices = {"numpy": _current}


def register(device: Device) -> None:
    """Register another kind of array, so that `array_module` recognises them and `use` accepts their name."""
    _devices[device.name] = device


def use(name: str) -> str:
    """Choose where new parameters and batches are placed. -> one line that says what was chosen and why

    name: "auto", which takes a working GPU and otherwise NumPy; "numpy" or "cpu"; "cupy" or "cuda"; or "cuda:1", the GPU
    of that number, for the calling thread, as in CUDA. The line also goes to the logger `minifcn.backend`, as a
    warning if CuPy is installed and cannot be used.
    Raises InputError for an unknown name, DeviceError if a GPU was asked for and does not work or is not there.
    """
    global _current
    chosen, number = _parse(name)
    level, reason = logging.INFO, "as asked"
    if chosen in ("auto", "cupy"):
        cupy, reason = cuda.probe() if number is None else cuda.probe(number)
        if cupy is not None:
            arrays = cupy.ndarray, cupy, cupy.asarray, cupy.asnumpy
            register(Device("cupy", *arrays, cpu.in_order, cuda.launch, cuda.set_tf32, cuda.in_tf32))
            chosen = "cupy"
        elif chosen == "cupy":
            raise DeviceError(f"backend: CuPy cannot be used: {reason}")
        else:
            chosen = "numpy"
            level = logging.INFO if reason == cuda.NOT_INSTALLED else logging.WARNING
    _current = _devices[chosen]
    line = f"backend {name}: using {chosen} ({reason})"
    log.log(level, line)
    return line


def _parse(name):
    """(auto, cupy or the name of a known device; the number of the GPU, or None) for a name that `use` was given."""
    kind, _, number = str(name).partition(":")
    if kind == "cuda" and number.isdecimal():
        return "cupy", int(number)
    device = {"cpu": "numpy", "cuda": "cupy"}.get(name, name)
    if device not in ("auto", "cupy", *_devices):
        raise InputError(
            f"backend: expected one of auto, cupy, {', '.join(_devices)}, cpu, cuda, or cuda:0 and so on; got {name!r}"
        )
    return device, None


def use_tf32(on: bool = True) -> None:
    """Let the chosen device multiply float32 matrices in TF32 from now on, or (False) no longer. For the calling thread.

    NVIDIA's tensor cores, from Ampere on, then do the products, several times as fast: factors are rounded to 10 bits
    of mantissa, sums are float32. It is off by default. It changes convolutions by some 3e-4 (relative,
    by norm); Winograd's algorithm, where that would be 3e-3, is then not used. float64 is not affected.
    Raises DeviceError on a device that cannot.
    """
    if _current.set_tf32 is None:
        raise DeviceError(f"TF32: only a GPU multiplies in it, and the device is {_current.name}")
    _current.set_tf32(on)


def multiplies_in_tf32(array: Array) -> bool:
    """Whether products with `array` are in TF32."""
    return array.dtype == "float32" and device_of(array).in_tf32()


def device_of(array: Array) -> Device:
    """The Device that `array` lives on. Raises TypeError for anything but a known array."""
    for device in _devices.values():
        if isinstance(array, device.array_type):
            return device
    known = ", ".join(device.array_type.__name__ for device in _devices.values())
    raise TypeError(f"expected an array ({known}), got {type(array).__name__}")


def array_module(array: Array) -> ModuleType:
    """The NumPy-like module that `array` belongs to. Raises TypeError for anything but a known array."""
    return device_of(array).xp


def to_device(array: Array) -> Array:
    """Place a NumPy array (or an array that is there already) on the chosen device."""
    if isinstance(array, _current.array_type):
        return array
    return _current.to_device(to_host(array))


def to_device_of(array: Array, host: np.ndarray) -> Array:
    """Place the NumPy array `host` where `array` lives."""
    return device_of(array).to_device(host)


def to_host(array: Array) -> np.ndarray:
    """The same values as a NumPy array; NumPy arrays and Python numbers pass through."""
    for device in _devices.values():
        if isinstance(array, device.array_type):
            return device.to_host(array)
    return np.asarray(array)


def constant(like: Array, make: Callable, *arguments: Any) -> Array:
    """make(*arguments), a NumPy array determined by these arguments, where `like` lives. Read-only.

    It is sent there once and cached: a transfer in every call would stall a GPU.
    """
    return _constant(device_of(like).to_device, str(getattr(like, "device", "")), make, arguments)


@lru_cache(maxsize=256)
def _constant(to_device, place, make, arguments):
    """place: which of several GPUs, as part of the key; a string, because CuPy's Device cannot be hashed."""
    array = make(*arguments)
    array.flags.writeable = False
    return to_device(array)


def einsum_into(out: Array, subscripts: str, *operands: Array) -> None:
    """out[...] = einsum(subscripts, *operands). NumPy's writes there directly; CuPy's einsum has no argument `out`."""
    xp = array_module(out)
    if xp is np:
        np.einsum(subscripts, *operands, out=out)
    else:
        out[...] = xp.einsum(subscripts, *operands)


def has_kernels(array: Array) -> bool:
    """Whether the device that `array` lives on runs every kernel, and takes an operation as a whole: a GPU, or a stand-in for one.

    There, tiles that fit a CPU's caches would only mean many launches.
    """
    device = device_of(array)
    return device.launch is not None and device.array_type is not np.ndarray


def runs(source: Source, array: Array) -> bool:
    """Whether the kernels of a source run where `array` lives: on a GPU, or compiled for the CPU (`native`)."""
    return native.runs(source, array.dtype) if isinstance(array, np.ndarray) else has_kernels(array)


def launch(source: Source, name: str, grid: tuple | int, *arguments: Any) -> None:
    """Run the kernel `name` of a Source on the device of its first argument, an array.

    grid: how many results there are, (lines, columns, channels) for a kernel of EACH_LANES, a number for one of EACH.
    arguments: contiguous arrays on that device, and numbers, which become int, or T where they are floats (`source`).
    Raises InputError for an array that is not contiguous.
    """
    if results(grid):
        device_of(arguments[0]).launch(source, name, grid, *arguments)
