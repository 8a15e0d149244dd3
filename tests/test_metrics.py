"""The confusion matrix and its four scores, against sums written as loops and against numbers worked out by hand."""

import math

import numpy as np
import pytest

from minifcn import inference, models
from minifcn.errors import InputError
from minifcn.metrics import (
    AveragePrecision,
    BoundaryIoU,
    COCOAveragePrecision,
    ConfusionMatrix,
    PanopticQuality,
    RegionAveragePrecision,
)

SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
# Worked out below by hand: two classes of three occur in the labels, and class 2 is predicted once.
LABELS = np.array([[0, 0, 0, 0], [1, 1, 255, 255]])
PREDICTIONS = np.array([[0, 0, 0, 1], [1, 2, 0, 2]])


def matrix_of(num_classes, labels, predictions, **options):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(np.asarray(labels), np.asarray(predictions), **options)
    return matrix


def naive_scores(num_classes, labels, predictions, ignore):
    """The definitions, pixel by pixel and set by set."""
    pixels = [(t, p) for t, p in zip(labels, predictions, strict=True) if t != ignore]
    accuracies, ious, weighted = [], [], []
    for c in range(num_classes):
        true = {i for i, (t, _) in enumerate(pixels) if t == c}
        predicted = {i for i, (_, p) in enumerate(pixels) if p == c}
        if true:
            accuracies.append(len(true & predicted) / len(true))
            weighted.append(len(true) * len(true & predicted) / len(true | predicted))
        ious.append(len(true & predicted) / len(true | predicted) if true | predicted else math.nan)
    existing = [iou for iou in ious if not math.isnan(iou)]
    if not pixels:
        return dict.fromkeys(SCORES, math.nan), ious
    right = sum(t == p for t, p in pixels)
    figures = (right / len(pixels), sum(accuracies) / len(accuracies), sum(existing) / len(existing))
    return dict(zip(SCORES, (*figures, sum(weighted) / len(pixels)), strict=True)), ious


@pytest.mark.parametrize("seed", range(20))
def test_scores_agree_with_their_definitions(seed):
    rng = np.random.default_rng(seed)
    classes, count = rng.integers(1, 7), rng.integers(0, 40)
    ignore = rng.choice([255, 0, classes - 1])
    labels = rng.choice([*range(classes), ignore], count).astype(np.uint8)
    predictions = rng.integers(0, rng.integers(1, classes + 1), count)
    matrix = matrix_of(classes, labels, predictions, ignore=ignore)
    scores, ious = naive_scores(classes, labels, predictions, ignore)
    assert matrix.scores() == pytest.approx(scores, nan_ok=True, rel=1e-12)
    np.testing.assert_allclose(matrix.per_class_iou(), ious, rtol=1e-12)


def test_scores_by_hand():
    matrix = matrix_of(3, LABELS, PREDICTIONS)
    np.testing.assert_array_equal(matrix.counts, [[3, 1, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(matrix.per_class_iou(), [3 / 4, 1 / 3, 0])  # class 2: predicted, never there
    assert matrix.pixel_accuracy() == pytest.approx(4 / 6)
    assert matrix.mean_accuracy() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert matrix.mean_iou() == pytest.approx((3 / 4 + 1 / 3) / 3)
    assert matrix.frequency_weighted_iou() == pytest.approx((4 * 3 / 4 + 2 * 1 / 3) / 6)


@pytest.mark.parametrize(
    "classes, expected", [([0], 3 / 4), ([0, 2], 3 / 8), ((1, 3), 1 / 3), ([3, 4], math.nan), (range(5), 13 / 36)]
)
def test_the_mean_iou_of_some_classes(classes, expected):
    assert matrix_of(5, LABELS, PREDICTIONS).mean_iou(classes) == pytest.approx(expected, nan_ok=True)


def test_what_is_of_other_classes_is_refused():
    for own, other, name in (
        (ConfusionMatrix(5), ConfusionMatrix(1), "num_classes to merge, 5; got 1"),
        (BoundaryIoU(5), BoundaryIoU(4), "num_classes to merge, 5; got 4"),
        (BoundaryIoU(5), BoundaryIoU(5, (1,)), "bands to merge"),
        (AveragePrecision(), AveragePrecision((0.5, 0.6)), "thresholds to merge"),
        (COCOAveragePrecision(5), COCOAveragePrecision(4), "num_classes to merge, 5; got 4"),
        (RegionAveragePrecision(5), RegionAveragePrecision(6), "num_classes to merge, 5; got 6"),
        (PanopticQuality(5, (1,)), PanopticQuality(5, (1, 2)), "things to merge"),
        (PanopticQuality(5, (1,)), PanopticQuality(5, (1,), (2,)), "stuff to merge"),
    ):
        with pytest.raises(InputError, match=f"expected one of the same {name}"):
            own.merge(other)
    for scores in (ConfusionMatrix(5).mean_iou, COCOAveragePrecision(5).scores, RegionAveragePrecision(5).scores):
        for classes in ([-1], [0, 5]):
            with pytest.raises(InputError, match=rf"expected classes 0\.\.4, got {classes[-1]}"):
                scores(classes)


def test_outlines_are_those_of_an_image():
    for shape in ((0, 3), (4,), (1, 4, 4)):
        with pytest.raises(InputError, match=r"boundary: expected labels of an image, \(H, W\)"):
            BoundaryIoU(2).update(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
    assert list(BoundaryIoU(2, bands=np.array([1, 3])).matrices) == [1, 3]


def test_without_a_counted_pixel_every_score_is_nan():
    void = np.full((2, 2), 255)
    for matrix in (ConfusionMatrix(3), matrix_of(3, void, np.zeros_like(void))):
        assert all(math.isnan(score) for score in matrix.scores().values())
        assert np.isnan(matrix.per_class_iou()).all()


def test_updates_add_up_over_images_of_any_size_and_dtype():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 4, (2, *shape)) for shape in ((1, 1), (3, 5), (2, 4, 3), (0, 7))]
    whole = ConfusionMatrix(4)
    for (labels, predictions), dtype in zip(images, (np.uint8, np.int32, np.int64, np.int16), strict=True):
        whole.update(labels.astype(dtype), predictions)
    flat = np.concatenate([image.reshape(2, -1) for image in images], axis=1)
    np.testing.assert_array_equal(whole.counts, matrix_of(4, *flat).counts)


@pytest.mark.parametrize(
    "labels, predictions, ignore, counts",
    [([255, 255, 1], [0, 200, 1], 255, [[0, 0], [0, 1]]), ([0, 1, 1], [0, 1, 0], 0, [[0, 0], [1, 1]])],
)
def test_ignored_pixels_count_for_nothing_whatever_was_predicted(labels, predictions, ignore, counts):
    matrix = matrix_of(2, labels, predictions, ignore=ignore)
    np.testing.assert_array_equal(matrix.counts, counts)
    assert all(type(score) is float for score in matrix.scores().values())


@pytest.mark.parametrize(
    "labels, predictions, told",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((1, 4), int), np.zeros(4, int), r"\(1, 4\).*\(4,\)"),
        ([0, 3], [0, 0], r"label of 0\.\.2, got 3"),
        ([0, 0], [3, 0], r"prediction of 0\.\.2, got 3"),
        ([0, -1], [0, 0], r"label of 0\.\.2, got -1"),
        ([0, 0], [0, -7], r"prediction of 0\.\.2, got -7"),
        ([0, 1], [0, 255], r"prediction of 0\.\.2, got 255"),
    ],
)
def test_wrong_shapes_and_classes_are_refused_and_nothing_is_counted(labels, predictions, told):
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=told):
        matrix.update(np.asarray(labels), np.asarray(predictions))
    assert matrix.counts.sum() == 0


def test_more_classes_than_a_dtype_holds_are_refused_and_a_wider_one_counts_them():
    classes = np.arange(300)
    np.testing.assert_array_equal(matrix_of(300, classes, classes, ignore=-1).counts, np.eye(300))
    for labels, predictions in [(classes % 256, classes), (classes, classes % 256)]:
        with pytest.raises(InputError, match="uint8 cannot hold 300 classes"):
            dtypes = [np.uint8 if a.max() < 256 else np.int64 for a in (labels, predictions)]
            matrix_of(300, labels.astype(dtypes[0]), predictions.astype(dtypes[1]))


def test_prediction_refuses_more_classes_than_its_labels_hold():
    network = models.fcn("32s", "mini", 257, "same", width=1)
    with pytest.raises(InputError, match="at most 256 classes"):
        inference.predict(network, np.zeros((32, 32, 3), np.uint8))
