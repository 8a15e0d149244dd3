"""What is done to results while they are in a cache, and the passes back, side by side and shared out."""

import threading

import numpy as np
import pytest

from minifcn import backend, ops
from minifcn.ops import conv, conv_algorithms
from minifcn.ops.conv_algorithms import depthwise, gemm, im2col, naive, winograd
from minifcn.ops.maps import channel_sums
from minifcn.ops.geometry import window

PATIENCE = 20  # seconds that a thread waits for another before the test fails
MODULES = {"naive": naive, "im2col": im2col, "gemm": gemm, "depthwise": depthwise, "winograd": winograd}
KINDS = {  # x (N, C, H, W), w (K, C/groups, kh, kw), settings
    "3x3": ((3, 4, 11, 7), (5, 4, 3, 3), {"pad": 1}),
    "3x3 of one image": ((1, 4, 13, 9), (3, 4, 3, 3), {"pad": ((2, 0), (1, 2))}),
    "long rows": ((3, 2, 5, 19), (4, 2, 3, 3), {"pad": 1}),
    "one pixel": ((1, 2, 3, 3), (3, 2, 3, 3), {}),
    "1x1": ((3, 4, 5, 7), (5, 4, 1, 1), {}),
    "1x1, more kernels than pixels": ((1, 4, 3, 3), (31, 4, 1, 1), {}),
    "more kernels than pixels": ((2, 3, 7, 5), (29, 3, 3, 3), {"stride": 3}),
    "strided, dilated": ((2, 3, 12, 11), (5, 3, 3, 2), {"stride": (2, 3), "dilation": (1, 2), "pad": 1}),
    "grouped": ((3, 4, 7, 9), (6, 2, 3, 3), {"groups": 2, "pad": 1}),
    "depthwise": ((3, 5, 9, 7), (5, 1, 3, 3), {"groups": 5, "pad": 1}),
    "depthwise strided": ((2, 3, 11, 13), (3, 1, 5, 5), {"groups": 3, "stride": (2, 3), "dilation": (1, 2), "pad": 4}),
}
SERVE = {"1x1": ("gemm", "naive", "im2col"), "depthwise": ("depthwise", "naive", "im2col")}
SERVE |= {"1x1, more kernels than pixels": SERVE["1x1"], "depthwise strided": SERVE["depthwise"]}
SERVE |= dict.fromkeys(("3x3", "3x3 of one image", "long rows", "one pixel"), ("winograd", "naive", "im2col"))
EVERY = [(kind, algorithm) for kind in KINDS for algorithm in SERVE.get(kind, ("im2col", "naive"))]
TILED = [(*one, threads, tile) for one in EVERY if "naive" not in one for threads in (1, 2) for tile in (None, 400)]
TILED += [(*one, 1, None) for one in EVERY if "naive" in one]  # it knows neither threads nor tiles


@pytest.fixture(autouse=True)
def as_before():
    yield
    backend.set_threads(None)


def drawn(kind, rng):
    (x, w, settings) = KINDS[kind]
    return rng.normal(size=x), rng.normal(size=w), rng.normal(size=w[0]), settings


class Marks:
    """A function that changes what it is given in place, such that a second time and a time too soon would show."""

    def __init__(self):
        self.sizes = []

    def __call__(self, part):
        part *= -2
        part += 1
        self.sizes.append(part.size)

    @staticmethod
    def of(values):
        return -2 * values + 1


# What follows a convolution


@pytest.mark.parametrize(("kind", "algorithm", "threads", "tile_bytes"), TILED)
def test_what_follows_is_done_to_every_result_once(kind, algorithm, threads, tile_bytes, tiling, device, rng):
    tiling(tile_bytes, threads)
    x, w, b, settings = drawn(kind, rng)
    for bias in (b, None):
        args, marks = [device.put(array) for array in (x, w, bias)], Marks()
        with ops.conv_algorithm(algorithm):
            plain, _ = ops.conv2d_forward(*args, **settings)
            y, _ = ops.conv2d_forward(*args, **settings, then=marks)
        np.testing.assert_array_equal(device.get(y), Marks.of(device.get(plain)))
        assert sum(marks.sizes) == y.size
    if (
        tile_bytes and len(y) > 1 and "kernels" not in kind and not backend.has_kernels(y)
    ):  # tiles are never smaller than the kernels
        assert len(marks.sizes) > 2


@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_the_algorithm_that_is_meant_is_the_one_that_runs(kind, algorithm, monkeypatch, rng):
    calls, forward = [], MODULES[algorithm].forward
    monkeypatch.setattr(MODULES[algorithm], "forward", lambda *args: calls.append(args) or forward(*args))
    x, w, b, settings = drawn(kind, rng)
    with ops.conv_algorithm(algorithm):
        ops.conv2d_forward(x, w, b, **settings, then=(then := Marks()))
    ((_, _, _, bias, followed_by),) = calls
    assert bias is b
    assert followed_by is then


def test_what_follows_is_done_to_large_maps_too(rng):
    """With the tiles as they are: several each, for every algorithm, on two threads."""
    backend.set_threads(2)
    for x, w, settings in (
        ((1, 16, 181, 183), (16, 16, 3, 3), {"pad": 1}),
        ((1, 32, 181, 183), (48, 32, 1, 1), {}),
        ((1, 48, 181, 183), (48, 1, 3, 3), {"groups": 48, "pad": 1}),
    ):
        x, w, b = (rng.normal(size=shape).astype(np.float32) for shape in (x, w, w[0]))
        for algorithm in ("auto", "winograd", "im2col"):
            marks = Marks()
            with ops.conv_algorithm(algorithm):
                plain, _ = ops.conv2d_forward(x, w, b, **settings)
                y, _ = ops.conv2d_forward(x, w, b, **settings, then=marks)
            np.testing.assert_array_equal(y, Marks.of(plain))
            assert len(marks.sizes) >= 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_an_error_in_what_follows_is_raised(kind, algorithm, threads, tiling, rng):
    def fail(part):
        raise KeyError("what follows")

    tiling(400, threads)
    x, w, b, settings = drawn(kind, rng)
    with ops.conv_algorithm(algorithm):
        with pytest.raises(KeyError, match="what follows"):
            ops.conv2d_forward(x, w, b, **settings, then=fail)
        ops.conv2d_forward(x, w, b, **settings)


# What follows a matrix product


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1, 1, 1), (37, 5, 3), (3, 5, 37), (8, 3, 8), (1, 4, 9), (9, 4, 1), (11, 1, 2)]
)
def test_a_matrix_product_with_bias_and_what_follows(rows, depth, columns, threads, tiling, device, rng):
    tiling(100, threads)
    a, b, bias = (rng.normal(size=shape) for shape in ((rows, depth), (depth, columns), columns))
    product, all_sizes = a @ b, []
    a, b, given = (device.put(array) for array in (a, b, bias))
    for some_bias, expected in ((None, product), (given, product + bias)):
        for then in (None, Marks()):
            wanted = expected if then is None else Marks.of(expected)
            y = backend.matmul(a, b, bias=some_bias, then=then)
            np.testing.assert_allclose(device.get(y), wanted, rtol=1e-12, atol=1e-12)
            room = device.put(np.full((rows, 2 * columns), 7.0), writable=True)  # out has neighbours
            found = backend.matmul(a, b, out=room[:, ::2], bias=some_bias, then=then)
            np.testing.assert_allclose(device.get(found), wanted, rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(device.get(room)[:, ::2], device.get(found))
            assert (device.get(room)[:, 1::2] == 7).all()
            if then is not None:
                assert sum(then.sizes) == 2 * rows * columns
                all_sizes += then.sizes
    if threads > 1 and rows * columns > 20 and not backend.has_kernels(a):
        assert len(all_sizes) > 4  # more than one part each


# The passes back


def gradients(kind, algorithm, rng, **options):
    x, w, b, settings = drawn(kind, rng)
    with ops.conv_algorithm(algorithm):
        y, cache = ops.conv2d_forward(x, w, b, **settings)
        return ops.conv2d_backward(rng.normal(size=y.shape), cache, **options)


@pytest.fixture
def a_pass_each(monkeypatch):
    """a_pass_each(yes): from now on each of two threads has a pass of its own, or both share every pass."""
    return lambda yes: monkeypatch.setattr(conv, "A_PASS_EACH", range(1 << 60) if yes else range(0))


@pytest.fixture
def pass_threads(monkeypatch):
    """The threads of the passes back, by pass; with a barrier under "meet", each waits until the other has begun."""
    found = {}

    def noting(name, run):
        def note_and_run(*args):
            found[name] = threading.current_thread()
            if "meet" in found:
                found["meet"].wait()
            return run(*args)

        return note_and_run

    for name in ("input_gradient", "weight_gradient"):
        monkeypatch.setattr(conv_algorithms, name, noting(name, getattr(conv_algorithms, name)))
    return found


@pytest.mark.parametrize("tile_bytes", [None, 400])
@pytest.mark.parametrize(("kind", "algorithm"), EVERY)
def test_a_pass_each_gives_the_same_gradients(kind, algorithm, tile_bytes, tiling, a_pass_each, pass_threads):
    tiling(tile_bytes, threads=2)
    a_pass_each(False)
    expected = gradients(kind, algorithm, np.random.default_rng(0))
    assert set(pass_threads.values()) == {threading.current_thread()}
    a_pass_each(True)
    pass_threads["meet"] = threading.Barrier(2, timeout=PATIENCE)
    found = gradients(kind, algorithm, np.random.default_rng(0))
    assert pass_threads["input_gradient"] is not pass_threads["weight_gradient"]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    x, w, settings = KINDS[kind]
    assert [gradient.shape for gradient in found] == [x, w, w[:1]]


@pytest.mark.parametrize("kind", ["3x3", "1x1", "depthwise"])
def test_a_single_pass_needs_no_second_thread(kind, a_pass_each, pass_threads):
    backend.set_threads(2)
    a_pass_each(True)
    dx, dw, db = gradients(kind, "auto", np.random.default_rng(0))
    for options, expected in (({"inputs": False}, (None, dw, db)), ({"weights": False}, (dx, None, None))):
        pass_threads.clear()
        for one, other in zip(gradients(kind, "auto", np.random.default_rng(0), **options), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert list(pass_threads.values()) == [threading.current_thread()]
    for threads in (1, 3):
        backend.set_threads(threads)
        gradients(kind, "auto", np.random.default_rng(0))
        assert set(pass_threads.values()) == {threading.current_thread()}


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("failing", ["input_gradient", "weight_gradient"])
def test_an_error_in_one_pass_is_raised(failing, each, a_pass_each, monkeypatch):
    backend.set_threads(2)
    a_pass_each(each)
    both = threading.Barrier(2, timeout=PATIENCE)

    def passing(name, run):
        def meet_and_run(*args):
            if each:
                both.wait()  # neither thread does both
            if name == failing:
                raise KeyError(name)
            return run(*args)

        return meet_and_run

    with monkeypatch.context() as patched:
        for name in ("input_gradient", "weight_gradient"):
            patched.setattr(conv_algorithms, name, passing(name, getattr(conv_algorithms, name)))
        for _ in range(3):
            with pytest.raises(KeyError, match=failing):
                gradients("3x3", "auto", np.random.default_rng(0))
    assert all(gradient.any() for gradient in gradients("3x3", "auto", np.random.default_rng(0)))


@pytest.mark.parametrize("algorithm", ["naive", "im2col", "winograd"])
def test_the_algorithm_that_was_asked_for_runs_in_both_passes(algorithm, a_pass_each, pass_threads, monkeypatch):
    calls = []

    def noting(name, function, run):
        return lambda *args: calls.append((name, function, threading.current_thread())) or run(*args)

    for name, module in MODULES.items():
        for function in ("input_gradient", "weight_gradient"):
            monkeypatch.setattr(module, function, noting(name, function, getattr(module, function)))
    backend.set_threads(2)
    a_pass_each(True)
    pass_threads["meet"] = threading.Barrier(2, timeout=PATIENCE)
    gradients("3x3", algorithm, np.random.default_rng(0))
    assert sorted(call[:2] for call in calls) == [(algorithm, "input_gradient"), (algorithm, "weight_gradient")]
    assert len({thread for *_, thread in calls}) == 2


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_1x1_weight_gradient_is_the_sum_of_what_each_thread_finds(threads, tiling, monkeypatch, rng):
    tiling(threads=threads)
    monkeypatch.setattr(gemm, "WORTH_A_THREAD", 0)
    x, dy = (rng.normal(size=(2, channels, 6, 7)) for channels in (3, 4))
    dw = gemm.weight_gradient(x, dy, window("conv2d", (1, 1), 1, 0, 1, 1, (6, 7)))
    np.testing.assert_allclose(dw[:, :, 0, 0], np.einsum("nkij,ncij->kc", dy, x), rtol=1e-12, atol=1e-12)


def test_a_long_float32_sum_over_a_channel_loses_no_digits():
    maps = np.full((4, 500, 500, 3), 0.1, np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(channel_sums(maps), 1e6 * np.float64(np.float32(0.1)), rtol=2e-6)
