"""Samples in memory that the processes of a host share: each is kept once, by whichever process reads it first."""

import mmap
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..distributed import World

POSSIBLE = hasattr(os, "memfd_create")  # on Linux


class SharedSamples:
    """A dict {index: sample} in memory that all processes of a job on one host see; at most `limit` bytes.

    There are no locks. Each process appends to its own part, and publishes a sample's position once all of it is written; if two store
    the same sample at once, one copy stays unused. The memory is the kernel's (memfd), has no name, and is freed with the last process,
    however that ends.
    """

    def __init__(self, world: World, count: int, limit: int):
        home = os.memfd_create("minifcn")
        os.ftruncate(home, 16 * count + limit)  # takes memory only where something is written
        # Host names may be equal, so a host is known by its boot id and its process namespace.
        here = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
        all_homes = world.everyone((here, f"/proc/{os.getpid()}/fd/{home}"))
        mine = [rank for rank, (host, _) in enumerate(all_homes) if host == here]
        with open(all_homes[mine[0]][1], "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16 * count + limit)
        world.everyone(None)  # all have opened it
        os.close(home)
        # For each sample: its position, 0 if it is not stored; its length.
        self._places = np.frombuffer(self._memory, np.int64, 2 * count).reshape(count, 2)
        share = limit // len(mine)
        self._free = 16 * count + share * mine.index(world.rank)
        self._end = self._free + share

    def get(self, index: int) -> Any | None:
        """The sample of this index; None if it is not there."""
        where, length = self._places[index].tolist()
        return pickle.loads(memoryview(self._memory)[where : where + length]) if where else None

    def keep(self, index: int, sample: Any) -> None:
        """Put a sample there, if there is room and no other process was quicker."""
        if self._places[index, 0]:
            return
        content = pickle.dumps(sample, protocol=5)
        if self._free + len(content) <= self._end:
            self._memory[self._free : self._free + len(content)] = content
            self._places[index, 1] = len(content)
            self._places[index, 0] = self._free  # last: from now on others see it
            self._free += len(content)
