"""Chains: what inference does at once is what the layers give one by one, and training does nothing at once."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest

from minifcn import layers, models, ops
from minifcn.models.explain import Memory, Sketch, _sketching, explain

CHANNELS = 6
KINDS = {  # output channels, kernel, settings
    "3x3": (5, 3, {"pad": 1}),
    "1x1": (5, 1, {}),
    "more kernels than pixels": (20, 3, {"stride": 3}),
    "strided": (5, 3, {"stride": 2, "pad": 1}),
    "padded as in TensorFlow": (5, (3, 2), {"stride": 2, "pad": "same"}),
    "depthwise": (CHANNELS, 3, {"groups": CHANNELS, "pad": 1}),
    "depthwise strided": (CHANNELS, (3, 5), {"groups": CHANNELS, "stride": (2, 3), "pad": 2}),
    "grouped": (4, 3, {"groups": 2, "pad": 1}),
}
ENDS = {  # what follows the convolution
    "nothing": {},
    "normalisation": {"norm": layers.BatchNorm2d},
    "ReLU": {"relu": layers.ReLU},
    "ReLU6 in place": {"relu": partial(layers.ReLU6, in_place=True)},
    "normalisation, ReLU in place": {"norm": layers.BatchNorm2d, "relu": partial(layers.ReLU, in_place=True)},
    "normalisation, ReLU6": {"norm": layers.BatchNorm2d, "relu": layers.ReLU6},
}
ALGORITHMS = ("auto", "naive", "im2col", "gemm", "depthwise", "winograd")


def lively(layer, rng, least_variance=0.02):
    """The layer, with nothing in it that could be left out unnoticed."""
    state = layer.state_dict()
    for name, array in state.items():
        if name.endswith("running_var"):
            state[name] = rng.uniform(least_variance, 2, array.shape)
        elif name.endswith("gamma"):
            state[name] = rng.uniform(0.5, 2, array.shape) * rng.choice([-1, 1], array.shape)
        elif not name.endswith(("weight", "line")):
            state[name] = rng.normal(size=array.shape) + 0.5
    layer.load_state_dict(state)
    return layer


def sequence(rng, **chain):
    return lively(layers.Sequential(**chain).astype(np.float64), rng).name_all()


def convolution(rng, kind="3x3", ends="normalisation, ReLU6", bias=True):
    """A convolution and what follows."""
    outputs, kernel, settings = KINDS[kind]
    after = {name: make(outputs) if name == "norm" else make() for name, make in ENDS[ends].items()}
    return sequence(rng, conv=layers.Conv2d(CHANNELS, outputs, kernel, rng, bias=bias, **settings), **after)


def mixed(rng):
    """A chain of everything: it begins with a normalisation and ends with a convolution."""
    return sequence(
        rng,
        norm0=layers.BatchNorm2d(CHANNELS),
        relu0=layers.ReLU(),
        conv1=layers.Conv2d(CHANNELS, 8, 3, rng, pad=1, bias=False),
        norm1=layers.BatchNorm2d(8, eps=0.1),
        relu1=layers.ReLU6(in_place=True),
        conv2=layers.Conv2d(8, 8, 1, rng),
        relu2=layers.ReLU(in_place=True),
        norm2=layers.BatchNorm2d(8),
        pool=layers.MaxPool2d(2),
        conv3=layers.Conv2d(8, 8, 3, rng, groups=8, pad=1),
        conv4=layers.Conv2d(8, 4, 3, rng, pad=1),
        norm4=layers.BatchNorm2d(4),
        conv5=layers.Conv2d(4, 3, 1, rng),
    )


def one_by_one(chain, x, train=False):
    for layer in chain.layers.values():
        x = layer.forward(x, train)
    return x


def image(rng, size=(5, 7), images=2):
    return rng.normal(size=(images, CHANNELS, *size)) * 5


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


# Inference


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_convolution_and_what_follows_give_what_they_give_one_by_one(kind, ends, device, rng):
    x = image(rng)
    for algorithm in ALGORITHMS:
        for bias in (True, False):
            chain, given = convolution(rng, kind, ends, bias), device.put(x)
            with ops.conv_algorithm(algorithm):
                expected = device.get(one_by_one(chain, device.put(x)))
                found = device.get(chain.forward(given))
            close(found, expected)
            np.testing.assert_array_equal(device.get(given), x)
    if "ReLU" in ends:
        assert 0.05 < (found == 0).mean() < 0.95
    if "ReLU6" in ends:
        assert (found == 6).any()


@pytest.mark.parametrize("size", [(7, 9), (12, 12), (4, 5)])
def test_a_chain_of_everything_gives_what_its_layers_give_one_by_one(size, device, rng):
    chain, x = mixed(rng), device.put(image(rng, size))
    close(device.get(chain.forward(x)), device.get(one_by_one(chain, x)))


def test_a_chain_may_begin_with_what_a_convolution_would_take_along(rng):
    x = image(rng, (8, 9))
    for first in ({"norm": layers.BatchNorm2d(CHANNELS)}, {"relu": layers.ReLU6()}, {"pool": layers.MaxPool2d(2)}):
        chain = sequence(rng, **first, conv=layers.Conv2d(CHANNELS, 3, 3, rng))
        np.testing.assert_array_equal(chain.forward(x), one_by_one(chain, x))
        assert [name for name, _ in layers.run_chain(chain.layers, x)] == [*first, "conv"]


def test_an_empty_chain_gives_the_image(rng):
    x = image(rng)
    assert layers.Sequential().forward(x) is x
    assert list(layers.run_chain({}, x)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_inference_leaves_the_chain_as_it_was(kind, rng):
    chain, x = convolution(rng, kind), image(rng)
    before, names = chain.state_dict(), list(chain.layers)
    first = chain.forward(x)
    np.testing.assert_array_equal(chain.forward(x), first)
    assert list(chain.layers) == names
    for name, array in chain.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    for layer in reversed(chain.layers.values()):
        with pytest.raises(ValueError, match="backward needs a forward"):
            layer.backward(first)


def test_what_was_learned_since_counts(rng):
    """Nothing that was worked out from the weights and statistics outlives them."""
    chain, x = convolution(rng), image(rng)
    for name, parameter in [*chain.parameters().items(), *chain.buffers().items()]:
        before = chain.forward(x)
        if isinstance(parameter, tuple):
            setattr(*parameter, getattr(*parameter) * 1.5)
        else:
            parameter.value *= 1.5  # in place, as an optimiser does
        found = chain.forward(x)
        assert np.abs(found - before).max() > 1e-3, name
        close(found, one_by_one(chain, x))


# Training


@pytest.mark.parametrize("build", [*(partial(convolution, kind=kind) for kind in KINDS), mixed])
def test_in_training_nothing_is_done_at_once(build, rng):
    chain, x = build(rng), image(rng, (8, 9))
    layer_by_layer, before = deepcopy(chain), chain.state_dict()
    y = chain.forward(x, train=True)
    np.testing.assert_array_equal(y, one_by_one(layer_by_layer, x, train=True))
    state, expected = chain.state_dict(), layer_by_layer.state_dict()
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert (array == before[name]).all() != ("running" in name)
    assert np.abs(y - chain.forward(x)).max() > 0.01  # the batch's statistics are not the running ones
    y = chain.forward(x, train=True)
    dy, dx = rng.normal(size=y.shape), chain.backward(np.ones_like(y))
    assert dx.shape == x.shape
    assert not np.isnan(dx).any()
    one_by_one(layer_by_layer, x, train=True)
    chain.forward(x, train=True)
    chain.zero_grad()
    found, expected = chain.backward(dy.copy()), dy.copy()
    for layer in reversed(layer_by_layer.layers.values()):
        expected = layer.backward(expected)
    np.testing.assert_array_equal(found, expected)
    for name, parameter in chain.parameters().items():
        assert parameter.grad.any(), name
        np.testing.assert_array_equal(parameter.grad, layer_by_layer.parameters()[name].grad, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_with_frozen_statistics_training_gives_what_inference_gives(kind, rng):
    chain, x = convolution(rng, kind), image(rng)
    chain.layers["norm"].frozen = True
    close(chain.forward(x, train=True), chain.forward(x))


# Names


def test_inference_yields_the_last_name_of_each_step_and_training_every_name(rng):
    chain, x = mixed(rng), image(rng)
    found = dict(layers.run_chain(chain.layers, x))
    assert list(found) == ["norm0", "relu0", "relu1", "relu2", "norm2", "pool", "conv3", "norm4", "conv5"]
    maps = x
    for name, layer in chain.layers.items():
        maps = layer.forward(maps)
        if name in found:
            close(found[name], maps)
    assert [name for name, _ in layers.run_chain(chain.layers, x, train=True)] == list(chain.layers)


@pytest.mark.parametrize("ends", ENDS)
def test_an_error_names_the_convolution(ends, rng):
    chain = convolution(rng, ends=ends)
    for wrong in (image(rng)[:, :4], image(rng)[0]):
        with pytest.raises(ValueError, match=r"^conv \(Conv2d\): conv2d: "):
            chain.forward(wrong)
    with pytest.raises(TypeError, match=r"^conv \(Conv2d\): conv2d: "):
        chain.forward(image(rng).astype(np.float32))
    chain.forward(image(rng))


def frozen(network, rng):
    """The network, such that training computes what inference does."""
    lively(network, rng, least_variance=1)  # each normalisation by a small one makes the roundings before it larger
    for norm in network.layers_of(layers.BatchNorm2d):
        norm.frozen = True
    for dropout in network.layers_of(layers.Dropout):
        dropout.p = 0.0
    return network


@pytest.mark.parametrize("alignment", ["paper", "same"])
@pytest.mark.parametrize(
    ("backbone", "dtype", "tolerance"),
    [
        ("mini", np.float32, 1e-5),
        ("mini", np.float64, 1e-12),
        ("efficientnet_lite0", np.float32, 5e-5),  # roundings grow through sixteen blocks, of either way alike
        ("efficientnet_lite0", np.float64, 1e-12),
    ],
)
def test_a_trunks_taps_are_the_same_in_inference_and_training(backbone, alignment, dtype, tolerance, rng):
    network = models.fcn("8s", backbone, 3, alignment, **({"width": 4} if backbone == "mini" else {}))
    for score in (network.score_fr, network.score_pool4, network.score_pool3):
        score.weight.value = rng.normal(size=score.weight.value.shape)
    frozen(network, rng).astype(dtype)
    x = rng.normal(size=(2, 3, 37, 52)).astype(dtype)
    padded = network.pad_input.forward(x)
    found, expected = (network.backbone.forward(padded, train) for train in (False, True))
    assert found.keys() == expected.keys() == {"pool3", "pool4", "fc7"}
    for tap, maps in expected.items():
        assert maps.std() > 0
        close(found[tap], maps, tolerance)
    close(network.forward(x), network.forward(x, train=True), tolerance)


@pytest.mark.parametrize("backbone", ["mini", "vgg16", "alexnet", "efficientnet_lite0"])
def test_every_tap_is_reached_in_inference_too(backbone, monkeypatch):
    monkeypatch.setattr(layers.blocks, "he_normal", lambda shape, rng: np.zeros(shape, np.float32))
    network = models.fcn("8s", backbone, 3, "same")
    with _sketching(network, train=False):
        assert network.backbone.forward(Sketch((1, 3, 64, 64), Memory())).keys() == network.backbone.taps.keys()


# The account


@pytest.mark.parametrize("in_place", [True, False])
def test_a_step_in_inference_needs_the_memory_of_one_output(in_place, rng):
    chain = sequence(
        rng,
        conv=layers.Conv2d(3, 8, 3, rng, pad=1),
        norm=layers.BatchNorm2d(8),
        relu=layers.ReLU(in_place=in_place),
    )
    account = explain(chain, (6, 5), batch=2)
    x, y = 2 * 3 * 30 * 4, 2 * 8 * 30 * 4
    assert account.inference_bytes == x + y
    assert account.training_bytes == x + 2 * y
    assert [(row.name, row.kind) for row in account.rows] == [
        ("conv", "Conv2d"),
        ("norm", "BatchNorm2d"),
        ("relu", "ReLU"),
    ]
    assert [row.shape for row in account.rows] == [(2, 8, 6, 5)] * 3
    assert [row.field for row in account.rows] == [3, 3, 3]
    assert [row.parameters for row in account.rows] == [8 * 3 * 9 + 8, 16, 0]
    assert [row.multiply_adds for row in account.rows] == [2 * 8 * 30 * 27, 0, 0]
    assert [row.kept for row in account.rows] == [x, y, y]


@pytest.mark.parametrize("backbone", ["mini", "efficientnet_lite0"])
def test_the_account_has_the_same_rows_for_inference_as_for_training(backbone):
    network = models.fcn("8s", backbone, 3, "same")
    tables = []
    for train in (False, True):
        with _sketching(network, train) as rows:
            network.forward(Sketch((2, 3, 65, 33), Memory()), train)
        tables.append([(row.name, row.kind, row.shape, row.field, row.multiply_adds) for row in rows])
    assert tables[0] == tables[1]
    assert len(tables[0]) == len(network.layers_of(layers.Leaf))


def test_a_normalisation_of_another_width_is_refused_by_name(rng):
    x = np.ones((1, 3, 5, 5), np.float32)
    for outputs, width in ((4, 1), (1, 4), (4, 3)):
        chain = layers.Sequential(conv=layers.Conv2d(3, outputs, 3, rng), norm=layers.BatchNorm2d(width)).name_all()
        with pytest.raises(ValueError, match=r"norm \(BatchNorm2d\): expected one value per channel"):
            chain.forward(x)


def test_inference_leaves_no_cache_of_a_training_forward_before_it(rng):
    x = np.ones((1, 3, 5, 5), np.float32)
    chain = layers.Sequential(conv=layers.Conv2d(3, 4, 3, rng), norm=layers.BatchNorm2d(4), relu=layers.ReLU())
    chain.forward(x, train=True)
    y = chain.forward(x)
    with pytest.raises(ValueError, match="backward needs"):
        chain.backward(np.ones_like(y))
    assert not chain.layers["norm"].gamma.grad.any()
