"""Several processes of a job as threads of one: what they do together, tried without MPI."""

import threading

import numpy as np

from minifcn import distributed

PATIENCE = 30  # seconds that one waits for the others


class Threads(distributed.World):
    """One of `size` processes that are threads. meeting: where they meet, and what each has brought there."""

    def __init__(self, rank, size, meeting):
        super().__init__()
        self.rank, self.size, self.local_size = rank, size, size
        self._barrier, self._brought = meeting

    def everyone(self, value):
        self._brought[self.rank] = value
        self._barrier.wait(PATIENCE)
        found = list(self._brought)
        self._barrier.wait(PATIENCE)
        return found

    def sum(self, array):
        array[...] = sum(self.everyone(array.copy()))
        return array

    def start_sum(self, array):
        return distributed.Request(sum(self.everyone(array)))

    def start_exchange(self, rows):
        return distributed.Request(np.stack([theirs[self.rank] for theirs in self.everyone(rows)]))

    def share(self, value):
        return self.everyone(value)[0]

    def gather(self, value):
        return self.everyone(value) if self.rank == 0 else self.everyone(value) and None


_of_thread = threading.local()


def world():
    """What `distributed.world` says in such a thread."""
    return getattr(_of_thread, "world", None) or distributed.World()


def together(size, work):
    """Call work(world) in so many processes. -> what each returned. Raises what the first that failed raised."""
    meeting = threading.Barrier(size), [None] * size
    results, errors = [None] * size, []

    def process(rank):
        _of_thread.world = Threads(rank, size, meeting)
        try:
            results[rank] = work(_of_thread.world)
        except threading.BrokenBarrierError:
            pass  # another has failed
        except BaseException as error:
            errors.append(error)
            meeting[0].abort()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    if errors:
        raise errors[0]
    return results
