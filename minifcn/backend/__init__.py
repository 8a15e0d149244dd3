"""Where arrays live and what works on them: NumPy with threads on the CPU, CuPy on a GPU."""

from .cpu import one_blas_thread
from .memory import keep_freed_memory, out_of_memory
from .parallel import cut, matmul, run_blocks, run_tiles
from .registry import (
    Device,
    array_module,
    constant,
    einsum_into,
    has_kernels,
    launch,
    log,
    multiplies_in_tf32,
    register,
    to_device,
    to_device_of,
    to_host,
    use,
    use_tf32,
)
from .source import Source
from .threads import set_threads, threads, threads_because

__all__ = [
    "Device",
    "Source",
    "array_module",
    "constant",
    "cut",
    "einsum_into",
    "has_kernels",
    "keep_freed_memory",
    "launch",
    "log",
    "matmul",
    "multiplies_in_tf32",
    "one_blas_thread",
    "out_of_memory",
    "register",
    "run_blocks",
    "run_tiles",
    "set_threads",
    "threads",
    "threads_because",
    "to_device",
    "to_device_of",
    "to_host",
    "use",
    "use_tf32",
]
