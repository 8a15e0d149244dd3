"""Whether data keep up with training: samples a second that are loaded, and that a network trains on."""

import statistics
import time
from typing import NamedTuple

from . import loop
from .optimizers import SGD

RATE = 1e-6  # of learning: so small that the weights stay as they are


class Throughput(NamedTuple):
    """Samples a second: what the loader alone makes, and what training takes of a batch that is there already."""

    loader: float
    training: float

    @property
    def data_keep_up(self):
        return self.loader > self.training


def seconds_to_load(stream, batches):
    """How long a stream takes for so many batches."""
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return time.perf_counter() - start


def seconds_to_train(model, batch, optimizer, rate, batches):
    """How long so many updates take, all on one batch (images, labels)."""
    start = time.perf_counter()
    for _ in range(batches):
        loop.update(model, *batch, optimizer, rate)
    return time.perf_counter() - start


def measure(model, stream, rounds=3):
    """The Throughput of a stream of batches and a network, in turns: medians over the rounds, after one update to warm up."""
    optimizer, batch = SGD(model.parameters()), next(stream)
    samples = len(batch[0])
    seconds_to_train(model, batch, optimizer, RATE, 1)
    loading, training = [], []
    for _ in range(rounds):
        loading.append(seconds_to_load(stream, 4) / 4)
        training.append(seconds_to_train(model, batch, optimizer, RATE, 1))
    return Throughput(samples / statistics.median(loading), samples / statistics.median(training))
