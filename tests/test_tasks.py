"""A task's loss can be put together of parts, to the bits of the whole; and classifiers are trained by the same loop."""

import numpy as np
import pytest

from minifcn import layers, models, ops
from minifcn.data.labels import balanced_weights
from minifcn.errors import InputError
from minifcn.tasks import Classification, SemanticSegmentation
from minifcn.training import loop, optimizers


def batch(rng, shape=(4, 3, 5, 6), dtype=np.float32):
    """Logits, and labels of which some are void, and all of the third image."""
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = 255
    labels[2] = 255
    return rng.standard_normal(shape).astype(dtype), labels


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_one_part_has_the_operations_bits(reduction, rng):
    for _ in range(20):
        logits, labels = batch(rng)
        total, weight, cache = SemanticSegmentation(reduction).loss(logits, labels)
        loss, expected = ops.softmax_cross_entropy_forward(logits, labels, reduction=reduction)
        assert float(total / (weight or 1)) == float(loss)
        found = SemanticSegmentation(reduction).loss_backward(1 / (weight or 1), cache)
        np.testing.assert_array_equal(found, ops.softmax_cross_entropy_backward(1.0, expected))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("task", [SemanticSegmentation, Classification])
def test_parts_of_a_batch_add_up(task, reduction, rng):
    logits, labels = batch(rng, (6, 3, 4, 5) if task is SemanticSegmentation else (6, 3), np.float64)
    task = task(reduction)
    parts = [task.loss(logits[part], labels[part]) for part in (slice(0, 1), slice(1, 3), slice(3, 6))]
    divisor = sum(weight for _, weight, _ in parts) or 1
    expected, cache = ops.softmax_cross_entropy_forward(logits, labels, reduction=reduction)
    assert sum(total for total, _, _ in parts) / divisor == pytest.approx(float(expected), rel=1e-12)
    gradient = np.concatenate([task.loss_backward(1 / divisor, cache) for _, _, cache in parts])
    np.testing.assert_allclose(gradient, ops.softmax_cross_entropy_backward(1.0, cache), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_by_hand_over_parts_of_a_batch(reduction, rng):
    """Each labelled pixel counts as its class's weight, in the loss and in what the mean divides by; void counts nothing."""
    logits, labels = batch(rng, dtype=np.float64)
    of_classes, task = np.array([0.5, 3, 1]), SemanticSegmentation(reduction, [0.5, 3, 1])
    losses, _ = ops.softmax_cross_entropy_forward(logits, labels, reduction="none")
    share = np.where(labels == 255, 0, of_classes[labels % 255])
    divisor = share.sum() if reduction == "mean" else 1
    parts = [task.loss(logits[part], labels[part]) for part in (slice(0, 1), slice(1, 4))]
    given = sum(weight for _, weight, _ in parts) or 1
    assert sum(total for total, _, _ in parts) / given == pytest.approx((losses * share).sum() / divisor, rel=1e-12)
    gradient = np.concatenate([task.loss_backward(1 / given, cache) for _, _, cache in parts])
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = shifted / shifted.sum(axis=1, keepdims=True) - (labels[:, None] == np.arange(3)[:, None, None])
    np.testing.assert_allclose(gradient, expected * share[:, None] / divisor, rtol=1e-9, atol=1e-12)
    assert task.loss(np.full((1, 3, 1, 1), 0.5, np.float32), np.full((1, 1, 1), 255, np.uint8))[1] == 0


def weighted_batch(rng):
    """Logits and labels as in `batch`, and the weights of the pixels, 0 among them."""
    logits, labels = batch(rng, dtype=np.float64)
    weights = (11 * rng.random(labels.shape)).astype(np.float32)
    weights[0, :2] = 0
    return logits, labels, weights


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("of_classes", [None, [0.5, 3, 1]])
def test_pixels_weights_multiply_those_of_classes_over_parts_of_a_batch(of_classes, reduction, rng):
    logits, labels, weights = weighted_batch(rng)
    task = SemanticSegmentation(reduction, of_classes)
    losses, _ = ops.softmax_cross_entropy_forward(logits, labels, reduction="none")
    share = np.where(labels == 255, 0, np.array(of_classes or [1, 1, 1])[labels % 255] * weights)
    divisor = share.sum() if reduction == "mean" else 1
    parts = [task.loss(logits[part], (labels[part], weights[part])) for part in (slice(0, 1), slice(1, 4))]
    given = sum(weight for _, weight, _ in parts) or 1
    assert given == pytest.approx(divisor)
    assert sum(total for total, _, _ in parts) / given == pytest.approx((losses * share).sum() / divisor, rel=1e-12)
    gradient = np.concatenate([task.loss_backward(1 / given, cache) for _, _, cache in parts])
    _, cache = ops.softmax_cross_entropy_forward(logits, labels, reduction="none")
    expected = ops.softmax_cross_entropy_backward(share / divisor, cache)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dice_is_added_to_the_mean_and_for_each_pixel_to_the_sum(reduction, dtype, device, rng):
    logits, labels, weights = weighted_batch(rng)
    logits = device.put(logits.astype(dtype))
    plain, both = SemanticSegmentation(reduction), SemanticSegmentation(reduction, dice=0.7)
    (total, weight, first), (more, same, cache) = (task.loss(logits, (labels, weights)) for task in (plain, both))
    dice, overlap = ops.dice_forward(logits, device.put(labels))
    pixels = 0.7 * weights[labels != 255].sum(dtype="float64")
    assert same == weight
    assert float(more) == pytest.approx(float(total) + pixels * float(dice), rel=1e-6)
    gradient, cross_entropy = (device.get(task.loss_backward(0.25, c)) for task, c in ((both, cache), (plain, first)))
    expected = cross_entropy + device.get(ops.dice_backward(0.25 * pixels, overlap))
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_each_part_of_a_batch_has_its_own_dice_loss(rng):
    logits, labels = batch(rng, dtype=np.float64)
    plain, both = SemanticSegmentation(), SemanticSegmentation(dice=2)
    parts = slice(0, 1), slice(1, 4)
    added = [both.loss(logits[p], labels[p])[0] - plain.loss(logits[p], labels[p])[0] for p in parts]
    pixels = [(labels[p] != 255).sum() for p in parts]
    dice = [ops.dice_forward(logits[p], labels[p])[0] for p in parts]
    assert sum(added) / sum(pixels) == pytest.approx(2 * np.average(dice, weights=pixels), rel=1e-12)


@pytest.mark.parametrize("task", [SemanticSegmentation(), SemanticSegmentation("sum", [0.5, 3, 1], dice=0.5)])
def test_logits_of_fewer_pixels_are_those_of_the_middle(task, rng):
    logits, labels, weights = weighted_batch(rng)
    larger = [np.pad(array, ((0, 0), (2, 2), (1, 1)), constant_values=1) for array in (labels, weights)]
    expected, found = task.loss(logits, (labels, weights)), task.loss(logits, tuple(larger))
    assert found[:2] == expected[:2]
    np.testing.assert_array_equal(task.loss_backward(1.0, found[2]), task.loss_backward(1.0, expected[2]))
    assert task.loss(logits, larger[0])[:2] == task.loss(logits, labels)[:2]


@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "sum"}, {"class_weights": [0.5, 3, 1]}, {"dice": 0.7}, {"hardest": 0.4}],
    ids=["mean", "sum", "class weights", "dice", "hardest"],
)
@pytest.mark.parametrize("grid", [(4, 0), (4, 2), (3, 1), (1, 0)])
def test_on_a_grid_the_loss_is_that_of_the_pairs_of_logits_and_labels_there(grid, options, rng):
    logits, labels = batch(rng, (3, 3, 13, 10), np.float64)
    weights = rng.random(labels.shape)
    places = (..., *[slice(grid[1], None, grid[0])] * 2)
    total, weight, cache = SemanticSegmentation(**options, grid=grid).loss(logits, (labels, weights))
    pairs = logits[places], (labels[places], weights[places])
    of_pairs, same, expected = (task := SemanticSegmentation(**options)).loss(*pairs)
    assert (float(total), weight) == pytest.approx((float(of_pairs), same), rel=1e-12)
    gradient = np.zeros_like(logits)
    gradient[places] = task.loss_backward(0.3, expected)
    np.testing.assert_allclose(task.loss_backward(0.3, cache), gradient, rtol=1e-12, atol=1e-15)


def test_the_gradient_on_a_grid_by_finite_differences(rng):
    logits, labels = batch(rng, (3, 3, 7, 6), np.float64)
    task, step = SemanticSegmentation(grid=(3, 1)), 1e-5
    _, weight, cache = task.loss(logits, labels)
    gradient, found = task.loss_backward(1 / weight, cache), np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        losses = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            losses.append(float(task.loss(moved, labels)[0]) / weight)
        found[place] = (losses[0] - losses[1]) / (2 * step)
    np.testing.assert_allclose(gradient, found, atol=1e-9)


@pytest.mark.parametrize("size", [(5, 7), (6, 6), (3, 6), (5, 4)])
def test_logits_that_cannot_be_the_middle_are_refused(size, rng):
    logits, _ = batch(rng)
    with pytest.raises(InputError, match=rf"logits of \(5, 6\) pixels need labels .*; got \({size[0]}, {size[1]}\)"):
        SemanticSegmentation().loss(logits, np.zeros((4, *size), np.uint8))


def test_a_batch_with_weights_trains(rng):
    """The loop hands a weight map on as it comes: here one by which class 0 does not count."""
    images, labels = np.ones((2, 3, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8)
    labels[:, 2:] = 1
    network = models.Sequential(conv=layers.Conv2d(3, 2, 1, rng))
    solver = optimizers.SGD(network.parameters())
    for _ in range(20):
        loss = loop.update(network, images, (labels, labels.astype(np.float32)), solver, 0.1)
    assert loss < 0.1
    assert (network.forward(images).argmax(axis=1) == 1).all()


def test_balanced_weights_by_hand():
    """Class 0: 5 of 8 labelled pixels; class 1: 2 of the 4 in its image; class 2: 1 of 4; class 3 nowhere."""
    first, second = np.uint8([[0, 0, 1, 1], [255, 255, 255, 255]]), np.uint8([[0, 0, 0, 2]])
    frequencies = np.array([5 / 8, 2 / 4, 1 / 4])
    expected = [*(0.5 / frequencies), 1]
    np.testing.assert_allclose(balanced_weights([first, second], 4), expected)
    np.testing.assert_array_equal(balanced_weights([], 2), [1, 1])


def test_nothing_labelled_is_no_loss_and_no_gradient(rng):
    logits, labels = batch(rng)
    total, weight, cache = SemanticSegmentation().loss(logits, np.full_like(labels, 255))
    assert (float(total), weight) == (0, 0)
    assert not SemanticSegmentation().loss_backward(1.0, cache).any()


def test_the_class_of_a_window_is_that_of_its_middle(rng):
    logits, labels = rng.standard_normal((5, 3)), rng.integers(0, 3, (5, 6, 7))
    labels[1, 3, 3] = 255
    loss, cache = ops.softmax_cross_entropy_forward(logits, labels[:, 3, 3].astype(np.uint8))
    total, weight, found = Classification().loss(logits, labels.astype(np.uint8))
    assert (weight, total / weight) == (4, loss)
    gradient = ops.softmax_cross_entropy_backward(1.0, cache)
    np.testing.assert_allclose(Classification().loss_backward(1 / weight, found), gradient, rtol=1e-12)


def test_a_small_classifier_learns(rng):
    """Three kinds of stripes; the loop, the optimiser and the metric are those of segmentation."""
    labels = np.arange(12, dtype=np.uint8) % 3
    stripes = np.array([np.sin(np.arange(8) * factor) for factor in (0.5, 1.5, 3)])[labels]
    images = np.tile(stripes[:, None, None, :], (1, 3, 8, 1)) + 0.2 * rng.standard_normal((12, 3, 8, 8))
    images, task = images.astype(np.float32), Classification()
    network = models.Sequential(
        conv=layers.Conv2d(3, 8, 3, rng, pad=1),
        relu=layers.ReLU(),
        pool=layers.GlobalAvgPool(),
        fc=layers.Linear(8, 3, rng),
    )
    stream, adam = iter(lambda: (images, labels), None), optimizers.Adam(network.parameters())
    losses = [step.loss for step in loop.train(network, stream, adam, lambda i: 0.02, 60, task=task)]
    assert losses[-1] < 0.2 * losses[0]
    metric = task.metric(3)
    metric.update(labels, task.predict(network.forward(images)))
    assert metric.scores()[task.score_name] == 1
