"""Sums over the GPUs of several processes by NCCL, on a stream of their own beside the one that computes."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .registry import Array, array_module, to_device


def place() -> tuple[str | None, str | None]:
    """(which of the host's GPUs is chosen, by its place on the bus, None without one; why NCCL cannot be used there, None if it can)"""
    if array_module(to_device(np.empty(0))).__name__ != "cupy":
        return None, "computes without a GPU"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, where it finds no NCCL, which is said below
        from cupy import cuda
        from cupy.cuda import nccl
    bus = cuda.runtime.deviceGetPCIBusId(cuda.runtime.getDevice())
    return bus, None if nccl.available else "CuPy finds no NCCL, which pip install nvidia-nccl-cu12 brings, or -cu13"


def new_identity() -> Any:
    """The identity that all processes must share to be joined."""
    from cupy.cuda import nccl

    return nccl.get_unique_id()


class GPUs:
    """The chosen GPUs of `size` processes, which all create this at the same time. Raises NCCL's or CUDA's error if that fails."""

    def __init__(self, size: int, identity: Any, rank: int):
        from cupy import cuda
        from cupy.cuda import nccl

        self._cuda, self._sum = cuda, nccl.NCCL_SUM
        self._types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        self._joined = nccl.NcclCommunicator(size, identity, rank)
        self._stream = cuda.Stream(non_blocking=True)

    def start_sum(self, array: Array) -> Callable[[], Array]:
        """Begin a sum over all processes as soon as the array is computed; the host goes on.

        -> a function that gives the sum: GPU work started after its call waits for the sum, the host does not
        """
        xp = array_module(array)
        array = xp.ascontiguousarray(array)
        total, stream = xp.empty_like(array), self._stream
        stream.wait_event(self._cuda.get_current_stream().record())
        kind = self._types[str(array.dtype)]
        self._joined.allReduce(array.data.ptr, total.data.ptr, array.size, kind, self._sum, stream.ptr)
        # CuPy gives freed memory to whatever the computing stream does next: the array has to stay until that waits.
        done, sent = stream.record(), [array]

        def wait():
            self._cuda.get_current_stream().wait_event(done)
            sent.clear()
            return total

        return wait
