"""Where arrays live and what works on them: NumPy with threads on the CPU, CuPy on a GPU."""

from .compiler import use_native
from .cpu import one_blas_thread
from .memory import keep_freed_memory, out_of_memory
from .native import has_wide_registers
from .native import problem as native_problem
from .parallel import cut, matmul, run_blocks, run_tiles
from .registry import (
    Array,
    Device,
    array_module,
    constant,
    einsum_into,
    has_kernels,
    launch,
    log,
    multiplies_in_tf32,
    register,
    runs,
    to_device,
    to_device_of,
    to_host,
    use,
    use_tf32,
)
from .source import Source
from .threads import order_of_sums, set_threads, sum_parts, threads, threads_because

# fmt: off
__all__ = [
    "one_blas_thread", "keep_freed_memory", "out_of_memory", "cut", "matmul", "run_blocks", "run_tiles", "Array",
    "Device", "array_module", "constant", "einsum_into", "has_kernels", "has_wide_registers", "launch", "log", "multiplies_in_tf32",
    "register", "runs", "to_device", "to_device_of", "to_host", "use", "use_tf32", "Source", "set_threads", "sum_parts", "order_of_sums", "threads",
    "threads_because", "native_problem", "use_native",
]
