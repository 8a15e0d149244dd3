"""How independent tiles of work are spread over the CPU's cores.

A matrix product already uses every core, but what surrounds it (gathering patches, adding them back) runs on one.
So the work is cut into tiles, each thread does a whole tile, gather and product together while the data is in its cache,
and BLAS is held to one thread in each. NumPy releases the interpreter's lock in both.

BLAS's own threads are never woken: after each product they go on spinning for a tenth of a second, in case there is
another, and take the cores from the tiles that follow. A single large product is cut into tiles as well (`matmul`).
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ContextDecorator, suppress
from contextvars import ContextVar, copy_context
from functools import cache

from threadpoolctl import ThreadpoolController

from . import helpers
from .threads import threads


class _OneBlasThread(ContextDecorator):
    """Holds BLAS to one thread from the first user's entry to the last one's exit, whichever threads they run in.

    The first and the last take 20 µs, those in between 2: so a network holds it for all of its layers.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = [library.num_threads for library in _blas()]
                _set_blas_threads([1] * len(_blas()))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users = max(0, self._users - 1)  # a child process that was forked within counts from 0 again
            if self._users == 0:
                _set_blas_threads(self._before)

    def reset(self):
        """Release it, whoever holds it: in a child process, where the other threads do not exist."""
        if self._users:
            _set_blas_threads(self._before)
        self.__init__()


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set_blas_threads(counts):
    """Set the number of threads of each BLAS library.

    threadpoolctl heeds only the Python thread that set OpenBLAS's number first, until that thread's claim
    is cleared. Here the last user restores the number, whichever thread that is, and nobody keeps a claim.
    """
    for library, count in zip(_blas(), counts, strict=True):
        clear = getattr(library, "clear_controlling_thread", lambda force: None)
        clear(force=True)
        library.set_num_threads(count)
        clear(force=True)


@cache
def _helpers(count):
    """A pool of `count` threads, all started here: if `submit` cannot start one, it raises RuntimeError but leaves its work queued."""
    pool, started = ThreadPoolExecutor(count, "minifcn"), threading.Event()
    try:
        for _ in range(count):
            pool.submit(started.wait)
    finally:
        started.set()
    return pool


def _after_fork():
    """A child process has none of the threads, and none of the state that they would have cleared."""
    _helpers.cache_clear()
    helpers.after_fork()
    one_blas_thread.reset()


one_blas_thread = _OneBlasThread()
_in_a_tile = ContextVar("in a tile", default=False)
in_a_tile = _in_a_tile.get
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def in_order(task: Callable, tiles: Iterable) -> None:
    """Call task(*tile) for every tile, first to last, in this thread: all that a GPU needs, which has a queue of its own."""
    for tile in tiles:
        task(*tile)


def run_tiles(task: Callable, tiles: list) -> None:
    """Call task(*tile) for every tile, on all cores, the caller's thread being one of them.

    Tiles are taken in order, each by the next free thread, in a copy of the caller's context, so that its numpy.errstate
    holds there. A tile's own tiles run in its thread. The first exception is raised again once every thread has stopped.
    """
    if _in_a_tile.get():
        in_order(task, tiles)
        return
    with one_blas_thread:
        granted = threads()
        count = min(granted, len(tiles))
        if count < 2:  # a single tile may cut its own products into tiles
            in_order(task, tiles)
            return
        waiting = deque(tiles)

        def run():
            _in_a_tile.set(True)
            try:
                while True:
                    try:
                        tile = waiting.popleft()
                    except IndexError:
                        return
                    task(*tile)
            finally:
                waiting.clear()  # after an error nobody goes on

        if ready := helpers.ready(count - 1):
            helpers.run(run, ready)
            return
        helping = []
        try:
            with suppress(RuntimeError):  # no thread can be had: a limit, or the interpreter's end
                pool = _helpers(granted - 1)
                helping.extend(pool.submit(copy_context().run, run) for _ in range(count - 1))
            copy_context().run(run)
        finally:
            # Helpers that are busy with other callers are not waited for; if they come later, no array is kept for them.
            errors = [helper.exception() for helper in helping if not helper.cancel()]
            task = None
        for error in errors:
            if error:
                raise error
