"""Pooling, normalisation, dropout, crop, pad, concat, upsample, resize: each against its definition, written out in loops."""

from itertools import product

import numpy as np
import pytest

from minifcn import backend, layers, ops

POOLS = {  # x (H, W), kernel, settings
    "2x2": ((4, 6), 2, {}),
    "floor leaves a row": ((5, 7), 2, {}),
    "ceil keeps it": ((5, 7), 2, {"ceil_mode": True}),
    "overlapping": ((7, 5), 3, {"stride": 2}),
    "overlapping, ceil": ((8, 6), 3, {"stride": 2, "ceil_mode": True}),
    "stride over the kernel": ((7, 9), 2, {"stride": (3, 4)}),
    "stride over the kernel, ceil": ((7, 9), 2, {"stride": (3, 4), "ceil_mode": True}),
    "padding": ((5, 6), 3, {"stride": 2, "pad": 1}),
    "padding, ceil": ((6, 4), 3, {"stride": 2, "pad": 1, "ceil_mode": True}),
    "a window would start behind the image": ((3, 3), 2, {"stride": 2, "pad": 1, "ceil_mode": True}),
    "a window would start right at the padding": ((5, 2), (1, 2), {"stride": 3, "pad": (0, 1), "ceil_mode": True}),
    "asymmetric padding": ((4, 5), (2, 3), {"stride": 1, "pad": ((0, 1), (1, 0))}),
    "non-square": ((6, 7), (3, 2), {"stride": (1, 3), "pad": (1, 0)}),
    "the whole image": ((3, 4), (3, 4), {}),
    "one pixel, ceil": ((1, 1), 2, {"ceil_mode": True}),
    "padding of all but one": ((4, 5), (3, 4), {"stride": 1, "pad": (2, 3)}),
    "padding of more, where no window begins": ((4, 4), 2, {"stride": 6, "pad": ((1, 2), (0, 3))}),
}
DILATED = {
    "dilation": ((7, 8), 2, {"stride": 1, "dilation": 2}),
    "dilation, padding of all but one": ((5, 6), 2, {"stride": 1, "dilation": (3, 2), "pad": (3, 2)}),
    "dilation, padding, ceil": ((6, 7), 3, {"stride": 2, "dilation": (1, 2), "pad": (1, 2), "ceil_mode": True}),
}


def two(value):
    return tuple(value) if isinstance(value, tuple) else (value, value)


def pool_windows(size, kernel, stride=None, pad=0, dilation=1, ceil_mode=False):
    """For each axis: the positions each window covers, from −before up to size + after − 1 at most."""
    axes = []
    stride = kernel if stride is None else stride
    for n, k, s, p, d in zip(size, two(kernel), two(stride), two(pad), two(dilation), strict=True):
        before, after = two(p)
        reach, starts, start = d * (k - 1), [], -before
        while start + reach < n + after:
            starts.append(start)
            start += s
        partly = not starts or starts[-1] + reach < n + after - 1
        if ceil_mode and partly and start < n:  # a last window that only partly fits must start inside the image
            starts.append(start)
        axes.append([[start + d * tap for tap in range(k) if start + d * tap < n + after] for start in starts])
    return axes


@pytest.mark.parametrize("case", [*POOLS, *DILATED])
def test_max_pool_takes_the_greatest_and_sends_the_gradient_there(case, device, rng):
    size, kernel, settings = (POOLS | DILATED)[case]
    x = rng.permutation(2 * 3 * size[0] * size[1]).reshape(2, 3, *size) - 50.0
    rows, columns = pool_windows(size, kernel, **settings)
    y, cache = ops.max_pool2d_forward(device.put(x), kernel, **settings)
    assert y.shape == (2, 3, len(rows), len(columns))
    dy = rng.standard_normal(y.shape)
    dx = device.get(ops.max_pool2d_backward(device.put(dy), cache))
    expected, expected_dx = np.empty(y.shape), np.zeros(x.shape)
    for n, c, i, j in np.ndindex(y.shape):
        inside = [(r, s) for r, s in product(rows[i], columns[j]) if 0 <= r < size[0] and 0 <= s < size[1]]
        winner = max(inside, key=lambda at: x[n, c][at])
        expected[n, c, i, j] = x[n, c][winner]
        expected_dx[n, c][winner] += dy[n, c, i, j]
    np.testing.assert_array_equal(device.get(y), expected)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-12)


@pytest.mark.parametrize("case", POOLS)
def test_avg_pool_takes_the_mean_and_shares_the_gradient(case, device, rng):
    for count_include_pad in (True, False):
        size, kernel, settings = POOLS[case]
        x = rng.standard_normal((2, 3, *size))
        rows, columns = pool_windows(size, kernel, **settings)
        y, cache = ops.avg_pool2d_forward(device.put(x), kernel, count_include_pad=count_include_pad, **settings)
        assert y.shape == (2, 3, len(rows), len(columns))
        dy = rng.standard_normal(y.shape)
        dx = device.get(ops.avg_pool2d_backward(device.put(dy), cache))
        expected, expected_dx = np.zeros(y.shape), np.zeros(x.shape)
        for i, j in np.ndindex(y.shape[2:]):
            inside = [(r, s) for r, s in product(rows[i], columns[j]) if 0 <= r < size[0] and 0 <= s < size[1]]
            area = len(rows[i]) * len(columns[j]) if count_include_pad else len(inside)
            for at in inside:
                expected[:, :, i, j] += x[:, :, *at] / area
                expected_dx[:, :, *at] += dy[:, :, i, j] / area
        np.testing.assert_allclose(device.get(y), expected, atol=1e-12)
        np.testing.assert_allclose(dx, expected_dx, atol=1e-12)


def test_adaptive_pool_takes_the_mean_of_each_part(device, rng):
    """The global one that of the whole."""
    for (height, width), size in product([(1, 1), (6, 6), (5, 7), (13, 2)], [1, 2, 3, 5, (4, 1), (2, 9)]):
        x = rng.standard_normal((2, 3, height, width))
        rows, columns = (
            [range(i * n // parts, -(-(i + 1) * n // parts)) for i in range(parts)]
            for n, parts in zip((height, width), two(size), strict=True)
        )
        y, cache = ops.adaptive_avg_pool2d_forward(device.put(x), size)
        assert y.shape == (2, 3, len(rows), len(columns))
        dy = rng.standard_normal(y.shape)
        dx = device.get(ops.adaptive_avg_pool2d_backward(device.put(dy), cache))
        expected, expected_dx = np.zeros(y.shape), np.zeros(x.shape)
        for i, j in np.ndindex(y.shape[2:]):
            part = np.s_[:, :, rows[i].start : rows[i].stop, columns[j].start : columns[j].stop]
            expected[:, :, i, j] = x[part].mean(axis=(2, 3))
            expected_dx[part] += dy[:, :, i, j, None, None] / (len(rows[i]) * len(columns[j]))
        np.testing.assert_allclose(device.get(y), expected, atol=1e-12)
        np.testing.assert_allclose(dx, expected_dx, atol=1e-12)
        if size == 1:
            y, cache = ops.global_avg_pool_forward(device.put(x))
            np.testing.assert_allclose(device.get(y), expected[:, :, 0, 0], atol=1e-12)
            dx = device.get(ops.global_avg_pool_backward(device.put(dy[:, :, 0, 0]), cache))
            np.testing.assert_allclose(dx, expected_dx, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"pad": 1, "stride": 1}])
def test_max_pool_gives_a_tie_to_the_first_pixel_alone(settings, device):
    x = np.zeros((1, 1, 4, 4))
    y, cache = ops.max_pool2d_forward(device.put(x), 2, **settings)
    dx = device.get(ops.max_pool2d_backward(device.put(np.ones(y.shape)), cache))
    expected = np.zeros((4, 4))
    for i, j in np.ndindex(y.shape[2:]):
        stride, pad = settings.get("stride", 2), settings.get("pad", 0)
        expected[max(i * stride - pad, 0), max(j * stride - pad, 0)] += 1
    np.testing.assert_array_equal(dx[0, 0], expected)


@pytest.mark.parametrize("settings", [{"kernel": 3, "stride": 1, "pad": 1}, {"kernel": 2}])
def test_a_nan_wins_a_max_pool_and_gets_the_gradient(settings, device, rng):
    """Of several in a window the first one."""
    x = rng.permutation(2.0 * np.arange(36)).reshape(1, 1, 6, 6)
    x[0, 0, 2, 3] = x[0, 0, 3, 2] = np.nan
    y, cache = ops.max_pool2d_forward(device.put(x), **settings)
    dx = device.get(ops.max_pool2d_backward(device.put(np.ones(y.shape)), cache))[0, 0]
    windows = pool_windows((6, 6), **settings)
    seen = [[set(product(rows, columns)) for columns in windows[1]] for rows in windows[0]]
    first, second = (np.array([[at in window for window in row] for row in seen]) for at in ((2, 3), (3, 2)))
    np.testing.assert_array_equal(np.isnan(device.get(y)[0, 0]), first | second)
    assert dx.sum() == first.size
    assert (dx[2, 3], dx[3, 2]) == (first.sum(), (second & ~first).sum())


@pytest.mark.parametrize("value", [-1e30, -np.inf])
def test_padding_never_wins_a_max_pool(value, device):
    x = np.full((1, 1, 3, 3), value, np.float32)
    y, cache = ops.max_pool2d_forward(device.put(x), 3, stride=2, pad=1)
    np.testing.assert_array_equal(device.get(y), np.full((1, 1, 2, 2), value, np.float32))
    assert device.get(ops.max_pool2d_backward(device.put(np.ones((1, 1, 2, 2), np.float32)), cache)).sum() == 4


@pytest.mark.parametrize(("op", "highest"), [("relu", np.inf), ("relu6", 6)])
def test_relu_passes_what_is_positive_and_relu6_what_lies_between_0_and_6(op, highest, device):
    values = np.array([-2.0, -0.0, 0.0, 1e-300, 3.0, np.nextafter(6, 0), 6.0, 1e300])
    y, cache = getattr(ops, f"{op}_forward")(device.put(values))
    np.testing.assert_array_equal(device.get(y), [0, 0, 0, *(min(v, highest) for v in values[3:])])
    dx = device.get(getattr(ops, f"{op}_backward")(device.put(np.full(8, 7.0)), cache))
    np.testing.assert_array_equal(dx, [0, 0, 0, *(7 * (v < highest) for v in values[3:])])


ORDERS = {  # how an array lies in memory
    "first axis first": lambda a: np.array(a, order="C"),
    "last axis first": lambda a: np.array(a, order="F"),
    "channels last": lambda a: (
        np.moveaxis(np.array(np.moveaxis(a, 1, -1), order="C"), -1, 1) if a.ndim > 1 else a.copy()
    ),
    "with gaps": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]] if a.ndim else a.copy(),
}


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
@pytest.mark.parametrize("shape", [(), (7,), (1, 9), (3, 5), (1, 11, 2, 2), (5, 1, 3), (3, 2, 2, 3), (2, 40, 1, 1)])
def test_blocks_cover_corresponding_arrays_exactly_once(shape, block_bytes, monkeypatch):
    monkeypatch.setattr(backend.tuning, "BLOCK_BYTES", block_bytes)
    numbers = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    for orders in product(ORDERS, ORDERS):
        sums, values = (ORDERS[order](array) for order, array in zip(orders, (np.zeros(shape), numbers), strict=True))
        sizes = []

        def add(sums, values, sizes=sizes):
            sizes.append(sums.nbytes)
            sums += values
            values *= -1

        backend.run_blocks(add, sums, values)
        np.testing.assert_array_equal(sums, numbers, err_msg=str(orders))
        np.testing.assert_array_equal(values, -numbers, err_msg=str(orders))
        slices = (n for n, stride in zip(shape, sums.strides, strict=True) if stride == max(sums.strides))
        piece = (
            sums.itemsize
            if sums.flags.forc and sums.strides == values.strides
            else sums.nbytes // min(slices, default=1)
        )
        assert max(sizes) <= max(2 * block_bytes, piece), orders


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
@pytest.mark.parametrize("shape", [(), (7,), (3, 2, 2, 3)])
def test_blocks_run_on_every_device(shape, block_bytes, device, monkeypatch):
    monkeypatch.setattr(backend.tuning, "BLOCK_BYTES", block_bytes)
    numbers = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    sums = device.put(np.zeros(shape), writable=True)

    def add(sums, values):
        sums += values

    backend.run_blocks(add, sums, device.put(numbers))
    np.testing.assert_array_equal(device.get(sums), numbers)


@pytest.mark.parametrize("op", ["relu", "relu6"])
def test_relu_writes_to_out_only_when_asked(op, device):
    forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
    x, dy = (device.put(np.array(values), writable=True) for values in ([-1.0, 2.0, 5.0], [3.0, 4.0, 5.0]))
    forward(x)
    assert device.get(x).tolist() == [-1, 2, 5]
    y, cache = forward(x, out=x)
    assert y is x
    backward(dy, cache)
    assert device.get(dy).tolist() == [3, 4, 5]
    assert backward(dy, cache, out=dy) is dy
    assert (device.get(y).tolist(), device.get(dy).tolist()) == ([0, 2, 5], [0, 4, 5])


@pytest.mark.parametrize("case", POOLS)
def test_pools_do_not_depend_on_their_tiles(case, device, rng, tiling):
    for op in ("max_pool2d", "avg_pool2d"):
        size, kernel, settings = POOLS[case]
        x = rng.standard_normal((3, 2, *size))
        found = []
        for tile_bytes, threads in ((None, 1), (1, 3), (100, 2)):
            tiling(tile_bytes, threads)
            y, cache = getattr(ops, f"{op}_forward")(device.put(x), kernel, **settings)
            dy = np.random.default_rng(1).standard_normal(y.shape)
            found.append([device.get(a) for a in (y, getattr(ops, f"{op}_backward")(device.put(dy), cache))])
        for other in found[1:]:
            for again, once in zip(other, found[0], strict=True):
                np.testing.assert_allclose(again, once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_windows_that_overlap_add_up_whatever_the_threads(op, rng, tiling):
    forward, backward = getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward")
    y, cache = forward(rng.standard_normal((1, 64, 60, 200)), 3, stride=1)
    tiling(1, 1)
    expected = backward(y, cache)
    tiling(1, 4)
    for _ in range(3):
        np.testing.assert_array_equal(backward(y, cache), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_lrn_divides_by_its_neighbours(size, device, rng):
    x = rng.standard_normal((2, 6, 2, 3))
    alpha, beta, k = 3.0, 0.75, 1.5  # an alpha so large that a window off by one shows
    y, _ = ops.lrn_forward(device.put(x), size=size, alpha=alpha, beta=beta, k=k)
    expected = np.empty_like(x)
    for c in range(6):
        window = x[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        expected[:, c] = x[:, c] / (k + alpha / size * (window**2).sum(axis=1)) ** beta
    np.testing.assert_allclose(device.get(y), expected, rtol=1e-12)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_does_not_depend_on_its_tiles(train, device, rng, tiling):
    x, dy = rng.normal(1.0, 2.0, (2, 2, 5, 3, 4))
    gamma, beta, mean, var = rng.random((4, 5)) + 0.5
    found = []
    row = x[0, :, 0].nbytes
    for tile_bytes, threads in ((1, 3), (2 * row, 1), (6 * row, 1)):  # a row a tile; two, and one left; all in one
        tiling(tile_bytes, threads)
        y, cache = ops.batch_norm_forward(*map(device.put, (x, gamma, beta, mean, var)), train=train)
        gradients = ops.batch_norm_backward(device.put(dy), cache)
        found.append([device.get(a) for a in (y, cache.running_mean, cache.running_var, *gradients)])
    for other in found[1:]:
        for again, once in zip(other, found[0], strict=True):
            np.testing.assert_allclose(again, once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_batch_norms_gradient_may_be_written_over_the_upstream_one(last, train, device, rng):
    x, dy = rng.normal(1.0, 2.0, (2, 2, 5, 3, 4))
    dy = np.ascontiguousarray(dy.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else dy
    _, cache = ops.batch_norm_forward(*map(device.put, (x, *rng.random((4, 5)) + 0.5)), train=train)
    expected = ops.batch_norm_backward(device.put(dy), cache)
    upstream = 1 * device.put(dy)  # in the same order, and not write-protected
    dx, *others = ops.batch_norm_backward(upstream, cache, out=upstream)
    assert (dx is upstream) == last
    for got, wanted in zip((dx, *others), expected, strict=True):
        np.testing.assert_array_equal(device.get(got), device.get(wanted))


def test_numpys_numbers_as_settings_leave_float32(device, rng):
    x, ones, half = (
        device.put(rng.random((2, 5, 3, 4), np.float32)),
        device.put(np.ones(5, np.float32)),
        np.float64(0.5),
    )
    for train in (False, True):
        y, cache = ops.batch_norm_forward(x, *[ones] * 4, eps=half, momentum=half, train=train)
        assert {y.dtype, cache.running_mean.dtype, cache.running_var.dtype} == {np.dtype(np.float32)}
    y, cache = ops.lrn_forward(x, np.int64(5), half, half, half)
    assert y.dtype == ops.lrn_backward(y, cache).dtype == np.float32


def test_batch_norm_of_a_constant_is_finite(device):
    ones = np.ones(2, np.float32)
    x = device.put(np.full((1, 2, 1, 3), 5, np.float32))  # its variance is 0
    y, cache = ops.batch_norm_forward(x, *map(device.put, (ones, ones, ones, ones)), train=True)
    np.testing.assert_array_equal(device.get(y), np.ones(x.shape))
    gradients = ops.batch_norm_backward(device.put(np.ones(x.shape, np.float32)), cache)
    for array in (cache.running_mean, cache.running_var, *gradients):
        assert array.dtype == np.float32
        assert np.isfinite(device.get(array)).all()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_a_share_of_p_and_keeps_the_mean(p, device):
    x = np.ones((100, 100), np.float32)
    y, cache = ops.dropout_forward(device.put(x), p, np.random.default_rng(0), True)
    y = device.get(y)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(1 - p)}
    deviation = np.sqrt(p * (1 - p) / x.size)  # of the share that is dropped
    assert abs((y == 0).mean() - p) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - p)
    dy = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    np.testing.assert_array_equal(device.get(ops.dropout_backward(device.put(dy), cache)), dy * y)


def test_dropout_repeats_with_the_seed_and_on_every_device(device):
    """What drops nothing draws nothing."""
    x, generator = np.ones((20, 30)), np.random.default_rng(7)

    def dropped(rng, p=0.5, train=True):
        y, cache = ops.dropout_forward(device.put(x), p, rng, train)
        np.testing.assert_array_equal(device.get(ops.dropout_backward(device.put(2 * x), cache)), 2 * device.get(y))
        return device.get(y)

    host, _ = ops.dropout_forward(x, 0.5, np.random.default_rng(7), True)
    np.testing.assert_array_equal(dropped(generator, train=False), x)
    np.testing.assert_array_equal(dropped(generator, p=0.0), x)
    np.testing.assert_array_equal(dropped(generator), host)
    assert (dropped(generator) != host).any()
    assert (dropped(np.random.default_rng(8)) != host).any()


def test_crop_pad_and_concat_are_slices(device, rng):
    x = rng.standard_normal((2, 3, 5, 6))
    y, cache = ops.crop_forward(device.put(x), (1, 2), (3, 4))
    np.testing.assert_array_equal(device.get(y), x[:, :, 1:4, 2:6])
    expected = np.zeros_like(x)
    expected[:, :, 1:4, 2:6] = x[:, :, 1:4, 2:6]
    np.testing.assert_array_equal(device.get(ops.crop_backward(y, cache)), expected)
    y, cache = ops.pad_forward(device.put(x), ((1, 0), (2, 3)))
    np.testing.assert_array_equal(device.get(y), np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 3))))
    dy = rng.standard_normal((2, 3, 6, 11))
    np.testing.assert_array_equal(device.get(ops.pad_backward(device.put(dy), cache)), dy[:, :, 1:, 2:8])
    parts = x[:, :2], x[:, :1], x
    y, cache = ops.concat_forward([device.put(part) for part in parts])
    np.testing.assert_array_equal(device.get(y), np.concatenate(parts, axis=1))
    for found, part in zip(ops.concat_backward(y, cache), parts, strict=True):
        np.testing.assert_array_equal(device.get(found), part)


def test_linear_is_a_matrix_product(device, rng):
    x, w, b, dy = (rng.standard_normal(shape) for shape in ((5, 3), (4, 3), (4,), (5, 4)))
    y, cache = ops.linear_forward(*map(device.put, (x, w, b)))
    np.testing.assert_allclose(device.get(y), np.einsum("nd,kd->nk", x, w) + b, atol=1e-12)
    dx, dw, db = map(device.get, ops.linear_backward(device.put(dy), cache))
    np.testing.assert_allclose(dx, np.einsum("nk,kd->nd", dy, w), atol=1e-12)
    np.testing.assert_allclose(dw, np.einsum("nk,nd->kd", dy, x), atol=1e-12)
    np.testing.assert_allclose(db, dy.sum(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("stride", "kernel", "pad"),
    [
        *((2, 4, 0), (2, 4, 1), (8, 16, 4), (32, 63, 0), (3, 2, 0), (3, 5, 2)),
        *((2, 3, ((0, 1), (0, 1))), (8, 15, ((3, 4), (3, 4))), (4, 6, ((5, 0), (1, 2)))),
    ],
)
def test_upsample_is_the_transposed_convolution_with_the_bilinear_kernel(stride, kernel, pad, device, rng):
    x = rng.standard_normal((2, 3, 3, 2))
    kernel_1d = layers.init.bilinear_1d(kernel).astype(float)
    w = np.eye(3)[:, :, None, None] * np.outer(kernel_1d, kernel_1d)
    np.testing.assert_allclose(w, layers.init.bilinear(3, kernel), atol=1e-7)
    expected, reference = ops.conv_transpose2d_forward(x, w, stride=stride, pad=pad)
    y, cache = ops.upsample_forward(device.put(x), device.put(kernel_1d), stride=stride, pad=pad)
    np.testing.assert_allclose(device.get(y), expected, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = device.get(ops.upsample_backward(device.put(dy), cache))
    np.testing.assert_allclose(dx, ops.conv_transpose2d_backward(dy, reference)[0], atol=1e-12)
