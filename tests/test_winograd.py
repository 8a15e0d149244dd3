"""Winograd's algorithm: the three passes of the definition, whatever the shape, memory order, tiles and threads; its errors."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minifcn import backend, ops
from minifcn.backend import tuning
from minifcn.data.images import read_image
from minifcn.data.transforms import shrink
from minifcn.models.vgg import DEPTHS, WIDTHS, vgg_backbone
from minifcn.ops.conv import im2col, reference, winograd
from minifcn.ops.geometry import window
from minifcn.preprocessing import CAFFE
from minifcn.testing import bounds_checked

# x (N, C, H, W), output channels, pad
SHAPES = {
    "one whole tile": ((1, 2, 6, 6), 3, 0),
    "four whole tiles": ((2, 3, 8, 8), 2, 1),
    "one pixel": ((1, 1, 1, 1), 1, 1),
    "5x7": ((1, 2, 5, 7), 4, 1),
    "no pad": ((2, 3, 9, 7), 4, 0),
    "pad beyond the kernel": ((1, 2, 3, 2), 2, 5),
    "pad 100": ((1, 1, 2, 3), 1, 100),
    "asymmetric pad": ((1, 2, 6, 5), 3, ((0, 2), (1, 0))),
    "asymmetric pad, the other sides": ((2, 1, 7, 4), 2, ((2, 0), (0, 3))),
    "one row": ((1, 2, 1, 9), 2, (1, 0)),
    "one column": ((2, 2, 10, 1), 3, (0, 1)),
    "seven images": ((7, 2, 5, 6), 2, 1),
    "many tiles": ((1, 2, 34, 29), 3, 1),
    "many tiles of several images": ((3, 2, 17, 22), 2, 1),
}
ORDERS = ("channels first", "channels last")
# bytes of a part's values, the least tiles of a part, threads
TILINGS = {
    "as they are": (tuning.TILE_BYTES, tuning.WINOGRAD_TILES_A_THREAD, 2),
    "a row of tiles in each part": (1, 1, 1),
    "a row of tiles in each part, three threads": (1, 1, 3),
    "some rows or images in each part": (20_000, 12, 2),
}
PHOTOS = os.environ.get("MINIFCN_PHOTOS")
VGG_LAYERS = [f"conv{group}_{i}" for group, depth in enumerate(DEPTHS, start=1) for i in range(1, depth + 1)]


def plain(size, pad=1):
    """The Window of a plain 3×3 convolution of maps of `size`."""
    return window("conv2d", (3, 3), 1, pad, 1, 1, size)


def passes(module, x, w, b, dy, where):
    """(y, dx, dw) by one of the algorithms."""
    return module.forward(x, w, where, b), module.input_gradient(dy, w, where), module.weight_gradient(x, dy, where)


@cache
def problem(case):
    """-> (x, w, b, dy, the Window), and (y, dx, dw) as the definition says"""
    rng = np.random.default_rng(3)
    shape, outputs, pad = SHAPES[case]
    where = plain(shape[2:], pad)
    sizes = shape, (outputs, shape[1], 3, 3), (outputs,), (shape[0], outputs, *where.output_size)
    given = [rng.standard_normal(size) for size in sizes]
    return given, where, passes(reference, *given, where)


def laid_out(maps, order):
    """The same maps, contiguous in that order."""
    if order == "channels first":
        return np.ascontiguousarray(maps)
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def assert_same(results, expected, tolerance=1e-10):
    for name, result, wanted in zip(("y", "dx", "dw", "db"), results, expected, strict=False):
        assert result.shape == wanted.shape, name
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", SHAPES)
def test_three_passes_agree_with_the_loops(case, order, device):
    (x, w, b, dy), where, expected = problem(case)
    x, dy = laid_out(x, order), laid_out(dy, order)
    assert_same(map(device.get, passes(winograd, *map(device.put, (x, w, b, dy)), where)), expected)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize(("tile_bytes", "tiles", "threads"), TILINGS.values(), ids=TILINGS)
def test_parts_of_any_size_and_any_number_of_threads_give_the_same(
    case, tile_bytes, tiles, threads, tiling, monkeypatch
):
    tiling(threads=threads)
    monkeypatch.setattr(tuning, "TILE_BYTES", tile_bytes)
    monkeypatch.setattr(tuning, "WINOGRAD_TILES_A_THREAD", tiles)
    given, where, expected = problem(case)
    assert_same(passes(winograd, *given, where), expected)


@pytest.mark.parametrize(("lanes", "shape", "outputs", "pad"), [
    (16, (2, 32, 9, 50), 32, 1), (16, (1, 32, 21, 101), 64, ((0, 2), (1, 0))), (16, (9, 64, 6, 50), 32, 0), (1, (2, 4, 9, 47), 8, 1),
])  # fmt: skip
def test_one_kernel_takes_a_few_tiles_all_the_way(lanes, shape, outputs, pad, compiled, monkeypatch, rng):
    """The same sums for any number of threads; with one lane, every access is inside its array."""
    run, launched = bounds_checked.launch if lanes == 1 else backend.launch, []
    monkeypatch.setattr(
        winograd, "launch", lambda source, name, *more: launched.append(name) or run(source, name, *more)
    )
    monkeypatch.setattr(winograd, "has_wide_registers", lambda: True)
    monkeypatch.setattr(tuning, "LANES", lanes)
    where = plain(shape[2:], pad)
    sizes = shape, (outputs, shape[1], 3, 3), outputs, (shape[0], outputs, *where.output_size)
    given = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    found = []
    for threads in (1, 2, 5):
        backend.set_threads(threads)
        found.append(passes(winograd, *given, where))
    backend.set_threads(None)
    assert set(launched) == {"convolve", "add_kernel_gradients"}
    assert_same(found[0], passes(im2col, *(a.astype(np.float64) for a in given), where), 2e-5)
    for other in found[1:]:
        assert all(map(np.array_equal, other, found[0]))


@pytest.mark.parametrize(("bytes_more", "kept"), [(0, {"winograd"}), (-1, set())])
def test_kernels_at_the_points_are_kept_unless_they_are_large(bytes_more, kept, monkeypatch):
    (x, w, b, _), where, expected = problem("four whole tiles")
    monkeypatch.setattr(tuning, "KEPT_KERNELS", w.nbytes * winograd.POINTS // 9 + bytes_more)
    cached = {}
    for _ in range(2):
        assert_same([winograd.forward(x, w, where, b, cached=cached)], expected)
    assert set(cached) == kept


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bound", [1, 10, 100, 10_000])
@pytest.mark.parametrize(("n", "size"), [(1, (1, 1)), (1, (34, 29)), (5, (7, 9)), (3, (40, 4)), (20, (8, 8))])
def test_parts_cover_every_row_of_tiles_exactly_once(n, size, bound, threads):
    down, across = -(-size[0] // 4), -(-size[1] // 4)
    parts = winograd.parts_of(n, size, bound, threads)
    assert len(parts) >= min(threads, n * down)
    seen, tiles = np.zeros((n, down)), np.zeros((n, down))
    for images, rows in parts:
        seen[images, rows] += 1
        assert seen[images, rows].size * across <= max(
            1.5 * bound, across
        )  # more where whole images do not divide evenly
        pieces, count = winograd._split(images, rows, size, threads)
        assert count == seen[images, rows].size * across
        at = np.zeros(count)
        for (some, some_rows), where in pieces:
            tiles[some, some_rows] += 1
            at[where] += 1
        assert (at == 1).all()
    assert (seen == 1).all() and (tiles == 1).all()


def test_errors_go_with_the_greatest_value_in_a_tile(device, rng):
    """One large value among small ones: results beside it are off even where the kernel does not reach it."""
    x, w = rng.standard_normal((1, 3, 16, 16), np.float32), rng.standard_normal((4, 3, 3, 3), np.float32)
    x[0, 0, 5, 5] = 1e6
    expected = im2col.forward(x.astype(float), w.astype(float), plain((16, 16)))
    error = abs(device.get(winograd.forward(device.put(x), device.put(w), plain((16, 16)))) - expected)
    assert (error.max(axis=(0, 2, 3)) <= 10 * np.finfo(np.float32).eps * 1e6 * abs(w).sum(axis=(1, 2, 3))).all()
    assert error[:, :, 7].max() > 0.01  # in the tile of that pixel, out of its kernels' reach
    error[:, :, 4:8, 4:8] = 0
    assert error.max() < 1e-4


def test_an_infinity_spoils_the_tiles_that_see_it_and_no_others(device):
    x = np.ones((1, 1, 16, 16))
    x[0, 0, 4, 4] = np.inf  # seen by four tiles
    with np.errstate(invalid="ignore"):
        y = device.get(winograd.forward(device.put(x), device.put(np.ones((1, 1, 3, 3))), plain((16, 16))))
    assert np.isfinite(y[0, 0, 8:]).all() and np.isfinite(y[0, 0, :, 8:]).all()
    assert not np.isfinite(y[0, 0, 3:6, 3:6]).any()


def test_kernels_are_transformed_once_where_a_caller_keeps_them(device, rng):
    """The promise is the caller's: what is in `cached` counts, and w no longer does."""
    x, w = rng.standard_normal((1, 3, 7, 6)), rng.standard_normal((4, 3, 3, 3))
    x, w, other = map(device.put, (x, w, 2 * w))
    cached = {}
    with ops.conv_algorithm("winograd"):
        y, _ = ops.conv2d_forward(x, w, cached=cached)
        again, _ = ops.conv2d_forward(x, other, cached=cached)
        changed, _ = ops.conv2d_forward(x, other)
    np.testing.assert_array_equal(device.get(again), device.get(y))
    np.testing.assert_allclose(device.get(changed), 2 * device.get(y))


@pytest.fixture(scope="module")
def seen_of_a_photograph():
    """{layer: (x, w)}: what each convolution of VGG16 sees of a photograph of 160 pixels, and its fresh kernels."""
    if not PHOTOS:
        pytest.skip("MINIFCN_PHOTOS is not set")
    image = read_image(Path(PHOTOS) / "chelsea.png")
    image, _ = shrink(image, np.zeros(image.shape[:2], np.uint8), 160)
    x, seen = CAFFE.apply(image)[None], {}
    with ops.conv_algorithm("winograd"):
        for name, (layer, _) in vgg_backbone(WIDTHS, DEPTHS, 1, "same", np.random.default_rng(0)).nodes.items():
            if name in VGG_LAYERS:
                seen[name] = x, layer.weight.value
            x = layer.forward(x)
    return seen


@pytest.mark.parametrize("name", VGG_LAYERS)
def test_float32_comes_close_to_float64_on_the_activations_of_vgg16(name, seen_of_a_photograph, rng):
    x, w = seen_of_a_photograph[name]
    where = plain(x.shape[2:])
    dy = rng.standard_normal((1, len(w), *where.output_size), np.float32)
    results = passes(winograd, x, w, None, dy, where)
    expected = passes(im2col, *(a.astype(np.float64) for a in (x, w)), None, dy.astype(np.float64), where)
    for what, bound, result, wanted in zip(("y", "dx", "dw"), (1e-4, 1e-3, 1e-3), results, expected, strict=True):
        assert result.dtype == np.float32
        error = np.linalg.norm(result - wanted) / np.linalg.norm(wanted)
        assert error <= bound, f"{name}, {x.shape} to {len(w)} channels: {what} is off by {error:.1e}"
