"""Wrong use of an operation says which operation, what was expected and what came."""

import numpy as np
import pytest

from minifcn import ops
from minifcn.testing import strict

CONV, TRANSPOSED = ops.conv2d_forward, ops.conv_transpose2d_forward
MAX, AVG = ops.max_pool2d_forward, ops.avg_pool2d_forward
X = (2, 4, 6, 5)

REFUSED = {  # name: operation, shapes of its arrays, other arguments, settings, message
    "channels": (CONV, [X, (3, 5, 3, 3)], [], {}, r"conv2d: expected 5 input channels, got 4 in shape \(2, 4, 6, 5\)"),
    "channels with groups": (CONV, [X, (4, 4, 3, 3)], [], {"groups": 2}, "conv2d: expected 8 input channels, got 4"),
    "groups": (CONV, [X, (3, 2, 3, 3)], [], {"groups": 2}, "conv2d: 3 output channels cannot be split into 2 groups"),
    "no groups": (
        CONV,
        [X, (3, 4, 3, 3)],
        [],
        {"groups": 0},
        "conv2d: 3 output channels cannot be split into 0 groups",
    ),
    "no batch axis": (
        CONV,
        [(4, 6, 5), (3, 4, 3, 3)],
        [],
        {},
        r"conv2d: expected an array \(N, C, H, W\).*\(4, 6, 5\)",
    ),
    "empty": (CONV, [(0, 4, 6, 5), (3, 4, 3, 3)], [], {}, r"conv2d: .*no empty axis, got shape \(0, 4, 6, 5\)"),
    "kernel axes": (CONV, [X, (3, 4, 3)], [], {}, r"conv2d: expected w \(K, C/groups, kh, kw\), got shape \(3, 4, 3\)"),
    "bias": (CONV, [X, (3, 4, 3, 3), (4,)], [], {}, r"conv2d: expected a bias of shape \(3,\), got \(4,\)"),
    "no room": (CONV, [X, (3, 4, 7, 3)], [], {}, r"conv2d: a \(7, 3\) window .*does not fit into an input of \(6, 5\)"),
    "no room, dilated": (
        CONV,
        [X, (3, 4, 3, 3)],
        [],
        {"dilation": 3},
        r"conv2d: a \(3, 3\) window with dilation \(3, 3\)",
    ),
    "stride 0": (CONV, [X, (3, 4, 3, 3)], [], {"stride": 0}, "stride: expected an integer or .* at least 1; got 0"),
    "stride 1.5": (CONV, [X, (3, 4, 3, 3)], [], {"stride": 1.5}, "stride: expected an integer .*got 1.5"),
    "dilation 0": (CONV, [X, (3, 4, 3, 3)], [], {"dilation": (1, 0)}, r"dilation: expected .* got \(1, 0\)"),
    "three strides": (CONV, [X, (3, 4, 3, 3)], [], {"stride": (1, 1, 1)}, r"stride: expected .* got \(1, 1, 1\)"),
    "pad below 0": (CONV, [X, (3, 4, 3, 3)], [], {"pad": -1}, "pad: expected .* at least 0; got -1"),
    "four pads": (CONV, [X, (3, 4, 3, 3)], [], {"pad": (1, 1, 1, 1)}, r"pad: expected .* got \(1, 1, 1, 1\)"),
    "transposed channels": (
        TRANSPOSED,
        [X, (3, 4, 2, 2)],
        [],
        {},
        "conv_transpose2d: expected 3 input channels, got 4",
    ),
    "transposed groups": (TRANSPOSED, [X, (4, 2, 2, 2)], [], {"groups": 3}, "4 input channels cannot be split into 3"),
    "transposed kernel": (TRANSPOSED, [X, (4, 2, 2)], [], {}, r"conv_transpose2d: expected w \(C, K/groups, kh, kw\)"),
    "transposed bias": (TRANSPOSED, [X, (4, 2, 2, 2), (4,)], [], {}, r"expected a bias of shape \(2,\), got \(4,\)"),
    "output_pad": (
        TRANSPOSED,
        [X, (4, 2, 2, 2)],
        [],
        {"stride": 2, "output_pad": 2},
        r"output_pad \(2, 2\) must be smaller",
    ),
    "nothing left": (
        TRANSPOSED,
        [X, (4, 2, 2, 2)],
        [],
        {"pad": 4},
        r"conv_transpose2d: pad .* leaves nothing of an input",
    ),
    "max pool pad": (
        MAX,
        [X],
        [2],
        {"pad": 2},
        r"max_pool2d: with pad .* a \(2, 2\) window sees no pixel .* pad by less",
    ),
    "max pool pad behind": (MAX, [X], [2], {"pad": ((0, 0), (0, 3))}, "max_pool2d: with pad .* sees no pixel"),
    "max pool between taps": (MAX, [(1, 1, 2, 9)], [2], {"dilation": 4, "pad": 2, "stride": 1}, "sees no pixel"),
    "max pool room": (MAX, [X], [7], {}, r"max_pool2d: a \(7, 7\) window does not fit into an input of \(6, 5\)"),
    "max pool kernel": (MAX, [X], [0], {}, "kernel: expected .* at least 1; got 0"),
    "max pool axes": (MAX, [(4, 6, 5)], [2], {}, r"max_pool2d: expected an array \(N, C, H, W\)"),
    "avg pool pad": (AVG, [X], [3], {"pad": ((3, 0), (0, 0))}, "avg_pool2d: .* sees no pixel"),
    "avg pool room": (AVG, [X], [(3, 6)], {}, r"avg_pool2d: a \(3, 6\) window does not fit"),
    "adaptive pool size": (
        ops.adaptive_avg_pool2d_forward,
        [X],
        [0],
        {},
        "size: expected an integer or .* at least 1; got 0",
    ),
    "adaptive pool axes": (
        ops.adaptive_avg_pool2d_forward,
        [(4, 6, 5)],
        [2],
        {},
        r"adaptive_avg_pool2d: expected an array \(N, C, H, W\)",
    ),
    "global average axes": (
        ops.global_avg_pool_forward,
        [(4, 6)],
        [],
        {},
        r"global_avg_pool: expected an array \(N, C, H, W\).*got shape \(4, 6\)",
    ),
    "global average of nothing": (ops.global_avg_pool_forward, [(2, 4, 0, 5)], [], {}, "no empty axis"),
    "depthwise channels": (CONV, [X, (3, 1, 3, 3)], [], {"groups": 3}, "conv2d: expected 3 input channels, got 4"),
    "depthwise room": (CONV, [X, (4, 1, 3, 7)], [], {"groups": 4, "pad": (1, 0)}, r"a \(3, 7\) window .*does not fit"),
    "linear": (
        ops.linear_forward,
        [(5, 3), (4, 2)],
        [],
        {},
        r"linear: expected x \(N, D\) and w \(K, D\), got \(5, 3\)",
    ),
    "linear axes": (ops.linear_forward, [X, (4, 5)], [], {}, r"linear: expected x \(N, D\)"),
    "linear bias": (
        ops.linear_forward,
        [(5, 3), (4, 3), (3,)],
        [],
        {},
        r"linear: expected a bias of shape \(4,\), got \(3,\)",
    ),
    "lrn size": (ops.lrn_forward, [X], [0], {}, "lrn: expected a size of at least 1, got 0"),
    "batch norm": (
        ops.batch_norm_forward,
        [X, (4,), (4,), (3,), (4,)],
        [],
        {},
        r"one value per channel of shape \(4,\)",
    ),
    "batch norm axes": (
        ops.batch_norm_forward,
        [(5, 4), (4,), (4,), (4,), (4,)],
        [],
        {},
        "batch_norm: expected an array",
    ),
    "crop": (
        ops.crop_forward,
        [X],
        [(2, 0), (5, 5)],
        {},
        r"crop: \(5, 5\) at offset \(2, 0\) does not lie inside .*\(6, 5\)",
    ),
    "crop before": (ops.crop_forward, [X], [-1, 2], {}, "crop offset: expected .* at least 0; got -1"),
    "crop to nothing": (ops.crop_forward, [X], [0, 0], {}, "crop size: expected .* at least 1; got 0"),
    "concat of nothing": (lambda *xs: ops.concat_forward(xs), [], [], {}, "concat: expected at least one map"),
    "concat": (
        lambda *xs: ops.concat_forward(xs),
        [X, (2, 4, 6, 4)],
        [],
        {},
        r"concat: expected maps of shape \(2, 4, 6, 5\)",
    ),
    "resize": (ops.resize_bilinear_forward, [X], [0], {}, "size: expected .* at least 1; got 0"),
    "pad": (ops.pad_forward, [X], [((0, 1), (-1, 0))], {}, "pad: expected .* at least 0"),
    "upsample": (ops.upsample_forward, [X, (4, 4)], [], {"stride": 2}, r"upsample: a kernel \(4, 4\)"),
    "upsample to nothing": (ops.upsample_forward, [X, (4,)], [], {"stride": 1, "pad": 4}, "leave nothing of"),
    "upsample to nothing on one side": (
        ops.upsample_forward,
        [X, (4,)],
        [],
        {"stride": 1, "pad": ((0, 0), (7, 1))},
        r"upsample: .* pad \(\(0, 0\), \(7, 1\)\) leave nothing of \(6, 5\)",
    ),
    "dropout": (
        lambda x, p: ops.dropout_forward(x, p, None, True),
        [X],
        [1.0],
        {},
        r"dropout: expected 0 <= p < 1, got 1.0",
    ),
    "dropout below 0": (lambda x, p: ops.dropout_forward(x, p, None, True), [X], [-0.1], {}, "dropout: .* got -0.1"),
}


@pytest.mark.parametrize(("operation", "shapes", "others", "settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_use_is_refused_with_a_clear_message(operation, shapes, others, settings, message, device):
    arrays = [device.put(np.ones(shape, np.float32)) for shape in shapes]
    with pytest.raises(ValueError, match=message) as caught:
        operation(*arrays, *others, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_maps_of_other_dtypes_are_refused_by_convolutions(dtype, device):
    x, w = device.put(np.ones(X, dtype)), device.put(np.ones((4, 4, 1, 1), dtype))
    for operation in (CONV, TRANSPOSED):
        with pytest.raises(TypeError, match=f"expected float32 or float64, got {dtype}"):
            operation(x, w)


def test_arrays_of_two_devices_are_refused(device):
    x, w = np.ones(X, np.float32), np.ones((4, 4, 3, 3), np.float32)
    elsewhere = np.asarray if device.name == "strict" else strict.xp.asarray
    for first, second in ((elsewhere(x), device.put(w)), (device.put(x), elsewhere(w))):
        with pytest.raises(TypeError):
            ops.conv2d_forward(first, second)
