"""Whether data keep up with training: samples a second that are loaded, and that a network trains on."""

import statistics
import time
from functools import partial
from typing import NamedTuple

from . import loop
from .optimizers import SGD


class Throughput(NamedTuple):
    """Samples a second: what the loader alone makes, and what training consumes from a batch already in memory."""

    loader: float
    training: float


def seconds(work, times):
    """How many seconds it takes to do `work` `times` times."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def measure(model, stream, rounds=3):
    """The Throughput of a stream of batches and a network, in turns: medians over the rounds, after one update to warm up."""
    optimizer, batch = SGD(model.parameters()), next(stream)
    update = partial(loop.update, model, *batch, optimizer, 1e-6)  # a rate so small that the weights stay as they are
    update()
    loading, training = zip(
        *((seconds(stream.__next__, 4) / 4, seconds(update, 1)) for _ in range(rounds)), strict=True
    )
    samples = len(batch[0])
    return Throughput(samples / statistics.median(loading), samples / statistics.median(training))
