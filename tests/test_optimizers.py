"""How parameters move: updates by hand, what freezes and decays, schedules, and optimisers that go on from their state."""

import numpy as np
import pytest

from minifcn import layers
from minifcn.layers import Parameter
from minifcn.training import optimizers, schedule


def one_weight(value=1.0, grad=0.5, **options):
    p = Parameter(np.array([value]), **options)
    p.grad[...] = grad
    return {"w": p}


def walk(optimizer, rates):
    values = []
    for rate in rates:
        optimizer.step(rate)
        values.append(float(optimizer.parameters["w"].value[0]))
    return values


def test_sgd_keeps_the_rate_inside_the_velocity():
    """v = 0.5, then 0.9 · 0.5 + 0.1 · 0.5: the first step's rate is still felt in the second."""
    assert walk(optimizers.SGD(one_weight(), momentum=0.9), [1, 0.1]) == pytest.approx([0.5, 0.0])


def test_sgd_multiplies_rate_and_decay():
    parameters = one_weight(2.0, lr_mult=2.0, decay_mult=0.5)
    (moved,) = walk(optimizers.SGD(parameters, momentum=0.0, weight_decay=0.1), [0.1])
    assert moved == pytest.approx(2 - 0.2 * (0.5 + 0.1))


@pytest.mark.parametrize("kind", [optimizers.Adam, optimizers.AdamW])
@pytest.mark.parametrize("grad", [1e-3, 5.0])
def test_adam_steps_by_the_rate_from_the_first_step_on(kind, grad):
    assert walk(kind(one_weight(grad=grad)), [0.1, 0.1, 0.1]) == pytest.approx([0.9, 0.8, 0.7], rel=1e-4)


def test_adamw_decays_the_weights_themselves():
    assert walk(optimizers.AdamW(one_weight(2.0), weight_decay=0.1), [0.1]) == pytest.approx([2 * 0.99 - 0.1])
    assert walk(optimizers.Adam(one_weight(2.0), weight_decay=0.1), [0.1]) == pytest.approx([2 - 0.1])


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS.values(), ids=optimizers.OPTIMIZERS)
def test_biases_do_not_decay_and_frozen_parameters_do_not_move(kind):
    layer, frozen = layers.Conv2d(2, 3, 1, np.random.default_rng(0)), Parameter(np.ones(2, np.float32), frozen=True)
    layer.bias.value += 1
    frozen.grad += 1
    weight = layer.weight.value.copy()
    optimizer = kind({**layer.parameters(), "frozen": frozen}, weight_decay=0.1)
    optimizer.step(0.1)
    assert np.all(layer.bias.value == 1)
    assert np.all(frozen.value == 1)
    assert np.all(abs(layer.weight.value) < abs(weight))


@pytest.mark.parametrize("kind", optimizers.OPTIMIZERS.values(), ids=optimizers.OPTIMIZERS)
def test_restored_optimizer_goes_on_alike(kind):
    optimizer = kind(one_weight())
    walk(optimizer, [0.1, 0.1])
    arrays, rest = optimizer.state()
    value = float(optimizer.parameters["w"].value[0])
    expected = walk(optimizer, [0.1, 0.05])
    again = kind(one_weight(value))
    again.restore(arrays, rest)
    assert walk(again, [0.1, 0.05]) == expected


def test_schedules():
    assert [schedule.poly(i, 100) for i in (0, 50, 99)] == pytest.approx([1, 0.5**0.9, 0.01**0.9])
    assert [schedule.step(i, 90) for i in (0, 29, 30, 59, 60, 89)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert schedule.constant(7, 10) == 1
