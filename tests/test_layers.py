"""Layers: one cache, gradients that add up, and that what a layer says of itself is what it does."""

from fractions import Fraction
from functools import partial
from math import inf

import numpy as np
import pytest
from gradcheck_cases import LAYERS, spread
from networks import arrays_in, close, picture, tiny

from minifcn import layers, models
from minifcn.errors import DtypeError, InputError
from minifcn.layers import Leaf, Parameter, init
from minifcn.training import optimizers

every_layer = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)


def ready(build, shape):
    return build(np.random.default_rng(0)), spread(shape).astype(np.float32)


# --- One cache, gradients that add up -----------------------------------------------------------------------------


@every_layer
def test_backward_takes_the_cache_once(build, shape):
    layer, x = ready(build, shape)
    layer.name_all()
    named = next(reversed(layer.children().values()), layer)

    def refused():
        with pytest.raises(InputError, match=rf"{type(named).__name__}.*backward needs a forward"):
            layer.backward(x)

    refused()
    layer.backward(layer.forward(x, train=True))
    refused()
    layer.forward(x, train=True)
    layer.forward(x)  # without train: clears the cache
    refused()


@every_layer
def test_gradients_add_up_until_zero_grad(build, shape):
    layer, x = ready(build, shape)
    learned = {name: p for name, p in layer.parameters().items() if not p.frozen}
    totals = []
    for _ in range(3):
        y = layer.forward(x, train=True)
        layer.backward(spread(y.shape).astype(np.float32))
        totals.append({name: p.grad.copy() for name, p in learned.items()})
    for name in learned:
        assert abs(totals[0][name]).max() > 0.01
        np.testing.assert_allclose(totals[2][name], 3 * totals[0][name], rtol=1e-5, atol=1e-6)
    layer.zero_grad()
    assert not any(p.grad.any() for p in learned.values())
    for p in [*learned.values()][:1]:  # a frozen weight gets no gradient, and its bias does
        p.frozen = True
    layer.backward(spread(layer.forward(x, train=True).shape).astype(np.float32))
    for i, (name, p) in enumerate(learned.items()):
        np.testing.assert_array_equal(p.grad, totals[0][name] if i else 0)


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_keeps_the_dtype(build, shape, dtype):
    layer = build(np.random.default_rng(0)).astype(dtype)
    y = layer.forward(spread(shape).astype(dtype), train=True)
    dx = layer.backward(y)
    arrays = [y, dx, layer.forward(spread(shape).astype(dtype)), *layer.state_dict().values()]
    assert {a.dtype for a in arrays + [p.grad for p in layer.parameters().values()]} == {np.dtype(dtype)}


@every_layer
def test_an_upstream_gradient_of_another_dtype_or_shape_is_refused(build, shape):
    layer, x = ready(build, shape)
    layer.name_all()
    named = next(reversed(layer.children().values()), layer)
    y = layer.forward(x, train=True)
    problem = (
        rf"{type(named).__name__}.*backward: expected an upstream gradient of float32, like the output, got float64"
    )
    with pytest.raises(DtypeError, match=problem):
        layer.backward(y.astype(np.float64))
    with pytest.raises(InputError, match=r"backward: expected an upstream gradient of shape \("):
        layer.backward(np.concatenate([y, y]))
    assert layer.backward(y).dtype == np.float32  # the cache is still there


@pytest.mark.parametrize("kind", [layers.ReLU, layers.ReLU6])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_relu_writes_over_its_arguments_only_where_it_may(kind, overwrite):
    layer, options = kind(), {"overwrite": True} if overwrite else {}
    x, dy = np.array([-1.0, 2, 5]), np.array([3.0, 4, 5])
    y, dx = layer.forward(x, train=True, **options), layer.backward(dy, **options)
    assert ((y is x), (dx is dy)) == (overwrite, overwrite)
    assert (y.tolist(), dx.tolist()) == ([0, 2, 5], [0, 4, 5])
    assert (x.tolist(), dy.tolist()) == ((y.tolist(), dx.tolist()) if overwrite else ([-1, 2, 5], [3, 4, 5]))


# --- Parameters and their names -----------------------------------------------------------------------------------


def test_a_gradient_that_nobody_gave_is_zero():
    p = Parameter(np.ones((2, 3), np.float32))
    assert (p.grad.shape, p.grad.dtype, p.grad.any()) == ((2, 3), np.float32, False)
    p.add_gradient(np.ones((2, 3), np.float32))
    p.zero_grad()
    p.frozen = True
    p.add_gradient(np.ones((2, 3), np.float32))
    assert not p.grad.any()


class Branches(layers.Layer):
    """Layers in a list, a tuple and a dict."""

    def __init__(self, rng):
        self.rows = [layers.Linear(2, 2, rng), layers.ReLU()]
        self.pair = (layers.Dropout(0.5, rng), layers.BatchNorm2d(2))
        self.by_name = {"a": layers.Linear(2, 1, rng), "note": 3}
        self.note = [1, "2"]


def test_layers_in_a_collection_have_their_parameters(rng):
    network = Branches(rng).name_all()
    names = ["rows.0.weight", "rows.0.bias", "pair.1.gamma", "pair.1.beta", "by_name.a.weight", "by_name.a.bias"]
    assert list(network.parameters()) == names
    assert list(network.generators()) == ["pair.0.rng"]
    assert list(network.buffers()) == ["pair.1.running_mean", "pair.1.running_var"]
    assert network.by_name["a"].name == "by_name.a"
    state = network.state_dict()
    state["by_name.a.weight"] += 1
    network.load_state_dict(state)
    np.testing.assert_array_equal(network.by_name["a"].weight.value, state["by_name.a.weight"])


def test_a_parameter_under_two_names_is_stepped_once(rng):
    one, other = layers.Linear(2, 2, rng), layers.Linear(2, 2, rng)
    other.weight = one.weight
    network = models.Sequential(one=one, other=other)
    assert list(network.parameters()) == ["one.weight", "one.bias", "other.bias"]
    before = one.weight.value.copy()
    y = network.forward(np.ones((1, 2), np.float32), train=True)
    network.backward(np.ones_like(y))
    gradient = one.weight.grad.copy()
    optimizers.SGD(network.parameters(), momentum=0.0).step(0.1)
    np.testing.assert_allclose(one.weight.value, before - np.float32(0.1) * gradient, rtol=1e-6)
    network.load_state_dict(network.state_dict())
    assert network.state_dict().keys() == network.parameters().keys()


def test_older_files_call_the_kernel_of_an_upsampling_line():
    network, given = tiny("8s"), tiny("8s").state_dict()
    old = {name.replace("kernel_1d", "line"): array * 2 for name, array in given.items()}
    assert sum(name.endswith(".line") for name in old) == 3
    network.load_state_dict(old)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, 2 * given[name], err_msg=name)
    for wrong in ("upscore2.line", "upscore2.curve"):  # beside the new name, or unheard of
        with pytest.raises(InputError, match=f"0 missing .* 1 unexpected .*{wrong}"):
            network.load_state_dict({**given, wrong: given["upscore2.kernel_1d"]})
    del given["upscore2.kernel_1d"]
    with pytest.raises(InputError, match="1 missing .*upscore2.kernel_1d"):
        network.load_state_dict(given)


def test_a_single_value_per_channel_is_normalised_as_in_inference(rng):
    layer = layers.BatchNorm2d(3).astype(np.float64)
    layer.forward(rng.normal(2, 3, (4, 3, 5, 5)), train=True)
    mean, var, x = layer.running_mean.copy(), layer.running_var.copy(), rng.normal(size=(1, 3, 1, 1))
    expected = (x[0, :, 0, 0] - mean) / np.sqrt(var + layer.eps)
    np.testing.assert_allclose(layer.forward(x, train=True)[0, :, 0, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(layer.backward(np.ones_like(x))[0, :, 0, 0], 1 / np.sqrt(var + layer.eps), rtol=1e-12)
    assert (layer.running_mean == mean).all() and (layer.running_var == var).all()


def test_bilinear_kernels():
    assert init.bilinear_1d(4).tolist() == [0.25, 0.75, 0.75, 0.25]
    assert init.bilinear_1d(3).tolist() == [0.5, 1, 0.5]
    assert np.array_equal(init.bilinear(2, 4)[1, 1], np.outer(*[init.bilinear_1d(4)] * 2))
    assert not init.bilinear(2, 4)[0, 1].any()


# --- What a layer says of itself ----------------------------------------------------------------------------------


def leaves_at_work(build, shape):
    """(leaf, its inputs) of a layer on an image of this shape, one node after the other."""
    layer, x = ready(build, shape)
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)  # channels last in memory
    graph, values = models.Graph({"layer": (layer, ["image"])}), {"image": x}
    for name, (leaf, inputs) in graph.nodes.items():
        inputs = [values[i] for i in inputs]
        yield leaf, inputs
        values[name] = leaf.forward(*inputs)


FEW_NUMBERS = (
    "BatchNorm2d",
    "AvgPool2d",
    "AdaptiveAvgPool2d",
    "ResizeLike",
    "Resize",
)  # cached, but not one for each value


@every_layer
def test_what_a_layer_says_of_shapes_and_memory_is_so(build, shape):
    for leaf, inputs in leaves_at_work(build, shape):
        x, shapes = inputs[0], [value.shape for value in inputs]
        for train in (False, True):
            y = leaf.forward(*inputs, train=train)
            assert tuple(leaf.output_shape(*shapes)) == y.shape
            assert np.shares_memory(x, y) == leaf.is_view(x.shape, train)
            assert not (leaf.owns_results and any(np.shares_memory(y, value) for value in inputs))
        own = [p.value for p in leaf.parameters().values()] + [getattr(*at) for at in leaf.buffers().values()]
        cached = [a for a in arrays_in(leaf._cache) if a.dtype == x.dtype]
        cached = [a for a in cached if not any(np.shares_memory(a, array) for array in own)]
        assert leaf.caches_input == any(np.shares_memory(a, x) for a in cached)
        assert leaf.caches_output == any(np.shares_memory(a, y) for a in cached)
        if type(leaf).__name__ not in FEW_NUMBERS:
            rest = [a for a in cached if not any(np.shares_memory(a, value) for value in (*inputs, y))]
            assert leaf.extra_cached(x.shape) == sum(a.size for a in rest)
        dy = spread(y.shape).astype(np.float32)
        gradients = leaf.backward(dy)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        assert [i for i, dx in enumerate(gradients) if dx is None] == list(leaf.size_only)
        assert not (leaf.owns_results and any(np.shares_memory(dx, dy) for dx in gradients if dx is not None))


SIZE, MIDDLE = 36, range(15, 21)  # rows far from the border
RULED = {  # layers of one channel that keep an even slope
    "conv": lambda: layers.Conv2d.of(Parameter(np.full((1, 1, 3, 3), 1 / 9)), stride=2, pad=1),
    "conv leaning": lambda: layers.Conv2d.of(
        Parameter(np.full((1, 1, 4, 2), 1 / 8)), stride=(3, 1), pad=((4, 0), (0, 0)), dilation=(2, 1)
    ),
    "conv same": lambda: layers.Conv2d.of(Parameter(np.full((1, 1, 5, 3), 1 / 15)), pad="same"),
    "pool": lambda: layers.AvgPool2d(2),
    "pool overlapping": lambda: layers.AvgPool2d((3, 2), stride=(2, 1), pad=(1, 0)),
    "upsampling": lambda: layers.Upsample(4, kernel=8, pad=2),
    "upsampling odd": lambda: layers.Upsample(4, kernel=7, pad=((1, 2), (1, 2))),
    "upsampling learned": lambda: layers.LearnedUpsample(1, 2, kernel=4),
    "transposed": lambda: layers.LearnedUpsample(1, 3, kernel=5, pad=1),
    "padding": lambda: layers.PadToMultiple(7, pad=3),
    "padding by a pair": lambda: layers.Pad((3, 1)),
    "crop": lambda: models.Graph(
        {"like": (layers.AvgPool2d(1, stride=2), ["image"]), "crop": (layers.CropLike(5), ["image", "like"])}
    ),
    "scale": lambda: layers.Scale(1),
}


@pytest.mark.parametrize("build", RULED.values(), ids=RULED)
def test_coordinates_say_what_a_ruler_shows(build):
    """Laid along the image's height, so that each value is its own place, and so is each value of the output. And the rows
    that a value depends on are as many as the receptive field says."""
    network = models.Graph({"layer": (build(), ["image"])}).astype(np.float64)
    (last,) = network.outputs
    a, b = models.coordinates(network.nodes, last)
    x = np.broadcast_to(np.arange(SIZE, dtype=np.float64)[:, None], (1, 1, SIZE, SIZE)).copy()
    y = network.forward(x, train=True)
    rows = [row for row in range(y.shape[2]) if (row - b) / a >= MIDDLE[0] and (row - b) / a <= MIDDLE[-1]]
    assert len(rows) >= 2
    across = y.shape[3] // 2
    for row in rows:
        assert y[0, 0, row, across] == pytest.approx(float((row - b) / a), abs=1e-5)
    seen = 0
    for row in rows:
        dy = np.zeros_like(y)
        dy[0, 0, row, across] = 1
        network.forward(x, train=True)
        (reached,) = np.nonzero(network.backward(dy)[0, 0].any(axis=1))
        seen = max(seen, reached.max() - reached.min() + 1)
    field, step = network[last].receptive_field(1, Fraction(1))
    assert (seen, step) == (field, 1 / a)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pad"), [(3, 1, 4, 5), (3, 2, 3, 2), (5, 4, 2, 0), (4, 6, 4, 3), (7, 2, 2, 9)]
)
@pytest.mark.parametrize("kind", [layers.Conv2d, layers.ConvTranspose2d])
def test_a_dilated_window_reads_from_tap_to_tap(kind, kernel, stride, dilation, pad, rng):
    """Down the rows, one of which is bright in each image. Taps in the padding do not count."""
    settings = {"stride": (stride, 1), "dilation": (dilation, 1), "pad": (pad, 0), "bias": False}
    layer = kind(1, 1, (kernel, 1), rng, **settings)
    layer.weight.value = np.ones_like(layer.weight.value)
    x = np.eye(40, dtype=np.float32)[:, None, :, None]
    y = layer.forward(x)[:, 0, :, 0]
    spans = np.stack(layer.reads(np.arange(y.shape[1]), 2, [x.shape]), axis=1)
    for reached, (first, last) in zip(y.T, spans, strict=True):
        (read,) = np.nonzero(reached)
        assert (read.size == 0 and last < first) or (read[0], read[-1]) == (first, last)
    field, _ = layer.receptive_field(1, Fraction(1))
    assert field == max(last - first + 1 for first, last in spans)


@pytest.mark.parametrize(
    "layer", [layers.Flatten(), layers.GlobalAvgPool(), layers.AdaptiveAvgPool2d(2), layers.ResizeLike()]
)
def test_what_has_no_fixed_place_in_the_image_has_no_coordinates(layer):
    with pytest.raises(InputError, match=f"^{type(layer).__name__}: "):
        layer.coordinates()
    if not isinstance(layer, layers.ResizeLike):
        assert layer.receptive_field(3, 2) == (inf, 2)


OPERATORS = """
Add:Add AvgPool2d:AveragePool BatchNorm2d:BatchNormalization Concat:Concat Conv2d:Conv ConvTranspose2d:ConvTranspose
CropLike:Slice Dropout:Dropout ExactSize:Identity Flatten:Flatten GlobalAvgPool:GlobalAveragePool LRN:LRN
LearnedUpsample:ConvTranspose Linear:Gemm MaxPool2d:MaxPool PadToMultiple:Pad ReLU:Relu ReLU6:Clip ResizeLike:Resize Scale:Mul Upsample:ConvTranspose
AdaptiveAvgPool2d:GlobalAveragePool Clip:Clip Multiply:Mul Pad:Pad Resize:Resize Slice:Slice Softmax:Softmax
Constant:Constant Divide:Div Mean:ReduceMean Subtract:Sub
"""
ONNX = dict(pair.split(":") for pair in OPERATORS.split())


@every_layer
def test_every_layer_names_its_operator_in_onnx(build, shape):
    for leaf, _ in leaves_at_work(build, shape):
        kind = type(leaf).__name__
        if kind == "AdaptiveAvgPool2d" and leaf.settings["size"] != 1:
            with pytest.raises(NotImplementedError, match=kind):
                leaf.onnx()
            continue
        operator, attributes = leaf.onnx()
        assert operator == ONNX[kind]
        if "kernel_shape" in attributes:
            assert len(attributes["kernel_shape"]) == 2
            assert len(attributes["strides"]) == 2
            assert len(attributes.get("pads", [0] * 4)) == 4


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (layers.Add(), [(1, 2, 3, 4), (1, 2, 3, 1)]),
        (layers.Concat(), [(1, 2, 3, 4), (1, 2, 4, 4)]),
        (layers.CropLike(2), [(1, 2, 5, 5), (1, 1, 4, 3)]),
    ],
)
def test_maps_that_do_not_meet_are_refused(layer, shapes):
    """By the layer itself and by its account of shapes; nothing is broadcast."""
    for ask in (partial(layer.forward, *map(np.ones, shapes)), partial(layer.output_shape, *shapes)):
        with pytest.raises(InputError, match=type(layer).__name__.lower()[:4]):
            ask()


@pytest.mark.parametrize("layer", [layers.Conv2d, layers.ConvTranspose2d])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 6, 3), (4, 5, 2), (4, 4, 0)])
def test_channels_that_groups_do_not_divide_are_refused(layer, inputs, outputs, groups, rng):
    with pytest.raises(
        InputError, match=f"expected channels that divide into groups, got {inputs}, {outputs} and {groups}"
    ):
        layer(inputs, outputs, 3, rng, groups=groups)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Scale(np.float64(0.5)),
        lambda: layers.Clip(np.float64(-0.5), np.float64(0.5)),
        lambda: layers.Dropout(np.float64(0.5), np.random.default_rng(0)),
        lambda: layers.BatchNorm2d(4, eps=np.float64(1e-3), momentum=np.float64(0.1)),
        lambda: layers.LRN(5, np.float64(1e-4), np.float64(0.75)),
    ],
)
def test_numbers_of_numpy_leave_float32_as_it_is(layer, rng):
    layer, x = layer(), rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    for _ in range(2):
        y = layer.forward(x, train=True)
        assert y.dtype == layer.backward(y).dtype == np.float32
    assert layer.forward(x).dtype == np.float32


def test_weights_are_float32_or_float64(rng):
    for dtype in (np.float16, int):
        with pytest.raises(TypeError, match="astype: expected float32 or float64"):
            layers.Linear(2, 3, rng).astype(dtype)


def test_one_layer_may_be_a_whole_network(rng):
    """A Layer with children writes its passes by hand, and is a node like any other."""

    class Residual(layers.Layer):
        def __init__(self):
            self.inner = [layers.Conv2d(3, 3, 1, rng), layers.ReLU()]

        def forward(self, x, train=False):
            return x + self.inner[1].forward(self.inner[0].forward(x, train=train), train=train)

        def backward(self, dy):
            return dy + self.inner[0].backward(self.inner[1].backward(dy))

    network = models.Sequential(relu=layers.ReLU(), block=Residual(), last=layers.Scale(2))
    x, block = picture(3, 4), network["block"]
    y = network.forward(x, train=True)
    close(y, 2 * block.forward(np.maximum(x, 0), train=True), 1e-6)
    network.backward(y)
    assert block.inner[0].weight.grad.any()
    block.inner[0].weight.frozen = block.inner[0].bias.frozen = True
    network.forward(x, train=True)
    assert network.backward(y, inputs=False) is None
    assert isinstance(block.inner[0], Leaf)
    with pytest.raises(InputError, match="backward needs"):  # its caches are let go although nobody asked for it
        block.inner[0].backward(y)


@pytest.mark.parametrize("join", [layers.Add, layers.Subtract, layers.Multiply, layers.Divide])
def test_maps_of_two_dtypes_do_not_meet(join):
    with pytest.raises(DtypeError, match="expected float32 like its input, got float64"):
        join().forward(np.ones((1, 2, 3, 3), np.float32), np.ones((1, 2, 3, 3)))
