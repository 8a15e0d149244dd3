"""What it means, in one line, that memory ran out: on the host or on a GPU, whichever library said so."""

import re

GPU_CODES = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error):
    """That memory ran out, where, and how much was asked for; None for an error of another kind.

    NumPy and CuPy both raise a MemoryError when an array does not fit (CuPy's is cupy.cuda.memory.OutOfMemoryError). What
    CUDA's own libraries cannot get, such as cuBLAS its workspace, they report as a RuntimeError with a code.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        if asked := re.match(r"Out of memory allocating ([\d,]+) bytes(?: \(allocated so far: ([\d,]+) bytes)?", text):
            told = f"out of memory on the GPU: {_size(asked[1])} asked for"
            return f"{told}, {_size(asked[2])} in use" if asked[2] else told
        return f"out of memory: {text[:1].lower()}{text[1:]}" if text else "out of memory"
    code = next((code for code in GPU_CODES if code in text), None)
    return f"out of memory on the GPU ({code})" if code else None


def _size(digits):
    """A number of bytes written with commas, in a unit that suits it."""
    size = int(digits.replace(",", ""))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
