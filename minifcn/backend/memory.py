"""Memory: a one-line message when it runs out, on the host or on a GPU, and how freed memory is reused."""

import ctypes
import re

GPU_CODES = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> str | None:
    """A message that memory ran out, where, and how much was asked for; None for an error of another kind.

    NumPy and CuPy both raise a MemoryError when an array does not fit (CuPy's is cupy.cuda.memory.OutOfMemoryError). CUDA's
    own libraries, such as cuBLAS without room for its workspace, raise a RuntimeError with a code.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        if asked := re.match(r"Out of memory allocating ([\d,]+) bytes(?: \(allocated so far: ([\d,]+) bytes)?", text):
            message = f"out of memory on the GPU: {_size(asked[1])} asked for"
            return f"{message}, {_size(asked[2])} in use" if asked[2] else message
        return f"out of memory: {text[:1].lower()}{text[1:]}" if text else "out of memory"
    code = next((code for code in GPU_CODES if code in text), None)
    return f"out of memory on the GPU ({code})" if code else None


def _size(digits):
    """A number of bytes, written with commas, in the largest unit that it fills."""
    size = int(digits.replace(",", ""))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, malloc.h
KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it to the system. -> whether it does now

    Each step of training frees and asks for the same large arrays, and fresh pages for them cost some 7 % of a step
    (FCN-8s-mini, 128 × 128, batch 6). The process's memory then grows to the most it ever used and stays there, so this
    is for a program to decide, not a library. It works with glibc, in versions that accept both thresholds. The threshold
    for mmap comes first: where it is refused, nothing has changed. The other alone would end glibc's own adaptation,
    and every array would be mapped anew.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    if not mallopt(MMAP_THRESHOLD, KEPT):
        return False
    if not mallopt(TRIM_THRESHOLD, KEPT):
        mallopt(MMAP_THRESHOLD, 128 << 10)  # glibc's default
        return False
    return True
