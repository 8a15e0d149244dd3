"""Winograd's way: the three passes of the definition, whatever the shape, the memory order, the tiles and the threads."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minifcn import backend, ops
from minifcn.data.images import read_image
from minifcn.data.transforms import shrink
from minifcn.models.vgg import DEPTHS, VGG, WIDTHS
from minifcn.ops import conv_algorithms
from minifcn.ops.conv_algorithms import im2col, naive, winograd
from minifcn.ops.geometry import window
from minifcn.preprocessing import CAFFE

# x (N, C, H, W), output channels, pad
SHAPES = {
    "one whole tile": ((1, 2, 6, 6), 3, 0),
    "four whole tiles": ((2, 3, 8, 8), 2, 1),
    "one pixel": ((1, 1, 1, 1), 1, 1),
    "2x3": ((1, 2, 2, 3), 3, 1),
    "3x5": ((2, 3, 3, 5), 2, 1),
    "5x7": ((1, 2, 5, 7), 4, 1),
    "a single result": ((2, 2, 3, 3), 3, 0),
    "no pad": ((2, 3, 9, 7), 4, 0),
    "pad 2": ((2, 2, 5, 6), 3, 2),
    "pad beyond the kernel": ((1, 2, 3, 2), 2, 5),
    "pad 100": ((1, 1, 2, 3), 1, 100),
    "asymmetric pad": ((1, 2, 6, 5), 3, ((0, 2), (1, 0))),
    "asymmetric pad, the other sides": ((2, 1, 7, 4), 2, ((2, 0), (0, 3))),
    "one row": ((1, 2, 1, 9), 2, (1, 0)),
    "one column": ((2, 2, 10, 1), 3, (0, 1)),
    "one channel in": ((2, 1, 7, 9), 5, 1),
    "one channel out": ((2, 5, 9, 7), 1, 1),
    "seven images": ((7, 2, 5, 6), 2, 1),
    "many tiles": ((1, 2, 34, 29), 3, 1),
    "many tiles of several images": ((3, 2, 17, 22), 2, 1),
}
ORDERS = ("channels first", "channels last")
# bytes of a part's values, the least tiles of a part, threads
TILINGS = {
    "as they are": (winograd.TILE_BYTES, winograd.LEAST_TILES, 2),
    "a row of tiles in each part": (1, 1, 1),
    "a row of tiles in each part, three threads": (1, 1, 3),
    "some rows or images in each part": (20_000, 12, 2),
}
REFUSED = {  # x (N, C, H, W), output channels, kernel, settings
    "stride": ((2, 2, 9, 8), 3, (3, 3), {"stride": 2, "pad": 1}),
    "stride along one axis": ((1, 2, 9, 8), 3, (3, 3), {"stride": (1, 2)}),
    "dilation": ((1, 2, 9, 8), 3, (3, 3), {"dilation": 2, "pad": 2}),
    "dilation along one axis": ((1, 2, 7, 8), 3, (3, 3), {"dilation": (2, 1)}),
    "groups": ((2, 4, 6, 5), 6, (3, 3), {"groups": 2, "pad": 1}),
    "depthwise": ((2, 4, 6, 5), 4, (3, 3), {"groups": 4, "pad": 1}),
    "1x1": ((2, 3, 5, 4), 2, (1, 1), {}),
    "5x5": ((1, 2, 7, 8), 3, (5, 5), {"pad": 2}),
    "3x1": ((1, 2, 6, 5), 3, (3, 1), {"pad": (1, 0)}),
    "1x3": ((1, 2, 6, 5), 3, (1, 3), {}),
    "4x3": ((1, 2, 6, 5), 3, (4, 3), {}),
}
# x (N, C, H, W), output channels, settings
TRANSPOSED = {
    "plain": ((2, 3, 5, 6), 2, {}),
    "pad 1": ((1, 2, 6, 7), 3, {"pad": 1}),
    "pad 2": ((1, 2, 5, 3), 3, {"pad": 2}),
    "asymmetric pad": ((2, 2, 5, 4), 3, {"pad": ((0, 2), (1, 0))}),
    "one pixel": ((1, 2, 1, 1), 2, {}),
    "groups": ((1, 4, 5, 4), 4, {"groups": 2, "pad": 1}),
    "stride 2": ((1, 2, 4, 5), 3, {"stride": 2, "pad": 1, "output_pad": 1}),
}
PHOTOS = os.environ.get("MINIFCN_PHOTOS")
VGG_LAYERS = [f"conv{group}_{i}" for group, depth in enumerate(DEPTHS, start=1) for i in range(1, depth + 1)]


@pytest.fixture(autouse=True)
def threads_as_before():
    yield
    backend.set_threads(None)


def plain(size, pad=1):
    """The Window of a plain 3×3 convolution of maps of `size`."""
    return window("conv2d", (3, 3), 1, pad, 1, 1, size)


def passes(module, x, w, b, dy, where):
    """(y, dx, dw) by one of the modules."""
    return module.forward(x, w, where, b), module.input_gradient(dy, w, where), module.weight_gradient(x, dy, where)


@cache
def problem(case):
    """-> (x, w, b, dy, the Window), and (y, dx, dw) as the definition says"""
    rng = np.random.default_rng(3)
    shape, outputs, pad = SHAPES[case]
    where = plain(shape[2:], pad)
    sizes = shape, (outputs, shape[1], 3, 3), (outputs,), (shape[0], outputs, *where.output_size)
    given = [rng.standard_normal(size) for size in sizes]
    return given, where, passes(naive, *given, where)


def laid_out(maps, order):
    """The same maps, contiguous in that order."""
    if order == "channels first":
        return np.ascontiguousarray(maps)
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def assert_same(results, expected, tolerance=1e-10):
    for name, result, reference in zip(("y", "dx", "dw", "db"), results, expected, strict=False):
        assert result.shape == reference.shape, name
        scale = np.abs(reference).max()
        np.testing.assert_allclose(result, reference, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def distance(result, reference):
    """How far they are apart, relative to the reference's norm."""
    return np.linalg.norm(result.astype(np.float64) - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", SHAPES)
def test_three_passes_agree_with_the_loops(case, order, device):
    (x, w, b, dy), where, expected = problem(case)
    x, dy = laid_out(x, order), laid_out(dy, order)
    assert_same(map(device.get, passes(winograd, *map(device.put, (x, w, b, dy)), where)), expected)


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("case", SHAPES)
def test_parts_of_any_size_and_any_number_of_threads_give_the_same(case, tiling, monkeypatch):
    tile_bytes, least, threads = TILINGS[tiling]
    monkeypatch.setattr(winograd, "TILE_BYTES", tile_bytes)
    monkeypatch.setattr(winograd, "LEAST_TILES", least)
    backend.set_threads(threads)
    given, where, expected = problem(case)
    assert_same(passes(winograd, *given, where), expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bound", [1, 10, 100, 10_000])
@pytest.mark.parametrize(("n", "size"), [(1, (1, 1)), (1, (34, 29)), (5, (7, 9)), (3, (40, 4)), (20, (8, 8))])
def test_parts_cover_every_row_of_tiles_exactly_once(n, size, bound, threads):
    backend.set_threads(threads)
    down, across = -(-size[0] // 4), -(-size[1] // 4)
    parts = winograd.parts_of(n, size, bound, threads)
    assert len(parts) >= min(threads, n * down)
    seen, tiles = np.zeros((n, down)), np.zeros((n, down))
    for images, rows in parts:
        seen[images, rows] += 1
        assert seen[images, rows].size * across <= max(
            1.5 * bound, across
        )  # more where whole images do not divide evenly
        pieces, count = winograd._split(images, rows, size)
        assert count == seen[images, rows].size * across
        at = np.zeros(count)
        for (some, lines), where in pieces:
            tiles[some, lines] += 1
            at[where] += 1
        assert (at == 1).all()
    assert (seen == 1).all() and (tiles == 1).all()


def test_a_bias_is_optional():
    (x, w, b, _), where, (y, _, _) = problem("5x7")
    np.testing.assert_allclose(winograd.forward(x, w, where), y - b[:, None, None], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", SHAPES)
def test_forward_and_input_gradient_are_adjoint(case):
    (x, w, _, dy), where, _ = problem(case)
    down = np.vdot(winograd.forward(x, w, where), dy)
    assert down == pytest.approx(np.vdot(x, winograd.input_gradient(dy, w, where)), rel=1e-11, abs=1e-11)


def test_every_plain_3x3_is_served_whatever_its_pad():
    for shape, _, pad in SHAPES.values():
        assert winograd.applies(plain(shape[2:], pad))


@pytest.mark.parametrize("case", REFUSED)
def test_other_convolutions_are_refused_and_computed_by_another_way(case, rng):
    shape, outputs, kernel, settings = REFUSED[case]
    w = rng.standard_normal((outputs, shape[1] // settings.get("groups", 1), *kernel))
    results = run(ops.conv2d_forward, ops.conv2d_backward, shape, w, outputs, settings)
    assert not winograd.applies(results["naive"][-1])
    assert_same(results["winograd"][:-1], results["naive"][:-1])


@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_agrees_with_the_loops(case, rng):
    shape, outputs, settings = TRANSPOSED[case]
    w = rng.standard_normal((shape[1], outputs // settings.get("groups", 1), 3, 3))
    results = run(ops.conv_transpose2d_forward, ops.conv_transpose2d_backward, shape, w, outputs, settings)
    assert winograd.applies(results["naive"][-1]) == (case not in ("groups", "stride 2"))
    assert_same(results["winograd"][:-1], results["naive"][:-1])


def run(forward, backward, shape, w, outputs, settings):
    """{algorithm: (y, dx, dw, db, the Window)} of an operation, by winograd and by the loops, for the same random maps."""
    rng = np.random.default_rng(5)
    x, b = rng.standard_normal(shape), rng.standard_normal(outputs)
    found, dy = {}, None
    for algorithm in ("naive", "winograd"):
        with ops.conv_algorithm(algorithm):
            y, kept = forward(x, w, b, **settings)
            dy = rng.standard_normal(y.shape) if dy is None else dy
            found[algorithm] = (y, *backward(dy, kept), kept[-1])
    return found


@pytest.mark.parametrize(
    ("shape", "outputs"), [((2, 32, 21, 30), 48), ((1, 3, 40, 40), 64), ((1, 512, 8, 8), 64), ((1, 1, 5, 5), 1)]
)
def test_float32_comes_close_to_float64(shape, outputs, rng):
    where = plain(shape[2:])
    sizes = shape, (outputs, shape[1], 3, 3), (outputs,), (shape[0], outputs, *where.output_size)
    given = [rng.standard_normal(size, np.float32) for size in sizes]
    results = passes(winograd, *given, where)
    assert {a.dtype for a in results} == {np.dtype("float32")}
    y, dx, dw = map(distance, results, passes(im2col, *(a.astype(np.float64) for a in given), where))
    assert y <= 1e-4
    assert max(dx, dw) <= 1e-3


@pytest.mark.parametrize("where_in_w", [(0, 0, 0, 0), (2, 1, 1, 2), (3, 2, 2, 2)])
def test_changing_one_weight_in_place_changes_the_next_forward(where_in_w, rng):
    x, w = rng.standard_normal((1, 3, 7, 6)), rng.standard_normal((4, 3, 3, 3))
    before = winograd.forward(x, w, plain(x.shape[2:]))
    w[where_in_w] += 1
    after = winograd.forward(x, w, plain(x.shape[2:]))
    assert (before != after).any()
    np.testing.assert_allclose(after, naive.forward(x, w, plain(x.shape[2:])), rtol=1e-10, atol=1e-10)


def test_kernels_are_transformed_once_while_they_stay_unchanged(rng, monkeypatch):
    transformed = []
    transform = winograd._kernels_at_points
    monkeypatch.setattr(winograd, "_kernels_at_points", lambda w: transformed.append(1) or transform(w))
    w = rng.standard_normal((4, 3, 3, 3), np.float32)
    for images, size in ((1, (7, 6)), (2, (5, 9)), (1, (7, 6))):
        winograd.forward(rng.standard_normal((images, 3, *size), np.float32), w, plain(size))
    assert len(transformed) == 1
    w[1, 2, 0, 1] += 1
    for _ in range(3):
        winograd.forward(rng.standard_normal((1, 3, 7, 6), np.float32), w, plain((7, 6)))
    assert len(transformed) == 2


@pytest.mark.parametrize("algorithm", [*conv_algorithms._ALGORITHMS, "auto"])
@pytest.mark.parametrize(
    ("name", "forward"), [("conv2d", ops.conv2d_forward), ("conv_transpose2d", ops.conv_transpose2d_forward)]
)
def test_a_batch_of_no_images_is_refused(name, forward, algorithm):
    with (
        ops.conv_algorithm(algorithm),
        pytest.raises(ValueError, match=f"^{name}: .*no empty axis, got shape .0, 2, 6"),
    ):
        forward(np.zeros((0, 2, 6, 5)), np.zeros((2, 2, 3, 3)), pad=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tile_bytes", [100_000, winograd.TILE_BYTES])
def test_the_same_batch_gives_the_same_bits_every_time(threads, tile_bytes, rng, monkeypatch):
    monkeypatch.setattr(winograd, "TILE_BYTES", tile_bytes)
    backend.set_threads(threads)
    where = plain((40, 37))
    sizes = (3, 8, 40, 37), (16, 8, 3, 3), (16,), (3, 16, 40, 37)
    given = [rng.standard_normal(size, np.float32) for size in sizes]
    first = passes(winograd, *given, where)
    for _ in range(5):
        for again, once in zip(passes(winograd, *given, where), first, strict=True):
            np.testing.assert_array_equal(again, once)


@pytest.fixture(scope="module")
def seen_of_a_photograph():
    """{layer: (x, w)}: what each convolution of VGG16 sees of a photograph of 160 pixels, and its fresh kernels."""
    if not PHOTOS:
        pytest.skip("MINIFCN_PHOTOS is not set")
    image = read_image(Path(PHOTOS) / "chelsea.png")
    image, _ = shrink(image, np.zeros(image.shape[:2], np.uint8), 160)
    trunk = VGG(WIDTHS, DEPTHS, 1, 1, first_pad=1, fc_pad=0, rng=np.random.default_rng(0))
    x, seen = CAFFE.apply(image)[None], {}
    with ops.conv_algorithm("winograd"):
        for name, layer in trunk.layers.items():
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
    wide = (a.astype(np.float64) for a in (x, w))
    expected = passes(im2col, *wide, None, dy.astype(np.float64), where)
    for what, bound, result, reference in zip(("y", "dx", "dw"), (1e-4, 1e-3, 1e-3), results, expected, strict=True):
        error = distance(result, reference)
        assert error <= bound, f"{name}, {x.shape} to {len(w)} channels: {what} is off by {error:.1e}"
