"""Operations against values worked out by hand, and the fast convolutions against the loops of the definition.

A gradient check cannot see a forward pass that computes the wrong thing, as long as its backward pass agrees.
"""

import numpy as np
import pytest
from gradcheck_cases import CONVOLUTIONS, LABELS, WEIGHTS, bias_shape, both, spread, spreads

from minifcn import layers, ops
from minifcn.ops.conv_algorithms import im2col


@pytest.mark.parametrize("tile_bytes", [1, 2 << 20], ids=["row-tiles", "whole"])
@pytest.mark.parametrize(("op", "x", "w", "settings"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_agrees_with_the_definition(op, x, w, settings, tile_bytes, monkeypatch):
    monkeypatch.setattr(im2col, "TILE_BYTES", tile_bytes)
    forward, backward = both(op, **settings)
    arrays = spreads(x, w, bias_shape(op, w, settings))
    found = {}
    for algorithm in ("naive", "im2col"):
        with ops.conv_algorithm(algorithm):
            y, cache = forward(*arrays)
            found[algorithm] = [y, *backward(spread(y.shape, seed=9), cache)]
    for fast, slow in zip(found["im2col"], found["naive"], strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_naive_convolution_by_hand():
    x = np.arange(1.0, 13).reshape(1, 1, 3, 4)
    w = np.array([[[[1.0, 10], [100, 1000]]]])
    with ops.conv_algorithm("naive"):
        y, _ = ops.conv2d_forward(x, w, np.array([0.5]), stride=(1, 2), dilation=(2, 1), pad=((0, 0), (1, 0)))
        z, _ = ops.conv_transpose2d_forward(x[:, :, :1, :2], w, stride=2, output_pad=(1, 0))
    assert y.tolist() == [[[[10 * 1 + 1000 * 9 + 0.5, 2 + 30 + 1000 + 11000 + 0.5]]]]
    assert z.tolist() == [[[[1, 10, 2, 20], [100, 1000, 200, 2000], [0, 0, 0, 0]]]]


def test_naive_convolution_groups_by_hand():
    x, w = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1, 1), np.eye(4)[:, :2] + np.eye(4)[:, 2:] * 10
    with ops.conv_algorithm("naive"):
        y, _ = ops.conv2d_forward(x, w.reshape(4, 2, 1, 1), groups=2)
    assert y.ravel().tolist() == [1, 2, 30, 40]


def test_max_pool_padding_never_wins():
    y, _ = ops.max_pool2d_forward(-np.ones((1, 1, 3, 3)), 3, stride=2, pad=1, ceil_mode=True)
    assert np.array_equal(y, -np.ones((1, 1, 2, 2)))


def test_max_pool_tie_goes_to_the_first():
    _, cache = ops.max_pool2d_forward(np.ones((1, 1, 2, 2)), 2)
    assert ops.max_pool2d_backward(np.full((1, 1, 1, 1), 5.0), cache).ravel().tolist() == [5, 0, 0, 0]


def test_relu_gradient_at_zero_is_zero():
    _, cache = ops.relu_forward(np.array([-1.0, 0, 1]))
    assert ops.relu_backward(np.ones(3), cache).tolist() == [0, 0, 1]


@pytest.mark.parametrize("pool", [ops.max_pool2d_forward, ops.avg_pool2d_forward])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "floor", "ceil"),
    [(5, 2, 2, 0, 2, 3), (6, 3, 2, 0, 2, 3), (4, 2, 2, 0, 2, 2), (4, 2, 5, 1, 1, 1), (4, 2, 3, 1, 2, 2)],
)
def test_pool_sizes(pool, size, kernel, stride, pad, floor, ceil):
    for ceil_mode, expected in ((False, floor), (True, ceil)):
        y, _ = pool(np.ones((1, 1, size, size)), kernel, stride=stride, pad=pad, ceil_mode=ceil_mode)
        assert y.shape == (1, 1, expected, expected)


def test_avg_pool_divisors():
    """Of ones, the mean is the share of the window's area that counts as image."""
    ones, settings = np.ones((1, 1, 4, 4)), {"stride": 2, "pad": 1, "ceil_mode": True}
    counted, _ = ops.avg_pool2d_forward(ones, 3, **settings)
    alone, _ = ops.avg_pool2d_forward(ones, 3, **settings, count_include_pad=False)
    line = np.array([2 / 3, 1, 1 / 2])  # the last window holds a pixel, a row of padding, and nothing beyond
    np.testing.assert_allclose(counted[0, 0], np.outer(line, line))
    np.testing.assert_allclose(alone, np.ones((1, 1, 3, 3)))


def test_dropout_keeps_the_mean():
    x = np.ones((100, 100))
    y, _ = ops.dropout_forward(x, 0.75, np.random.default_rng(0), True)
    assert set(np.unique(y)) == {0.0, 4.0}
    assert abs(y.mean() - 1) < 0.06  # three standard deviations of the mean
    assert np.array_equal(ops.dropout_forward(x, 0.75, np.random.default_rng(0), False)[0], x)


@pytest.mark.parametrize(("size", "before", "after"), [(5, 2, 2), (4, 2, 1), (1, 0, 0)])
def test_lrn_by_hand(size, before, after):
    x = spread((2, 7, 1, 3))
    expected = np.empty_like(x)
    for c in range(7):
        window = x[:, max(c - before, 0) : c + after + 1]
        expected[:, c] = x[:, c] / (2 + 0.5 / size * (window**2).sum(axis=1)) ** 0.75
    np.testing.assert_allclose(ops.lrn_forward(x, size=size, alpha=0.5, k=2.0)[0], expected)


def test_batch_norm_statistics():
    """The batch is normalised by its biased variance; the running one takes in the unbiased."""
    x, layer = spread((3, 2, 2, 2)), layers.BatchNorm2d(2, eps=0.1, momentum=0.25).astype(np.float64)
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(layer.forward(x, train=True), (x - mean) / np.sqrt(var + 0.1))
    np.testing.assert_allclose(layer.running_mean, 0.25 * mean.ravel())
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * var.ravel() * 12 / 11)
    wide = layer.running_mean[:, None, None], np.sqrt(layer.running_var + 0.1)[:, None, None]
    np.testing.assert_allclose(layer.forward(x), (x - wide[0]) / wide[1])


def by_hand(logits, weight):
    """(the loss, the weight) of every counted pixel, the other pixels left at 0."""
    losses, shares = np.zeros(LABELS.shape), np.zeros(LABELS.shape)
    for place in np.ndindex(LABELS.shape):
        if LABELS[place] != 255:
            pixel = logits[place[0], :, *place[1:]]
            shares[place] = weight[LABELS[place]]
            losses[place] = shares[place] * (np.log(np.exp(pixel).sum()) - pixel[LABELS[place]])
    return losses, shares


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_cross_entropy_by_hand(weight):
    logits = spread((2, 4, 2, 3))
    losses, shares = by_hand(logits, np.ones(4) if weight is None else weight)
    for reduction, expected in (("none", losses), ("sum", losses.sum()), ("mean", losses.sum() / shares.sum())):
        found, _ = ops.softmax_cross_entropy_forward(logits, LABELS, weight=weight, reduction=reduction)
        np.testing.assert_allclose(found, expected)


def test_cross_entropy_of_ignored_pixels_alone_is_zero():
    loss, cache = ops.softmax_cross_entropy_forward(spread((1, 3, 2, 2)), np.full((1, 2, 2), 255))
    assert loss == 0
    assert not ops.softmax_cross_entropy_backward(1.0, cache).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_huge_logits(dtype, reduction):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype)
    loss, cache = ops.softmax_cross_entropy_forward(logits, np.array([0, 0]), reduction=reduction)
    dlogits = ops.softmax_cross_entropy_backward(loss * 0 + 1, cache)
    assert loss.dtype == dlogits.dtype == dtype
    assert loss.max() == (1e4 if reduction == "mean" else 2e4)
    assert np.isfinite(dlogits).all()


def test_crop_takes_the_part_asked_for():
    assert ops.crop_forward(np.arange(20.0).reshape(1, 1, 4, 5), (1, 2), (2, 1))[0].ravel().tolist() == [7, 12]


@pytest.mark.parametrize(("factor", "kernel", "pad"), [(2, 4, 0), (4, 8, 2), (3, 5, 1)])
def test_frozen_upsampling_is_the_bilinear_transposed_convolution(factor, kernel, pad):
    frozen = layers.Upsample(factor, kernel=kernel, pad=pad)
    learned = layers.LearnedUpsample(2, factor, kernel=kernel, pad=pad)
    x = spread((2, 2, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(frozen.forward(x), learned.forward(x), rtol=1e-5, atol=1e-6)
