"""How independent tiles of work are spread over the CPU's cores, and what is kept between calls.

A matrix product already uses every core, but what surrounds it (gathering patches, adding them back) runs on one.
So the work is cut into tiles, each thread does a whole tile, gather and product together while the data is warm,
and BLAS is held to one thread in each. NumPy releases the interpreter's lock in both.

BLAS's own threads are never woken: after each product they go on spinning for a tenth of a second, in case there is
another, and take the cores from the tiles that follow. A single large product is cut into tiles as well (`matmul`).
"""

import contextvars
import ctypes
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ContextDecorator, suppress
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from .threads import threads


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
def _pool(size):
    return ThreadPoolExecutor(size, thread_name_prefix="minifcn", initializer=_leave_a_core_to_the_caller)


def _leave_a_core_to_the_caller():
    """Keep this thread off the first of the process's processors, where the system lets threads be placed (Linux).

    A thread that sleeps and wakes as often as a helper does tends to be put on the processor of the one that wakes it.
    Then two cores do the work of one, for up to a second at a time: a training step of 75 ms took 100.
    """
    if hasattr(os, "sched_setaffinity"):
        _, *others = sorted(os.sched_getaffinity(0))
        if others:
            with suppress(OSError):  # where that is not allowed, it is no more than a little slower
                os.sched_setaffinity(0, others)


class _OneBlasThread(ContextDecorator):
    """Holds BLAS to one thread from the first user's entry to the last one's exit, whichever threads they run in.

    The first and the last take 20 µs, those in between 2: so a network holds it for all of its layers.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self):
        with self._lock:
            if self._users == 0:
                self._before = [library.num_threads for library in _blas()]
                _set_blas_threads([1] * len(_blas()))
            self._users += 1

    def __exit__(self, *_):
        with self._lock:
            self._users -= 1
            if self._users == 0:
                _set_blas_threads(self._before)


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set_blas_threads(counts):
    """Set the number of threads of each BLAS library.

    threadpoolctl heeds only the Python thread that set OpenBLAS's number first, until that thread's claim
    is cleared. Here the last user restores the number, whichever thread that is, and nobody keeps a claim.
    """
    for library, count in zip(_blas(), counts, strict=True):
        clear = getattr(library, "clear_controlling_thread", None)
        if clear:
            clear(force=True)
        library.set_num_threads(count)
        if clear:
            clear(force=True)


one_blas_thread = _OneBlasThread()
_here = threading.local()


def run_tiles(task, tiles):
    """Call task(*tile) for every tile, on all cores, the caller's thread being one of them.

    Tiles are taken in order, each by the next free thread. A tile's own tiles run in its thread. The first exception is
    raised again once every thread has stopped.
    """
    if getattr(_here, "inside", False):
        for tile in tiles:
            task(*tile)
        return
    with one_blas_thread:
        count = threads()
        helpers = min(count, len(tiles)) - 1
        if helpers <= 0:  # a single tile may cut its own products into tiles
            for tile in tiles:
                task(*tile)
            return
        queue = iter(tiles)

        def work():
            _here.inside = True
            try:
                for tile in queue:
                    task(*tile)
            except BaseException:
                for _ in queue:  # leave nothing to the others
                    pass
                raise
            finally:
                _here.inside = False

        # each in a copy of the caller's context, so that its numpy.errstate holds in the helpers too
        jobs = [_pool(count - 1).submit(contextvars.copy_context().run, work) for _ in range(helpers)]
        try:
            work()
        finally:
            # A helper that has not begun by now, because other callers keep the pool busy, has nothing left to do.
            started = [job for job in jobs if not job.cancel()]
            errors = [error for job in started if (error := job.exception())]
        if errors:
            raise errors[0]


_kept = {}


def kept(array, make):
    """make(array), or what it gave the last time if `array` has not changed since: the same object with the same values.

    What is kept goes when the array does.
    """
    key = (id(array), make)
    if (entry := _kept.get(key)) and entry.array() is array and _same(entry.values, array):
        return entry.made
    made = make(array)
    _kept[key] = _Kept(weakref.ref(array, lambda _: _kept.pop(key, None)), array.copy(), made)
    return made


class _Kept:
    def __init__(self, array, values, made):
        self.array, self.values, self.made = array, values, made


def _same(a, b, block=1 << 18):
    """Whether two arrays of one shape are equal, looked at block by block so that the first difference ends it."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = a.reshape(-1), b.reshape(-1)
    return all(np.array_equal(a[i : i + block], b[i : i + block]) for i in range(0, a.size, block))
