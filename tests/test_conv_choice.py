"""Which algorithm a convolution gets: by its shape, by what it would cost, or because somebody asked."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minifcn import backend, ops
from minifcn.ops.conv import atrous, choice, depthwise, im2col, pointwise, reference, winograd
from minifcn.ops.geometry import window

MODULES = {"naive": reference, "im2col": im2col, "gemm": pointwise, "depthwise": depthwise, "winograd": winograd}

# x (N, C, H, W), output channels, kernel, settings; the module that is chosen forward and back
BY_KIND = {
    "1x1": ((1, 64, 40, 40), 32, (1, 1), {}, pointwise),
    "1x1 of one pixel": ((1, 4096, 1, 1), 4096, (1, 1), {}, pointwise),
    "1x1 strided": ((1, 64, 40, 40), 32, (1, 1), {"stride": 2}, im2col),
    "1x1 padded": ((1, 64, 40, 40), 32, (1, 1), {"pad": 1}, im2col),
    "1x1 groups": ((1, 64, 40, 40), 32, (1, 1), {"groups": 2}, im2col),
    "1x1 dilated": ((1, 64, 40, 40), 32, (1, 1), {"dilation": 2}, pointwise),  # a single tap has no neighbour
    "depthwise": ((1, 64, 40, 40), 64, (3, 3), {"groups": 64, "pad": 1}, depthwise),
    "depthwise 5x5": ((1, 64, 40, 40), 64, (5, 5), {"groups": 64, "pad": 2}, depthwise),
    "depthwise 1x1": ((1, 64, 40, 40), 64, (1, 1), {"groups": 64}, depthwise),
    "depthwise with a multiplier": ((1, 64, 40, 40), 128, (3, 3), {"groups": 64}, im2col),
    "groups": ((1, 256, 125, 125), 256, (3, 3), {"groups": 2, "pad": 1}, im2col),
    "3x3 strided": ((1, 256, 125, 125), 256, (3, 3), {"stride": 2, "pad": 1}, im2col),
    "3x3 dilated": ((1, 256, 125, 125), 256, (3, 3), {"dilation": 2, "pad": 2}, atrous),
    "fc6 of DeepLab": ((1, 512, 41, 41), 1024, (3, 3), {"dilation": 12, "pad": 12}, atrous),
    "3x3 dilated beyond the image": ((1, 512, 8, 8), 512, (3, 3), {"dilation": 12, "pad": 12}, im2col),
    "3x3 dilated of few channels": ((1, 3, 41, 41), 8, (3, 3), {"dilation": 2, "pad": 2}, im2col),
    "5x5": ((1, 256, 125, 125), 256, (5, 5), {"pad": 2}, im2col),
    "1x3": ((1, 256, 125, 125), 256, (1, 3), {"pad": (0, 1)}, im2col),
    "conv1_2 of VGG16, 224x224": ((1, 64, 112, 112), 64, (3, 3), {"pad": 1}, winograd),
    "conv3_2 of VGG16, 500x500": ((1, 256, 125, 125), 256, (3, 3), {"pad": 1}, winograd),
    "3x3 of few pixels": ((1, 512, 2, 2), 512, (3, 3), {"pad": 1}, im2col),  # the kernels outweigh the products
    "3x3 of few channels": ((1, 2, 9, 9), 3, (3, 3), {"pad": 1}, im2col),
}
PASSES = [None, "inputs", "weights"]
PLAIN = {  # x, w and settings of a convolution that several algorithms serve -> what "auto" takes
    "3x3": ((1, 3, 6, 5), (4, 3, 3, 3), {}, "im2col"),
    "1x1": ((1, 3, 6, 5), (4, 3, 1, 1), {}, "gemm"),
    "depthwise": ((1, 3, 6, 5), (3, 1, 3, 3), {"groups": 3}, "depthwise"),
}


def chosen(shape, outputs, kernel=(3, 3), *, gradient=None, tf32=False, **settings):
    """The module for such a convolution; gradient: "inputs" or "weights", for a pass back."""
    settings = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1} | settings
    where = window("conv2d", kernel, input_size=shape[2:], **settings)
    return choice.choose(where, (outputs, shape[1] // where.groups, *kernel), shape[0], gradient, tf32)


def of_a_3x3(gradient=None):
    """The module for a 3×3 convolution that "auto" leaves to im2col, as it is tiny."""
    return chosen((1, 2, 6, 5), 3, gradient=gradient)


@pytest.fixture
def ran(monkeypatch):
    """A list of (algorithm, pass): everything that the algorithms are asked for."""
    calls = []

    def noting(name, function, run):
        return lambda *args: calls.append((name, function)) or run(*args)

    for name, module in MODULES.items():
        for function in ("forward", "input_gradient", "weight_gradient"):
            monkeypatch.setattr(module, function, noting(name, function, getattr(module, function)))
    return calls


@pytest.mark.parametrize("gradient", PASSES)
@pytest.mark.parametrize("case", BY_KIND)
def test_the_kind_of_convolution_decides(case, gradient):
    shape, outputs, kernel, settings, expected = BY_KIND[case]
    assert chosen(shape, outputs, kernel, gradient=gradient, **settings) is expected


def test_a_3x3_of_the_image_has_too_few_channels_for_winograd():
    for shape, outputs in (((8, 3, 128, 128), 12), ((1, 3, 698, 698), 64)):
        assert chosen(shape, outputs, pad=1) is im2col


@pytest.mark.parametrize("gradient", PASSES)
@pytest.mark.parametrize(("dear", "expected"), [("winograd", im2col), ("im2col", winograd)])
def test_a_plain_3x3_gets_the_cheaper_algorithm(dear, expected, gradient, monkeypatch):
    monkeypatch.setattr(choice, f"{dear}_cost", lambda *shape, costs: 1e30)
    assert of_a_3x3(gradient) is expected
    assert chosen((1, 512, 100, 100), 512, gradient=gradient) is expected


def test_kernels_make_winograd_cheaper_and_columns_im2col():
    where = window("conv2d", (3, 3), 1, 1, 1, 1, (64, 64))
    w_shape = 32, 16, 3, 3
    assert choice.choose(where, w_shape, 8) is im2col
    assert choice.choose(where, w_shape, 8, kernels=True) is winograd
    of_image = window("conv2d", (3, 3), 1, 1, 1, 1, (128, 128))
    assert choice.choose(of_image, (16, 3, 3, 3), 8, kernels=True) is winograd
    assert choice.choose(of_image, (16, 3, 3, 3), 8, kernels=True, by_channel=True) is im2col


def test_winograd_is_left_out_in_tf32_unless_asked_for():
    assert chosen((1, 256, 60, 60), 256, tf32=True) is im2col
    with ops.conv_algorithm("winograd"):
        assert chosen((1, 256, 60, 60), 256, tf32=True) is winograd


def test_each_pass_is_weighed_with_what_it_reads_and_writes(rng, monkeypatch):
    weighed = []
    monkeypatch.setattr(choice, "winograd_cost", lambda *shape, costs: weighed.append(shape) or 1)
    monkeypatch.setattr(choice, "im2col_cost", lambda *shape, costs: weighed.append(shape) or 0)
    x, w = rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((5, 3, 3, 3))
    y, cache = ops.conv2d_forward(x, w)
    ops.conv2d_backward(np.ones_like(y), cache, weights=False)
    ops.conv2d_backward(np.ones_like(y), cache, inputs=False)
    forth, back = (2, 3, 5, (7, 6)), (2, 5, 3, (9, 8))
    assert weighed == [forth, forth, back, back, forth, forth]


def test_a_weight_gradient_has_to_be_cheaper_by_more(monkeypatch):
    monkeypatch.setattr(choice, "im2col_cost", lambda *shape, costs: choice.TILE_SUMS)
    monkeypatch.setattr(choice, "winograd_cost", lambda *shape, costs: 1)
    assert of_a_3x3() is of_a_3x3("inputs") is winograd and of_a_3x3("weights") is im2col


@pytest.mark.parametrize("cost", [choice.im2col_cost, choice.winograd_cost])
def test_what_is_larger_costs_more(cost):
    """For Winograd's tiles that are partly outside cost as much as whole ones."""
    least = cost(1, 8, 16, (12, 16))
    assert 0 < least < min(cost(2, 8, 16, (12, 16)), cost(1, 16, 16, (12, 16)), cost(1, 8, 32, (12, 16)))
    assert least < min(cost(1, 8, 16, (24, 16)), cost(1, 8, 16, (12, 32)))
    assert (cost(1, 8, 16, (9, 13)) == least) == (cost is choice.winograd_cost)


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("asked", MODULES)
def test_what_was_asked_for_runs_where_it_applies(asked, case, ran, rng):
    x_shape, w_shape, settings, otherwise = PLAIN[case]
    applies = asked in ("naive", "im2col") or (asked, case) == ("winograd", "3x3")
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    with ops.conv_algorithm(asked):
        y, cache = ops.conv2d_forward(x, w, **settings)
        ops.conv2d_backward(y, cache)
    assert {name for name, _ in ran[:3:2]} == {asked if applies else otherwise}
    assert [name for _, name in ran if name != "forward"] == ["input_gradient", "weight_gradient"]


@pytest.mark.parametrize("asked", ["naive", "winograd"])
def test_what_was_asked_for_runs_in_a_transposed_convolution_too(asked, ran, rng):
    with ops.conv_algorithm(asked):
        y, cache = ops.conv_transpose2d_forward(rng.standard_normal((1, 3, 6, 5)), rng.standard_normal((3, 4, 3, 3)))
        ops.conv_transpose2d_backward(y, cache)
    assert ran == [(asked, name) for name in ("input_gradient", "forward", "weight_gradient")]


@pytest.mark.parametrize("asked", MODULES)
def test_the_choice_before_is_restored_after_an_exception_and_a_wrong_name(asked):
    with ops.conv_algorithm("winograd"):
        with pytest.raises(KeyError), ops.conv_algorithm(asked):
            raise KeyError
        with pytest.raises(ValueError, match="conv_algorithm: expected auto, .*naive.*winograd.*; got 'fft'"):
            ops.conv_algorithm("fft").__enter__()
        assert of_a_3x3() is winograd
        with ops.conv_algorithm("auto"):
            assert of_a_3x3() is im2col
    assert of_a_3x3() is im2col


def test_a_choice_holds_in_its_own_thread_only():
    both = threading.Barrier(2, timeout=20)

    def choose_in_a_thread(name):
        before = of_a_3x3()
        with ops.conv_algorithm(name):
            both.wait()  # now both have chosen
            within = of_a_3x3()
            both.wait()
        return before, within, of_a_3x3()

    with ops.conv_algorithm("im2col"), ThreadPoolExecutor(2) as pool:
        found = [job.result() for job in [pool.submit(choose_in_a_thread, name) for name in ("naive", "winograd")]]
    assert found == [(im2col, reference, im2col), (im2col, winograd, im2col)]


def test_a_choice_holds_in_the_tiles_of_its_thread(tiling):
    both, found = threading.Barrier(2, timeout=20), {}

    def tile(number):
        both.wait()  # each thread has one of the two
        found[number] = threading.get_ident(), of_a_3x3()

    tiling(threads=2)
    with ops.conv_algorithm("naive"):
        backend.run_tiles(np.zeros(1), tile, [(0,), (1,)])
    (one, first), (other, second) = found.values()
    assert one != other
    assert first is second is reference
