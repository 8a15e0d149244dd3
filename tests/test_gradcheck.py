"""The gradient checker is honest: it finds wrong gradients, and it takes no kink for one."""

from functools import partial

import numpy as np
import pytest
from gradcheck_cases import ROUNDING, TOLERANCE, check, spread

from minifcn import layers, models, ops
from minifcn.gradcheck import STEP, KinkError, PrecisionError, check_adjoint, check_layer

# --- A wrong gradient is found -----------------------------------------------------------------------------------


def cube_forward(x):
    return x**3, x


def cube_backward(dy, x):
    return 3 * x**2 * dy


def one_entry_off(dy, x):
    dx = cube_backward(dy, x)
    dx.flat[7] *= 1.01
    return dx


WRONG = {
    "scaled": lambda dy, x: 1.001 * cube_backward(dy, x),
    "zero": lambda dy, x: 0 * x,
    "sign": lambda dy, x: -cube_backward(dy, x),
    "one entry": one_entry_off,
    "upstream mirrored": lambda dy, x: cube_backward(dy[::-1], x),
    "upstream ignored": lambda dy, x: 3 * x**2,
    "not a number": lambda dy, x: cube_backward(dy, x) * np.nan,
}


def test_right_gradient_passes():
    report = check(cube_forward, cube_backward, spread((4, 5)), directions=3, elements=100)
    assert report.max_relative_error <= TOLERANCE
    assert report.checked == 3 + 20
    assert (
        0 < report.max_relative_error < report.allowance + 1e-9 and report.allowance < TOLERANCE
    )  # nothing is subtracted


@pytest.mark.parametrize("backward", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("shape", [(3, 4), (50, 60)])
def test_wrong_gradient_is_found(backward, shape):
    assert not check(cube_forward, backward, spread(shape)).max_relative_error <= 1e-4


@pytest.mark.parametrize("factor", [1.01, np.nan])
@pytest.mark.parametrize("wrong", [0, 1])
def test_wrong_gradient_of_one_of_two_arguments_is_found_and_named(wrong, factor):
    def backward(dy, cache):
        gradients = [dy * cache[1], dy * cache[0]]
        gradients[wrong] = gradients[wrong] * factor
        return tuple(gradients)

    report = check(lambda a, b: (a * b, (a, b)), backward, spread((3, 4)), spread((3, 4), seed=5))
    assert not report.max_relative_error <= 1e-4
    assert report.worst == f"argument {wrong}"


def test_zero_softmax_gradient_is_found():
    """With an all-ones upstream gradient it would pass, because probabilities always add up to 1."""

    def softmax(x):
        e = np.exp(x)
        return e / e.sum(axis=1, keepdims=True), x

    assert check(softmax, lambda dy, x: 0 * x, spread((3, 4))).max_relative_error > 0.1


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_gradient_that_is_zero_passes(size):
    """Its quotients are rounding alone, whose size says nothing. So are those of a bias before batch normalisation."""

    def add_up_softmax(x):
        e = np.exp(x)
        return size * (e / e.sum(axis=1, keepdims=True)).sum(axis=1), x

    assert check(add_up_softmax, lambda dy, x: 0 * x, spread((3, 4))).max_relative_error <= TOLERANCE
    conv = layers.Conv2d(2, 3, 3, np.random.default_rng(0))
    chain = models.Sequential(conv=conv, norm=layers.BatchNorm2d(3))
    report = check_layer(chain, spread((3, 2, 5, 5)), np.random.default_rng(1))
    assert report.max_relative_error <= TOLERANCE, report


def test_wrong_parameter_gradient_of_a_layer_is_found_and_named():
    class Wrong(layers.Linear):
        def run_backward(self, dy, cache):
            dx = super().run_backward(dy, cache)
            self.bias.grad *= 1.01
            return dx

    report = check_layer(Wrong(3, 4, np.random.default_rng(0)), spread((5, 3)), np.random.default_rng(1))
    assert report.max_relative_error > 1e-4
    assert report.worst == "bias"


def test_rounding_that_could_hide_an_error_fails_the_check():
    """A sum of large values that hardly move: quotients of them are rounding."""
    with pytest.raises(PrecisionError, match="rounding"):
        check(lambda x: (1e6 + x, x), lambda dy, x: dy, spread((3, 4)))
    wrong = check(lambda x: (1e6 + x, x), lambda dy, x: 1.1 * dy, spread((3, 4)))
    assert wrong.max_relative_error > 0.05 and wrong.allowance > TOLERANCE  # which needs no precision
    for factor in (1, 5, 10):  # of a gradient that no quotient can show
        with pytest.raises(PrecisionError, match="rounding"):
            check(lambda x: (1e3 + 1e-9 * x, x), lambda dy, x, factor=factor: factor * 1e-9 * dy, spread((3, 4)))


def test_non_adjoint_is_found():
    w = spread((3, 3), seed=1)
    wrong = check_adjoint(lambda x: (x @ w, None), lambda dy, _: dy @ w, spread((5, 3)), np.random.default_rng(0))
    right = check_adjoint(lambda x: (x @ w, None), lambda dy, _: dy @ w.T, spread((5, 3)), np.random.default_rng(0))
    assert wrong > 1e-3
    assert right <= ROUNDING


# --- Passes that write where they must not, and shapes that do not fit --------------------------------------------


def doubling_backward(dy, x):
    dy *= 2
    return dy


def doubling_forward(x):
    x *= 2
    return x, None


@pytest.mark.parametrize(
    "passes", [(doubling_forward, lambda dy, _: 2 * dy), (lambda x: (2 * x, x), doubling_backward)]
)
def test_passes_that_write_to_their_arguments_raise(passes):
    with pytest.raises(ValueError, match="read-only"):
        check(*passes, spread((3, 4)))
    with pytest.raises(ValueError, match="read-only"):
        check_adjoint(*passes, spread((3, 4)), np.random.default_rng(0))


@pytest.mark.parametrize("backward", [lambda dy, x: dy.T, lambda dy, x: dy[:1], lambda dy, x: dy.sum()])
def test_gradient_of_another_shape_raises(backward):
    with pytest.raises(ValueError, match="argument 0.*shape"):
        check(lambda x: (x, x), backward, spread((3, 4)))
    with pytest.raises(ValueError):  # one too few
        check(lambda a, b: (a * b, b), lambda dy, b: (dy * b,), spread((3, 4)), spread((3, 4), seed=5))


def test_inputs_are_left_as_they_are():
    x, before = spread((3, 4)), spread((3, 4))
    layer = layers.Linear(4, 2, np.random.default_rng(0))
    check(cube_forward, cube_backward, x)
    check_layer(layer, x, np.random.default_rng(1))
    assert np.array_equal(x, before)
    assert x.flags.writeable
    assert layer.weight.value.dtype == np.float32
    assert not layer.weight.grad.any()


# --- Kinks are told from errors ----------------------------------------------------------------------------------

AT_KINK = [0.0, 1e-6, -1e-6, STEP / 3, -STEP / 3, STEP / 2, 0.75 * STEP]


@pytest.mark.parametrize("some", [slice(0, 1), slice(0, 5), slice(None)], ids=["one", "some", "all"])
@pytest.mark.parametrize("value", AT_KINK)
def test_relu_near_its_kink_is_redrawn(value, some):
    x = spread((3, 4))
    x.flat[some] = value
    report = check(ops.relu_forward, ops.relu_backward, x)
    assert report.redrawn > 0
    assert report.max_relative_error <= TOLERANCE


@pytest.mark.parametrize("gap", [0.0, 1e-6, STEP / 3])
def test_max_pool_of_equal_values_is_redrawn(gap):
    x = spread((1, 2, 4, 4))
    x[0, 0, 0, :2] = 3, 3 + gap
    forward = partial(ops.max_pool2d_forward, kernel=2)
    report = check(forward, ops.max_pool2d_backward, x)
    assert report.redrawn > 0
    assert report.max_relative_error <= TOLERANCE
    wrong = check(forward, lambda dy, cache: 1.01 * ops.max_pool2d_backward(dy, cache), x)
    assert wrong.max_relative_error > 1e-3


def test_kinks_everywhere_raise():
    """|sin| with a kink every 3e-6: no nearby point is far enough from one."""
    with pytest.raises(KinkError, match="argument 0"):
        check(lambda x: (abs(np.sin(1e6 * x)), x), lambda dy, x: dy * x, spread((3, 4)))
