"""Images shared out among a job's processes, each free one taking the next; and results kept in files, in case the job ends."""

import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from ..distributed import MPIWorld, World
from ..errors import InputError, one_line
from ..files import atomic_write
from ..models import Graph

TAG = 22  # of the messages of this module
PAUSE = 0.001  # seconds between two looks for a message


def in_order(world: World, count: int, work: Callable[[int], Any]) -> Iterator[Any]:
    """work(0) … work(count − 1), in this order, in process 0; each is computed by the process that is free first. In the others: nothing.

    All processes of the world must call this and iterate to the end. What `work` returns must be picklable; what it raises is
    raised where it runs.
    """
    if not isinstance(world, MPIWorld):
        yield from map(work, range(count))
    elif world.rank:
        done, everybody = None, world.everybody
        while True:
            everybody.send(done, 0, TAG)
            if (number := everybody.recv(source=0, tag=TAG)) is None:
                return
            done = number, work(number)
    else:
        waiting: deque = deque(range(count))
        results: list = [Future() for _ in range(count)]
        server = threading.Thread(target=_serve, args=(world, waiting, results), daemon=True)
        server.start()
        first = 0  # the next result to yield
        while (number := _next(waiting)) is not None:
            results[number].set_result(work(number))
            while first < count and results[first].done():
                yield results[first].result()
                results[first], first = None, first + 1
        for result in results[first:]:
            yield result.result()
        server.join()  # a process that comes late has to hear that nothing is left


def _next(waiting):
    """The number that comes next, None after the last."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _serve(world, waiting, results):
    """Answer each message, (a number, its result) or None, with the next number, until every other process knows that none is left."""
    working = world.size - 1
    try:
        while working:
            status = world.mpi.Status()
            if not world.everybody.iprobe(tag=TAG, status=status):  # a blocking call would take a whole processor
                time.sleep(PAUSE)
                continue
            done = world.everybody.recv(source=status.source, tag=TAG)
            if done:
                results[done[0]].set_result(done[1])
            number = _next(waiting)
            world.everybody.send(number, status.source, TAG)
            working -= number is None
    except BaseException as error:  # of any kind: process 0 would wait for ever
        for result in results:
            if result and not result.done():
                result.set_exception(error)


def fingerprint(network: Graph, **settings: Any) -> str:
    """Eight hexadecimal digits of a network's weights and of settings, which change where one of them does."""
    sum = zlib.crc32(json.dumps([network.card.describe(), settings], sort_keys=True, default=str).encode())
    for array in network.state_dict().values():
        sum = zlib.crc32(np.ascontiguousarray(array).data, sum)
    return f"{sum:08x}"


def computed(name: str, function: Callable, *given: Any, **more: Any) -> Any:
    """The result of the function, without any cache."""
    return function(*given, **more)


class PredictionCache:
    """Results of functions, each an array or a tuple of arrays, kept as files in a folder: a call with the same name and the same
    input arrays, such as an image's pixels, reads its result from there."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def __call__(self, name: str, function: Callable, *given: Any, **more: Any) -> Any:
        """The function's result, now or from the first call with this name and these arrays. Raises InputError for a file that holds no
        such result."""
        sum = 0
        for array in given:
            if isinstance(array, np.ndarray):
                sum = zlib.crc32(np.ascontiguousarray(array).data, sum)
        path = self.folder / f"{name}.{sum:08x}.npz"
        if not path.is_file():
            found = function(*given, **more)
            with atomic_write(path) as file:
                np.savez_compressed(file, *(found if isinstance(found, tuple) else (found,)))
            return found
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = tuple(file[f"arr_{i}"] for i in range(len(file.files)))
        except Exception as error:  # a broken file can make NumPy raise anything
            raise InputError(f"{path}: not what was kept there; remove it ({one_line(error)})") from error
        return arrays if len(arrays) > 1 else arrays[0]
