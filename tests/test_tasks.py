"""A task's loss can be put together of parts, to the bits of the whole; and classifiers are trained by the same loop."""

import numpy as np
import pytest

from minifcn import layers, models, ops
from minifcn.data.labels import balanced_weights
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
