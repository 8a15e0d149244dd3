"""Graphs: forks and joins, what is let go and what is left out, and the passes over the table that inference runs on."""

import weakref
from functools import partial

import numpy as np
import pytest
from networks import close, narrow_fcn, picture, stirred, tiny, without_chance

from minifcn import layers, models, ops
from minifcn.errors import DtypeError, InputError
from minifcn.gradcheck import check_layer
from minifcn.inference.shared_work import fingerprint
from minifcn.layers import Leaf

CHANNELS = 6


def image(rng, size=(4, 6), images=2):
    return rng.normal(size=(images, CHANNELS, *size)) * 5


class Times(Leaf):
    """factor · x, and a note of what was asked of it."""

    def __init__(self, factor):
        self.factor, self.seen = factor, []

    def run(self, x, train):
        self.seen.append(x)
        return self.factor * x, None

    def run_backward(self, dy, cache):
        self.seen.append(dy)
        return self.factor * dy


# --- The table ----------------------------------------------------------------------------------------------------


def test_a_fork_gets_the_sum_of_what_comes_back_and_a_join_gives_to_both(rng):
    nodes = {
        "two": (Times(2), ["image"]),
        "three": (Times(3), ["two"]),
        "five": (Times(5), ["two"]),
        "sum": (layers.Add(), ["three", "five"]),
        "again": (layers.Add(), ["sum", "two"]),  # read a third time
        "twice": (layers.Add(), ["again", "again"]),
    }
    graph, x = models.Graph(nodes), rng.normal(size=(1, 2, 3, 4))
    y = graph.forward(x, train=True)
    close(y, 2 * (2 * 3 + 2 * 5 + 2) * x)
    dy = rng.normal(size=x.shape)
    close(graph.backward(dy), 2 * (2 * 3 + 2 * 5 + 2) * dy)
    close(graph["two"].seen[-1], 2 * (3 + 5 + 1) * dy)
    assert [len(node.layer.seen) for node in graph.nodes.values() if isinstance(node.layer, Times)] == [2, 2, 2]
    with pytest.raises(InputError, match="backward needs a forward"):
        graph.backward(dy)


def test_several_outputs_are_a_dict_forward_and_backward(rng):
    """Against one output that holds both."""
    nodes = {
        "conv": (layers.Conv2d(3, 4, 3, rng, pad=1), ["image"]),
        "relu": (layers.ReLU(), ["conv"]),
        "score": (layers.Conv2d(4, 2, 1, rng), ["relu"]),
    }
    graph, x = models.Graph(nodes, outputs=["relu", "score"]).astype(np.float64), picture(5, 6, np.float64)
    joined = models.Graph({**nodes, "both": (layers.Concat(), ["relu", "score"])})
    assert list(graph.forward(x)) == ["relu", "score"]
    found = graph.forward(x, train=True)
    dy = {name: rng.normal(size=y.shape) for name, y in found.items()}
    dx = graph.backward(dy)
    gradients = [p.grad for p in graph.parameters().values()]
    graph.zero_grad()
    close(np.concatenate(list(found.values()), axis=1), joined.forward(x, train=True))
    close(joined.backward(np.concatenate(list(dy.values()), axis=1)), dx)
    for p, gradient in zip(graph.parameters().values(), gradients, strict=True):
        close(p.grad, gradient)
    graph.forward(x, train=True)
    assert graph.backward({"relu": dy["relu"]}).any()  # a head that nobody asks is left out
    graph.forward(x, train=True)
    with pytest.raises(InputError, match="got one of scores"):
        graph.backward({"scores": dy["score"]})
    with pytest.raises(DtypeError, match=r"score \(Conv2d\): backward: .*float64, like the output, got float32"):
        graph.backward({**dy, "score": dy["score"].astype(np.float32)})


def test_the_value_of_any_node_can_be_had(rng):
    """Also of one in the middle of what inference does at once, and of many at a time."""
    network = stirred(tiny("8s", "same", width=2)).astype(np.float64)
    x = picture(33, 41, np.float64)
    values = {"image": x}
    for name, (layer, inputs) in network.nodes.items():
        values[name] = layer.forward(*(values[i] for i in inputs))
    single = [["vgg.conv1_1"], ["vgg.bn3_1"], ["vgg.relu3_1"], ["vgg.pool4"], ["score_fr"], ["crop"]]
    for names in (*single, ["vgg.conv1_1", "vgg.relu1_1", "vgg.drop7", "fuse_pool4"]):
        found = network.features(x, names)
        assert list(found) == names
        for name in names:
            close(found[name], values[name], 1e-11)


@pytest.mark.parametrize(
    ("nodes", "outputs", "named"),
    [
        ({"a": (Times(1), ["b"]), "b": (Times(1), ["image"])}, None, "graph: a: .*earlier nodes"),
        ({"a": (Times(1), [])}, None, "graph: a: "),
        ({"image": (Times(1), ["image"])}, None, "image"),
        ({"a": (Times(1), ["image"])}, ["b"], "outputs"),
        (dict.fromkeys(("a", "b"), (Times(1), ["image"])), None, "graph: b is the layer of a"),
        ({"a": (models.Sequential(b=Times(1)), ["image"]), "a.b": (Times(1), ["image"])}, None, "called a.b"),
    ],
    ids=["later input", "no input", "image", "output", "one layer twice", "name of a nested node"],
)
def test_a_table_that_cannot_be_computed_is_refused(nodes, outputs, named):
    with pytest.raises(InputError, match=named):
        models.Graph(nodes, outputs)


def test_a_graph_among_the_layers_is_its_nodes_under_dotted_names(rng):
    def block():
        chain = {"conv": layers.Conv2d(3, 3, 1, np.random.default_rng(0)), "relu": layers.ReLU()}
        return models.Sequential(**chain)

    nodes = {"first": (block(), ["image"]), "body": (models.Sequential(inner=block(), last=Times(2)), ["first"])}
    graph = models.Graph({**nodes, "sum": (layers.Add(), ["body", "first"])})
    assert list(graph.nodes) == ["first.conv", "first.relu", "body.inner.conv", "body.inner.relu", "body.last", "sum"]
    assert list(graph.parameters())[2] == "body.inner.conv.weight"
    assert graph["body.inner.conv"].name == "body.inner.conv"
    x, conv = picture(2, 3), block()
    close(graph.forward(x), conv.forward(x) + 2 * conv.forward(conv.forward(x)), 1e-6)
    assert check_layer(graph, x, rng).max_relative_error < 1e-6


@pytest.mark.parametrize("train", [False, True])
def test_a_value_is_let_go_after_its_last_reader(train):
    """b is read by c and e: it is there while they run, and gone when f does."""
    made, alive = {}, {}

    class Watched(Leaf):
        def run(self, *inputs, train):
            alive[self.name] = {name for name, value in made.items() if value() is not None}
            y = sum(inputs)
            made[self.name] = weakref.ref(y)
            return y, None

    inputs = {"a": ["image"], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["b"], "f": ["e"], "g": ["f", "d"]}
    models.Graph({name: (Watched(), before) for name, before in inputs.items()}).forward(picture(2, 2), train)
    found = {name: "".join(sorted(values)) for name, values in alive.items()}
    assert found == {"a": "", "b": "a", "c": "b", "d": "bc", "e": "bd", "f": "de", "g": "df"}


def note_calls(monkeypatch, name):
    """The options of every call of an operation from now on."""
    calls, function = [], getattr(ops, name)
    monkeypatch.setattr(ops, name, lambda *args, **options: calls.append(options) or function(*args, **options))
    return calls


@pytest.mark.parametrize(("frozen", "calls"), [(False, 12), (True, 3)])
def test_nothing_is_computed_that_nobody_asks_for(frozen, calls, monkeypatch):
    """Without the image's gradient: only the first convolution's input gradient goes; below a frozen backbone all goes."""
    network = without_chance(stirred(tiny("8s", "same")))
    learned = {name: p for name, p in network.parameters().items() if not p.frozen}
    for name in [name for name in learned if frozen and name.startswith("vgg.")]:
        learned.pop(name).frozen = True
    called, gradients = note_calls(monkeypatch, "conv2d_backward"), []
    for options in ({}, {"inputs": False}):
        called.clear()
        network.zero_grad()
        y = network.forward(picture(40, 33), train=True)
        dx = network.backward(np.ones_like(y), **options)
        assert (dx is None) == bool(options)
        assert len(called) == (calls if options else 12)
        assert sum(call["weights"] for call in called) == calls
        assert sum(not call["inputs"] for call in called) == (0 if not options else 3 if frozen else 1)
        gradients.append({name: p.grad.copy() for name, p in learned.items()})
        assert not any(p.grad.any() for p in network.parameters().values() if p.frozen)
        for name, node in network.nodes.items():  # every cache is gone, whether it was used or not
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                node.layer.backward(y)
    for name, gradient in gradients[0].items():
        assert gradient.any(), name
        np.testing.assert_array_equal(gradients[1][name], gradient, err_msg=name)


IN_PLACE = {
    "first and last": lambda rng: {"relu": layers.ReLU(), "relu6": layers.ReLU6()},
    "behind a view": lambda rng: {"drop": layers.Dropout(0.0, rng), "relu": layers.ReLU()},
    "behind a flattening": lambda rng: {"flat": layers.Flatten(), "relu": layers.ReLU()},
    "behind a normalisation": lambda rng: {"norm": layers.BatchNorm2d(3), "relu": layers.ReLU()},
    "around a pool": lambda rng: {"relu": layers.ReLU(), "pool": layers.MaxPool2d(2), "again": layers.ReLU6()},
    "padded": lambda rng: {"pad": layers.PadToMultiple(4), "relu": layers.ReLU()},
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("build", IN_PLACE.values(), ids=IN_PLACE)
def test_the_callers_arrays_are_not_written_to(build, train, rng):
    graph, x = models.Sequential(**build(rng)).astype(np.float64), picture(8, 8, np.float64)
    before = x.copy()
    y = graph.forward(x, train)
    np.testing.assert_array_equal(x, before)
    if train:
        first, given = y.copy(), rng.normal(size=y.shape)
        dy = given.copy()
        graph.backward(dy)
        for array, expected in ((dy, given), (y, first), (x, before)):
            np.testing.assert_array_equal(array, expected)


class Halved(Leaf):
    """x/2, written over x, and dx over dy, where the graph allows it."""

    owns_results = True

    def run(self, x, train, overwrite=False):
        return np.multiply(x, 0.5, out=x if overwrite else None), None

    def run_backward(self, dy, cache, overwrite=False):
        return np.multiply(dy, 0.5, out=dy if overwrite else None)


class HalvedElsewhere(Halved):
    def run(self, x, train):
        return super().run(x, train)

    def run_backward(self, dy, cache):
        return super().run_backward(dy, cache)


def test_values_that_others_need_are_not_overwritten(rng):
    """Outputs, forks, what a cache refers to, and a gradient that two branches are given: against a graph whose layers
    never write over anything."""
    x, results, written = image(rng), [], []
    for kind in (Halved, HalvedElsewhere):
        nodes = {
            "conv": (layers.Conv2d(CHANNELS, 2, 1, np.random.default_rng(0)), ["image"]),
            "of_output": (kind(), ["conv"]),
            "pool": (layers.MaxPool2d(2), ["of_output"]),
            "of_pool": (kind(), ["pool"]),
            "left": (kind(), ["of_pool"]),
            "right": (kind(), ["of_pool"]),
            "sum": (layers.Add(), ["left", "right"]),
            "scaled": (layers.Scale(3), ["sum"]),
            "again": (kind(), ["scaled"]),
            "first": (kind(), ["again"]),
            "join": (layers.Concat(), ["first", "again"]),
        }
        graph = models.Graph(nodes, outputs=["conv", "join"]).astype(np.float64)
        y = graph.forward(x, train=True)
        dx = graph.backward({name: np.cos(np.arange(value.size)).reshape(value.shape) for name, value in y.items()})
        results.append([*y.values(), dx, *(p.grad for p in graph.parameters().values()), *graph.forward(x).values()])
        written.append([step.name for step in graph.training if step.overwrite or step.overwrite_gradient])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert written == [["of_output", "again"], []]


def test_a_unet_is_a_table_too(rng):
    """One level down by unpadded convolutions, one up by a learned one, over what was cropped from the way down."""
    table = {
        "down": (layers.Conv2d(3, 2, 3, rng), ["image"]),
        "relu": (layers.ReLU(), ["down"]),
        "pool": (layers.MaxPool2d(2, ceil_mode=True), ["relu"]),
        "bottom": (layers.Conv2d(2, 4, 3, rng), ["pool"]),
        "up": (layers.ConvTranspose2d(4, 2, 2, rng, stride=2), ["bottom"]),
        "crop": (layers.CropLike(2), ["relu", "up"]),
        "join": (layers.Concat(), ["crop", "up"]),
        "score": (layers.Conv2d(4, 2, 3, rng, pad=1), ["join"]),
    }
    graph, x = stirred(models.Graph(table)), picture(20, 26)
    report = check_layer(graph, x, rng, directions=1, elements=2)
    assert report.max_relative_error < 1e-6
    assert report.checked == 3 * 1 + 3 * len(graph.parameters())
    assert graph.shapes(x.shape)["score"] == graph.forward(x).shape == (1, 2, 14, 20)


# --- Inference does at once what the layers do one by one ---------------------------------------------------------

KINDS = {  # output channels, kernel, settings
    "3x3": (5, 3, {"pad": 1}),
    "1x1": (5, 1, {}),
    "more kernels than pixels": (20, 3, {"stride": 3}),
    "padded as in TensorFlow": (5, (3, 2), {"stride": 2, "pad": "same"}),
    "depthwise": (CHANNELS, 3, {"groups": CHANNELS, "pad": 1}),
    "depthwise strided": (CHANNELS, (3, 5), {"groups": CHANNELS, "stride": (2, 3), "pad": 2}),
    "grouped": (4, 3, {"groups": 2, "pad": 1}),
}
ENDS = {  # what follows the convolution
    "nothing": {},
    "normalisation": {"norm": layers.BatchNorm2d},
    "ReLU": {"relu": layers.ReLU},
    "normalisation, ReLU6": {"norm": layers.BatchNorm2d, "relu": layers.ReLU6},
}
ALGORITHMS = [("auto", True), ("auto", False), ("naive", True), ("im2col", False), ("gemm", True)]  # with a bias?
ALGORITHMS += [("depthwise", False), ("winograd", True)]


def sequence(**chain):
    return stirred(models.Sequential(**chain).astype(np.float64), scale=0.5)


def convolution(rng, kind="3x3", ends="normalisation, ReLU6", bias=True):
    """A convolution and what follows."""
    outputs, kernel, settings = KINDS[kind]
    after = {name: make(outputs) if name == "norm" else make() for name, make in ENDS[ends].items()}
    return sequence(conv=layers.Conv2d(CHANNELS, outputs, kernel, rng, bias=bias, **settings), **after)


def mixed(rng):
    """A chain of everything: it begins with a normalisation and ends with a convolution."""
    return sequence(
        norm0=layers.BatchNorm2d(CHANNELS),
        relu0=layers.ReLU(),
        conv1=layers.Conv2d(CHANNELS, 8, 3, rng, pad=1, bias=False),
        norm1=layers.BatchNorm2d(8, eps=0.1),
        relu1=layers.ReLU6(),
        conv2=layers.Conv2d(8, 8, 1, rng),
        relu2=layers.ReLU(),
        norm2=layers.BatchNorm2d(8),
        pool=layers.MaxPool2d(2),
        conv3=layers.Conv2d(8, 8, 3, rng, groups=8, pad=1),
        conv4=layers.Conv2d(8, 4, 3, rng, pad=1),
        norm4=layers.BatchNorm2d(4),
        conv5=layers.Conv2d(4, 3, 1, rng),
    )


def one_by_one(graph, x, train=False):
    for node in graph.nodes.values():
        x = node.layer.forward(x, train=train)
    return x


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_convolution_and_what_follows_give_what_they_give_one_by_one(kind, ends, device, rng):
    x = image(rng)
    for algorithm, bias in ALGORITHMS:
        chain, given = convolution(rng, kind, ends, bias), device.put(x)
        with ops.conv_algorithm(algorithm):
            expected = device.get(one_by_one(chain, device.put(x)))
            found = device.get(chain.forward(given))
            np.testing.assert_array_equal(device.get(chain.prepare().forward(given)), found)
        close(found, expected)
        np.testing.assert_array_equal(device.get(given), x)
    if "ReLU" in ends:
        assert 0.05 < (found == 0).mean() < 0.95
        assert (found == 6).any() == ("ReLU6" in ends)


def test_a_chain_of_everything_gives_what_its_layers_give_one_by_one(device, rng):
    chain, x = mixed(rng), device.put(image(rng, (7, 9)))
    expected = device.get(one_by_one(chain, x))
    for network in (chain, chain.prepare()):
        close(device.get(network.forward(x)), expected)
    kinds = [type(step.layer).__name__ for step in chain.inference]  # as many as there are passes over memory
    assert (len(kinds), kinds.count("FusedConv2d")) == (9, 5)


class Leaky(layers.ReLU):
    def run(self, x, train):
        return np.where(x > 0, x, 0.1 * x), x


class Doubled(layers.Conv2d):
    def run(self, x, train):
        y, cache = super().run(x, train)
        return 2 * y, cache


class Shifted(layers.BatchNorm2d):
    def run(self, x, train):
        y, cache = super().run(x, train)
        return y + 7, cache


@pytest.mark.parametrize("place", ["conv", "norm", "relu"])
def test_a_subclass_computes_the_same_in_inference_as_in_training(place, rng):
    chain = {"conv": layers.Conv2d(CHANNELS, 4, 3, rng), "norm": layers.BatchNorm2d(4), "relu": layers.ReLU()}
    own = {"conv": Doubled(CHANNELS, 4, 3, rng), "norm": Shifted(4), "relu": Leaky()}
    x = image(rng)
    plain = sequence(**chain).forward(x)
    network = without_chance(sequence(**chain | {place: own[place]}))
    expected = network.forward(x, train=True)
    assert np.abs(expected - plain).max() > 0.1
    for inference in (network, network.prepare()):
        close(inference.forward(x), expected)


@pytest.mark.parametrize("kind", ["3x3", "depthwise"])
def test_inference_leaves_the_chain_as_it_was_and_follows_what_is_learned(kind, rng):
    """Nothing that was worked out from the weights and statistics outlives them."""
    chain, x = convolution(rng, kind), image(rng)
    chain.forward(x, train=True)  # its caches do not outlive an inference
    before = chain.state_dict()
    first = chain.forward(x)
    np.testing.assert_array_equal(chain.forward(x), first)
    for name, array in chain.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    for node in chain.nodes.values():
        with pytest.raises(InputError, match="backward needs a forward"):
            node.layer.backward(first)
    for name, parameter in [*chain.parameters().items(), *chain.buffers().items()]:
        if isinstance(parameter, tuple):
            setattr(*parameter, getattr(*parameter) * 1.5)
        else:
            parameter.value *= 1.5  # in place, as an optimiser does
        found, last = chain.forward(x), first
        assert np.abs(found - last).max() > 1e-3, name
        close(found, one_by_one(chain, x))
        first = found


@pytest.mark.parametrize("ends", ENDS)
def test_an_error_names_the_convolution(ends, rng):
    chain = convolution(rng, ends=ends)
    for wrong in (image(rng)[:, :4], image(rng)[0]):
        with pytest.raises(InputError, match=r"^conv \(Conv2d\): "):
            chain.forward(wrong)
    with pytest.raises(TypeError, match=r"^conv \(Conv2d\): "):
        chain.forward(image(rng).astype(np.float32))
    for outputs, width in ((4, 1), (1, 4), (4, 3)):
        chain = models.Sequential(conv=layers.Conv2d(3, outputs, 3, rng), norm=layers.BatchNorm2d(width))
        with pytest.raises(InputError, match=r"norm \(BatchNorm2d\): expected one value per channel"):
            chain.forward(picture(5, 5))


# --- Prepared -----------------------------------------------------------------------------------------------------

PREPARED = {f"{v}-mini-{a}": partial(tiny, v, a, width=3) for v in ("32s", "16s", "8s") for a in ("paper", "same")}
PREPARED |= {
    "8s-lite0-same": partial(models.fcn, "8s", "efficientnet_lite0", 3, "same"),
    "32s-lite0-paper": partial(models.fcn, "32s", "efficientnet_lite0", 3, "paper"),
    "lite0": partial(models.efficientnet_lite0, 5),
    "plain-8s-learned": partial(narrow_fcn, "8s", "same", upsampling="learned", at_once=True),
}


@pytest.mark.parametrize("name", PREPARED)
def test_a_prepared_network_gives_the_same_and_again(name, monkeypatch):
    """Bit by bit; and what a training forward with frozen statistics gives, but for rounding. One dict for each convolution
    is offered to whoever transforms its kernels."""
    network, x = without_chance(stirred(PREPARED[name](), scale=0.1)), picture(40, 33)
    expected, before = network.forward(x), network.state_dict()
    assert expected.std() > 0
    close(expected, network.forward(x, train=True), 2e-4)
    prepared, calls = network.prepare(), note_calls(monkeypatch, "conv2d_forward")
    assert prepared.prepare() is prepared
    for _ in range(2):
        np.testing.assert_array_equal(prepared.forward(x), expected)
    count = len(network.layers_of(layers.Conv2d))
    cached = [call["cached"] for call in calls]
    assert len(cached) == 2 * count
    assert all(isinstance(one, dict) and one is again for one, again in zip(cached, cached[count:], strict=False))
    assert len({id(one) for one in cached}) == count
    with pytest.raises(InputError, match="inference only"):
        prepared.forward(x, train=True)
    calls.clear()
    network.forward(x)
    assert all(call.get("cached") is None for call in calls)
    for kept in ("card", "outputs", "backbone_prefix"):
        assert getattr(prepared, kept) == getattr(network, kept)
    for parameter, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[parameter], err_msg=parameter)


def test_a_prepared_network_is_not_asked_for_its_weights():
    network = tiny()
    prepared = network.prepare()
    asked = (
        prepared.state_dict,
        lambda: prepared.astype(np.float64),
        lambda: prepared.load_state_dict(network.state_dict()),
    )
    for ask in (*asked, lambda: fingerprint(prepared)):
        with pytest.raises(InputError, match="prepared for inference.*ask the network that it was made of"):
            ask()


@pytest.mark.parametrize("other", ["prepare", "folded"])
def test_a_copy_has_not_run_and_leaves_training_alone(other):
    network, x = stirred(tiny()), picture(40, 33)
    y = network.forward(x, train=True)
    beside = getattr(network, other)()
    assert not [leaf for leaf in beside.layers_of(layers.Leaf) if leaf._cache is not None]
    beside.forward(x)
    network.backward(y)


def test_names_that_are_none_of_nodes_change_nothing(rng):
    network = models.Sequential(conv=layers.Conv2d(3, 4, 3, rng), relu=layers.ReLU())
    for ask in (network.freeze, lambda names: network.features(picture(5, 6), names)):
        with pytest.raises(InputError, match="graph: expected names of nodes, such as conv; got nope"):
            ask(["conv", "nope"])
    assert not network.frozen
    network.freeze("conv")
    assert network.frozen == {"conv"} and network["conv"].weight.frozen


def test_nodes_frozen_before_stay_frozen():
    network = models.unet(2, width=2, depth=1, padding="same", batch_norm=True)
    norms = [name for name, node in network.nodes.items() if isinstance(node.layer, layers.BatchNorm2d)]
    network.freeze(norms[:1])
    network.freeze(norms[1:2])
    before = network.state_dict()
    network.forward(picture(8, 8), train=True)
    moved = [name for name in norms if (network[name].running_mean != before[f"{name}.running_mean"]).any()]
    assert moved == norms[2:]
