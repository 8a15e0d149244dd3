"""minifcn in one process of a job in which something is wrong: python tests/bad_ranks.py WHAT RANK train … through mpirun."""

import errno
import os
import sys
import time

from minifcn import cli, data
from minifcn.distributed import world
from minifcn.training import checkpoint

SLOW = 0.1  # seconds that a slow process takes longer for a batch
FULL_AFTER = 3  # updates that are saved before the disk is full


def full_disk():
    """Nothing more fits on the disk once a few checkpoints are there."""
    write = checkpoint.write

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def written(run, stream):
        if run.done > FULL_AFTER:
            os.fsync = full
        write(run, stream)

    checkpoint.write = written


def slow_data():
    plain = data.BatchStream.__next__

    def late(stream):
        time.sleep(SLOW)
        return plain(stream)

    data.BatchStream.__next__ = late


if __name__ == "__main__":
    what, rank, *sys.argv[1:] = sys.argv[1:]
    if world().rank == int(rank):
        {"full": full_disk, "slow": slow_data}[what]()
    sys.exit(cli.main())
