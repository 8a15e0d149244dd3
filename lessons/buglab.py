"""Lesson 7's bug lab: bugs planted in the library's own backward passes, and what gradient checks say of them."""

import importlib
import inspect
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple
from unittest import mock

import numpy as np

from minifcn import backend, ops


class Bug(NamedTuple):
    """A piece of a function of minifcn.ops, once in it, and what it becomes. said: why a check finds it, or not."""

    name: str
    module: str
    function: str
    right: str
    wrong: str
    gradient: str  # a key of _gradients
    said: str


CONV, DY = "conv.reference", "dy[n, k, i, j]"
BUGS = [
    Bug(
        "none, the code is right",
        *(CONV, "input_gradient", DY, DY, "dx of a convolution"),
        "What is left is rounding. In float32 that alone is more than a millionth.",
    ),
    Bug(
        "the kernel turned by half a turn",
        *(CONV, "input_gradient", "w[k, c, u, v]", "w[k, c, -1 - u, -1 - v]"),
        "dx of a convolution",
        "Each pixel collects with the tap opposite to the one that it met.",
    ),
    Bug(
        "rows and columns of dy exchanged",
        *(CONV, "input_gradient", DY, "dy[n, k, j, i]", "dx of a convolution"),
        "Ones with rows and columns exchanged are ones again: with them the check is blind.",
    ),
    Bug(
        "the first image of a batch only",
        *(CONV, "weight_gradient", "x.shape[0], shape", "1, shape"),
        "dw of a convolution",
        "With one image nothing is left out. A check speaks of the sizes it was given.",
    ),
    Bug(
        "one pixel too few in a mean",
        *("batch_norm", "batch_norm_backward", "cache.pixels", "cache.pixels - 1"),
        "dx of batch normalisation",
        "With a random g and two images wrong by some thousandths, and by less the more pixels a batch has. "
        "There float32 needs a tolerance under which that goes unseen; float64 does not.",
    ),
    Bug(
        "on a tie every greatest value is paid",
        *("pool", "max_pool2d_backward", "wins &= unclaimed", ""),
        "dx of max pooling",
        "No two values of this check are equal, so it never happens here. Behind a ReLU there are many "
        "zeros, and no quotient could tell: a tie is a kink. Only a test by hand can.",
    ),
]
CHECKS = {  # how a check is done: (all g one, how many images)
    "random g, two images": (False, 2),
    "g all ones, two images": (True, 2),
    "random g, one image": (False, 1),
}
TOLERANCES = {"float64": 1e-6, "float32": 1e-2}
STEPS = [float(f"1e{n}") for n in range(-9, 0)]


def _modules():
    names = {bug.module for bug in BUGS}
    return {name: importlib.import_module(f"minifcn.ops.{name}") for name in names}


def _gradients(x, w, gamma):
    """{gradient: (the array it is of, forward(array) -> (y, cache), backward(dy, cache) -> the gradient)}"""
    modules = _modules()
    zero, one = np.zeros_like(gamma), np.ones_like(gamma)

    def conv_backward(which):
        def backward(dy, cache):
            with ops.conv_algorithm("naive"):  # the loops of conv/reference.py
                return ops.conv2d_backward(dy, cache)[which]

        return backward

    return {
        "dx of a convolution": (
            x,
            lambda a: ops.conv2d_forward(a, w, pad=1),
            conv_backward(0),
        ),
        "dw of a convolution": (
            w,
            lambda a: ops.conv2d_forward(x, a, pad=1),
            conv_backward(1),
        ),
        "dx of batch normalisation": (
            x,
            lambda a: ops.batch_norm_forward(a, gamma, zero, zero, one, train=True),
            lambda dy, cache: modules["batch_norm"].batch_norm_backward(dy, cache)[0],
        ),
        "dx of max pooling": (
            x,
            lambda a: ops.max_pool2d_forward(a, 2),
            lambda dy, cache: modules["pool"].max_pool2d_backward(dy, cache),
        ),
    }


def _setting(check, dtype):
    """The gradients of a check's arrays in a dtype, and its g for outputs of a shape."""
    ones, images = CHECKS[check]
    rng = np.random.default_rng(7)
    x = (rng.permutation(32).reshape(2, 1, 4, 4) / 8 - 2)[:images]  # no two are equal
    arrays = x, rng.normal(size=(1, 1, 3, 3)), np.full(1, 1.5)
    upstream = rng.normal(size=(2, 1, 4, 4))

    def g(shape):
        n, _, height, width = shape
        part = np.ones(shape) if ones else upstream[:n, :, :height, :width]
        return part.astype(dtype)

    return _gradients(*(array.astype(dtype) for array in arrays)), g


@contextmanager
def planted(bug):
    """The library with a bug in it: the function compiled anew from its source, with the one piece changed.

    Raises ValueError if the piece is not once in the function.
    """
    module = _modules()[bug.module]
    source = inspect.getsource(getattr(module, bug.function))
    if source.count(bug.right) != 1:
        raise ValueError(
            f"{module.__name__}: expected {bug.right!r} once in {bug.function}"
        )
    names = dict(vars(module))
    exec(source.replace(bug.right, bug.wrong), names)
    with mock.patch.object(module, bug.function, names[bug.function]):
        yield


def analytic(bug, check, dtype):
    """What the backward with the bug in returns, of the first map or kernel.   -> (h, w)"""
    gradients, g = _setting(check, dtype)
    at, forward, backward = gradients[bug.gradient]
    y, cache = forward(at)
    with planted(bug):
        return backward(g(y.shape), cache)[0, 0]


def numeric(gradient, check, dtype, e):
    """The quotients of F = Σ g·y by the first map or kernel, all in the dtype.   -> ((h, w), the size of g)"""
    gradients, g = _setting(check, dtype)
    at, forward, _ = gradients[gradient]
    g, e = g(forward(at)[0].shape), np.dtype(dtype).type(e)
    found = np.zeros_like(at[0, 0])
    for index in np.ndindex(found.shape):
        F = []
        for moved in (e, -e):
            near = at.copy()
            near[0, 0][index] += moved
            F.append(np.sum(g * forward(near)[0]))
        found[index] = (F[0] - F[1]) / (2 * e)
    return found, np.linalg.norm(g)


def error(one, other, size):
    """|one − other| over the largest of both and `size`, since a gradient may be zero."""
    one, other = one.astype(float), other.astype(float)
    size = max(np.linalg.norm(one), np.linalg.norm(other), size)
    return float(np.linalg.norm(one - other) / size)


def numbers():
    """All that the lab shows, for every bug, check, dtype and e."""
    backend.use_native(False)  # compiled kernels would pass the planted line by
    try:
        return _numbers()
    finally:
        backend.use_native(None)


def _numbers():
    settings = list(product(CHECKS, TOLERANCES))
    quotients, shown, bugs = {}, {}, []
    for gradient in dict.fromkeys(bug.gradient for bug in BUGS):
        for check, dtype in settings:
            found = [numeric(gradient, check, dtype, e) for e in STEPS]
            quotients[gradient, check, dtype] = found
            maps = [_short(quotient) for quotient, _ in found]
            shown.setdefault(gradient, {}).setdefault(check, {})[dtype] = maps
    for bug in BUGS:
        results = {check: {} for check in CHECKS}
        for check, dtype in settings:
            found = analytic(bug, check, dtype)
            errors = [error(found, *q) for q in quotients[bug.gradient, check, dtype]]
            results[check][dtype] = {"analytic": _short(found), "errors": errors}
        bugs.append(bug._asdict() | {"lines": _lines(bug), "results": results})
    return {
        "bugs": bugs,
        "quotients": shown,
        "steps": STEPS,
        "tolerances": TOLERANCES,
        "checks": [*CHECKS],
    }


def _lines(bug):
    """The line as it is, and as the bug has it."""
    source = inspect.getsource(getattr(_modules()[bug.module], bug.function))
    (line,) = (line for line in source.splitlines() if bug.right in line)
    return [line.strip(), line.replace(bug.right, bug.wrong).strip()]


def _short(rows):
    return [[float(f"{value:.4g}") for value in row] for row in rows]
