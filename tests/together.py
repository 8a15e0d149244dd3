"""Several processes of a job as threads of one: what they do together, tried without MPI."""

import threading
from types import SimpleNamespace

from minifcn import distributed

PATIENCE = 30  # seconds that one waits for the others


class Communicator:
    """mpi4py's COMM_WORLD, for one of `size` processes that are threads. meeting: where they meet, and what each has brought there."""

    def __init__(self, rank, size, meeting):
        self.rank, self.size = rank, size
        self._barrier, self._brought = meeting

    def Split_type(self, kind):
        """Each is on a host of its own: what goes on beside the others is then a helper's work."""
        return SimpleNamespace(rank=0, size=1, Free=lambda: None)

    def Dup(self):
        return Communicator(self.rank, self.size, self.bcast((threading.Barrier(self.size), [None] * self.size)))

    def allgather(self, value):
        self._brought[self.rank] = value
        self._barrier.wait(PATIENCE)
        found = list(self._brought)
        self._barrier.wait(PATIENCE)
        return found

    def bcast(self, value):
        return self.allgather(value)[0]

    def gather(self, value):
        found = self.allgather(value)
        return found if self.rank == 0 else None

    def Allreduce(self, in_place, array):
        array[...] = sum(self.allgather(array.copy()))

    def Alltoall(self, sent, received):
        received[...] = [theirs[self.rank] for theirs in self.allgather(sent)]


def mpi(rank, size, meeting):
    """mpi4py's module MPI, as far as `distributed` uses it."""
    names = {"COMM_TYPE_SHARED": None, "IN_PLACE": None, "THREAD_MULTIPLE": 3, "Query_thread": lambda: 3}
    return SimpleNamespace(COMM_WORLD=Communicator(rank, size, meeting), **names)


_of_thread = threading.local()


def world():
    """What `distributed.world` says in such a thread."""
    return getattr(_of_thread, "world", None) or distributed.World()


def together(size, work):
    """Call work(world) in so many processes. -> what each returned. Raises what the first that failed raised."""
    meeting = threading.Barrier(size), [None] * size
    results, errors = [None] * size, []

    def process(rank):
        _of_thread.world = distributed.MPIWorld(mpi(rank, size, meeting))
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
