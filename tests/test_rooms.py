"""What a gradient check cannot see outside the operations: the rules that layers, metrics and data keep."""

import numpy as np
import pytest
from gradcheck_cases import LAYERS, spread

from minifcn import layers, models
from minifcn.data import transforms
from minifcn.layers import Parameter, init
from minifcn.metrics import ConfusionMatrix

every_layer = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)


def ready(build, shape):
    return build(np.random.default_rng(0)), spread(shape).astype(np.float32)


# --- Layers: one cache, gradients that add up ---------------------------------------------------------------------


@every_layer
def test_backward_takes_the_cache_once(build, shape):
    layer, x = ready(build, shape)
    layer.name_all()
    named = next((child for child in reversed(layer.children().values())), layer)
    for prepare in (lambda: None, lambda: layer.backward(layer.forward(x, train=True))):
        prepare()
        with pytest.raises(ValueError, match=rf"{type(named).__name__}.*backward needs a forward"):
            layer.backward(x)


@every_layer
def test_forward_without_train_clears_the_cache(build, shape):
    layer, x = ready(build, shape)
    layer.forward(x, train=True)
    dy = layer.forward(x)
    with pytest.raises(ValueError, match="backward needs a forward"):
        layer.backward(dy)


def test_messages_hold_the_dotted_name():
    chain = layers.Sequential(first=layers.ReLU(), last=layers.Linear(2, 3, np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"^last \(Linear\): "):
        chain.name_all().backward(np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"^last \(Linear\): "):
        chain.forward(np.ones((1, 5), np.float32))


@every_layer
def test_gradients_add_up_until_zero_grad(build, shape):
    layer, x = ready(build, shape)
    learned = {name: p for name, p in layer.parameters().items() if not p.frozen}
    totals = []
    for _ in range(3):
        y = layer.forward(x, train=True)
        layer.backward(spread(y.shape).astype(np.float32))
        totals.append({name: p.grad.copy() for name, p in learned.items()})
    for name in learned:
        assert abs(totals[0][name]).max() > 0.01
        np.testing.assert_allclose(totals[2][name], 3 * totals[0][name], rtol=1e-5, atol=1e-6)
    layer.zero_grad()
    assert not any(p.grad.any() for p in learned.values())


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_keeps_the_dtype(build, shape, dtype):
    layer = build(np.random.default_rng(0)).astype(dtype)
    y = layer.forward(spread(shape).astype(dtype), train=True)
    dx = layer.backward(y)
    arrays = [y, dx, layer.forward(spread(shape).astype(dtype)), *layer.state_dict().values()]
    assert {a.dtype for a in arrays + [p.grad for p in layer.parameters().values()]} == {np.dtype(dtype)}


@pytest.mark.parametrize("kind", [layers.ReLU, layers.ReLU6])
@pytest.mark.parametrize("in_place", [False, True])
def test_only_relus_in_place_write_over_their_arguments(kind, in_place):
    layer = kind(in_place=True) if in_place else kind()
    x, dy = np.array([-1.0, 2, 5]), np.array([3.0, 4, 5])
    y, dx = layer.forward(x, train=True), layer.backward(dy)
    assert ((y is x), (dx is dy)) == (in_place, in_place)
    assert (y.tolist(), dx.tolist()) == ([0, 2, 5], [0, 4, 5])
    assert (x.tolist(), dy.tolist()) == ((y.tolist(), dx.tolist()) if in_place else ([-1, 2, 5], [3, 4, 5]))


def test_a_gradient_that_nobody_gave_is_zero():
    p = Parameter(np.ones((2, 3), np.float32))
    assert (p.grad.shape, p.grad.dtype, p.grad.any()) == ((2, 3), np.float32, False)
    p.add_gradient(np.full((2, 3), 2, np.float32))
    p.add_gradient(np.full((2, 3), 3, np.float32))
    assert (p.grad == 5).all()
    p.zero_grad()
    assert not p.grad.any()


# --- Networks: kernels and crops ----------------------------------------------------------------------------------


def test_bilinear_kernels():
    assert init.bilinear_line(4).tolist() == [0.25, 0.75, 0.75, 0.25]
    assert init.bilinear_line(3).tolist() == [0.5, 1, 0.5]
    assert np.array_equal(init.bilinear(2, 4)[1, 1], np.outer(*[init.bilinear_line(4)] * 2))
    assert not init.bilinear(2, 4)[0, 1].any()


def test_published_crops():
    offsets = {variant: models.fcn(variant, "mini", 2, "paper", width=1) for variant in ("32s", "16s", "8s")}
    assert {variant: net.crop.offset for variant, net in offsets.items()} == {"32s": 19, "16s": 27, "8s": 31}
    assert (offsets["8s"].crop_pool4.offset, offsets["8s"].crop_pool3.offset) == (5, 9)


@pytest.mark.parametrize("alignment", ["paper", "same"])
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_logits_have_the_size_of_the_image(variant, alignment):
    """Among them sizes for which pools that round down would leave too little to crop."""
    network = models.fcn(variant, "mini", 2, alignment, width=1)
    for size in [(1, 1), (37, 64), (65, 50)]:
        assert network.forward(np.ones((1, 3, *size), np.float32)).shape == (1, 2, *size)


def test_padding_to_a_multiple_leaves_multiples_alone():
    assert layers.PadToMultiple(4).forward(np.ones((1, 1, 8, 5), np.float32)).shape == (1, 1, 8, 8)


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
