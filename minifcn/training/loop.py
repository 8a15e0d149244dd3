"""The training loop: batch, loss, gradients, update. It yields every update; whoever iterates evaluates, saves and stops."""

import time
from typing import NamedTuple

import numpy as np

from ..backend import to_device
from ..errors import InputError
from ..tasks import SEGMENTATION


class Step(NamedTuple):
    """One update: the loss before it, the learning rate, its seconds, and how many of them it waited for the batch.

    Iterations count from 1.
    """

    iteration: int
    loss: float
    rate: float
    seconds: float
    waited: float


class Diverged(InputError):
    """The loss or a weight is no longer a finite number."""


def train(model, stream, optimizer, rate, iterations, *, done=0, task=SEGMENTATION, exchange=None):
    """Train from update `done` on, and yield a Step after each update.

    stream: yields (images, labels). rate(i): the learning rate of the i-th update, counted from 0. exchange: as for `update`.
    Raises Diverged at the first loss that is not finite.
    """
    for i in range(done, iterations):
        start = time.perf_counter()
        lr = rate(i)
        images, labels = next(stream)
        waited = time.perf_counter() - start
        loss = update(model, images, labels, optimizer, lr, task, exchange)
        if not np.isfinite(loss):
            raise Diverged(f"iteration {i + 1}: the loss is {loss} at learning rate {lr:.3g}; try a smaller one")
        yield Step(i + 1, loss, lr, time.perf_counter() - start, waited)


def update(model, images, labels, optimizer, lr, task=SEGMENTATION, exchange=None):
    """One update of the weights on one batch of host arrays. -> the loss before it

    exchange: an `Exchange` if other processes hold the rest of the batch.
    """
    # A run that diverges overflows on its way; the check for a finite loss reports that once and clearly.
    with np.errstate(all="ignore"):
        outputs = model.forward(to_device(images), train=True)
        total, weight, cache = task.loss(outputs, labels)
        if exchange:
            total, weight = exchange.whole_loss(total, weight)
        divisor = weight or 1
        model.zero_grad()
        model.backward(task.loss_backward(1 / divisor, cache), inputs=False, passed=exchange and exchange.passed)
        if exchange:
            exchange.finish()
        optimizer.step(lr)
    return float(total / divisor)
