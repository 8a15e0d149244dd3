"""For each exercise of the lessons a right answer, and a wrong one of the kind that people give."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np

from minifcn.backend import array_module

sys.path.insert(0, str(Path(__file__).parents[1] / "lessons"))

import answers  # noqa: E402


def worked(name, names=()):
    """The answer that the worked solution of an exercise arrives at: its code is run, among these names."""
    text = inspect.cleandoc(answers.CHECKERS[name].__doc__)
    names = {"np": np, **dict(names)}
    exec("\n".join(re.findall(r"```py\n(.*?)```", text, re.DOTALL)), names)
    return names["answer"]


def score_gradients(dscores, x, total=np.sum):
    return np.einsum("nchw,ndhw->cd", dscores, x), total(dscores, axis=(0, 2, 3))


def silu_backward(dy, x):
    s = 1 / (1 + np.exp(-x))
    return dy * (s + x * s * (1 - s))


def running_mean(losses, n):
    return np.array([np.mean(losses[max(0, i - n + 1) : i + 1]) for i in range(len(losses))])


def masked_sum(log_p, labels):
    xp = array_module(log_p)
    known = labels != 255
    safe = xp.where(known, labels, 0)
    return (xp.take_along_axis(log_p, safe[:, None].astype("int64"), axis=1)[:, 0] * known).sum()


SOLUTIONS = {  # exercise: (right, wrong)
    "01.1": (
        worked("01.1"),
        lambda labels, predictions, c: worked("01.1")(np.where(labels == 255, 0, labels), predictions, c),
    ),
    "01.2": (22.9, 0.2259),
    "01.3": (worked("01.3"), lambda colour: colour[0] >> 7),
    "02.1": (worked("02.1"), 25_088_000),
    "02.2": (worked("02.2"), lambda height, width, side, step: (height // step) * (width // step)),
    "02.3": ((0.6, 0.51), (0.4, 0.69)),
    "03.1": (worked("03.1"), 174),
    "03.2": (worked("03.2"), lambda dy, w, s, size: worked("03.2")(dy, w[:1], s, size)),
    "03.3": ([-1.333, 0, 1.333], [-2, 0, 2]),
    "04.1": (worked("04.1"), 32),
    "04.2": (worked("04.2"), lambda weights, h, w: weights.reshape(len(weights), -1, h, w)),
    "04.3": ((0.86, 0.82), (0.86, 0.4)),
    "05.1": (worked("05.1"), np.kron([[1, 0], [0, 2]], np.ones((3, 2)))),
    "05.2": (worked("05.2"), 0),
    "05.3": (worked("05.3"), lambda kernel, s: len(kernel) % s == 0),
    "06.1": (worked("06.1"), (0.25, 0.25)),
    "06.2": (worked("06.2"), 19),
    "06.3": (worked("06.3"), (19, 18)),
    "09.1": ((10, 13), (16, 16)),
    "09.2": (345.4, 6.9),
    "09.3": (score_gradients, lambda dscores, x: score_gradients(dscores, x, total=np.mean)),
    "10.1": (lambda dz, a, b: (dz * b, dz * a), lambda dz, a, b: (dz, dz)),
    "10.2": (12, 10),
    "10.3": (2709, 2688),
    "07.1": (2 * 700_000 * 0.02 / 3600, 3.9),
    "07.2": (silu_backward, lambda dy, x: dy / (1 + np.exp(-x))),
    "07.3": (lambda n: np.abs(np.arange(n) - (n - 1) / 2) + 1, lambda n: np.arange(n) + 1.0),
    "11.1": (np.log(19), 3.53),
    "11.2": (2e-8 * 320 * 320, 2e-8),
    "11.3": (running_mean, lambda losses, n: np.convolve(losses, np.ones(n) / n, mode="same")),
    "17.1": (
        lambda x: (x - x.mean(axis=0)) / x.std(axis=0),
        lambda x: (x - np.mean(np.asarray(x), axis=0)) / x.std(axis=0),
    ),
    "17.2": (24, 6),
    "17.3": (masked_sum, lambda log_p, labels: log_p[np.arange(len(labels)), labels % log_p.shape[1]].sum()),
    "18.1": (288, 144),
    "18.2": (5 / 3, 3),
    "18.3": (
        lambda ours, theirs: np.median(ours[1:]) / np.median(theirs[1:]),
        lambda ours, theirs: np.mean(ours) / np.mean(theirs),
    ),
    "12.1": (worked("12.1"), 3 * 3 * 64 * 64),
    "12.2": (worked("12.2"), lambda dy, shape, r: (np.zeros(shape), dy[:, shape[1] :])),
    "12.3": (98.4, 0.5),
    "14.1": (worked("14.1"), 4e-6),
    "14.2": (worked("14.2"), lambda log_p, q, K: q),
    "14.3": ((4.0, 3.4), (4.0, 8.0)),
    "15.1": (worked("15.1"), 2.3 / 4),
    "15.2": (worked("15.2"), lambda numbers: worked("15.2")((numbers > 0).astype(int))),
    "15.3": (0.978, 0.502),
}
