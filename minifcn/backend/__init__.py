"""The switch between array modules: NumPy on the CPU, CuPy on a GPU.

An operation never asks which device is "current"; it follows the arrays it is given (`array_module(x)`).
Only code that brings new data in, such as parameters at birth and batches in the training loop, goes through
`to_device`, and only code that takes results out goes through `to_host`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from . import cupy_kernels, numpy_kernels

WORKERS = numpy_kernels.WORKERS
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


_numpy = Device("numpy", np.ndarray, np, np.asarray, np.asarray, numpy_kernels.run_tiles)
_devices = {"numpy": _numpy}
_current = _numpy


def register(device):
    """Make arrays of another kind known, so that `array_module` recognises them and `use` accepts their name."""
    _devices[device.name] = device


def use(name):
    """Choose where new parameters and batches are placed, and return one line that says what was chosen and why.

    name: "numpy", "cupy", or "auto", which takes a working GPU and otherwise NumPy. The line also goes to the
    logger `minifcn.backend`; it is a warning if CuPy is installed and cannot be used.
    Raises ValueError for an unknown name, RuntimeError if "cupy" was asked for and does not work.
    """
    global _current
    if name not in ("auto", "cupy") and name not in _devices:
        raise ValueError(f"backend: expected one of auto, cupy, {', '.join(_devices)}; got {name!r}")
    level, reason = logging.INFO, "as asked"
    if name in ("auto", "cupy"):
        cupy, found = cupy_kernels.probe()
        if cupy is None and name == "cupy":
            raise RuntimeError(f"backend: CuPy cannot be used: {found}")
        if cupy is None:
            chosen, reason = "numpy", found
            level = logging.INFO if found == cupy_kernels.NOT_INSTALLED else logging.WARNING
        else:
            register(Device("cupy", cupy.ndarray, cupy, cupy.asarray, cupy.asnumpy, cupy_kernels.run_tiles))
            chosen, reason = "cupy", found
    else:
        chosen = name
    _current = _devices[chosen]
    line = f"backend {name}: using {chosen} ({reason})"
    log.log(level, line)
    return line


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


BLOCK_BYTES = 1 << 20  # about what one core's cache holds


def run_blocks(array, task):
    """Call task(block) for index tuples that cut `array` into blocks along its first two axes, spread as `run_tiles` does.

    For what is done value by value: a block of an array and of all others of its shape is `array[block]`.
    """
    count = -(-array.nbytes // BLOCK_BYTES)
    if count <= 1:
        task((Ellipsis,))
        return
    rows, columns = (array.shape + (1,))[:2]
    row_step = max(1, rows // count)
    column_step = max(1, columns * rows // count) if rows < count else columns
    run_tiles(
        array,
        task,
        [
            ((slice(r, r + row_step), slice(c, c + column_step))[: array.ndim],)
            for r in range(0, rows, row_step)
            for c in range(0, columns, column_step)
        ],
    )
