"""Every operation's and every layer's backward pass is the derivative of its forward pass."""

import inspect

import numpy as np
import pytest
from conv_cases import CONV, TRANSPOSED
from gradcheck_cases import LAYERS, LINEAR, OTHERS, ROUNDING, TOLERANCE, both, check, spread, spreads

from minifcn import layers, ops
from minifcn.gradcheck import check_adjoint, check_layer

ALGORITHMS = [
    "auto",
    pytest.param("naive", marks=pytest.mark.slow),
    "winograd_row_tiles",
]  # test_ops_conv compares them all with the loops


CONVOLUTIONS = {f"conv2d-{name}": ("conv2d", *case) for name, case in CONV.items()}
CONVOLUTIONS |= {f"conv_transpose2d-{name}": ("conv_transpose2d", *case) for name, case in TRANSPOSED.items()}


def arrays_of(op, x, outputs, kernel, settings):
    """x, w and b of a convolution."""
    first, second = (outputs, x[1]) if op == "conv2d" else (x[1], outputs)
    return spreads(x, (first, second // settings.get("groups", 1), *kernel), (outputs,))


@pytest.fixture(params=ALGORITHMS)
def algorithm(request, tiling):
    if request.param.endswith("tiles"):  # so that these small maps too are cut into tiles of single rows
        tiling(1)
    with ops.conv_algorithm(request.param.split("_")[0]):
        yield


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(algorithm, case):
    op, *_, settings = case
    arrays = arrays_of(*case)
    forward, backward = both(op, **settings)
    report = check(forward, backward, *arrays, directions=1, elements=4)
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked == sum(1 + min(4, array.size) for array in arrays)
    (x, w, _), rng = arrays, np.random.default_rng(0)  # it is linear in its input, and in its kernel too
    assert check_adjoint(lambda x: forward(x, w), backward, x, rng) <= ROUNDING
    assert check_adjoint(lambda w: forward(x, w), lambda dy, cache: backward(dy, cache)[1], w, rng) <= ROUNDING


@pytest.mark.parametrize(("passes", "shapes"), OTHERS.values(), ids=OTHERS)
def test_op(passes, shapes):
    report = check(*passes, *spreads(*shapes))
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked == sum(4 + min(40, int(np.prod(shape))) for shape in shapes)
    assert report.redrawn == 0


IN_TILES = (
    "relu",
    "relu6",
    "batch_norm",
    "softmax_cross_entropy",
    "dice",
    "max_pool2d",
    "avg_pool2d",
    "linear",
    "upsample",
)
TILED = [name for name in OTHERS if name.split("-")[0] in IN_TILES]


@pytest.mark.parametrize("name", TILED)
@pytest.mark.parametrize(("tile_bytes", "threads"), [(1, 1), (100, 3)], ids=["smallest-tiles", "small-tiles"])
def test_op_in_tiles(name, tile_bytes, threads, tiling):
    tiling(tile_bytes, threads)
    passes, shapes = OTHERS[name]
    report = check(*passes, *spreads(*shapes), directions=2, elements=4)
    assert report.max_relative_error <= TOLERANCE, report


@pytest.mark.parametrize("name", LINEAR)
def test_linear_op_has_its_adjoint(name):
    (forward, backward), (shape,) = OTHERS[name]
    assert check_adjoint(forward, backward, spread(shape), np.random.default_rng(0)) <= ROUNDING


@pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)
def test_layer(build, shape):
    layer = build(np.random.default_rng(0))
    report = check_layer(layer, spread(shape), np.random.default_rng(1))
    learned = [p.value.size for p in layer.parameters().values() if not p.frozen]
    assert report.max_relative_error <= TOLERANCE, report
    assert report.checked == sum(4 + min(40, size) for size in [int(np.prod(shape)), *learned])


def test_no_op_and_no_layer_is_left_out():
    names = {name.removesuffix("_forward") for name in dir(ops) if name.endswith("_forward")}
    assert {name.split("-")[0] for name in [*CONVOLUTIONS, *OTHERS]} == names
    kinds = {name for name, value in vars(layers).items() if inspect.isclass(value)}
    assert {name.split("-")[0] for name in LAYERS} == kinds - {"Layer", "Leaf", "Parameter", "FusedConv2d"} | {
        "InvertedResidual",
        "Sequential",
    }
