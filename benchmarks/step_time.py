"""A model of the time of a training step over n hosts: compute, bytes, latency, overlap and stragglers."""

import math
from typing import NamedTuple

import numpy as np

from minifcn.training.exchange import BUCKET_BYTES

JITTER = 0.02  # standard deviation of a host's time over its mean: assumed
EAGER = 1 << 16  # bytes: Open MPI's btl_tcp_eager_limit, which counts a message's header, too
BACKWARD = 2  # times the forward: a convolution's backward has twice as many multiply-adds


class Link(NamedTuple):
    """What carries messages. latency: the seconds that any message takes; byte: those for each of its bytes; handshake: those of
    asking, before a message of EAGER bytes or more, whether it may come."""

    latency: float
    byte: float
    handshake: float = 0.0

    def message(self, size):
        return self.latency + size * self.byte + (self.handshake if size >= EAGER else 0)

    def ring(self, n, size):
        """The seconds of an all-reduce in which each of n hosts sends 2 (n − 1) parts of 1/n to its neighbour."""
        return 2 * (n - 1) * self.message(size / n)

    def tree(self, n, size):
        """The seconds of an all-reduce that sends the whole array up a binary tree and down again."""
        return 2 * math.ceil(math.log2(n)) * self.message(size)

    def best(self, n, size):
        return min(self.ring(n, size), self.tree(n, size))


def fit(points):
    """The Link whose ring between two hosts fits [(bytes, seconds)] best, by relative errors."""
    sizes, seconds = np.array(points, float).T
    columns = 2 * np.stack([np.ones(len(sizes)), sizes / 2, sizes / 2 >= EAGER], axis=1)  # two messages of a half each
    found = np.linalg.lstsq(columns / seconds[:, None], np.ones(len(sizes)), rcond=None)[0]
    return Link(*np.maximum(found, 1e-15).tolist())  # noise may make a time negative


class Work(NamedTuple):
    """One host's part of a step: seconds of forward and backward; [(seconds of backward until it is full, bytes)] of the buckets."""

    forward: float
    backward: float
    buckets: list

    def step(self, n, link, reduce="best"):
        """The seconds of a step of n hosts that each do this work. reduce: how gradients are summed, "ring", "tree" or "best"."""
        slowest = 1 + JITTER * math.sqrt(2 * math.log(n))  # of n draws from a normal distribution, about
        free = 0.0
        for ready, size in self.buckets:
            free = max(free, ready) + (getattr(link, reduce)(n, size) if n > 1 else 0.0)
        return (self.forward + max(self.backward, free)) * slowest

    def efficiency(self, n, link, reduce="best"):
        return (self.forward + self.backward) / self.step(n, link, reduce)


def work_of(rows, seconds):
    """The Work of `seconds` by the rows of `models.explain`: backward goes from the last row to the first, with time by multiply-adds."""
    forward = seconds / (1 + BACKWARD)
    total, passed, filled, buckets = sum(row.multiply_adds for row in rows), 0, 0, []
    for row in reversed(rows):
        passed, filled = passed + row.multiply_adds, filled + 4 * row.parameters
        if filled >= BUCKET_BYTES or (filled and row is rows[0]):
            buckets.append(((seconds - forward) * passed / total, filled))
            filled = 0
    return Work(forward, seconds - forward, buckets + ([(seconds - forward, filled)] if filled else []))


def hiding_batch(rows, image_seconds, n, link):
    """The fewest images per host, a power of two, with which communication costs a step of n hosts under a hundredth; None above 4096."""
    for batch in (1 << power for power in range(13)):
        work = work_of(rows, batch * image_seconds)
        if work.step(n, link) < 1.01 * work.step(n, Link(0, 0)):
            return batch
    return None
