"""Is a backward pass the derivative of its forward pass? Three questions, answered in float64.

With a random upstream gradient g, let F(a) = Σ g · forward(a). An all-ones g would miss, for one, a softmax whose gradient is zero.

- element by element: does each entry of each gradient equal (F(a + e) − F(a − e)) / 2e?
- along random directions: does ⟨gradient, v⟩ equal the same quotient along v? One number for a whole network.
- adjoint, for linear operations: ⟨forward(x), g⟩ = ⟨x, backward(g)⟩, exact but for rounding, without any e.

Inputs and g are read-only, so that a pass that writes to them fails. Where the forward has a kink (a ReLU at 0, two equal
values in a pool) within reach of e the quotient means nothing; a kink shows in quotients that do not settle as e is
halved, and then another direction or entry is drawn, or another point nearby. The tolerance is never loosened for it.

Errors are reported as they are. Beside them stands the allowance, what rounding alone may do to a quotient; where it
reaches the tolerance it could hide an error, and the check fails.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from .backend import Array, array_module, to_device_of, to_host
from .errors import InputError
from .layers import Layer

TOLERANCE = 1e-6  # what every operation, layer and network here stays below
STEP = 3e-5  # right gradients come out some 1e-8 off; a smaller step has more rounding, a larger one meets more kinks
KINK = 5e-8  # relative: how far quotients at e and e/2 may differ before the point counts as a kink
ROUNDING = 1e-15  # relative to F: a few units in the last place
ZERO = 1e-13  # relative to F: so small a gradient is the rounding of sums that cancel, as for a bias before batch normalisation
REDRAWS = 5  # directions tried at one point, and points tried in all
NUDGE = 0.01  # how far, relative to a typical value, a redrawn point lies from the one given


@dataclass
class Report:
    """What a check found. Errors are relative: |analytic − numeric| over the size of the gradient it belongs to."""

    max_relative_error: float
    worst: str  # the array with the greatest error
    checked: int  # numbers compared
    redrawn: int  # kinks met, each followed by a new draw
    allowance: float  # the most that rounding alone may have added to a relative error, below TOLERANCE

    def __str__(self) -> str:
        return (
            f"worst relative error {self.max_relative_error:.1e} ({self.worst}), rounding up to {self.allowance:.1e}; "
            f"{self.checked} numbers compared, {self.redrawn} redrawn at kinks"
        )


class KinkError(InputError):
    """Too many draws hit kinks: the point is not a differentiable one."""


class PrecisionError(InputError):
    """Rounding alone could make or hide an error of TOLERANCE: the check proves nothing."""


def check_op(
    forward: Callable, backward: Callable, arrays: Sequence, rng: Generator, *, directions: int = 4, elements: int = 40
) -> Report:
    """Check forward(*arrays) -> (y, cache) against backward(dy, cache) -> gradients, in the order of arrays.

    arrays: float arrays (converted to float64); backward may return more gradients than arrays, and None for one to skip.
    elements: how many entries of each array are checked one by one (all, if it has no more). -> Report
    Raises KinkError and PrecisionError where finite differences cannot tell.
    """

    def prepare(at):
        y, cache = forward(*at)
        upstream = _upstream(y, rng)
        gradients = backward(upstream, cache)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        if len(gradients) < len(at):
            raise InputError(f"gradcheck: expected {len(at)} gradients, one for each array; got {len(gradients)}")
        return upstream, {f"argument {i}": g for i, g in enumerate(gradients[: len(at)])}

    return _check_points(lambda at: forward(*at)[0], prepare, arrays, rng, directions, elements)


def check_layer(layer: Layer, x: Array, rng: Generator, *, directions: int = 4, elements: int = 40) -> Report:
    """Check a layer or a whole network, its input gradient and that of every parameter that is not frozen, on a float64 copy. -> Report

    Several outputs are checked as one concatenated row. Random draws inside (dropout) are the same in every evaluation, so that they
    are constants of the check.
    """
    layer = copy.deepcopy(layer).astype(np.float64)
    parameters = {name: p for name, p in layer.parameters().items() if not p.frozen}
    states = {name: generator.bit_generator.state for name, generator in layer.generators().items()}

    def run(at):
        for name, generator in layer.generators().items():
            generator.bit_generator.state = states[name]
        for p, value in zip(parameters.values(), at[1:], strict=True):
            p.value = value
        return layer.forward(at[0], train=True)

    def prepare(at):
        found = run(at)
        upstream = _upstream(_in_a_row(found), rng)
        layer.zero_grad()
        dx = layer.backward(_as(found, upstream))
        return upstream, {"input": dx, **{name: p.grad.copy() for name, p in parameters.items()}}

    return _check_points(
        lambda at: _in_a_row(run(at)), prepare, [x] + [p.value for p in parameters.values()], rng, directions, elements
    )


def check_adjoint(forward: Callable, backward: Callable, x: Array, rng: Generator) -> float:
    """The relative difference of ⟨forward(x), g⟩ and ⟨x, backward(g)⟩ for an operation that is linear in x.

    forward(x) -> (y, cache); backward(g, cache) -> dx, or a tuple that begins with it. Rounding leaves about 1e-15.
    """
    x = _locked(x)
    y, cache = forward(x)
    g = _upstream(y, rng)
    dx = backward(g, cache)
    dx = dx[0] if isinstance(dx, tuple) else dx
    left, right = float((y * g).sum()), float((x * dx).sum())
    size = float((abs(y) * abs(g)).sum())
    return abs(left - right) / max(size, np.finfo(np.float64).tiny)


def _in_a_row(found):
    """What a layer gave, an array or a dict of arrays by name, as one array (size,)."""
    arrays = [*found.values()] if isinstance(found, dict) else [found]
    return array_module(arrays[0]).concatenate([array.reshape(-1) for array in arrays])


def _as(found, row):
    """The numbers of a row in the form of `found`, a layer's output: the inverse of `_in_a_row`."""
    if not isinstance(found, dict):
        return row.reshape(found.shape)
    parts, begin = {}, 0
    for name, array in found.items():
        parts[name] = row[begin : begin + array.size].reshape(array.shape)
        begin += array.size
    return parts


def _check_points(evaluate, prepare, arrays, rng, directions, elements):
    """Compare at the given point, or at one nearby if too many directions meet kinks there."""
    report = Report(0.0, "nothing", 0, 0, 0.0)
    point = [_locked(a) for a in arrays]
    for draw in range(REDRAWS):
        try:
            upstream, gradients = prepare(point)
            slope = partial(_slope, evaluate, point, evaluate(point), upstream)
            for i, (name, gradient) in enumerate(gradients.items()):
                if gradient is not None:
                    _compare(report, name, gradient, point[i], partial(slope, i), rng, directions, elements)
            break
        except KinkError:
            if draw == REDRAWS - 1:
                raise
            point = [_locked(a + max(NUDGE * float(abs(a).mean()), 100 * STEP) * _normal(a, rng)) for a in point]
    if report.allowance >= max(TOLERANCE, report.max_relative_error):
        raise PrecisionError(
            f"gradcheck: expected rounding to stay below {TOLERANCE:.0e} of every gradient, got {report.allowance:.1e}; "
            "give fewer or smaller outputs"
        )
    return report


def _compare(report, name, gradient, array, slope_along, rng, directions, elements):
    """Check one array's gradient along random directions and entry by entry."""
    if gradient.shape != array.shape:
        raise InputError(f"gradcheck: {name}: expected a gradient of shape {array.shape}, got {gradient.shape}")
    gradient = to_host(gradient)

    def entry(index):
        one = np.zeros(array.size)
        one[index] = 1
        return one.reshape(array.shape)

    def unit_direction():
        direction = rng.standard_normal(array.shape)
        return direction / np.sqrt((direction**2).sum())  # short, so that in a large network few units cross a kink

    def slope(direction):
        return slope_along(to_device_of(array, direction))

    for _ in range(directions):
        _check(report, name, gradient, slope, unit_direction)
    for index in rng.permutation(array.size)[:elements]:
        first = iter([index])
        _check(report, name, gradient, slope, lambda first=first: entry(next(first, rng.integers(array.size))))


def _check(report, name, gradient, slope, draw):
    """Compare one directional derivative, drawing another direction at kinks, and note it in the report."""
    for _ in range(REDRAWS):
        direction = draw()
        numeric, smooth, value = slope(direction)
        if smooth:
            break
        report.redrawn += 1
    else:
        raise KinkError(f"gradcheck: {name}: {REDRAWS} draws in a row met kinks; give inputs away from them")
    analytic = float((gradient * direction).sum())
    typical = float(np.sqrt((gradient**2).mean()))  # an entry that happens to be tiny is not held to its own size
    size, noise = max(abs(analytic), abs(numeric), typical), ROUNDING * value / STEP
    if (
        size <= noise and max(abs(analytic), typical) <= ZERO * value
    ):  # zero: the error has only F itself to be relative to
        size = value
    size = max(size, 1e-12)
    error = abs(analytic - numeric) / size
    report.checked += 1
    report.allowance = max(report.allowance, noise / size)
    error = float("inf") if error != error else error  # a NaN is an error too, and no later one may hide it
    if error > report.max_relative_error:
        report.max_relative_error, report.worst = error, name


def _slope(evaluate, arrays, here, upstream, position, direction):
    """(the derivative of F along `direction`, whether the quotients at e and e/2 agree that there is one, Σ |g · y|)."""

    def at(step):
        moved = list(arrays)
        moved[position] = _locked(arrays[position] + step * direction)
        return evaluate(moved)

    central, bend = [], []
    for step in (STEP, STEP / 2):
        # Differences first, then sums: the parts that do not change cancel without rounding.
        ahead = float(((at(step) - here) * upstream).sum()) / step
        behind = float(((here - at(-step)) * upstream).sum()) / step
        central.append((ahead + behind) / 2)
        bend.append(ahead - behind)
    value = float(abs(here * upstream).sum())
    # For a smooth F the central quotients agree to O(e²) and the bend shrinks with e; at a kink at least one does not.
    size = max(abs(central[0]), abs(central[1]), 1e-3 * float(abs(upstream).max()))
    allowed = KINK * size + ROUNDING * value / STEP
    return central[0], max(abs(central[0] - central[1]), abs(bend[0] - 2 * bend[1])) <= allowed, value


def _normal(like, rng):
    return to_device_of(like, rng.standard_normal(like.shape))


def _upstream(y, rng):
    return _locked(_normal(y, rng))


def _locked(array):
    """A float64 copy that refuses to be written to."""
    copied = array_module(array).array(array, dtype="float64")
    if isinstance(copied, np.ndarray):  # CuPy has no such lock; the same code is locked when it runs on NumPy
        copied.flags.writeable = False
    return copied
