"""Whether data keep up with training: the samples a second that are made ready, and those that a network takes."""

import statistics
import time
from typing import NamedTuple

from . import loop
from .optim import SGD

RATE = 1e-6  # of learning: small, so that the weights do not matter


class Pace(NamedTuple):
    """Samples a second: what the loader alone makes, and what training takes of a batch that is there already."""

    loader: float
    training: float

    @property
    def data_keep_up(self):
        return self.loader > self.training


def seconds_to_make(stream, batches):
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
    """The Pace of a stream of batches and a network, in turns: medians over some rounds, the first of training left out."""
    optimizer, batch = SGD(model.parameters()), next(stream)
    samples = len(batch[0])
    seconds_to_train(model, batch, optimizer, RATE, 1)  # what happens once: memory, threads
    making, training = [], []
    for _ in range(rounds):
        making.append(seconds_to_make(stream, 4) / 4)
        training.append(seconds_to_train(model, batch, optimizer, RATE, 1))
    return Pace(samples / statistics.median(making), samples / statistics.median(training))
