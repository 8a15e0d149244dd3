"""The only place that imports CuPy: is there a GPU that works, and how it runs the library's kernels."""

import os
import warnings
from contextlib import suppress
from functools import cache

import numpy as np

from ..errors import DeviceError
from .source import ONE_LANE, checked, results

NOT_INSTALLED = "CuPy is not installed"
PRELUDE = (
    """
#define KERNEL extern "C" __global__
#define DEVICE __device__ __forceinline__
#define ARRAY(type) type* __restrict__
#define UNROLL _Pragma("unroll")
#define EACH(i) for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
"""
    + ONE_LANE
)


def probe(number=None):
    """Return (cupy, which GPU) if a GPU multiplies two matrices correctly, else (None, the reason in one line).

    number: which GPU, counted from 0; it becomes this thread's. None: the one that CUDA has chosen.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's warnings say at length what the reason below says in a line
            import cupy
    except Exception as error:  # a broken CUDA set-up raises many types
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return None, NOT_INSTALLED
        return None, _one_line("CuPy is installed but does not load", error)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if count == 0:
            return None, "CuPy is installed but finds no GPU"
        if number is not None:
            if number >= count:
                return None, f"there is no cuda:{number}, only {', '.join(f'cuda:{i}' for i in range(count))}"
            cupy.cuda.Device(number).use()
        ones = cupy.ones((4, 4), cupy.float32)
        if float((ones @ ones).sum()) != 64.0:
            return None, "CuPy is installed but the GPU multiplies wrongly"
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    except Exception as error:
        return None, _one_line("CuPy is installed but has no working GPU", error)
    return cupy, f"GPU {properties['name'].decode()}, CuPy {cupy.__version__}"


def devices():
    """The names of the GPUs that CuPy sees, by number; none where CuPy, its driver or a GPU is missing."""
    try:
        import cupy

        runtime = cupy.cuda.runtime
        return [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]
    except Exception:  # as in `probe`, which says what is wrong
        return []


def libraries():
    """{name: path, or None where it is missing} of the CUDA libraries that CuPy loads for the work here.

    Products are cuBLAS's; every other kernel is compiled by NVRTC, with the headers that come with cudart. {} where the
    package that finds them, a part of CuPy from version 14 on, is not installed.
    """
    try:
        from cuda import pathfinder
    except ImportError:
        return {}
    found = {}
    for name in ("cublas", "nvrtc", "cudart"):
        found[name] = None
        with suppress(Exception):  # of several types, all of which mean that it cannot be loaded
            if name == "cudart":
                found[name] = pathfinder.find_nvidia_header_directory(name)
            else:
                found[name] = pathfinder.load_nvidia_dynamic_lib(name).abs_path
    return found


THREADS_IN_A_BLOCK = 256


def launch(source, name, grid, *arguments):
    """Run the kernel `name` of a Source on the GPU that holds the arrays, one thread per result."""
    dtype, arguments = checked(name, grid, arguments)
    count = results(grid)
    blocks = -(-count // THREADS_IN_A_BLOCK)
    with arguments[0].device:
        _kernel(source, name, str(dtype))((blocks,), (THREADS_IN_A_BLOCK,), (np.uint32(count), *arguments))


@cache
def _kernel(source, name, dtype):
    """Compiled by NVRTC at its first launch on each GPU; CuPy keeps the binary on disk for the next process."""
    import cupy

    return cupy.RawModule(code=source.complete(PRELUDE, dtype), options=("-std=c++14",)).get_function(name)


TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH of cublas_api.h; 0 is the default
AMPERE = 80  # the first compute capability that has it


def set_tf32(on):
    """Let this thread's cuBLAS multiply float32 in TF32, on the GPU that is chosen. Raises DeviceError before Ampere."""
    import cupy
    from cupy_backends.cuda.libs import cublas

    capability = int(cupy.cuda.Device().compute_capability)
    if on and capability < AMPERE:
        raise DeviceError(
            f"TF32: needs a GPU of compute capability {AMPERE / 10} or more, this one has {capability / 10}"
        )
    cublas.setMathMode(cupy.cuda.device.get_cublas_handle(), TF32 if on else 0)


def in_tf32():
    """Whether it multiplies in TF32, also if CuPy's own variable CUPY_TF32 asks for it."""
    import cupy
    from cupy_backends.cuda.libs import cublas

    asked = os.environ.get("CUPY_TF32", "0") not in ("", "0")
    return asked or cublas.getMathMode(cupy.cuda.device.get_cublas_handle()) == TF32


def _one_line(what, error):
    lines = str(error).strip().splitlines()
    return f"{what}: {type(error).__name__}: {lines[0].strip() if lines else 'no message'}"
