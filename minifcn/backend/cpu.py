"""How independent tiles of work are spread over the CPU's cores.

A matrix product already uses every core, but what surrounds it (gathering patches, adding them back) runs on one.
So the work is cut into tiles, each thread does a whole tile, gather and product together while the data is in its cache,
and BLAS is held to one thread in each. NumPy releases the interpreter's lock in both.

BLAS's own threads are never woken: after each product they go on spinning for a tenth of a second, in case there is
another, and take the cores from the tiles that follow. A single large product is cut into tiles as well (`matmul`).
"""

import contextvars
import os
import threading
from contextlib import ContextDecorator
from functools import cache
from queue import SimpleQueue

from threadpoolctl import ThreadpoolController

from .threads import threads


class _OneBlasThread(ContextDecorator):
    """Holds BLAS to one thread from the first user's entry to the last one's exit, whichever threads they run in.

    The first and the last take 20 µs, those in between 2: so a network holds it for all of its layers.
    """

    def __init__(self):
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self):
        with self._lock:
            if self._users == 0:
                self._before = [library.num_threads for library in _blas()]
                _set_blas_threads([1] * len(_blas()))
            self._users += 1

    def __exit__(self, *_):
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
        clear = getattr(library, "clear_controlling_thread", None)
        if clear:
            clear(force=True)
        library.set_num_threads(count)
        if clear:
            clear(force=True)


class _Call:
    """One call of `run_tiles`: its tiles, of which each thread takes the next, and the threads that help."""

    def __init__(self, task, tiles):
        self.error = None  # a helper's
        self._task, self._tiles = task, tiles
        self._taken = self._helping = 0
        self._changed = threading.Condition(threading.Lock())

    def run(self):
        """Run tiles until none is left. After an error none is."""
        _here.inside = True
        try:
            while (tile := self._take()) is not None:
                self._task(*tile)
        except BaseException:
            with self._changed:
                self._tiles = ()
            raise
        finally:
            _here.inside = False

    def _take(self):
        with self._changed:
            if self._taken >= len(self._tiles):
                return None
            self._taken += 1
            return self._tiles[self._taken - 1]

    def help(self):
        """`run` in a helper."""
        with self._changed:
            self._helping += 1
        try:
            self.run()
        except BaseException as error:
            self.error = error
        finally:
            with self._changed:
                self._helping -= 1
                self._changed.notify_all()

    def finish(self):
        """Wait for the helpers that have begun. Those that have not, because other callers keep them busy, find nothing."""
        with self._changed:
            self._tiles = ()
            self._changed.wait_for(lambda: not self._helping)
            self._task = None  # and with it the arrays it holds


class _Helpers:
    """Threads that wait for tiles to run: as many as were ever asked for at once. They end with the process."""

    def __init__(self):
        self._lock, self._count, self._calls = threading.Lock(), 0, SimpleQueue()

    def ask(self, count, work):
        """Let `count` threads call work(), each in a copy of the caller's context, so that its numpy.errstate holds there."""
        with self._lock:
            try:
                while self._count < count:
                    threading.Thread(target=_serve, args=(self._calls,), name="minifcn", daemon=True).start()
                    self._count += 1
            except RuntimeError:  # none can be started: a limit, or the interpreter's end; the caller runs every tile
                count = self._count
        for _ in range(count):
            self._calls.put((contextvars.copy_context(), work))


def _serve(calls):
    while True:
        context, work = calls.get()
        context.run(work)
        del context, work  # and with them the arrays, while this thread waits


_here = threading.local()
_helpers = _Helpers()
one_blas_thread = _OneBlasThread()


def _after_fork():
    """A child process has none of the threads, and none of the state that they would have cleared."""
    global _here, _helpers
    _here, _helpers = threading.local(), _Helpers()
    one_blas_thread.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
        helpers = min(threads(), len(tiles)) - 1
        if helpers <= 0:  # a single tile may cut its own products into tiles
            for tile in tiles:
                task(*tile)
            return
        call = _Call(task, tiles)
        _helpers.ask(helpers, call.help)
        try:
            call.run()
        finally:
            call.finish()
        if call.error:
            raise call.error
