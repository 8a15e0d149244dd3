"""Convolution and transposed convolution: every algorithm computes the definition, whatever the tiles, on every device."""

from functools import cache

import numpy as np
import pytest
from conv_cases import CONV, TRANSPOSED

from minifcn import ops
from minifcn.backend import tuning
from minifcn.ops.conv import atrous, columns, depthwise, im2col, pointwise, winograd
from minifcn.ops.geometry import pads, pair

FAST = ["im2col", "gemm", "depthwise", "winograd"]

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


def assert_same(results, expected, tolerance=1e-10, by=""):
    for name, result, reference in zip(("y", "dx", "dw", "db"), results, expected, strict=True):
        assert result.shape == reference.shape, f"{name} {by}"
        np.testing.assert_allclose(result, reference, rtol=tolerance, atol=tolerance, err_msg=f"{name} {by}")


@cache
def by_definition(op, case):
    """(y, dx, dw, db) by the loops, of the arguments that a generator of seed 0 draws."""
    return passes(op, "naive", *arguments(op, case, np.random.default_rng(0)), seed=1)


def is_made_for(algorithm, op, case):
    """Whether the algorithm computes this case itself; another one takes over otherwise: one tiling is enough."""
    _, _, kernel, settings = OPS[op][2][case]
    if algorithm == "depthwise":
        return case.startswith("depthwise")
    if algorithm == "winograd":
        return kernel == (3, 3) and not settings.keys() - {"pad", "dilation"}
    return algorithm != "gemm" or kernel == (1, 1)


@pytest.mark.parametrize(("op", "case"), GRID)
def test_fast_algorithms_agree_with_the_loops(op, case, device, rng, tiling):
    x, w, b, settings = arguments(op, case, rng)
    x, w, b = map(device.put, (x, w, b))
    for tile_bytes, threads in [(None, None), (1, 1), (1000, 3)]:
        tiling(tile_bytes, threads)
        for algorithm in [*FAST, "auto"]:
            if tile_bytes is None or is_made_for(algorithm, op, case):
                results = passes(op, algorithm, x, w, b, settings, seed=1, put=device.put)
                told = f"by {algorithm}, tiles of {tile_bytes} bytes, {threads} threads"
                assert_same(map(device.get, results), by_definition(op, case), by=told)


def test_windows_over_the_edge_of_small_maps_image_by_image(rng, monkeypatch):
    monkeypatch.setattr(tuning, "TILE_BYTES", 1500)  # the patches of an image take 1344
    results = passes("conv", "im2col", *arguments("conv", "7x7 over small maps", rng), seed=1)
    assert_same(results, by_definition("conv", "7x7 over small maps"))


@pytest.mark.parametrize("algorithm", ["naive", *FAST])
@pytest.mark.parametrize(
    ("op", "case"),
    [
        *(("conv", case) for case in ("stride 2", "1x1", "depthwise 5x5", "3x3 same", "3x3 of many tiles")),
        *(("transposed", case) for case in ("output_pad", "stride 1 of many tiles")),
    ],
)
def test_float32_is_as_close_as_float32_can_be(op, case, algorithm, rng):
    x, w, b, settings = arguments(op, case, rng, np.float32)
    wide = passes(op, "naive", *(a.astype(np.float64) for a in (x, w, b)), settings, seed=1)
    results = passes(op, algorithm, x, w, b, settings, seed=1)
    assert {a.dtype for a in results} == {np.dtype("float32")}
    assert_same(results, wide, tolerance=1e-4)


@pytest.mark.parametrize(("algorithm", "bound"), [("im2col", 2e-6), ("winograd", 2e-5)])
def test_float32_of_many_channels_is_as_close_as_the_algorithm_can_be(algorithm, bound, rng):
    """Relative to the greatest value: Winograd's constants cost a digit."""
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((1, 256, 28, 27), (192, 256, 3, 3), (192,)))
    w *= np.float32(np.sqrt(2 / (9 * 256)))
    wide = passes("conv", "im2col", *(a.astype(np.float64) for a in (x, w, b)), {"pad": 1}, seed=1)
    results = passes("conv", algorithm, x, w, b, {"pad": 1}, seed=1)
    for name, result, reference in zip(("y", "dx", "dw", "db"), results, wide, strict=True):
        assert abs(result - reference).max() <= bound * abs(reference).max(), name


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
    assert frozen[1] is None
    np.testing.assert_array_equal(device.get(frozen[0]), device.get(dx))
    np.testing.assert_array_equal(device.get(dx_without), device.get(dx))
    if op == "conv":
        nothing, *first = backward(dy, cache, inputs=False)
        assert nothing is None
        for again, once in zip(first, (dw, db), strict=True):
            np.testing.assert_array_equal(device.get(again), device.get(once))


class Sizes(list):
    """(bytes of a tile, bytes of one of its rows) of what an algorithm makes, in the order in which it is made."""

    def note(self, nbytes, images, rows):
        self.append((nbytes, nbytes // (images * (rows.stop - rows.start))))


@pytest.fixture
def laid_out(monkeypatch):
    """Sizes of the patches that im2col reads or adds back, and of the values that Winograd's algorithm holds at its points."""
    sizes = Sizes()
    take, put, add = winograd._tiles, winograd._put_tiles, im2col._add_patches

    def reading(module, name):
        read = getattr(module, name)

        def patches_of(x, window, rows, *by_tap):
            patches = read(x, window, rows, *by_tap)
            sizes.note(patches.nbytes, len(x), rows)
            return patches

        monkeypatch.setattr(module, name, patches_of)

    def adding(dx, first, patches, window, rows, by_tap):
        sizes.note(patches.nbytes, len(dx), rows)
        add(dx, first, patches, window, rows, by_tap)

    def taking(x, part, side, pad, size):
        tiles = take(x, part, side, pad, size)
        sizes.note(tiles.nbytes * winograd.POINTS // side**2, part[0].stop - part[0].start, part[1])
        return tiles

    def putting(y, tiles, rows):
        sizes.note(tiles.nbytes * winograd.POINTS // winograd.RESULTS**2, len(y), rows)
        put(y, tiles, rows)

    reading(im2col, "_patches")
    reading(columns, "_columns")
    monkeypatch.setattr(im2col, "_add_patches", adding)
    monkeypatch.setattr(winograd, "_tiles", taking)
    monkeypatch.setattr(winograd, "_put_tiles", putting)
    return sizes


@pytest.mark.parametrize("algorithm", ["im2col", "im2col, strided", "winograd"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("shape", "outputs", "tile_bytes"),
    [
        ((1, 3, 300, 200), 4, 1 << 16),  # some rows a tile
        ((1, 3, 300, 200), 4, 1),  # one row is more than the bound
        ((2, 16, 20, 30), 16, 1),  # the kernel sets the bound
        ((20, 2, 9, 8), 3, 1 << 13),  # some images a tile
        ((20, 2, 9, 8), 3, 6500),  # one image a tile: two would be more than the bound
    ],
)
def test_the_workspace_is_bounded_whatever_the_image(
    shape, outputs, tile_bytes, last, algorithm, rng, monkeypatch, laid_out
):
    monkeypatch.setattr(tuning, "TILE_BYTES", tile_bytes)
    monkeypatch.setattr(tuning, "WINOGRAD_TILES_A_THREAD", 1)
    x = rng.standard_normal(shape, dtype=np.float32)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else x
    w = rng.standard_normal((outputs, shape[1], 3, 3), dtype=np.float32)
    with ops.conv_algorithm(algorithm.split(",")[0]):
        y, cache = ops.conv2d_forward(x, w, pad=1, stride=2 if "strided" in algorithm else 1)
        found = [laid_out[:]]
        for leave_out in ("weights", "inputs"):
            laid_out.clear()
            ops.conv2d_backward(np.ones_like(y), cache, **{leave_out: False})
            found.append(laid_out[:])
    bounds = 3 * [max(tile_bytes, w.nbytes)]
    if algorithm == "winograd":
        bounds = tile_bytes, tile_bytes, max(2 * tile_bytes, w.nbytes * winograd.POINTS // 9)
    for sizes, bound in zip(found, bounds, strict=True):  # each of the three passes works in tiles
        assert len(sizes) > 1
        assert all(size <= max(bound, row) for size, row in sizes)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("algorithm", "case"),
    [("im2col", "groups"), ("depthwise", "depthwise"), ("winograd", "many tiles"), ("gemm", "1x1")],
)
def test_the_same_batch_gives_the_same_bits_every_time(algorithm, case, op, rng, tiling):
    tiling(1, 3)
    case = {"conv": "3x3 of many tiles", "transposed": "stride 1 of many tiles"}[op] if case == "many tiles" else case
    x, w, b, settings = arguments(op, case, rng, np.float32)
    first = passes(op, algorithm, x, w, b, settings, seed=1)
    for _ in range(5):
        for again, once in zip(passes(op, algorithm, x, w, b, settings, seed=1), first, strict=True):
            np.testing.assert_array_equal(again, once)


DEPTHWISE = [(op, case) for op, case in GRID if case.startswith("depthwise") and "multiplier" not in case]


@pytest.mark.parametrize(
    ("name", "size"), [*(("TILE_BYTES", n) for n in (1, 500, 2000)), ("DEPTHWISE_PIECE", 1), ("DEPTHWISE_PIECE", 7)]
)
@pytest.mark.parametrize(("op", "case"), DEPTHWISE)
def test_depthwise_tiles_and_pieces_of_any_size_give_the_same(op, case, name, size, rng, monkeypatch):
    x, w, b, settings = arguments(op, case, rng)
    expected = passes(op, "im2col", x, w, b, settings, seed=1)
    monkeypatch.setattr(tuning, name, size)
    assert_same(passes(op, "depthwise", x, w, b, settings, seed=1), expected, tolerance=1e-12)


@pytest.mark.parametrize(
    ("rows", "tiles"),
    [
        (0.5, 40),  # one row is more than the bound
        (7, 6),  # 6 or 7 of an image's 20 rows
        (45, 1),  # both images
    ],
)
def test_depthwise_tiles_stay_below_their_bound(rows, tiles, rng, monkeypatch, tiling):
    """2 images of 20 rows of 30 pixels of 40 channels."""
    tiling(threads=1)
    row, found = 30 * 40 * 4, []
    read = depthwise._phases

    def reading(x, window, rows):
        found.append(len(x) * (rows.stop - rows.start) * row)
        return read(x, window, rows)

    monkeypatch.setattr(tuning, "TILE_BYTES", int(rows * row))
    monkeypatch.setattr(depthwise, "_phases", reading)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 40, 20, 30), (40, 1, 3, 3)))
    y, cache = ops.conv2d_forward(x, w, pad=1, groups=40)
    ops.conv2d_backward(y, cache, weights=False)
    ops.conv2d_backward(y, cache, inputs=False)
    assert len(found) == 3 * tiles
    assert max(found) <= max(rows, 1) * row
    assert [sum(found[i : i + tiles]) for i in range(0, 3 * tiles, tiles)] == [40 * row] * 3


def served(algorithm, monkeypatch):
    """The cases of CONV whose forward the algorithm's module computes, where nothing else is asked for."""
    found, forward = [], algorithm.forward

    def serve(*arguments):
        found.append(case)
        return forward(*arguments)

    monkeypatch.setattr(algorithm, "forward", serve)
    for case in CONV:
        x, w, b, settings = arguments("conv", case, np.random.default_rng(0))
        ops.conv2d_forward(x, w, b, **settings)
    return found


def test_each_algorithm_serves_the_convolutions_it_is_made_for(monkeypatch):
    one_kernel_a_channel = [case for case in CONV if case.startswith("depthwise") and "multiplier" not in case]
    assert served(depthwise, monkeypatch) == one_kernel_a_channel
    assert served(pointwise, monkeypatch) == ["1x1", "one pixel"]
    others = ("asymmetric pad", "pad larger than the image", "dilation")
    by_winograd = [case for case in CONV if case.startswith("3x3") or case in others]
    with ops.conv_algorithm("winograd"):
        assert served(winograd, monkeypatch) == by_winograd
        assert served(atrous, monkeypatch) == [case for case in by_winograd if "dilat" in case]


@pytest.mark.parametrize("algorithm", ["naive", *FAST])
def test_a_kernel_that_is_changed_in_place_counts_from_then_on(algorithm, device, rng):
    x, w, _, settings = arguments("conv", "3x3 same", rng)
    with ops.conv_algorithm(algorithm):
        there, kernel = device.put(x), device.put(w, writable=True)
        before, _ = ops.conv2d_forward(there, kernel, **settings)
        again, _ = ops.conv2d_forward(there, kernel, **settings)
        kernel[1:, :, 2, 2] += 1
        after, _ = ops.conv2d_forward(there, kernel, **settings)
        expected, _ = ops.conv2d_forward(there, device.put(device.get(kernel)), **settings)
    np.testing.assert_array_equal(device.get(again), device.get(before))
    np.testing.assert_array_equal(device.get(after), device.get(expected))
    np.testing.assert_array_equal(device.get(after)[:, 0], device.get(before)[:, 0])
    assert abs(device.get(after) - device.get(before))[:, 1:].max() > 0.1
