"""How independent tiles of work are spread over the CPU's cores.

A matrix product already uses every core, but what surrounds it (gathering patches, adding them back) runs on one.
So the work is cut into tiles, each thread does a whole tile, gather and product together while the data is warm,
and BLAS is held to one thread meanwhile. NumPy releases the interpreter's lock in both.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController

WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
