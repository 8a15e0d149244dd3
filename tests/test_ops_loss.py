"""Losses: their definitions, ignored labels, weights, reductions, and logits of any size."""

import numpy as np
import pytest

from minifcn import ops

LABELS = np.array([[[0, 3, 255], [2, 2, 0]], [[255, 1, 2], [0, 0, 3]]], np.uint8)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.25])
REDUCTIONS = ("mean", "sum", "none")


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def definition(logits, labels, ignore, weight, reduction, dloss, pixel_weight=1.0):
    """(loss, dlogits), pixel by pixel."""
    weight = np.ones(logits.shape[1]) if weight is None else weight
    p, loss, gradient = softmax(logits), np.zeros(labels.shape), np.zeros_like(logits)
    share = np.array([0 if v == ignore else weight[v] for v in labels.flat]).reshape(labels.shape)
    share = share * pixel_weight
    if reduction == "mean":
        share = share / share.sum()
    dloss = np.broadcast_to(dloss, labels.shape)
    for n, *at in np.argwhere(labels != ignore):
        pixel, label = (n, *at), labels[n, *at]
        loss[pixel] = -share[pixel] * np.log(p[n, label, *at])
        gradient[n, :, *at] = share[pixel] * dloss[pixel] * (p[n, :, *at] - np.eye(len(weight))[label])
    return loss if reduction == "none" else loss.sum(), gradient


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_is_its_definition(reduction, weight, device, rng):
    for dtype in (np.uint8, np.int32, np.int64):
        logits = 3 * rng.standard_normal((2, 4, 2, 3))
        labels = LABELS.astype(dtype)
        loss, cache = ops.softmax_cross_entropy_forward(
            device.put(logits), device.put(labels), weight=device.put(weight), reduction=reduction
        )
        dloss = rng.standard_normal(loss.shape)
        expected, gradient = definition(logits, labels, 255, weight, reduction, dloss)
        np.testing.assert_allclose(device.get(loss), expected, rtol=1e-12)
        dlogits = ops.softmax_cross_entropy_backward(device.put(dloss), cache)
        np.testing.assert_allclose(device.get(dlogits), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_pixels_weight_multiplies_that_of_its_class(reduction, weight, device, rng):
    logits, of_pixels = 3 * rng.standard_normal((2, 4, 2, 3)), 5 * rng.random((2, 2, 3))
    of_pixels[0, 0, 1] = 0
    settings = {"weight": device.put(weight), "pixel_weight": device.put(of_pixels), "reduction": reduction}
    loss, cache = ops.softmax_cross_entropy_forward(device.put(logits), device.put(LABELS), **settings)
    dloss = rng.standard_normal(loss.shape)
    expected, gradient = definition(logits, LABELS, 255, weight, reduction, dloss, of_pixels)
    np.testing.assert_allclose(device.get(loss), expected, rtol=1e-12)
    dlogits = ops.softmax_cross_entropy_backward(device.put(dloss), cache)
    np.testing.assert_allclose(device.get(dlogits), gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("shape", "ignore"),
    [*(((2, 4, 2, 3), label) for label in (-1, 0, 2, 254)), *((s, 255) for s in ((5, 4), (5, 4, 3), (2, 4, 2, 3, 2)))],
)
def test_any_number_of_axes_and_any_ignored_label_will_do(shape, ignore, device, rng):
    logits, labels = rng.standard_normal(shape), rng.integers(0, 4, (shape[0], *shape[2:]))
    labels[rng.random(labels.shape) < 0.3] = ignore
    loss, cache = ops.softmax_cross_entropy_forward(device.put(logits), device.put(labels), ignore=ignore)
    expected, gradient = definition(logits, labels, ignore, None, "mean", 1.0)
    np.testing.assert_allclose(device.get(loss), expected, rtol=1e-12)
    np.testing.assert_allclose(device.get(ops.softmax_cross_entropy_backward(1.0, cache)), gradient, atol=1e-15)


@pytest.mark.parametrize("dloss", [1, 2.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_upstream_gradient_may_be_a_number(dloss, dtype, device, rng):
    logits = device.put(rng.standard_normal((2, 4, 2, 3)).astype(dtype))
    _, cache = ops.softmax_cross_entropy_forward(logits, device.put(LABELS))
    scaled = ops.softmax_cross_entropy_backward(dloss, cache)
    array = ops.softmax_cross_entropy_backward(device.put(np.array(dloss, dtype)), cache)
    assert scaled.dtype == dtype
    np.testing.assert_array_equal(device.get(scaled), device.get(array))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.filterwarnings("error")
def test_all_ignored_gives_loss_zero_and_gradient_zero(reduction, weight, dtype, device, rng):
    logits = device.put(rng.standard_normal((2, 4, 2, 3)).astype(dtype))
    labels = device.put(np.full((2, 2, 3), 255, np.uint8))
    weight = device.put(None if weight is None else weight.astype(dtype))
    loss, cache = ops.softmax_cross_entropy_forward(logits, labels, weight=weight, reduction=reduction)
    np.testing.assert_array_equal(device.get(loss), np.zeros(loss.shape))
    dlogits = device.get(ops.softmax_cross_entropy_backward(device.put(np.ones(loss.shape, dtype)), cache))
    np.testing.assert_array_equal(dlogits, np.zeros(logits.shape))


@pytest.mark.filterwarnings("error")
def test_classes_of_weight_zero_alone_give_loss_zero(device, rng):
    logits, labels = rng.standard_normal((1, 3, 2, 2)), np.ones((1, 2, 2), int)
    weight = device.put(np.array([1.0, 0.0, 1.0]))
    loss, cache = ops.softmax_cross_entropy_forward(device.put(logits), device.put(labels), weight=weight)
    assert float(loss) == 0
    np.testing.assert_array_equal(device.get(ops.softmax_cross_entropy_backward(1.0, cache)), np.zeros((1, 3, 2, 2)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [1e4, 1e30])
def test_huge_logits_do_not_overflow(huge, device):
    logits = np.array([[huge, -huge], [0, huge]], np.float32)
    labels = np.array([0, 0])
    loss, cache = ops.softmax_cross_entropy_forward(device.put(logits), device.put(labels), reduction="none")
    np.testing.assert_array_equal(device.get(loss), np.array([0, huge], np.float32))
    dlogits = ops.softmax_cross_entropy_backward(device.put(np.ones(2, np.float32)), cache)
    np.testing.assert_array_equal(device.get(dlogits), [[0, 0], [-1, 1]])


def test_a_constant_added_to_all_logits_changes_nothing(device, rng):
    logits = rng.standard_normal((2, 4, 2, 3))
    near, _ = ops.softmax_cross_entropy_forward(device.put(logits), device.put(LABELS))
    far, _ = ops.softmax_cross_entropy_forward(device.put(logits + 1e6), device.put(LABELS))
    np.testing.assert_allclose(device.get(far), device.get(near), rtol=1e-9)


def test_one_class_costs_nothing(device):
    logits = device.put(np.full((1, 1, 2, 2), 3.0))
    loss, cache = ops.softmax_cross_entropy_forward(logits, device.put(np.zeros((1, 2, 2), int)))
    assert float(loss) == 0
    np.testing.assert_array_equal(device.get(ops.softmax_cross_entropy_backward(1.0, cache)), np.zeros((1, 1, 2, 2)))


@pytest.mark.parametrize(
    ("labels", "ignore", "message"),
    [
        ([0, 4, 7, 255, 4], 255, r"expected labels 0\.\.3 or 255, got \[4, 7\] at 3 pixels"),
        ([0, 255, 1, 255, 3], 254, r"expected labels 0\.\.3 or 254, got \[255\] at 2 pixels"),
        ([0, -1, 1, 2, 255], 255, r"expected labels 0\.\.3 or 255, got \[-1\] at 1 pixels"),
        ([10, 11, 12, 13, 14], -1, r"got \[10, 11, 12, 13, 14\] at 5 pixels"),
    ],
)
def test_labels_outside_the_classes_are_named_and_counted(labels, ignore, message, device, rng):
    logits = device.put(rng.standard_normal((5, 4)))
    with pytest.raises(ValueError, match=message):
        ops.softmax_cross_entropy_forward(logits, device.put(np.array(labels)), ignore=ignore)


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_labels_that_are_no_integers_are_refused(dtype, device, rng):
    with pytest.raises(TypeError, match="expected integer labels, got (float32|bool)"):
        ops.softmax_cross_entropy_forward(device.put(rng.standard_normal((5, 4))), device.put(np.zeros(5, dtype)))


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ((2, 3, 2), {}, r"expected labels of shape \(2, 2, 3\), got \(2, 3, 2\)"),
        ((2, 1, 2, 3), {}, r"expected labels of shape \(2, 2, 3\), got \(2, 1, 2, 3\)"),
        ((2, 2, 3), {"weight": np.ones(3)}, r"expected class weights of shape \(4,\), got \(3,\)"),
        (
            (2, 2, 3),
            {"pixel_weight": np.ones((2, 1, 3))},
            r"expected pixel weights of shape \(2, 2, 3\), got \(2, 1, 3\)",
        ),
        ((2, 2, 3), {"pixel_weight": np.full((2, 2, 3), -0.5)}, "weights of at least 0, got -0.5, one of 12"),
        ((2, 2, 3), {"pixel_weight": np.full((2, 2, 3), np.nan)}, "finite pixel weights of at least 0, got nan"),
        ((2, 2, 3), {"pixel_weight": np.full((2, 2, 3), np.inf)}, "finite pixel weights of at least 0, got inf"),
        ((2, 2, 3), {"weight": np.array([1.0, -1, 1, 1])}, "class weights of at least 0, got -1.0, one of 1"),
        ((2, 2, 3), {"weight": np.full(4, np.nan)}, "finite class weights of at least 0, got nan"),
        ((2, 2, 3), {"reduction": "average"}, "expected reduction mean, sum or none; got 'average'"),
    ],
)
def test_wrong_shapes_and_names_are_refused(labels, settings, message, device, rng):
    settings = {name: device.put(v) if isinstance(v, np.ndarray) else v for name, v in settings.items()}
    with pytest.raises(ValueError, match=message):
        ops.softmax_cross_entropy_forward(
            device.put(rng.standard_normal((2, 4, 2, 3))), device.put(np.zeros(labels, int)), **settings
        )


YES_NO = np.array([[[0, 1, 255], [1, 1, 0]], [[255, 0, 0], [0, 1, 255]]], np.uint8)[:, :, None]  # (2, 2, 1, 3)
OF_POSITIVES = np.array([0.5, 3.0])


@pytest.mark.parametrize("pixel_weight", [None, np.array([[[1.0, 0, 2]], [[0.5, 7, 1]]])], ids=["alike", "weighted"])
@pytest.mark.parametrize("weight", [None, OF_POSITIVES], ids=["unweighted", "of positives"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_sigmoid_loss_is_its_definition(reduction, weight, pixel_weight, device, rng):
    """The mean divides by the weights of the pixels, once for each channel that counts; the weight of positives stays out."""
    for targets in (YES_NO, YES_NO.astype(int), np.where(YES_NO == 255, 0.25, YES_NO)):
        logits = 3 * rng.standard_normal(targets.shape)
        settings = {"weight": device.put(weight), "pixel_weight": device.put(pixel_weight), "reduction": reduction}
        loss, cache = ops.sigmoid_cross_entropy_forward(device.put(logits), device.put(targets), **settings)
        dloss = rng.standard_normal(loss.shape)
        share = (targets != 255) * np.ones(targets.shape)
        share *= 1 if pixel_weight is None else pixel_weight[:, None]
        share /= share.sum() if reduction == "mean" else 1
        p, t = 1 / (1 + np.exp(-logits)), np.where(targets == 255, 0, targets)
        w = 1 if weight is None else weight[:, None, None]
        expected = -share * (w * t * np.log(p) + (1 - t) * np.log(1 - p))
        np.testing.assert_allclose(device.get(loss), expected if reduction == "none" else expected.sum(), rtol=1e-11)
        dlogits = ops.sigmoid_cross_entropy_backward(device.put(dloss), cache)
        gradient = dloss * share * ((1 - t) * p - w * t * (1 - p))
        np.testing.assert_allclose(device.get(dlogits), gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("huge", [1e4, 1e30])
def test_huge_logits_do_not_overflow_in_the_sigmoid_loss(huge, device):
    logits = device.put(np.array([[huge, -huge, huge, -huge]], np.float32))
    targets = device.put(np.array([[1, 0, 0, 1]]))
    loss, cache = ops.sigmoid_cross_entropy_forward(logits, targets, reduction="none")
    np.testing.assert_array_equal(device.get(loss), np.array([[0, 0, huge, huge]], np.float32))
    np.testing.assert_array_equal(device.get(ops.sigmoid_cross_entropy_backward(1.0, cache)), [[0, 0, 1, -1]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_sigmoid_loss_of_ignored_targets_is_zero(reduction, device, rng):
    logits = device.put(rng.standard_normal((2, 3, 4)))
    targets = device.put(np.full((2, 3, 4), -1))
    loss, cache = ops.sigmoid_cross_entropy_forward(logits, targets, ignore=-1, reduction=reduction)
    assert not device.get(loss).any()
    assert not device.get(ops.sigmoid_cross_entropy_backward(1.0, cache)).any()


@pytest.mark.parametrize(
    ("targets", "settings", "error", "message"),
    [
        (np.full((2, 3, 4), 2), {}, ValueError, r"expected labels 0\.\.1 or 255, got \[2\] at 24 pixels"),
        (np.full((2, 3, 4), 255), {"ignore": -1}, ValueError, r"0\.\.1 or -1, got \[255\]"),
        (np.full((2, 3, 4), 1.5), {}, ValueError, "expected targets from 0 to 1, got 1.5 at 24 of them"),
        (np.full((2, 3, 4), np.nan), {}, ValueError, "expected targets from 0 to 1, got nan"),
        (np.ones((2, 3, 4), np.float32), {}, TypeError, "expected float64 like its input, got float32"),
        (np.ones((2, 3, 4), bool), {}, TypeError, "expected integer labels, got bool"),
        (np.ones((2, 4), int), {}, ValueError, r"expected targets of shape \(2, 3, 4\), got \(2, 4\)"),
        (np.ones((2, 3, 4), int), {"weight": np.ones(4)}, ValueError, r"class weights of shape \(3,\), got \(4,\)"),
        (np.ones((2, 3, 4), int), {"pixel_weight": np.ones((2, 3, 4))}, ValueError, r"pixel weights of shape \(2, 4\)"),
        (np.ones((2, 3, 4), int), {"pixel_weight": -np.ones((2, 4))}, ValueError, "at least 0, got -1.0, one of 8"),
        (np.ones((2, 3, 4), int), {"reduction": "max"}, ValueError, "mean, sum or none; got 'max'"),
    ],
)
def test_wrong_use_of_the_sigmoid_loss_is_refused(targets, settings, error, message, device, rng):
    settings = {name: device.put(v) if isinstance(v, np.ndarray) else v for name, v in settings.items()}
    with pytest.raises(error, match=f"sigmoid_cross_entropy: .*{message}"):
        ops.sigmoid_cross_entropy_forward(device.put(rng.standard_normal((2, 3, 4))), device.put(targets), **settings)


def dice_definition(logits, labels, ignore, smooth):
    """(the loss of each class, which of them are in labels)"""
    p, losses, present = softmax(logits), [], []
    for k in range(logits.shape[1]):
        q, of_class = (labels == k) & (labels != ignore), p[:, k] * (labels != ignore)
        overlap = (2 * of_class[q].sum() + smooth) / (of_class.sum() + q.sum() + smooth) if q.any() else 0
        losses.append(1 - overlap)
        present.append(q.any())
    return np.array(losses), np.array(present)


@pytest.mark.parametrize("smooth", [0, 1.5])
@pytest.mark.parametrize(
    ("shape", "ignore"),
    [((2, 4, 2, 3), 255), ((2, 4, 2, 3), 2), ((5, 4), -1), ((5, 4, 3), 255), ((2, 5, 2, 3, 2), 255)],
)
def test_the_dice_loss_is_its_definition(shape, ignore, smooth, device, rng):
    """Class 1 is not in labels: it costs 1 among all, and nothing in the mean and the sum."""
    logits, labels = 3 * rng.standard_normal(shape), rng.choice([0, 2, 3], (shape[0], *shape[2:]))
    labels.flat[:2] = ignore, 3
    losses, present = dice_definition(logits, labels, ignore, smooth)
    for reduction, expected in (("mean", losses[present].mean()), ("sum", losses[present].sum()), ("none", losses)):
        settings = {"ignore": ignore, "smooth": smooth, "reduction": reduction}
        loss, _ = ops.dice_forward(device.put(logits), device.put(labels), **settings)
        np.testing.assert_allclose(device.get(loss), expected, rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_ignored_may_be_no_number(value, device, rng):
    """As in PyTorch, whose softmax cross-entropy has no gradient there."""
    logits, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
    labels[0, 1, 2] = 255
    targets = (labels[:, None] == np.arange(3)[:, None, None]).astype(np.uint8)
    targets[0, :, 1, 2] = 255
    for forward, backward, known in (
        (ops.dice_forward, ops.dice_backward, labels),
        (ops.softmax_cross_entropy_forward, ops.softmax_cross_entropy_backward, labels),
        (ops.sigmoid_cross_entropy_forward, ops.sigmoid_cross_entropy_backward, targets),
    ):
        found = []
        for at in (0.0, value):
            logits[0, :, 1, 2] = at
            with np.errstate(invalid="ignore"):  # infinity less itself
                loss, cache = forward(device.put(logits), device.put(known))
            found.append((float(loss), device.get(backward(1.0, cache))))
        assert found[0][0] == found[1][0]
        np.testing.assert_array_equal(found[0][1], found[1][1])


def test_an_upstream_gradient_of_another_shape_is_refused(device, rng):
    labels = device.put(np.zeros((2, 4, 5), np.uint8))
    _, cache = ops.softmax_cross_entropy_forward(device.put(rng.normal(size=(2, 3, 4, 5))), labels, reduction="none")
    with pytest.raises(ValueError, match=r"softmax_cross_entropy backward: expected dloss of shape \(2, 4, 5\)"):
        ops.softmax_cross_entropy_backward(device.put(np.ones((2, 2, 4, 5))), cache)
    logits = device.put(rng.normal(size=(1, 3, 4, 5)))
    _, cache = ops.sigmoid_cross_entropy_forward(logits, device.put(np.zeros((1, 3, 4, 5), np.uint8)))
    with pytest.raises(ValueError, match=r"sigmoid_cross_entropy backward: expected dloss of shape \(1, 3, 4, 5\)"):
        ops.sigmoid_cross_entropy_backward(device.put(np.ones((3, 3, 4, 5))), cache)
    _, cache = ops.dice_forward(logits, labels[:1], reduction="none")
    with pytest.raises(ValueError, match=r"dice backward: expected dloss of shape \(3,\)"):
        ops.dice_backward(device.put(np.ones(2)), cache)


def test_dice_by_hand(device):
    """Pixels of class 0, 0, 1, and an ignored one. Class 0: Σpq = 1, Σp = 3/2, Σq = 2; class 1: 1/2, 3/2, 1; class 2: none."""
    logits, labels = np.full((1, 3, 1, 4), -np.inf), np.array([[[0, 0, 1, 255]]])
    logits[0, :2] = 0
    logits[0, 0, 0, 3] = 7
    losses, cache = ops.dice_forward(device.put(logits), device.put(labels), reduction="none")
    np.testing.assert_allclose(device.get(losses), [1 - 2 / 3.5, 1 - 1 / 2.5, 1], rtol=1e-15)
    mean, cache = ops.dice_forward(device.put(logits), device.put(labels))
    assert float(mean) == pytest.approx((3 / 7 + 3 / 5) / 2)
    assert not device.get(ops.dice_backward(1.0, cache))[..., 3].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smooth", [0, 1])
def test_a_class_that_is_absent_is_neither_rewarded_nor_punished(smooth, dtype, device):
    """A perfect prediction costs 0, though its probability of the absent class is 0 and so is that class's denominator."""
    labels = np.array([[0, 1, 0, 1]])
    right = np.where(np.arange(3)[:, None] == labels, 1e4, -1e4).astype(dtype)[None]
    loss, cache = ops.dice_forward(device.put(right), device.put(labels), smooth=smooth)
    assert float(loss) == 0
    assert not device.get(ops.dice_backward(1.0, cache)).any()
    flat = device.put(np.zeros((1, 3, 4), dtype))
    _, cache = ops.dice_forward(flat, device.put(labels), smooth=smooth, reduction="none")
    only_absent = device.put(np.array([0, 0, 1], dtype))
    assert not device.get(ops.dice_backward(only_absent, cache)).any()
    _, cache = ops.dice_forward(flat, device.put(labels), smooth=smooth)
    assert (device.get(ops.dice_backward(1.0, cache))[:, 2] > 0).all()  # what it takes from the others is their loss


@pytest.mark.filterwarnings("error")
def test_the_dice_loss_of_nothing_labelled_is_zero(device, rng):
    logits, labels = device.put(rng.standard_normal((2, 3, 4))), device.put(np.full((2, 4), 255, np.uint8))
    for reduction, expected in (("mean", 0), ("sum", 0), ("none", [1, 1, 1])):
        loss, cache = ops.dice_forward(logits, labels, reduction=reduction)
        np.testing.assert_array_equal(device.get(loss), expected)
        assert not device.get(ops.dice_backward(1.0, cache)).any()


@pytest.mark.parametrize(
    ("labels", "settings", "error", "message"),
    [
        (np.full((2, 4), 3), {}, ValueError, r"expected labels 0\.\.2 or 255, got \[3\] at 8 pixels"),
        (np.zeros((2, 4), np.float32), {}, TypeError, "expected integer labels, got float32"),
        (np.zeros((2, 3, 4), int), {}, ValueError, r"expected labels of shape \(2, 4\), got \(2, 3, 4\)"),
        (np.zeros((2, 4), int), {"smooth": -1}, ValueError, "expected smooth of at least 0, got -1"),
        (np.zeros((2, 4), int), {"reduction": "max"}, ValueError, "expected reduction mean, sum or none"),
    ],
)
def test_wrong_use_of_the_dice_loss_is_refused(labels, settings, error, message, device, rng):
    with pytest.raises(error, match=f"dice: {message}"):
        ops.dice_forward(device.put(rng.standard_normal((2, 3, 4))), device.put(labels), **settings)
