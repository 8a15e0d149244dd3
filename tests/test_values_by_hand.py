"""Operations and layers against values worked out by hand.

A gradient check cannot see a forward pass that computes the wrong thing, as long as its backward pass agrees.
"""

from itertools import product

import numpy as np
import pytest
from gradcheck_cases import spread

from minifcn import layers, ops
from minifcn.layers.graph import Graph
from minifcn.models.efficientnet_lite0 import _inverted_residual
from minifcn.ops.geometry import same_pads


def test_naive_convolution_by_hand():
    x = np.arange(1.0, 13).reshape(1, 1, 3, 4)
    w = np.array([[[[1.0, 10], [100, 1000]]]])
    of_groups = np.eye(4)[:, :2] + np.eye(4)[:, 2:] * 10
    with ops.conv_algorithm("naive"):
        y, _ = ops.conv2d_forward(x, w, np.array([0.5]), stride=(1, 2), dilation=(2, 1), pad=((0, 0), (1, 0)))
        z, _ = ops.conv_transpose2d_forward(x[:, :, :1, :2], w, stride=2, output_pad=(1, 0))
        grouped, _ = ops.conv2d_forward(x[0, 0, :1].reshape(1, 4, 1, 1), of_groups.reshape(4, 2, 1, 1), groups=2)
    assert y.tolist() == [[[[10 * 1 + 1000 * 9 + 0.5, 2 + 30 + 1000 + 11000 + 0.5]]]]
    assert z.tolist() == [[[[1, 10, 2, 20], [100, 1000, 200, 2000], [0, 0, 0, 0]]]]
    assert grouped.ravel().tolist() == [1, 2, 30, 40]


@pytest.mark.parametrize("algorithm", ["naive", "im2col", "depthwise"])
def test_depthwise_convolution_by_hand(algorithm):
    """Each channel by a kernel of its own, its taps in rows and columns of different sizes."""
    x = np.stack([np.arange(1.0, 13).reshape(3, 4), np.full((3, 4), 2.0)])[None]
    w = np.array([[[[1.0, 10, 100]]], [[[1.0, 1, 1]]]])
    with ops.conv_algorithm(algorithm):
        y, _ = ops.conv2d_forward(x, w, stride=2, pad=((0, 0), (1, 0)), groups=2)
    assert y.tolist() == [[[[210, 432], [1090, 1320]], [[4, 6], [4, 6]]]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (4, 3, 1, (1, 1)),
        (4, 3, 2, (0, 1)),  # the odd pixel goes to the end
        (4, 2, 1, (0, 1)),
        (4, 5, 2, (1, 2)),
        (1, 5, 2, (2, 2)),
        (5, 1, 3, (0, 0)),  # a window that looks at less than a stride skips, it needs no padding
    ],
)
def test_same_pads_as_tensorflow_has_them(size, kernel, stride, expected):
    assert same_pads((size, 7), (kernel, 1), (stride, 1)) == (expected, (0, 0))
    assert same_pads((7, size), (1, kernel), (1, stride)) == ((0, 0), expected)
    assert same_pads((6, 7), 3, 2, dilation=2) == ((1, 2), (2, 2))  # a 3×3 window of dilation 2 reaches over 5 pixels


def test_same_convolution_gives_a_map_for_every_stride_begun():
    for size, stride, kernel in product((1, 2, 3, 4, 5, 8, 9), (1, 2, 3), (1, 2, 3, 5)):
        conv = layers.Conv2d(1, 2, kernel, np.random.default_rng(0), stride=stride, pad="same")
        y = conv.forward(np.ones((1, 1, size, 6), np.float32))
        assert y.shape == (1, 2, -(-size // stride), -(-6 // stride)), (size, stride, kernel)


def test_same_convolution_has_its_odd_pixel_at_the_bottom_and_right():
    conv = layers.Conv2d(1, 1, 3, np.random.default_rng(0), stride=2, pad="same", bias=False).astype(np.float64)
    conv.weight.value = np.array([[[[1.0, 0, 0], [0, 0, 0], [0, 0, 10]]]])  # its first tap, and ten times its last
    y = conv.forward(np.arange(1.0, 17).reshape(1, 1, 4, 4))
    assert y.tolist() == [[[[1 + 110, 3], [9, 11]]]]


def test_avg_pool_divisors():
    """Of ones, the mean is the share of the window's area that counts as image."""
    ones, settings = np.ones((1, 1, 4, 4)), {"stride": 2, "pad": 1, "ceil_mode": True}
    counted, _ = ops.avg_pool2d_forward(ones, 3, **settings)
    alone, _ = ops.avg_pool2d_forward(ones, 3, **settings, count_include_pad=False)
    share = np.array([2 / 3, 1, 1 / 2])  # the last window holds a pixel, a row of padding, and nothing beyond
    np.testing.assert_allclose(counted[0, 0], np.outer(share, share))
    np.testing.assert_allclose(alone, np.ones((1, 1, 3, 3)))


def test_flatten_goes_channel_by_channel_row_by_row():
    layer, x = layers.Flatten(), np.arange(12.0).reshape(1, 2, 2, 3)
    y = layer.forward(x, train=True)
    assert y.tolist() == [list(range(12))]
    np.testing.assert_array_equal(layer.backward(y), x)


def test_batch_norm_statistics():
    """The batch is normalised by its biased variance; the running one takes in the unbiased."""
    x, layer = spread((3, 2, 2, 2)), layers.BatchNorm2d(2, eps=0.1, momentum=0.25).astype(np.float64)
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(layer.forward(x, train=True), (x - mean) / np.sqrt(var + 0.1))
    np.testing.assert_allclose(layer.running_mean, 0.25 * mean.ravel())
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * var.ravel() * 12 / 11)
    wide = layer.running_mean[:, None, None], np.sqrt(layer.running_var + 0.1)[:, None, None]
    np.testing.assert_allclose(layer.forward(x), (x - wide[0]) / wide[1])


def test_frozen_batch_norm_keeps_its_statistics_and_learns_all_the_same():
    x, dy = spread((3, 2, 2, 2)), spread((3, 2, 2, 2), seed=1)
    layer = layers.BatchNorm2d(2, eps=0.1, frozen=True).astype(np.float64)
    layer.running_mean, layer.running_var = np.array([1.0, -2]), np.array([0.5, 3])
    layer.gamma.value, layer.beta.value = np.array([2.0, -1]), np.array([0.5, 0])
    z = (x - np.array([1.0, -2])[:, None, None]) / np.sqrt(np.array([0.6, 3.1]))[:, None, None]
    np.testing.assert_allclose(layer.forward(x, train=True), np.array([2.0, -1])[:, None, None] * z + [[[0.5]], [[0]]])
    assert (layer.running_mean.tolist(), layer.running_var.tolist()) == ([1, -2], [0.5, 3])
    np.testing.assert_allclose(layer.backward(dy), dy * (np.array([2.0, -1]) / np.sqrt([0.6, 3.1]))[:, None, None])
    np.testing.assert_allclose(layer.gamma.grad, (dy * z).sum(axis=(0, 2, 3)))
    np.testing.assert_allclose(layer.beta.grad, dy.sum(axis=(0, 2, 3)))


@pytest.mark.parametrize(("inputs", "outputs", "stride", "adds"), [(3, 3, 1, True), (3, 4, 1, False), (3, 3, 2, False)])
def test_an_inverted_residual_adds_its_input_where_the_shapes_agree(inputs, outputs, stride, adds):
    nodes, _ = _inverted_residual("block", "image", inputs, outputs, 3, stride, 6, np.random.default_rng(0))
    block = Graph(nodes).astype(np.float64)
    block["block.bn_project"].gamma.value[:] = 0  # what the branch adds
    x = spread((2, inputs, 4, 4))
    y = block.forward(x, train=True)
    np.testing.assert_array_equal(y, x if adds else np.zeros((2, outputs, 4 // stride, 4 // stride)))
    dy = spread(y.shape, seed=1)
    np.testing.assert_array_equal(block.backward(dy), dy if adds else np.zeros(x.shape))


def test_upsample_is_cut_by_each_of_its_four_pads():
    """One pixel is stamped as the kernel in both directions."""
    kernel_1d = np.array([1.0, 2, 3, 4, 5])
    y, _ = ops.upsample_forward(np.ones((1, 1, 1, 1)), kernel_1d, stride=2, pad=((1, 2), (0, 3)))
    assert y.tolist() == [[[[2, 4], [3, 6]]]]
