"""How independent tiles of work are spread over the CPU's cores.

A matrix product already uses every core, but what surrounds it (gathering patches, adding them back) runs on one.
So the work is cut into tiles, each thread does a whole tile, gather and product together while the data is warm,
and BLAS is held to one thread meanwhile. NumPy releases the interpreter's lock in both.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController

WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_freed_memory():
    """Ask glibc to reuse freed memory instead of returning it to the system, where that C library is the one in use.

    Each step of training frees and asks for the same large arrays; fetching fresh pages for them every time cost a
    sixth of a step.
    """
    trim_threshold, mmap_threshold = -1, -3  # names of mallopt's parameters in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; everything works without
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)


_keep_freed_memory()


@cache
def _pool():
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="minifcn")


@cache
def _blas():
    return ThreadpoolController()


def run_tiles(task, tiles):
    """Call task(*tile) for every tile, on all cores. A single tile is left to BLAS and its own threads."""
    if len(tiles) == 1 or WORKERS == 1:
        for tile in tiles:
            task(*tile)
        return
    with _blas().limit(limits=1, user_api="blas"):
        for _ in _pool().map(lambda tile: task(*tile), tiles):  # walking the results re-raises what a task raised
            pass
