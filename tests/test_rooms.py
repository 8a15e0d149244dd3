"""The rules that metrics, transforms and preprocessing keep."""

import numpy as np
import pytest

from minifcn.data import transforms
from minifcn.metrics import ConfusionMatrix
from minifcn.preprocessing import Preprocessing

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
    bgr = Preprocessing("BGR", (1, 2, 3), (1, 1, 0.5))
    assert bgr.apply(image).ravel().tolist() == [29, 18, 3.5]
    assert bgr.fill().tolist() == [3, 2, 1]
