"""The training loop. It yields what happens and prints nothing; whoever runs it decides what to show and keep."""

import time
from dataclasses import dataclass

import numpy as np

from .. import ops
from ..backend import to_device


@dataclass(frozen=True)
class Step:
    """One update: loss before it, the learning rate, seconds taken, and how many of them went by in wait for the batch.

    Iterations count from 1.
    """

    iteration: int
    loss: float
    rate: float
    seconds: float
    waited: float


@dataclass(frozen=True)
class Evaluated:
    """The validation scores after an iteration; best: whether the mean IoU is the highest so far."""

    iteration: int
    scores: dict
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written after this iteration."""

    iteration: int


@dataclass(frozen=True)
class Stopped:
    """The loop was asked to stop, after this iteration and its checkpoint."""

    iteration: int


class Diverged(ValueError):
    """The loss or a weight is no longer a finite number."""


def train(
    model,
    stream,
    optimizer,
    rate,
    iterations,
    *,
    done=0,
    best=None,
    reduction="mean",
    evaluate=None,
    eval_every=0,
    save=None,
    save_every=0,
    should_stop=lambda: False,
):
    """Train and yield Step, Evaluated, Saved and Stopped events.

    stream: yields (images, labels). rate(i): the learning rate of the i-th update, counted from 0. done, best: where a
    resumed run stands. evaluate() -> ConfusionMatrix. save(iteration, best): writes a checkpoint.
    Raises Diverged at the first loss, or before saving the first weight, that is not finite.
    """
    for i in range(done, iterations):
        start = time.perf_counter()
        lr = rate(i)
        images, labels = next(stream)
        waited = time.perf_counter() - start
        loss = update(model, images, labels, optimizer, lr, reduction)
        iteration = i + 1
        if not np.isfinite(loss):
            raise Diverged(f"iteration {iteration}: the loss is {loss} at learning rate {lr:.3g}; try a smaller one")
        yield Step(iteration, loss, lr, time.perf_counter() - start, waited)
        last = iteration == iterations
        if evaluate and (last or iteration % eval_every == 0):
            scores = evaluate().scores()
            improved = best is None or scores["mean_iou"] > best
            best = scores["mean_iou"] if improved else best
            yield Evaluated(iteration, scores, improved)
        stop = should_stop()
        if save and (last or stop or iteration % save_every == 0):
            if not all(np.isfinite(a).all() for a in model.state_dict().values()):
                raise Diverged(
                    f"iteration {iteration}: weights are no longer finite at learning rate {lr:.3g}; try a smaller one"
                )
            save(iteration, best)
            yield Saved(iteration)
        if stop and not last:
            yield Stopped(iteration)
            return


def update(model, images, labels, optimizer, lr, reduction="mean"):
    """One update of the weights on one batch. -> the loss before it"""
    # A run that diverges overflows on its way; the finite-loss check reports that once and clearly.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        logits = model.forward(to_device(images), train=True)
        loss, cache = ops.softmax_cross_entropy_forward(logits, to_device(labels), reduction=reduction)
        model.zero_grad()
        model.backward(ops.softmax_cross_entropy_backward(1.0, cache), inputs=False)
        optimizer.step(lr)
    return float(loss)
