"""Convolution and transposed convolution: every algorithm computes the definition, whatever the tiles, on every device."""

import numpy as np
import pytest

from minifcn import gradcheck, ops
from minifcn.ops import conv_algorithms
from minifcn.ops.conv_algorithms import depthwise, im2col
from minifcn.ops.window import pads, pair

FAST = [name for name in conv_algorithms._ALGORITHMS if name != "naive"]

# x (N, C, H, W), output channels, kernel, settings
CONV = {
    "3x3": ((2, 3, 6, 5), 4, (3, 3), {}),
    "3x3 same": ((1, 2, 5, 5), 3, (3, 3), {"pad": 1}),
    "stride 2": ((2, 2, 7, 6), 3, (3, 3), {"stride": 2, "pad": 1}),
    "stride skips the last columns": ((1, 2, 6, 8), 2, (2, 2), {"stride": 3}),
    "stride larger than the kernel": ((1, 2, 7, 8), 2, (1, 2), {"stride": (3, 4)}),
    "1x1": ((2, 5, 4, 3), 3, (1, 1), {}),
    "1x1 strided": ((2, 3, 5, 4), 3, (1, 1), {"stride": 2}),
    "1x1 padded": ((1, 3, 3, 2), 2, (1, 1), {"pad": 1}),
    "1x1 groups": ((2, 4, 3, 3), 6, (1, 1), {"groups": 2}),
    "non-square kernel": ((2, 2, 5, 7), 3, (2, 4), {"pad": (1, 2)}),
    "non-square everything": ((1, 2, 9, 8), 3, (3, 2), {"stride": (2, 1), "pad": (0, 1), "dilation": (1, 3)}),
    "asymmetric pad": ((2, 2, 5, 4), 3, (3, 3), {"pad": ((0, 2), (1, 0))}),
    "asymmetric pad, strided": ((1, 2, 6, 5), 3, (3, 3), {"pad": ((0, 1), (0, 1)), "stride": 2}),
    "pad larger than the image": ((1, 1, 2, 1), 2, (3, 3), {"pad": 4}),
    "windows that see only padding": ((1, 2, 2, 2), 2, (2, 2), {"pad": 3, "stride": 2}),
    "dilation": ((1, 2, 7, 8), 2, (3, 3), {"dilation": 2, "pad": 2}),
    "dilation over groups": ((2, 4, 6, 6), 4, (2, 2), {"dilation": (3, 2), "groups": 2, "stride": (1, 2)}),
    "groups": ((2, 6, 4, 5), 9, (3, 3), {"groups": 3, "pad": 1}),
    "depthwise": ((2, 4, 5, 5), 4, (3, 3), {"groups": 4, "stride": 2, "pad": 1}),
    "depthwise with a multiplier": ((1, 3, 4, 4), 6, (3, 3), {"groups": 3}),
    "depthwise 5x5": ((2, 3, 7, 6), 3, (5, 5), {"groups": 3, "pad": 2}),
    "depthwise 5x5, strided": ((1, 3, 8, 7), 3, (5, 5), {"groups": 3, "stride": 2, "pad": ((1, 2), (2, 2))}),
    "depthwise stride skips the last columns": ((1, 2, 6, 8), 2, (2, 2), {"groups": 2, "stride": 3}),
    "depthwise stride larger than the kernel": ((1, 2, 7, 8), 2, (1, 2), {"groups": 2, "stride": (3, 4)}),
    "depthwise dilation": ((2, 2, 7, 8), 2, (3, 2), {"groups": 2, "dilation": (2, 3), "pad": (2, 1)}),
    "depthwise asymmetric pad": ((1, 3, 5, 4), 3, (3, 3), {"groups": 3, "pad": ((0, 2), (1, 0))}),
    "depthwise windows that see only padding": ((1, 2, 2, 2), 2, (2, 2), {"groups": 2, "pad": 3, "stride": 2}),
    "depthwise pad beyond the kernel": ((1, 2, 3, 2), 2, (2, 2), {"groups": 2, "pad": ((3, 1), (1, 3))}),
    "depthwise dilation over one axis": ((2, 2, 5, 6), 2, (3, 3), {"groups": 2, "dilation": (1, 2), "pad": (0, 3)}),
    "depthwise one pixel": ((1, 3, 1, 1), 3, (3, 3), {"groups": 3, "pad": 1}),
    "depthwise one column": ((2, 2, 6, 1), 2, (5, 5), {"groups": 2, "pad": 2}),
    "depthwise narrower than the kernel": ((1, 2, 3, 2), 2, (5, 5), {"groups": 2, "pad": 2, "stride": 2}),
    "depthwise 1x1": ((2, 3, 4, 3), 3, (1, 1), {"groups": 3}),
    "the kernel covers the image": ((3, 2, 3, 4), 5, (3, 4), {}),
    "one pixel": ((1, 1, 1, 1), 1, (1, 1), {}),
    "one row": ((2, 2, 1, 9), 2, (1, 3), {"pad": (0, 1)}),
}
# x (N, C, H, W), output channels, kernel, settings
TRANSPOSED = {
    "doubling": ((1, 2, 3, 4), 2, (4, 4), {"stride": 2, "pad": 1}),
    "published doubling": ((1, 3, 3, 2), 3, (4, 4), {"stride": 2}),
    "stride 1": ((2, 2, 4, 3), 3, (3, 3), {"pad": 1}),
    "output_pad": ((2, 2, 3, 3), 2, (3, 3), {"stride": 2, "pad": 1, "output_pad": 1}),
    "output_pad of one axis": ((1, 2, 2, 3), 2, (3, 2), {"stride": (3, 2), "output_pad": (2, 0)}),
    "output_pad under the dilation": ((1, 2, 3, 3), 2, (2, 2), {"dilation": 3, "output_pad": 2}),
    "gaps between stamps": ((1, 2, 3, 3), 2, (2, 2), {"stride": 3}),
    "asymmetric pad": ((1, 2, 4, 4), 2, (3, 3), {"stride": 2, "pad": ((0, 1), (2, 0))}),
    "groups": ((2, 4, 3, 3), 6, (3, 3), {"groups": 2, "stride": 2}),
    "depthwise": ((1, 3, 3, 3), 3, (4, 4), {"groups": 3, "stride": 2, "pad": 1}),
    "depthwise output_pad": (
        (2, 2, 2, 3),
        2,
        (3, 2),
        {"groups": 2, "stride": (3, 2), "pad": ((0, 1), (1, 0)), "output_pad": (2, 0)},
    ),
    "depthwise stride 1": ((1, 3, 4, 3), 3, (3, 2), {"groups": 3, "pad": ((1, 0), (0, 1))}),
    "depthwise output_pad under the dilation": (
        (1, 2, 3, 3),
        2,
        (2, 2),
        {"groups": 2, "dilation": 3, "output_pad": (2, 1), "pad": 1},
    ),
    "depthwise gaps between stamps": ((1, 3, 3, 2), 3, (2, 2), {"groups": 3, "stride": 3}),
    "dilation": ((1, 2, 3, 4), 3, (3, 2), {"dilation": (2, 3), "stride": (1, 2), "pad": (1, 0)}),
    "1x1": ((2, 3, 3, 4), 2, (1, 1), {}),
}
OPS = {
    "conv": (ops.conv2d_forward, ops.conv2d_backward, CONV),
    "transposed": (ops.conv_transpose2d_forward, ops.conv_transpose2d_backward, TRANSPOSED),
}
GRID = [(op, case) for op, (_, _, cases) in OPS.items() for case in cases]


def arguments(op, case, rng, dtype=np.float64):
    shape, outputs, kernel, settings = OPS[op][2][case]
    first, second = (outputs, shape[1]) if op == "conv" else (shape[1], outputs)
    groups = settings.get("groups", 1)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((first, second // groups) + kernel).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype)
    return x, w, b, settings


def passes(op, algorithm, x, w, b, settings, seed, put=np.asarray):
    """(y, dx, dw, db) for a random upstream gradient."""
    forward, backward, _ = OPS[op]
    with ops.conv_algorithm(algorithm):
        y, cache = forward(x, w, b, **settings)
        dy = np.random.default_rng(seed).standard_normal(y.shape).astype(str(y.dtype))
        return (y, *backward(put(dy), cache))


def assert_same(results, expected, tolerance=1e-10):
    for name, result, reference in zip(("y", "dx", "dw", "db"), results, expected, strict=True):
        assert result.shape == reference.shape, name
        np.testing.assert_allclose(result, reference, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("tile_bytes", "workers"), [(1, 1), (1000, 3), (im2col.TILE_BYTES, im2col.WORKERS)])
@pytest.mark.parametrize("algorithm", [*FAST, "auto"])
@pytest.mark.parametrize(("op", "case"), GRID)
def test_fast_algorithms_agree_with_the_loops(op, case, algorithm, tile_bytes, workers, device, rng, monkeypatch):
    x, w, b, settings = arguments(op, case, rng)
    expected = passes(op, "naive", x, w, b, settings, seed=1)
    monkeypatch.setattr(im2col, "TILE_BYTES", tile_bytes)
    monkeypatch.setattr(im2col, "WORKERS", workers)
    monkeypatch.setattr(depthwise, "TILE_BYTES", tile_bytes)
    x, w, b = map(device.put, (x, w, b))
    assert_same(map(device.get, passes(op, algorithm, x, w, b, settings, seed=1, put=device.put)), expected)


@pytest.mark.parametrize(
    ("op", "case"), [("conv", "asymmetric pad, strided"), ("transposed", "output_pad of one axis")]
)
def test_the_loops_run_on_every_device(op, case, device, rng):
    x, w, b, settings = arguments(op, case, rng)
    expected = passes(op, "naive", x, w, b, settings, seed=1)
    x, w, b = map(device.put, (x, w, b))
    assert_same(map(device.get, passes(op, "naive", x, w, b, settings, seed=1, put=device.put)), expected)


@pytest.mark.parametrize("algorithm", ["naive", *FAST])
@pytest.mark.parametrize(
    ("op", "case"), [("conv", "stride 2"), ("conv", "1x1"), ("conv", "depthwise 5x5"), ("transposed", "output_pad")]
)
def test_float32_is_as_close_as_float32_can_be(op, case, algorithm, rng):
    x, w, b, settings = arguments(op, case, rng, np.float32)
    wide = passes(op, "naive", *(a.astype(np.float64) for a in (x, w, b)), settings, seed=1)
    results = passes(op, algorithm, x, w, b, settings, seed=1)
    assert {a.dtype for a in results} == {np.dtype("float32")}
    assert_same(results, wide, tolerance=1e-4)


@pytest.mark.parametrize("algorithm", ["naive", *FAST])
def test_a_convolution_worked_by_hand(algorithm):
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    with ops.conv_algorithm(algorithm):
        y, cache = ops.conv2d_forward(x, w, np.array([100.0]))
        dx, dw, db = ops.conv2d_backward(np.array([[[[1.0, 0.0], [0.0, 10.0]]]]), cache)
    np.testing.assert_allclose(y[0, 0], [[127, 137], [157, 167]])  # the kernel is not flipped
    np.testing.assert_allclose(dx[0, 0], [[1, 2, 0], [3, 14, 20], [0, 30, 40]])
    np.testing.assert_allclose(dw[0, 0], [[40, 51], [73, 84]])
    np.testing.assert_allclose(db, [11])


@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_stamps_its_kernel(case, rng):
    x, w, b, settings = arguments("transposed", case, rng)
    (sh, sw), (dh, dw) = (pair(key, settings.get(key, 1)) for key in ("stride", "dilation"))
    (top, bottom), (left, right) = pads(settings.get("pad", 0))
    oh, ow = pair("output_pad", settings.get("output_pad", 0), least=0)
    groups, (n, c, height, width), (_, outputs, kh, kw) = settings.get("groups", 1), x.shape, w.shape
    whole = np.zeros((n, b.size, (height - 1) * sh + dh * (kh - 1) + 1 + oh, (width - 1) * sw + dw * (kw - 1) + 1 + ow))
    for i in range(height):
        for j in range(width):
            for channel in range(c):
                first = channel // (c // groups) * outputs
                stamp = x[:, channel, i, j, None, None, None] * w[channel]
                rows, columns = i * sh + dh * np.arange(kh), j * sw + dw * np.arange(kw)
                for u, row in enumerate(rows):
                    for v, column in enumerate(columns):
                        whole[:, first : first + outputs, row, column] += stamp[:, :, u, v]
    expected = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right] + b[:, None, None]
    y, _ = ops.conv_transpose2d_forward(x, w, b, **settings)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["naive", *FAST])
@pytest.mark.parametrize(("op", "case"), GRID)
def test_forward_and_input_gradient_are_adjoint(op, case, algorithm, rng):
    x, w, _, settings = arguments(op, case, rng)
    forward, backward, _ = OPS[op]
    with ops.conv_algorithm(algorithm):
        assert gradcheck.check_adjoint(lambda x: forward(x, w, **settings), backward, x, rng) < 1e-13


@pytest.mark.parametrize("op", OPS)
def test_a_bias_is_optional_and_weights_can_be_left_out(op, device, rng):
    x, w, b, settings = arguments(op, "groups", rng)
    forward, backward, _ = OPS[op]
    x, w = device.put(x), device.put(w)
    with_bias, cache = forward(x, w, device.put(b), **settings)
    without, cache_without = forward(x, w, None, **settings)
    np.testing.assert_allclose(device.get(with_bias) - b[:, None, None], device.get(without), atol=1e-12)
    dy = device.put(rng.standard_normal(without.shape))
    dx, dw, db = backward(dy, cache)
    dx_without, dw_without, none = backward(dy, cache_without)
    assert none is None
    np.testing.assert_array_equal(device.get(dw_without), device.get(dw))
    frozen = backward(dy, cache, weights=False)
    assert frozen[1:] == (None, None)
    np.testing.assert_array_equal(device.get(frozen[0]), device.get(dx))
    np.testing.assert_array_equal(device.get(dx_without), device.get(dx))


def record_columns(monkeypatch):
    """Every (bytes, bytes of one output row) of the columns that im2col makes from now on: when reading, when adding."""
    read, added = [], []
    make, add = im2col._columns, im2col._add_columns

    def making(x, window, rows):
        columns = make(x, window, rows)
        read.append((columns.nbytes, columns.nbytes // (x.shape[0] * (rows.stop - rows.start))))
        return columns

    def adding(dx, columns, window, rows):
        added.append((columns.nbytes, columns.nbytes // (dx.shape[0] * (rows.stop - rows.start))))
        add(dx, columns, window, rows)

    monkeypatch.setattr(im2col, "_columns", making)
    monkeypatch.setattr(im2col, "_add_columns", adding)
    return read, added


@pytest.mark.parametrize(
    ("shape", "outputs", "tile_bytes"),
    [
        ((1, 3, 300, 200), 4, 1 << 16),  # some rows a tile
        ((1, 3, 300, 200), 4, 1),  # one row is more than the bound
        ((2, 16, 20, 30), 16, 1),  # the kernel sets the bound
        ((20, 2, 9, 8), 3, 1 << 13),  # some images a tile
    ],
)
def test_the_workspace_is_bounded_whatever_the_image(shape, outputs, tile_bytes, rng, monkeypatch):
    monkeypatch.setattr(im2col, "TILE_BYTES", tile_bytes)
    x = rng.standard_normal(shape, dtype=np.float32)
    w = rng.standard_normal((outputs, shape[1], 3, 3), dtype=np.float32)
    read, added = record_columns(monkeypatch)
    with ops.conv_algorithm("im2col"):
        y, cache = ops.conv2d_forward(x, w, pad=1)
        forward = len(read)
        ops.conv2d_backward(np.ones_like(y), cache)
    assert min(forward, len(read) - forward, len(added)) > 1  # each of the three passes works in tiles
    for size, row in read + added:
        assert size <= max(tile_bytes, w.nbytes, row)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("algorithm", "case"), [("im2col", "groups"), ("depthwise", "depthwise")])
def test_the_same_batch_gives_the_same_bits_every_time(algorithm, case, op, rng, monkeypatch):
    monkeypatch.setattr(im2col, "TILE_BYTES", 1)
    monkeypatch.setattr(depthwise, "TILE_BYTES", 1)
    x, w, b, settings = arguments(op, case, rng, np.float32)
    first = passes(op, algorithm, x, w, b, settings, seed=1)
    for _ in range(5):
        for again, once in zip(passes(op, algorithm, x, w, b, settings, seed=1), first, strict=True):
            np.testing.assert_array_equal(again, once)


DEPTHWISE = [(op, case) for op, case in GRID if case.startswith("depthwise") and "multiplier" not in case]


@pytest.mark.parametrize("tile_bytes", [1, 500, 1000, 2000, depthwise.TILE_BYTES])
@pytest.mark.parametrize(("op", "case"), DEPTHWISE)
def test_depthwise_tiles_of_any_size_give_the_same(op, case, tile_bytes, rng, monkeypatch):
    x, w, b, settings = arguments(op, case, rng)
    expected = passes(op, "im2col", x, w, b, settings, seed=1)
    monkeypatch.setattr(depthwise, "TILE_BYTES", tile_bytes)
    assert_same(passes(op, "depthwise", x, w, b, settings, seed=1), expected, tolerance=1e-12)


def test_depthwise_tiles_stay_below_their_bound(rng, monkeypatch):
    """As long as a single map's copies do; 2 · 40 maps of 20 × 30, of 3 shifted copies each."""
    sizes, copies = [], 3 * 22 * 30 * 4
    shift = depthwise._shift_columns
    monkeypatch.setattr(depthwise, "TILE_BYTES", 7 * copies + 1)
    monkeypatch.setattr(depthwise, "_shift_columns", lambda x, w: sizes.append((y := shift(x, w)).nbytes) or y)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 40, 20, 30), (40, 1, 3, 3)))
    ops.conv2d_forward(x, w, pad=1, groups=40)
    assert max(sizes) == 7 * copies
    assert sum(sizes) == 80 * copies


def test_depthwise_serves_only_convolutions_of_one_kernel_a_channel(rng, monkeypatch):
    served = []
    forward = depthwise.forward
    monkeypatch.setattr(depthwise, "forward", lambda x, w, window: served.append(w.shape) or forward(x, w, window))
    expected = []
    for case in CONV:
        x, w, b, settings = arguments("conv", case, rng)
        ops.conv2d_forward(x, w, b, **settings)
        if settings.get("groups", 1) == x.shape[1] == len(w) > 1:
            expected.append(w.shape)
    assert served == expected
    assert len(served) == sum(case.startswith("depthwise") for case in CONV) - 1  # all but that with a multiplier


def test_gemm_serves_only_plain_1x1_convolutions(rng, monkeypatch):
    served = []
    gemm = conv_algorithms.gemm
    monkeypatch.setattr(
        gemm, "forward", lambda x, w, window, run=gemm.forward: served.append(window) or run(x, w, window)
    )
    for case in CONV:
        x, w, b, settings = arguments("conv", case, rng)
        ops.conv2d_forward(x, w, b, **settings)
    assert len(served) == 2  # "1x1" and "one pixel"
    assert all(window.kernel == window.stride == (1, 1) for window in served)


def test_an_algorithm_holds_within_its_context_only(rng, monkeypatch):
    calls = []
    naive = conv_algorithms.naive
    monkeypatch.setattr(naive, "forward", lambda x, w, window, run=naive.forward: calls.append(1) or run(x, w, window))
    x, w, _, _ = arguments("conv", "3x3 same", rng)
    with pytest.raises(RuntimeError), ops.conv_algorithm("naive"):
        ops.conv2d_forward(x, w)
        with ops.conv_algorithm("im2col"):
            ops.conv2d_forward(x, w)
        ops.conv2d_forward(x, w)
        raise RuntimeError
    ops.conv2d_forward(x, w)
    assert len(calls) == 2


def test_an_unknown_algorithm_is_refused():
    with (
        pytest.raises(ValueError, match="conv_algorithm: expected auto, .*naive.* got 'fft'"),
        ops.conv_algorithm("fft"),
    ):
        pass
