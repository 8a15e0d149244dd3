"""What a gradient check cannot see outside the operations: the rules that training, metrics and data keep."""

import numpy as np
import pytest

from minifcn import layers
from minifcn.data import transforms
from minifcn.layers import Parameter
from minifcn.metrics import ConfusionMatrix
from minifcn.training import optim, schedule

# --- Training -----------------------------------------------------------------------------------------------------


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
    assert walk(optim.SGD(one_weight(), momentum=0.9), [1, 0.1]) == pytest.approx([0.5, 0.0])


def test_sgd_multiplies_rate_and_decay():
    parameters = one_weight(2.0, lr_mult=2.0, decay_mult=0.5)
    assert walk(optim.SGD(parameters, momentum=0.0, weight_decay=0.1), [0.1]) == pytest.approx([2 - 0.2 * (0.5 + 0.1)])


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize("grad", [1e-3, 5.0])
def test_adam_steps_by_the_rate_from_the_first_step_on(kind, grad):
    assert walk(kind(one_weight(grad=grad)), [0.1, 0.1, 0.1]) == pytest.approx([0.9, 0.8, 0.7], rel=1e-4)


def test_adamw_decays_the_weights_themselves():
    assert walk(optim.AdamW(one_weight(2.0), weight_decay=0.1), [0.1]) == pytest.approx([2 * 0.99 - 0.1])
    assert walk(optim.Adam(one_weight(2.0), weight_decay=0.1), [0.1]) == pytest.approx([2 - 0.1])


@pytest.mark.parametrize("kind", optim.OPTIMIZERS.values(), ids=optim.OPTIMIZERS)
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


@pytest.mark.parametrize("kind", optim.OPTIMIZERS.values(), ids=optim.OPTIMIZERS)
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


# --- Metrics ------------------------------------------------------------------------------------------------------


def counted():
    """Class 0: 3 of 4 right. Class 1: 1 of 2 right. Class 2: never there, predicted once. Class 3: nowhere."""
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 0, 0, 0, 1, 1, 255]), np.array([0, 0, 0, 1, 1, 2, 0]))
    return matrix


def test_the_four_figures_by_hand():
    matrix = counted()
    np.testing.assert_allclose(matrix.per_class_iou(), [3 / 4, 1 / 3, 0, np.nan])
    assert matrix.pixel_accuracy() == pytest.approx(4 / 6)
    assert matrix.mean_accuracy() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert matrix.mean_iou() == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert matrix.mean_iou([0, 3]) == pytest.approx(3 / 4)
    assert matrix.frequency_weighted_iou() == pytest.approx((4 * 3 / 4 + 2 * 1 / 3) / 6)


def test_images_add_up():
    matrix = counted()
    matrix.update(np.array([[0]]), np.array([[1]]))
    assert matrix.counts.tolist() == [[3, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


# --- Images and labels --------------------------------------------------------------------------------------------

LABEL = np.where(np.arange(12 * 10).reshape(12, 10) % 7 < 3, 3, 250).astype(np.uint8)
IMAGE = np.stack([LABEL] * 3, axis=2)


@pytest.mark.parametrize("size", [(5, 7), (24, 20), (31, 13)])
def test_resized_labels_are_labels(size):
    image, label = transforms.resize(IMAGE, LABEL, size)
    assert image.shape == size + (3,)
    assert label.shape == size
    assert set(np.unique(label)) == {3, 250}
    assert len(np.unique(image)) > 2  # photographs are blended


def test_image_and_labels_move_together():
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(20):
        image, label = transforms.random_flip(IMAGE, LABEL, rng)
        flips += not np.array_equal(label, LABEL)
        image, label = transforms.random_crop(image, label, rng, (9, 14), (255, 255, 255))
        assert np.array_equal(image[:, :, 0], label)
        assert (label == 255).sum() == 9 * 4
    assert 4 <= flips <= 16


def test_preprocessing():
    image = np.array([[[10, 20, 30]]], np.uint8)
    bgr = transforms.Preprocessing("BGR", (1, 2, 3), (1, 1, 0.5))
    assert bgr.apply(image).ravel().tolist() == [29, 18, 3.5]
    assert bgr.fill().tolist() == [3, 2, 1]
