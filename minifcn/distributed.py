"""The processes of one MPI job: which of them this is, and sums over all. Without a launcher it is alone, and mpi4py is not imported."""

import hashlib
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from .backend import Array, nccl, to_device, to_device_of, to_host
from .errors import InputError, one_line

log = logging.getLogger("minifcn.distributed")

# Variables that mpirun and srun set for a process that they start: Open MPI, PMIx, MPICH and Intel MPI.
LAUNCHED = "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"
SIZES = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"  # the number of processes, if the launcher sets it
INSTALL = 'pip install "minifcn[mpi]"'


class World:
    """A job of one process: every sum is its input, and nothing is sent.

    rank: the number of this process, from 0. size: the number of processes. local_rank, local_size: the same among those on this host.
    host: its name. All processes call the methods in the same order.
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def __init__(self) -> None:
        self.host = socket.gethostname()

    def sum(self, array: Array) -> Array:
        """Replace an array by its sum over all processes, the same bits in each. -> that array"""
        return array

    def start(self, work: Callable[["World"], Array]) -> Callable[[], Array]:
        """Begin work(world) in the background, after any work begun before; world: these processes, for what the work sends.
        -> a function that waits for the work and returns its result"""
        found = work(self)
        return lambda: found

    def start_sum(self, array: Array) -> Callable[[], Array]:
        """Begin a sum over all processes; the array may not be written to until it is done. -> a function that waits for the sum and
        returns it, on the host or the device"""
        return self.start(lambda world: world.sum(np.array(to_host(array))))

    def join_gpus(self) -> None:
        """From here on, add up arrays on GPUs by NCCL if each process has a GPU of its own; the log says whether, and why not."""

    def exchange(self, rows: np.ndarray) -> np.ndarray:
        """Send each process its row of a contiguous array (size, ...). -> the rows received, by rank"""
        return rows

    def share(self, value: Any) -> Any:
        """Process 0's value, in all processes."""
        return value

    def everyone(self, value: Any) -> list:
        """The values of all processes, by rank, in all processes."""
        return [value]

    def abort(self, code: int) -> None:
        """End all processes at once; a single process leaves that to the caller."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(np.array(flag, np.float64)) > 0)

    def join(self, array: Array) -> tuple[Array, int]:
        """The arrays (N, ...) of all processes, concatenated, and the index at which this process's begins."""
        if self.size == 1:
            return array, 0
        parts = self.everyone(to_host(array))
        return to_device(np.concatenate(parts)), sum(map(len, parts[: self.rank]))

    def agree(self, what: str, value: Any) -> None:
        """Raise InputError in all processes, naming the first that differs and its host, unless all values are equal.

        value: bytes, or anything with a `repr`, compared by hash; or a function that returns it, which a single process never calls.
        """
        if self.size == 1:
            return
        value = value() if callable(value) else value
        own = hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()
        shown = f", {value}" if isinstance(value, str) and len(value) < 60 else ""
        (first, host, theirs), *others = self.everyone((own, self.host, shown))
        for rank, (other, where, mine) in enumerate(others, 1):
            if other != first:
                raise InputError(
                    f"{what}: not the same in process {rank} on {where}{mine} as in process 0 on {host}{theirs}; make them equal"
                )


class MPIWorld(World):
    """The processes that a launcher of MPI started. mpi4py: its MPI module. everybody: a communicator of all of them."""

    def __init__(self, mpi4py: Any, everybody: Any = None):
        super().__init__()
        self.mpi, self.everybody = mpi4py, everybody or mpi4py.COMM_WORLD
        self.rank, self.size = self.everybody.rank, self.everybody.size
        here = self.everybody.Split_type(mpi4py.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = here.rank, here.size
        here.Free()
        self._gpus: nccl.GPUs | None = None
        self._helper: ThreadPoolExecutor | None = None  # a thread, and the communicator on which it sends
        self._beside: MPIWorld | None = None
        self._warned = False  # that MPI lets no thread send beside others

    def sum(self, array: Array) -> Array:
        if self._between_gpus(array):
            whole = self._gpus.start_sum(array)()
        else:
            whole = np.ascontiguousarray(to_host(array))
            self.everybody.Allreduce(self.mpi.IN_PLACE, whole)
        if whole is not array:
            array[...] = to_device_of(array, whole).reshape(array.shape)
        return array

    def start(self, work: Callable[[World], Array]) -> Callable[[], Array]:
        # Between hosts a thread waits for the network, as MPI makes progress only within a call. Within a host it would take a core from
        # the computation, and hide nothing. (docs/processes.md, "Gradients on their way")
        if self.local_size == self.size or not self._sends_beside():
            return super().start(work)
        if not self._helper:
            self._helper = ThreadPoolExecutor(1)
            self._beside = MPIWorld(self.mpi, self.everybody.Dup())
        return self._helper.submit(work, self._beside).result

    def _sends_beside(self):
        """Whether MPI lets a thread send beside others; where it does not, process 0 says so once."""
        if self.mpi.Query_thread() >= self.mpi.THREAD_MULTIPLE:
            return True
        if self.rank == 0 and not self._warned:
            log.warning("this MPI is without MPI_THREAD_MULTIPLE: no gradients travel while others are computed")
        self._warned = True
        return False

    def start_sum(self, array: Array) -> Callable[[], Array]:
        return self._gpus.start_sum(array) if self._between_gpus(array) else super().start_sum(array)

    def join_gpus(self) -> None:
        gpu, problem = nccl.place()
        if not self.any(gpu is not None):
            return
        why_not = self._why_no_nccl(gpu, problem)
        if not why_not:
            identity = self.share(nccl.new_identity() if self.rank == 0 else None)
            try:
                self._gpus = nccl.GPUs(self.size, identity, self.rank)
            except Exception as error:  # NCCL's and CUDA's are of several types
                problem = one_line(error)
            why_not = self._why_no_nccl(gpu, problem)
        if why_not:
            self._gpus = None
            log.warning("%s: sums travel through the host's memory, by MPI", why_not)
        else:
            log.info("%d processes, each on the GPU of its rank on its host, which NCCL joins", self.size)

    def _why_no_nccl(self, gpu, problem):
        """The reason of the first process that cannot use NCCL or shares a GPU with another; None if all can."""
        others = {}
        for rank, (host, theirs, why) in enumerate(self.everyone((self.host, gpu, problem))):
            first = others.setdefault((host, theirs), rank)
            if why or first != rank:
                return f"process {rank} on {host}: {why or f'on the same GPU as process {first}'}"
        return None

    def _between_gpus(self, array):
        return self._gpus and not isinstance(array, np.ndarray)

    def exchange(self, rows: np.ndarray) -> np.ndarray:
        received = np.empty_like(rows)
        self.everybody.Alltoall(rows, received)
        return received

    def share(self, value: Any) -> Any:
        return self.everybody.bcast(value)

    def everyone(self, value: Any) -> list:
        return self.everybody.allgather(value)

    def abort(self, code: int) -> None:
        self.everybody.Abort(code)


@cache
def world() -> World:
    """The job of this process. Raises InputError where a launcher of MPI started it and mpi4py is missing or belongs to another MPI."""
    asked = next((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdigit()), None)
    if asked == 1 or not any(name in os.environ for name in LAUNCHED):
        return World()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter: mpi4py is there, but no MPI library
        raise InputError(
            f"started by a launcher of MPI, which mpi4py has to speak to: {INSTALL}; it says: {error}"
        ) from error
    found = MPIWorld(MPI)
    if asked not in (None, found.size):
        raise InputError(
            f"the launcher started {asked} processes, mpi4py sees {found.size}: they belong to two installations of MPI; "
            f"start with the mpirun beside this Python, or build mpi4py for that MPI"
        )
    return found if found.size > 1 else World()
