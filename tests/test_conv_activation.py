"""What is done to results while they are in a cache: bias and activation, after convolutions and matrix products."""

import numpy as np
import pytest

from minifcn import backend, ops
from minifcn.ops.conv import pointwise
from minifcn.ops.geometry import window
from minifcn.ops.maps import channel_sums

KINDS = {  # x (N, C, H, W), w (K, C/groups, kh, kw), settings, the algorithms beside im2col
    "3x3": ((3, 4, 11, 7), (5, 4, 3, 3), {"pad": 1}, ("winograd",)),
    "3x3 of one image": ((1, 4, 13, 9), (3, 4, 3, 3), {"pad": ((2, 0), (1, 2))}, ("winograd",)),
    "3x3 of one result": ((1, 2, 3, 3), (3, 2, 3, 3), {}, ("winograd", "naive")),
    "1x1": ((3, 4, 5, 7), (5, 4, 1, 1), {}, ("gemm",)),
    "1x1, more kernels than pixels": ((1, 4, 3, 3), (31, 4, 1, 1), {}, ("gemm",)),
    "more kernels than pixels": ((2, 3, 7, 5), (29, 3, 3, 3), {"stride": 3}, ()),
    "strided, dilated": ((2, 3, 12, 11), (5, 3, 3, 2), {"stride": (2, 3), "dilation": (1, 2), "pad": 1}, ()),
    "grouped": ((3, 4, 7, 9), (6, 2, 3, 3), {"groups": 2, "pad": 1}, ()),
    "depthwise": ((3, 5, 9, 7), (5, 1, 3, 3), {"groups": 5, "pad": 1}, ("depthwise",)),
    "depthwise strided": (
        (2, 3, 11, 13),
        (3, 1, 5, 5),
        {"groups": 3, "stride": (2, 3), "dilation": (1, 2), "pad": 4},
        ("depthwise",),
    ),
}
EVERY = [(kind, algorithm) for kind, case in KINDS.items() for algorithm in ("im2col", *case[-1])]


def applied(activation, y):
    return np.clip(y, 0, 6 if activation == "relu6" else np.inf)


@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_an_activation_is_applied_to_every_result(kind, algorithm, tiling, device, rng):
    for threads, tile_bytes in ((1, None), (2, 400)):
        tiling(tile_bytes, threads)
        x, w, settings, _ = KINDS[kind]
        x, w, b = rng.normal(size=x), 3 * rng.normal(size=w), rng.normal(size=w[0])
        for bias in (b, None):
            args = [device.put(array) for array in (x, w, bias)]
            with ops.conv_algorithm(algorithm):
                y, _ = ops.conv2d_forward(*args, **settings)
                y = device.get(y)
                assert y.min() < 0 and y.max() > 6
                for activation in ("relu", "relu6"):
                    found, _ = ops.conv2d_forward(*args, **settings, activation=activation)
                    np.testing.assert_array_equal(device.get(found), applied(activation, y))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1, 1, 1), (37, 5, 3), (3, 5, 37), (8, 3, 8), (1, 4, 9), (9, 4, 1)]
)
def test_a_matrix_product_with_bias_and_what_follows(rows, depth, columns, threads, tiling, device, rng):
    """What follows is such that a second time and a time too soon would show."""
    tiling(100, threads)
    a, b, bias = (rng.normal(size=shape) for shape in ((rows, depth), (depth, columns), columns))
    product, sizes = a @ b, []
    a, b, given = (device.put(array) for array in (a, b, bias))

    def follow(part, some_bias):
        if some_bias is not None:
            part += some_bias
        part *= -2
        part += 1
        sizes.append(part.size)

    for some_bias, expected in ((None, product), (given, product + bias)):
        for then, wanted in ((None, expected), (follow, 1 - 2 * expected)):
            y = backend.matmul(a, b, None, some_bias, then)
            np.testing.assert_allclose(device.get(y), wanted, rtol=1e-12, atol=1e-12)
            room = device.put(np.full((rows, 2 * columns), 7.0), writable=True)  # out has neighbours
            backend.matmul(a, b, room[:, ::2], some_bias, then)
            np.testing.assert_array_equal(device.get(room)[:, ::2], device.get(y))
            assert (device.get(room)[:, 1::2] == 7).all()
    assert sum(sizes) == 4 * rows * columns
    if threads > 1 and rows * columns > 20 and not backend.has_kernels(a):
        assert len(sizes) > 4  # more than one part each


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_1x1_weight_gradient_is_the_sum_of_what_each_thread_finds(threads, tiling, rng):
    tiling(1 << 20, threads)
    x, dy = (rng.normal(size=(2, channels, 6, 7)) for channels in (3, 4))
    dw = pointwise.weight_gradient(x, dy, window("conv2d", (1, 1), 1, 0, 1, 1, (6, 7)))
    np.testing.assert_allclose(dw[:, :, 0, 0], np.einsum("nkij,ncij->kc", dy, x), rtol=1e-12, atol=1e-12)


def test_a_long_float32_sum_over_a_channel_loses_no_digits():
    maps = np.full((4, 500, 500, 3), 0.1, np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(channel_sums(maps), 1e6 * np.float64(np.float32(0.1)), rtol=2e-6)
