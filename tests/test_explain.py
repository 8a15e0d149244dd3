"""The account of a network against the network itself: shapes, numbers, bytes, multiply-adds, receptive fields."""

import tracemalloc
from functools import partial
from math import inf

import numpy as np
import pytest
from networks import arrays_in, picture, tiny

from minifcn import backend, layers, models, weights
from minifcn.card import Card
from minifcn.errors import InputError
from minifcn.layers.graph import IMAGE
from minifcn.models import explain, surgery
from minifcn.models.fields import fields
from minifcn.ops.maps import CACHE_LINE

pytestmark = pytest.mark.usefixtures("blank")


def sizes(account):
    """Layer name, without the backbone's prefix -> the side of its square output."""
    found = {}
    for row in account.rows:
        assert row.shape[2] == row.shape[3]
        found[row.name.split(".")[-1]] = row.shape[2]
    return found


# --- What is published --------------------------------------------------------------------------------------------

LEARNED = {
    ("32s", "vgg16"): 134_346_581,
    ("16s", "vgg16"): 134_357_354,
    ("8s", "vgg16"): 134_362_751,
    ("32s", "alexnet"): 56_954_261,
}
VGG = {"conv1_1": 698, "pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc6": 16}
ALEXNET = {"conv1": 173, "pool1": 86, "pool2": 43, "pool5": 21, "fc6": 16}
AT_500 = {
    ("32s", "vgg16"): VGG | {"upscore": 544},
    ("16s", "vgg16"): VGG | {"upscore2": 34, "upscore16": 560},
    ("8s", "vgg16"): VGG | {"upscore2": 34, "upscore_pool4": 70, "upscore8": 568},
    ("32s", "alexnet"): ALEXNET | {"upscore": 543},
}


@pytest.mark.parametrize(("variant", "backbone"), LEARNED)
def test_published_networks_have_the_published_numbers(variant, backbone):
    account = explain(models.fcn(variant, backbone, 21), 500)
    assert account.learned == LEARNED[variant, backbone]
    assert sum(row.parameters for row in account.rows) == account.learned
    assert account.frozen < 200  # the bilinear kernels along one axis, not the kernels
    expected = AT_500[variant, backbone]
    found = sizes(account)
    assert {name: found[name] for name in expected} == expected
    assert account.output_shape == (1, 21, 500, 500)
    assert account.receptive_field == {"vgg16": 404, "alexnet": 355}[backbone]


def test_lite0s_receptive_field_by_hand():
    field, step = 1 + 2, 2  # the stem
    for repeats, kernel, stride in ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)):
        for i in range(repeats):
            field += (kernel - 1) * step
            step *= stride if i == 0 else 1
    assert explain(models.fcn("8s", "efficientnet_lite0", 2), 64).receptive_field == field


@pytest.mark.parametrize(
    ("name", "billions", "parameters"),
    [
        ("vgg16", 15.470, 138_357_544),
        ("alexnet", 0.724, 60_965_224),
        ("alexnet_torchvision", 0.714, 61_100_840),
        ("efficientnet_lite0", 0.385, 4_652_008),
    ],
)
def test_classifiers_cost_what_is_known_of_them(name, billions, parameters):
    network = models.CLASSIFIERS[name]()
    account, two = (explain(network, network.card.native, batch) for batch in (1, 2))
    assert (account.learned, two.learned) == (parameters, parameters)
    assert account.multiply_adds / 1e9 == pytest.approx(billions, abs=0.001)
    assert two.multiply_adds == 2 * account.multiply_adds
    assert two.training_bytes == pytest.approx(2 * account.training_bytes, rel=0.01)
    assert account.output_shape == (1, 1000)
    assert account.receptive_field == inf
    if name == "efficientnet_lite0":  # a heat map sees its window: of 7 of the last maps
        heat = explain(surgery.convolutionalize(network), (250, 300))
        assert (heat.output_shape, heat.receptive_field) == ((1, 1000, 2, 4), 851 + 6 * 32)


# --- Against a real forward ---------------------------------------------------------------------------------------

FULL = {
    "8s-mini-paper": partial(models.fcn, "8s", "mini", 21),
    "8s-mini-same": partial(models.fcn, "8s", "mini", 21, "same"),
    "16s-mini-same-learned": partial(models.fcn, "16s", "mini", 21, "same", upsampling="learned"),
    "8s-lite0-paper": partial(models.fcn, "8s", "efficientnet_lite0", 21),
    "8s-lite0-same": partial(models.fcn, "8s", "efficientnet_lite0", 21, "same"),
    "32s-alexnet-paper": partial(models.fcn, "32s", "alexnet", 21),
    "lite0": models.efficientnet_lite0,
}
SIZED = [(build, size) for name, build in FULL.items() for size in ((1, 1), (47, 31)) if name != "lite0"]
SIZED += [(models.alexnet, 227), (models.alexnet_torchvision, 260), (partial(models.efficientnet_lite0, 5), (33, 64))]
SIZED += [(lambda: surgery.convolutionalize(models.efficientnet_lite0(5)), (250, 300))]


@pytest.mark.parametrize(("build", "size"), SIZED)
def test_every_row_is_a_layer_that_runs_and_has_its_shape(build, size):
    network, both = build(), (size, size) if isinstance(size, int) else size
    account = explain(network, size, batch=2)
    values = {"image": picture(*both, batch=2)}
    for (name, (layer, inputs)), row in zip(network.nodes.items(), account.rows, strict=True):
        values[name] = layer.forward(*(values[i] for i in inputs))
        assert (row.name, row.kind, row.shape) == (layer.name, type(layer).__name__, values[name].shape)
        assert row.output == values[name].nbytes
    assert account.input_shape == (2, 3, *both)
    assert account.output_shape == account.rows[-1].shape == network.forward(values["image"]).shape


def owner(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def cached_bytes(network):
    """The bytes that the caches keep alive and that would not be there anyway, each array once."""
    leaves = [leaf for step in network.training for leaf in step.layer.layers_of(layers.Leaf)]
    found = {id(owner(a)): owner(a) for leaf in leaves for a in arrays_in(leaf._cache)}
    parameters = {id(owner(p.value)) for p in network.parameters().values()}
    spare = CACHE_LINE  # of a map, to begin where a line does
    sizes = [a.nbytes - spare * (a.dtype == np.uint8) for key, a in found.items() if key not in parameters]
    return sum(sizes)


@pytest.mark.parametrize("name", FULL)
def test_training_memory_is_what_the_caches_keep(name):
    network = FULL[name]()
    account = explain(network, (101, 133), batch=2)
    network.forward(picture(101, 133, batch=2), train=True)
    assert account.training_bytes == pytest.approx(cached_bytes(network), rel=0.02)
    assert sum(row.cached for row in account.rows) == account.training_bytes


@pytest.mark.parametrize("name", [name for name in FULL if "alexnet" not in name])
def test_inference_memory_is_what_python_holds_but_for_the_workspace(name):
    network, image = FULL[name](), picture(165, 203, batch=2)
    account = explain(network, (165, 203), batch=2)
    network.forward(image)  # what is made once is there already
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        network.forward(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    measured = peak - before + image.nbytes
    assert account.inference_bytes <= measured
    assert measured - account.inference_bytes < 8 * 2**20 * max(2, backend.threads())


def test_memory_is_counted_once_where_it_is_shared():
    rng = np.random.default_rng(0)
    chain = {"conv": layers.Conv2d(3, 6, 1, rng), "relu": layers.ReLU(), "pool": layers.MaxPool2d(2)}
    chain |= {"flatten": layers.Flatten(), "fc": layers.Linear(6 * 16, 5, rng)}
    network = models.Sequential(**chain)
    account = explain(network, 8)
    x, relu, pool = 3 * 64 * 4, 6 * 64 * 4, 6 * 16 * 4
    # The pool's input is ReLU's output, which is kept already. The pool writes channels last, so flattening copies.
    assert [row.cached for row in account.rows] == [x, relu, pool, 0, pool]
    assert account.training_bytes == x + relu + pool + pool
    assert account.inference_bytes == x + relu + pool  # ReLU is done over the convolution's memory
    network.forward(picture(8, 8), train=True)
    assert cached_bytes(network) == account.training_bytes


# --- By hand ------------------------------------------------------------------------------------------------------


def test_multiply_adds_by_hand():
    rng = np.random.default_rng(0)
    network = models.Sequential(
        conv=layers.Conv2d(3, 8, (3, 5), rng, stride=2, pad=(1, 2)),  # 8 × 10 × 8 → 8 maps of 5 × 4
        relu=layers.ReLU(),
        depthwise=layers.Conv2d(8, 8, 3, rng, groups=8, pad="same"),
        grouped=layers.Conv2d(8, 4, 1, rng, groups=2),
        larger=layers.ConvTranspose2d(4, 6, 4, rng, stride=2, pad=1, groups=2),
        frozen=layers.Upsample(2, kernel=3, pad=((0, 1), (0, 1))),
        average=layers.GlobalAvgPool(),
        fc=layers.Linear(6, 7, rng),
    )
    account = explain(network, (10, 8), batch=2)
    shapes = [(2, 8, 5, 4), (2, 8, 5, 4), (2, 8, 5, 4), (2, 4, 5, 4), (2, 6, 10, 8), (2, 6, 20, 16), (2, 6), (2, 7)]
    assert [row.shape for row in account.rows] == shapes
    expected = [
        2 * 8 * 20 * 3 * 15,
        0,
        2 * 8 * 20 * 9,
        2 * 4 * 20 * 4,
        2 * 4 * 20 * 3 * 16,
        2 * 6 * 80 * 9,
        0,
        2 * 6 * 7,
    ]
    assert [row.multiply_adds for row in account.rows] == expected
    assert account.multiply_adds == sum(expected)
    parameters = [8 * 3 * 15 + 8, 0, 8 * 9 + 8, 4 * 4 + 4, 4 * 3 * 16 + 6, 0, 0, 6 * 7 + 7]
    assert [row.parameters for row in account.rows] == parameters
    assert (account.learned, account.frozen) == (sum(parameters), 3)


def test_the_table_reads_as_the_account_says():
    account = explain(models.fcn("32s", "vgg16", 21), 500)
    lines = str(account).splitlines()
    assert len(lines) == len(account.rows) + 2 + 1 + 5
    fc6 = next(line for line in lines if line.startswith("vgg.fc6 "))
    assert fc6.split("  ")[-1].strip() == "404"
    assert "1 × 4096 × 16 × 16" in fc6 and "102,764,544" in fc6
    assert "parameters: 134,346,581 learned" in lines[-4]
    assert str(explain(models.efficientnet_lite0(5), 64)).endswith("receptive field: the whole image")


# --- What does not fit, and what is left behind -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "size", "named"),
    [
        (models.vgg16, 100, r"^fc6 \(Linear\): .*expected 25088 values"),
        (models.alexnet, 20, r"^pool\d \(MaxPool2d\): .*does not fit"),
        (models.alexnet, (10, 227), r"^conv1 \(Conv2d\): .*does not fit"),
        (models.alexnet, 300, r"^fc6 \(Linear\): "),
        (lambda: surgery.convolutionalize(models.vgg16()), (224, 100), r"^fc6 \(Conv2d\): .*does not fit"),
        (tiny, 0, "image size: expected .* at least 1; got 0"),
        (tiny, (224, 224, 3), "image size: "),
    ],
)
def test_a_size_that_does_not_fit_is_refused_in_one_line(build, size, named):
    with pytest.raises(ValueError, match=named) as caught:
        explain(build(), size)
    assert "\n" not in str(caught.value)


def test_explaining_leaves_a_network_as_it_was_even_where_it_fails():
    network = tiny()
    logits = network.forward(picture(40, 50), train=True)
    explain(network, 64)
    assert network.backward(logits).shape == (1, 3, 40, 50)
    weight = network["score_fr"].weight
    network["score_fr"].weight = layers.Parameter(np.zeros((2, 7, 1, 1), np.float32))
    with pytest.raises(InputError, match=r"^score_fr \(Conv2d\): "):
        explain(network, 64)
    network["score_fr"].weight = weight
    assert network.forward(picture(40, 50)).shape == logits.shape


# --- Tables of other kinds ----------------------------------------------------------------------------------------


def test_a_convolution_and_what_follows_need_the_memory_of_one_output_in_inference(rng):
    chain = {"conv": layers.Conv2d(3, 8, 3, rng, pad=1), "norm": layers.BatchNorm2d(8), "relu": layers.ReLU()}
    account = explain(models.Sequential(**chain), (6, 5), batch=2)
    x, y = 2 * 3 * 30 * 4, 2 * 8 * 30 * 4
    assert account.inference_bytes == x + y
    assert account.training_bytes == x + 2 * y
    assert [row.cached for row in account.rows] == [x, 0, y + y]  # the ReLU's row has what its normalisation keeps, too
    assert [row.field for row in account.rows] == [3, 3, 3]
    written_over = models.Sequential(scale=layers.Scale(2), relu=layers.ReLU())
    assert explain(written_over, (6, 5)).inference_bytes == 2 * (3 * 30 * 4)


def test_heads_joins_and_new_layers_are_described(rng):
    """A value is there until its last reader; a layer of one's own says what it does by the defaults of Leaf."""

    class Novel(layers.Leaf):
        def run(self, x, train):
            return x + 1, x

    nodes = {
        "conv": (layers.Conv2d(3, 2, 3, rng, stride=2, pad=1), ["image"]),
        "own": (Novel(), ["conv"]),
        "up": (layers.ResizeLike(), ["own", "image"]),
        "both": (layers.Concat(), ["up", "image"]),
        "score": (layers.Conv2d(5, 4, 1, rng), ["both"]),
    }
    network = models.Graph(nodes, outputs=["own", "score"], card=Card("own", {}))
    account = explain(network, (8, 6))
    assert [row.shape for row in account.rows] == [(1, 2, 4, 3)] * 2 + [(1, n, 8, 6) for n in (2, 5, 4)]
    assert (account.output_shape, account.receptive_field) == ((1, 2, 4, 3), 3)
    assert [row.field for row in account.rows][:2] == [3, 3]
    image, own, up, both, score = 3 * 48 * 4, 2 * 12 * 4, 2 * 48 * 4, 5 * 48 * 4, 4 * 48 * 4
    assert account.inference_bytes == image + own + both + max(up, score)  # the image is the caller's
    found = network.forward(picture(8, 6))
    assert [y.shape for y in found.values()] == [account.rows[1].shape, account.rows[4].shape]


def up_and_on():
    rng = np.random.default_rng(0)
    nodes = {"down": (layers.Conv2d(3, 2, 4, rng, stride=4), [IMAGE]), "up": (layers.Resize(scale=(4, 4)), ["down"])}
    return models.Graph({**nodes, "on": (layers.Conv2d(2, 2, 3, rng, pad=1), ["up"])}, ["on"])


@pytest.mark.parametrize(
    ("build", "cell"),
    [
        (up_and_on, 4),
        (lambda: models.panoptic("mini", num_classes=3, width=4), 32),
        (lambda: models.deeplab("v3plus", "efficientnet_lite0", 3, image_pooling=False), 32),
    ],
    ids=["in a row", "panoptic", "v3plus"],
)
def test_fields_behind_a_resize_are_those_that_cells_depend_on(build, cell):
    """Far from the borders, within a cell of the coarsest maps, in pixels."""
    network, height = build(), 2432
    found, account = fields(network, (1, 3, height, 32)), explain(network, (height, 32))
    for row in account.rows:
        if row.name in found:
            first, last = found[row.name].rows[len(found[row.name].rows) // 2]
            assert abs(row.field - (last - first + 1)) <= cell, row.name
    first = next(i for i, row in enumerate(account.rows) if row.kind in ("Upsample", "Resize", "ResizeLike"))
    assert account.receptive_field == max(row.field for row in account.rows[:first])


def test_a_prepared_network_is_neither_explained_nor_saved(tmp_path):
    network = models.fcn("32s", "mini", 2, width=2)
    network.image_shape = (None, 3, 32, 32)
    prepared = network.prepare()
    assert prepared.image_shape == network.image_shape
    for use in (
        lambda: explain(prepared, 32),
        lambda: weights.save(tmp_path / "a.npz", prepared),
        lambda: weights.save_safetensors(tmp_path / "a.safetensors", prepared),
    ):
        with pytest.raises(InputError, match="prepared for inference"):
            use()
    assert not list(tmp_path.iterdir())


def test_options_counted_by_numpy_are_stored(tmp_path):
    weights.save(tmp_path / "a.npz", models.fcn("32s", "mini", np.uint8(3), width=2))
    assert models.load(tmp_path / "a.npz").card.num_classes == 3
