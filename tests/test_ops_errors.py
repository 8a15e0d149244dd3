"""Wrong use of an operation says which operation, what was expected and what came."""

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import InputError
from minifcn.testing import strict

CONV, TRANSPOSED = ops.conv2d_forward, ops.conv_transpose2d_forward
MAX, AVG, ADAPTIVE = ops.max_pool2d_forward, ops.avg_pool2d_forward, ops.adaptive_avg_pool2d_forward
LINEAR, LRN, NORM, UPSAMPLE = ops.linear_forward, ops.lrn_forward, ops.batch_norm_forward, ops.upsample_forward
CROP, PAD, RESIZE = ops.crop_forward, ops.pad_forward, ops.resize_bilinear_forward
X = (2, 4, 6, 5)


def concat(*xs, **settings):
    return ops.concat_forward(xs, **settings)


def dropout(x, p):
    return ops.dropout_forward(x, p, None, True)


REFUSED = [  # operation, shapes of its arrays, other arguments, settings, message
    (CONV, [X, (3, 5, 3, 3)], [], {}, r"conv2d: expected 5 input channels, got 4 in shape \(2, 4, 6, 5\)"),
    (CONV, [X, (4, 4, 3, 3)], [], {"groups": 2}, "conv2d: expected 8 input channels, got 4"),
    (CONV, [X, (3, 2, 3, 3)], [], {"groups": 2}, "conv2d: 3 output channels cannot be split into 2 groups"),
    (CONV, [X, (3, 4, 3, 3)], [], {"groups": 0}, "conv2d: 3 output channels cannot be split into 0 groups"),
    (CONV, [X, (3, 1, 3, 3)], [], {"groups": 3}, "conv2d: expected 3 input channels, got 4"),
    (CONV, [(4, 6, 5), (3, 4, 3, 3)], [], {}, r"conv2d: expected an array \(N, C, H, W\).*\(4, 6, 5\)"),
    (CONV, [(0, 4, 6, 5), (3, 4, 3, 3)], [], {}, r"conv2d: .*no empty axis, got shape \(0, 4, 6, 5\)"),
    (CONV, [X, (3, 4, 3)], [], {}, r"conv2d: expected w \(K, C/groups, kh, kw\), got shape \(3, 4, 3\)"),
    (CONV, [X, (3, 4, 3, 3), (4,)], [], {}, r"conv2d: expected a bias of shape \(3,\), got \(4,\)"),
    (CONV, [X, (3, 4, 7, 3)], [], {}, r"conv2d: a \(7, 3\) window .*does not fit into an input of \(6, 5\)"),
    (CONV, [X, (3, 4, 3, 3)], [], {"dilation": 3}, r"conv2d: a \(3, 3\) window with dilation \(3, 3\)"),
    (CONV, [X, (4, 1, 3, 7)], [], {"groups": 4, "pad": (1, 0)}, r"a \(3, 7\) window .*does not fit"),
    (CONV, [X, (3, 4, 3, 3)], [], {"stride": 0}, "stride: expected an integer or .* at least 1; got 0"),
    (CONV, [X, (3, 4, 3, 3)], [], {"stride": 1.5}, "stride: expected an integer .*got 1.5"),
    (CONV, [X, (3, 4, 3, 3)], [], {"stride": None}, "stride: expected an integer .*got None"),
    (CONV, [X, (3, 4, 3, 3)], [], {"stride": (float("nan"), 1)}, "stride: expected an integer .*got .nan, 1"),
    (CONV, [X, (3, 4, 3, 3)], [], {"stride": np.array([1, 2])}, r"stride: expected an integer .*got array\(\[1, 2\]\)"),
    (CONV, [X, (3, 4, 3, 3)], [], {"pad": float("inf")}, "pad: expected an integer .*got inf"),
    (CONV, [X, (3, 4, 3, 3)], [], {"dilation": (1, 0)}, r"dilation: expected .* got \(1, 0\)"),
    (CONV, [X, (3, 4, 3, 3)], [], {"pad": -1}, "pad: expected .* at least 0; got -1"),
    (CONV, [X, (3, 4, 3, 3)], [], {"pad": (1, 1, 1, 1)}, r"pad: expected .* got \(1, 1, 1, 1\)"),
    (CONV, [X, (3, 4, 3, 3)], [], {"activation": "gelu"}, "conv2d: expected activation none, relu, relu6; got 'gelu'"),
    (TRANSPOSED, [X, (3, 4, 2, 2)], [], {}, "conv_transpose2d: expected 3 input channels, got 4"),
    (TRANSPOSED, [(0, 4, 6, 5), (4, 4, 3, 3)], [], {}, "conv_transpose2d: .*no empty axis"),
    (TRANSPOSED, [X, (4, 2, 2, 2)], [], {"groups": 3}, "4 input channels cannot be split into 3"),
    (TRANSPOSED, [X, (4, 2, 2)], [], {}, r"conv_transpose2d: expected w \(C, K/groups, kh, kw\)"),
    (TRANSPOSED, [X, (4, 2, 2, 2), (4,)], [], {}, r"expected a bias of shape \(2,\), got \(4,\)"),
    (TRANSPOSED, [X, (4, 2, 2, 2)], [], {"stride": 2, "output_pad": 2}, r"output_pad \(2, 2\) must be smaller"),
    (TRANSPOSED, [X, (4, 2, 2, 2)], [], {"pad": 4}, r"conv_transpose2d: pad .* leaves nothing of an input"),
    (MAX, [X], [2], {"pad": 2}, r"max_pool2d: with pad .* a \(2, 2\) window sees no pixel .* pad by less"),
    (MAX, [X], [2], {"pad": ((0, 0), (0, 3))}, "max_pool2d: with pad .* sees no pixel"),
    (MAX, [(1, 1, 2, 9)], [2], {"dilation": 4, "pad": 2, "stride": 1}, "sees no pixel"),  # all between two taps
    (MAX, [X], [7], {}, r"max_pool2d: a \(7, 7\) window .*does not fit into an input of \(6, 5\)"),
    (MAX, [X], [0], {}, "kernel: expected .* at least 1; got 0"),
    (MAX, [(4, 6, 5)], [2], {}, r"max_pool2d: expected an array \(N, C, H, W\)"),
    (AVG, [X], [3], {"pad": ((3, 0), (0, 0))}, "avg_pool2d: .* sees no pixel"),
    (AVG, [X], [(3, 6)], {}, r"avg_pool2d: a \(3, 6\) window .*does not fit"),
    (ADAPTIVE, [X], [0], {}, "size: expected an integer or .* at least 1; got 0"),
    (ADAPTIVE, [(4, 6, 5)], [2], {}, r"adaptive_avg_pool2d: expected an array \(N, C, H, W\)"),
    (ops.global_avg_pool_forward, [(4, 6)], [], {}, r"global_avg_pool: expected an array .*got shape \(4, 6\)"),
    (ops.global_avg_pool_forward, [(2, 4, 0, 5)], [], {}, "no empty axis"),
    (LINEAR, [(5, 3), (4, 2)], [], {}, r"linear: expected x \(N, D\) and w \(K, D\), got \(5, 3\)"),
    (LINEAR, [X, (4, 5)], [], {}, r"linear: expected x \(N, D\)"),
    (LINEAR, [(5, 3), (4, 3), (3,)], [], {}, r"linear: expected a bias of shape \(4,\), got \(3,\)"),
    (LRN, [X], [0], {}, "lrn: expected a whole size of at least 1, got 0"),
    (LRN, [X], [2.5], {}, "lrn: expected a whole size of at least 1, got 2.5"),
    (NORM, [X, (4,), (4,), (3,), (4,)], [], {}, r"one value per channel of shape \(4,\)"),
    (NORM, [(5, 4), (4,), (4,), (4,), (4,)], [], {}, "batch_norm: expected an array"),
    (NORM, [(1, 3, 1, 1), *[(3,)] * 4], [], {"train": True}, "batch_norm: .* larger batch or crop, or frozen"),
    (CROP, [X], [(2, 0), (5, 5)], {}, r"crop: \(5, 5\) at offset \(2, 0\) does not lie inside .*\(6, 5\)"),
    (CROP, [X], [-1, 2], {}, "crop offset: expected .* at least 0; got -1"),
    (CROP, [X], [0, 0], {}, "crop size: expected .* at least 1; got 0"),
    (concat, [], [], {}, "concat: expected at least one map"),
    (concat, [X, (2, 4, 6, 4)], [], {}, r"concat: expected maps of shape \(2, 4, 6, 5\)"),
    (RESIZE, [X], [0], {}, "size: expected .* at least 1; got 0"),
    (ops.resize_forward, [X], [4], {"scale": (0, 1)}, r"resize: expected a scale of two numbers above 0, got \(0, 1\)"),
    (ops.resize_forward, [X], [4], {"scale": (0.5,)}, r"resize: expected a scale of two numbers above 0, got \(0.5,\)"),
    (concat, [X, X], [], {"axis": 4}, r"concat: expected an axis of 0\.\.3, got 4"),
    (concat, [X, X], [], {"axis": -1}, r"concat: expected an axis of 0\.\.3, got -1"),
    (PAD, [X], [((0, 1), (-1, 0))], {}, "pad: expected .* at least 0"),
    (UPSAMPLE, [X, (4, 4)], [], {"stride": 2}, r"upsample: expected a kernel of one axis, got shape \(4, 4\)"),
    (UPSAMPLE, [X, (0,)], [], {"stride": 2}, r"upsample: expected a kernel of one axis, got shape \(0,\)"),
    (UPSAMPLE, [X, (4,)], [], {"stride": 0}, "upsample: expected a whole stride of at least 1, got 0"),
    (UPSAMPLE, [X, (40,)], [], {"stride": -1}, "upsample: expected a whole stride of at least 1, got -1"),
    (UPSAMPLE, [X, (4,)], [], {"stride": (2, 2)}, r"upsample: expected a whole stride of at least 1, got \(2, 2\)"),
    (UPSAMPLE, [X, (4,)], [], {"stride": 1, "pad": 4}, "leave nothing of"),
    (UPSAMPLE, [X, (4,)], [], {"stride": 1, "pad": ((0, 0), (7, 1))}, r"upsample: .* leave nothing of \(6, 5\)"),
    (dropout, [X], [1.0], {}, r"dropout: expected 0 <= p < 1, got 1.0"),
    (dropout, [X], [-0.1], {}, "dropout: .* got -0.1"),
]


@pytest.mark.parametrize(("operation", "shapes", "others", "settings", "message"), REFUSED)
def test_wrong_use_is_refused_with_a_clear_message(operation, shapes, others, settings, message, device):
    arrays = [device.put(np.ones(shape, np.float32)) for shape in shapes]
    with pytest.raises(InputError, match=message) as caught:
        operation(*arrays, *others, **settings)
    assert "\n" not in str(caught.value)


def test_arrays_of_two_devices_are_refused(device):
    x, w = np.ones(X, np.float32), np.ones((4, 4, 3, 3), np.float32)
    elsewhere = np.asarray if device.name == "strict" else strict.xp.asarray
    for first, second in ((elsewhere(x), device.put(w)), (device.put(x), elsewhere(w))):
        with pytest.raises(TypeError):
            ops.conv2d_forward(first, second)
