"""For each exercise of the lessons a right answer, and a wrong one of the kind that people give."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np

from minifcn import models
from minifcn.backend import to_host

sys.path.insert(0, str(Path(__file__).parents[1] / "lessons"))

import answers  # noqa: E402


def worked(name, names=()):
    """The answer that the worked solution of an exercise arrives at: its code is run, among these names."""
    text = inspect.cleandoc(answers.CHECKERS[name].__doc__)
    names = {"np": np, **dict(names)}
    exec("\n".join(re.findall(r"```py\n(.*?)```", text, re.DOTALL)), names)
    return names["answer"]


def without_pool3(classes):
    """FCN-4s whose score_pool3 is computed and read by nobody."""
    table = dict(worked("10.3")(classes).nodes)
    table["upscore_pool3"] = table["upscore_pool3"].layer, ["upscore_pool4"]
    return models.Graph(table)


def offsets_one_by_one(numbers):
    offset = np.zeros((2, *numbers.shape))
    for n in range(1, numbers.max() + 1):
        for side, way in zip(np.indices(numbers.shape), offset, strict=True):
            way[numbers == n] = side[numbers == n].mean() - side[numbers == n]
    return offset


SOLUTIONS = {  # exercise: (right, wrong, perhaps more wrong ones)
    "01.1": (
        worked("01.1"),
        lambda labels, predictions, c: worked("01.1")(np.where(labels == 255, 0, labels), predictions, c),
        lambda labels, predictions, c: worked("01.1")(labels, predictions, c) if c in labels else np.nan,
        lambda labels, predictions, c: worked("01.1")(labels, predictions, c) if c in predictions else np.nan,
        lambda labels, predictions, c: worked("01.1")(labels, predictions, c) or np.nan,
    ),
    "01.2": (22.9, 0.2259),
    "01.3": (worked("01.3"), lambda colour: colour[0] >> 7),
    "02.1": (worked("02.1"), 25_088_000),
    "02.2": (worked("02.2"), lambda height, width, side, step: (height // step) * (width // step)),
    "02.3": ((0.6, 0.51), (0.4, 0.69)),
    "03.1": (worked("03.1"), 174),
    "03.2": (worked("03.2"), lambda dy, w, s, size: worked("03.2")(dy, w[:1], s, size)),
    "03.3": ([-1.333, 0, 1.333], [-2, 0, 2]),
    "04.1": (0.77, 0.83),
    "04.2": (worked("04.2"), lambda weights, h, w: weights.reshape(len(weights), -1, h, w)),
    "04.3": ((0.78, 0.77), (0.78, 0.4), (0.748, 0.77), (0.784, 0.736)),  # the last two: void counted as wrong
    "05.1": (worked("05.1"), np.kron([[1, 0], [0, 2]], np.ones((3, 2)))),
    "05.2": (0.234, 0, 0.25),
    "05.3": (worked("05.3"), lambda kernel, s: len(kernel) % s == 0),
    "06.1": (("1/4", "−1/4"), (0.25, 0.25)),
    "06.2": (worked("06.2"), 19),
    "06.3": (worked("06.3"), (19, 18)),
    "07.1": (worked("07.1"), lambda n: np.arange(n) + 1.0, lambda n: np.full(n, np.nan)),
    "07.2": (worked("07.2"), lambda dy, x: dy / (1 + np.exp(-x))),
    "07.3": (lambda dy, y: dy * (y > 0) * (np.arange(y.shape[2]) < 6)[:, None], lambda dy, y: dy * (y > 0)),
    "08.1": (worked("08.1"), 10),
    "08.2": (0.102, 10, 0.01),
    "08.3": (worked("08.3"), (worked("08.3")[0], lambda dy, cache: dy / cache[1])),
    "09.1": (worked("09.1"), (16, 16), (10.9, 13.6)),
    "09.2": ((192, "196,608"), (224, 48 * 64 * 64), (192, 49 * 64 * 64)),
    "09.3": (worked("09.3"), lambda dscores, x: (worked("09.3")(dscores, x)[0], dscores.mean(axis=(0, 2, 3)))),
    "10.1": (worked("10.1"), 10),
    "10.2": (worked("10.2"), lambda C: np.ones((C, 2 * C, 1, 1))),
    "10.3": (worked("10.3"), lambda C: models.fcn("8s", "mini", C, alignment="same", width=8), without_pool3),
    "11.1": (worked("11.1"), 2e-8 * 320 * 320),
    "11.2": (worked("11.2"), 0.001),
    "11.3": (worked("11.3"), lambda network: None),
    "12.1": (worked("12.1"), 3 * 3 * 64 * 64),
    "12.2": (worked("12.2"), lambda dy, shape, r: (np.zeros(shape), dy[:, shape[1] :])),
    "12.3": ((97.8, 89.6), (0.5, 0.9), (98.1, 92.3)),
    "13.1": (worked("13.1"), 24),
    "13.2": (worked("13.2"), (2, 2, 2)),
    "13.3": (worked("13.3"), lambda dy, x, w, rate: worked("13.3")(dy, x, w, 1)),
    "14.1": (worked("14.1"), 4e-6),
    "14.2": (worked("14.2"), lambda log_p, q, K: q),
    "14.3": ((4.0, 3.4), (4.0, 8.0)),
    "15.1": (worked("15.1"), 2.3 / 4),
    "15.2": (worked("15.2"), lambda numbers: worked("15.2")((numbers > 0).astype(int)), offsets_one_by_one),
    "15.3": (0.978, 0.502, 0.988),
    "16.1": (worked("16.1"), 0.43),
    "16.2": (worked("16.2"), lambda one, two: (one[0] + two[0], *np.average([one[1:], two[1:]], 0, [one[0], two[0]]))),
    "16.3": (worked("16.3"), lambda arrays: (worked("16.3")(arrays)[0], 2 * arrays[0].nbytes)),
    "17.1": (
        worked("17.1"),
        lambda x: (x - np.mean(np.asarray(x), axis=0)) / x.std(axis=0),
        lambda x: worked("17.1")(to_host(x)),
    ),
    "17.2": (
        worked("17.2"),
        lambda gradients: float(sum(float((g * g).sum()) for g in gradients)) ** 0.5,
        lambda gradients: worked("17.2")(list(map(to_host, gradients))),
        lambda gradients: float(sum(to_host((g * g).sum()) for g in gradients)) ** 0.5,
    ),
    "17.3": (
        worked("17.3"),
        lambda log_p, labels: sum(log_p[i, int(k)] for i, k in enumerate(labels) if int(k) < 255),
        lambda log_p, labels: worked("17.3")(to_host(log_p), to_host(labels)),
    ),
    "18.1": (worked("18.1"), 4.0),
    "18.2": (worked("18.2"), 2),
    "18.3": (worked("18.3"), lambda ours, theirs: np.mean(ours) / np.mean(theirs)),
}
