"""Where the engine's parts meet: what follows a convolution at once, and passes and products that threads share."""

import numpy as np
import pytest
from gradcheck_cases import CONV2D, bias_shape, spread, spreads

from minifcn import backend, ops
from minifcn.ops.conv_algorithms import gemm
from minifcn.ops.maps import channel_sums
from minifcn.ops.window import window

FOLLOWED = [  # algorithm, case
    *((algorithm, case) for algorithm in ("naive", "im2col", "winograd") for case in ("plain", "many-tiles", "groups")),
    *(("auto", case) for case in ("1x1", "depthwise", "depthwise-stride", "more-kernels-than-pixels")),
]


@pytest.mark.parametrize(("tile_bytes", "threads"), [(None, None), (1, 1), (100, 3)])
@pytest.mark.parametrize(("algorithm", "case"), FOLLOWED)
def test_what_follows_a_convolution_changes_each_value_once_and_after_the_bias(
    algorithm, case, tile_bytes, threads, device, tiling
):
    x_shape, w_shape, settings = CONV2D[case]
    x, w, b = spreads(x_shape, w_shape, bias_shape("conv2d", w_shape, settings))

    def then(part):
        part *= 3
        part -= 1

    expected, _ = ops.conv2d_forward(x, w, b, **settings)
    without, _ = ops.conv2d_forward(x, w, **settings)
    tiling(tile_bytes, threads)
    with ops.conv_algorithm(algorithm):
        y, _ = ops.conv2d_forward(*map(device.put, (x, w, b)), **settings, then=then)
        z, _ = ops.conv2d_forward(*map(device.put, (x, w)), **settings, then=then)
    np.testing.assert_allclose(device.get(y), 3 * expected - 1, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(device.get(z), 3 * without - 1, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_1x1_weight_gradient_is_the_sum_of_what_each_thread_finds(threads, tiling, monkeypatch):
    tiling(threads=threads)
    monkeypatch.setattr(gemm, "WORTH_A_THREAD", 0)
    x, dy = spreads((2, 3, 6, 7), (2, 4, 6, 7))
    dw = gemm.weight_gradient(x, dy, window("conv2d", (1, 1), 1, 0, 1, 1, (6, 7)))
    np.testing.assert_allclose(dw[:, :, 0, 0], np.einsum("nkij,ncij->kc", dy, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inputs", "weights"), [(True, True), (True, False), (False, True)])
def test_two_threads_with_a_pass_each_find_what_one_finds(inputs, weights, tiling):
    x, w = spread((1, 12, 60, 50)), spread((16, 12, 3, 3), seed=1)
    y, cache = ops.conv2d_forward(x, w, pad=1)
    dy, found = spread(y.shape, seed=2), []
    for threads in (1, 2):
        tiling(threads=threads)
        found.append(ops.conv2d_backward(dy, cache, inputs=inputs, weights=weights)[:2])
    for asked, one, two in zip((inputs, weights), *found, strict=True):
        assert (one is None) == (two is None) == (not asked)
        if asked:
            np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-10)


def test_a_long_float32_sum_over_a_channel_loses_no_digits():
    maps = np.full((4, 500, 500, 3), 0.1, np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(channel_sums(maps), 1e6 * np.float64(np.float32(0.1)), rtol=2e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 30, 20), (20, 30, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_follows_a_product_changes_each_value_once_and_after_the_bias(shape, threads, tiling):
    tiling(100, threads)
    rows, depth, columns = shape
    a, b, bias = spreads((rows, depth), (depth, columns), (columns,))
    y = backend.matmul(a, b, bias=bias, then=lambda part: np.square(part, out=part))
    np.testing.assert_allclose(y, (a @ b + bias) ** 2, rtol=1e-11, atol=1e-11)
