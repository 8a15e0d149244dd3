"""DeepLab: the published counts, maps that stay fine, decimated classifiers, files of others, and what it refuses."""

import logging
import sys

import numpy as np
import pytest
from networks import close, narrow_vgg, picture, stirred, tiny, without_chance, without_dropout
from test_foreign_weights import caffe_file
from weight_writers import layer as caffe_layer
from weight_writers import v1_layer

from minifcn import cli, data, layers, models, tasks, weights
from minifcn.card import Card
from minifcn.errors import InputError
from minifcn.gradcheck import check_layer
from minifcn.layers.graph import IMAGE, Graph, prefixed
from minifcn.models import surgery, vgg
from minifcn.models.deeplab import deeplab_nodes
from minifcn.models.efficientnet_lite0 import STAGES, efficientnet_lite0_backbone
from minifcn.preprocessing import CAFFE, TORCHVISION
from minifcn.training import checkpoint
from minifcn.weights import names
from minifcn.weights.safetensors import write_safetensors

WIDTHS, WIDTH = (2, 2, 3, 3, 3), 6
NARROW = [(repeats, kernel, stride, 3, min(2, e)) for repeats, kernel, stride, _, e in STAGES]


@pytest.fixture
def narrow(monkeypatch):
    """Builds a DeepLab of a few channels."""
    monkeypatch.setattr(sys.modules["minifcn.models.efficientnet_lite0"], "STAGES", NARROW)

    def lite0(output_stride, rng):
        body = efficientnet_lite0_backbone("same", rng, output_stride=output_stride)
        for feature, (node, _, stride) in body.features.items():
            body.features[feature] = (node, 3, stride)
        return body

    def build(variant, backbone, output_stride=8, rates=(1, 2), image_pooling=True):
        rng = np.random.default_rng(0)
        body = (
            vgg.atrous_vgg_backbone(output_stride, rng, WIDTHS, (1, 1, 1, 1, 2))
            if backbone == "vgg16"
            else lite0(output_stride, rng)
        )
        nodes = deeplab_nodes(body, variant, 2, rates, image_pooling, rng, WIDTH)
        options = {"variant": variant, "backbone": backbone, "num_classes": 2}
        return Graph(nodes, card=Card("deeplab", options), backbone_prefix=body.prefix)

    return build


@pytest.mark.parametrize(
    ("variant", "learned", "field", "billions"), [("largefov", 20_505_429, 419, 50.9), ("aspp", 37_877_652, 611, 80.1)]
)
def test_the_networks_over_vgg16_are_as_published(variant, learned, field, billions):
    network = models.deeplab(variant)
    found = models.explain(network, 321)
    assert (found.learned, found.receptive_field) == (learned, field)
    assert round(found.multiply_adds / 1e9, 1) == billions
    shapes = {row.name: row.shape[2:] for row in found.rows}
    assert [shapes[f"vgg.pool{i}"] for i in range(1, 6)] == [(161, 161), (81, 81), (41, 41), (41, 41), (41, 41)]
    parameters = network.parameters()
    scores = [name.removesuffix(".weight") for name in parameters if name.startswith("score") and "weight" in name]
    assert len(scores) == (1 if variant == "largefov" else 4)
    for score in scores:  # which learn ten times as fast and start near zero
        weight, bias = (parameters[f"{score}.{kind}"] for kind in ("weight", "bias"))
        assert (weight.lr_mult, bias.lr_mult, bias.decay_mult) == (10, 20, 0)
        assert abs(weight.value.std() - 0.01) < 0.001 and not bias.value.any()
    assert {p.lr_mult for name, p in parameters.items() if not name.startswith("score")} == {1, 2}


@pytest.mark.parametrize(
    ("variant", "backbone", "learned", "millions"),
    [
        ("v3", "efficientnet_lite0", 3_715_157, 1663),
        ("v3plus", "efficientnet_lite0", 3_866_949, 2657),
        ("v3", "efficientnet_lite0_head", 5_387_797, 2231),
        ("v3plus", "efficientnet_lite0_head", 5_539_589, 3225),
    ],
)
def test_what_the_networks_over_lite0_learn_and_compute(variant, backbone, learned, millions):
    found = models.explain(models.deeplab(variant, backbone), 320)
    assert (found.learned, round(found.multiply_adds / 1e6)) == (learned, millions)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 40), (33, 50), (65, 31)])
@pytest.mark.parametrize("backbone", ["vgg16", "efficientnet_lite0"])
@pytest.mark.parametrize("variant", ["largefov", "aspp", "v3", "v3plus"])
def test_logits_have_the_images_size_and_shapes_are_known_without_running(variant, backbone, height, width, narrow):
    network = narrow(variant, backbone, 16, (1,))
    x = picture(height, width, batch=2)
    assert network.forward(x).shape == network.output_shape(x.shape) == (2, 2, height, width)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_lite0_keeps_its_maps_at_the_common_positions(output_stride):
    """Those of the strided trunk are every second (fourth) of the dilated trunk's, where they begin: TensorFlow's padding puts
    the odd pixel to the bottom and right, so that a strided window begins one pixel further on."""
    strided, dilated = (
        efficientnet_lite0_backbone("same", np.random.default_rng(0), output_stride=stride)
        for stride in (32, output_stride)
    )
    coarse, fine = Graph(strided.nodes), Graph(dilated.nodes)
    state = stirred(coarse).state_dict()
    fine.load_state_dict(state)
    x = picture(64, 96)
    for feature in ("pool2", "pool3", "pool4", "fc7"):
        node, _, stride = strided.features[feature]
        step = stride // dilated.features[feature][2]
        (theirs,), (ours,) = (list(network.features(x, [node]).values()) for network in (coarse, fine))
        assert step == max(1, stride // output_stride)
        close(ours[:, :, step - 1 :: step, step - 1 :: step], theirs, 1e-5)


def test_vgg_keeps_its_maps_at_the_common_positions():
    """Up to conv5_3: pool5 is 3×3 without gaps, at whatever distance its values lie, as published."""
    coarse, fine = (
        Graph(vgg.atrous_vgg_backbone(stride, np.random.default_rng(0), WIDTHS).nodes) for stride in (16, 8)
    )
    fine.load_state_dict(stirred(coarse).state_dict())
    theirs, ours = (network.features(picture(65, 97), ["relu5_3"])["relu5_3"] for network in (coarse, fine))
    assert theirs.shape[2:] == (5, 7) and ours.shape[2:] == (9, 13)
    close(ours[:, :, ::2, ::2], theirs, 1e-5)


@pytest.mark.parametrize(("height", "width"), [(33, 41), (30, 44)])
def test_scores_over_vgg_are_interpolated_between_the_pixels_that_they_lie_on(height, width, narrow):
    network = narrow("largefov", "vgg16", 8, (2,))
    found = network.features(picture(height, width), ["score", "upscore.crop"])
    score, up = found["score"], found["upscore.crop"]
    close(up[:, :, ::8, ::8], score[:, :, : -(-height // 8), : -(-width // 8)], 1e-6)
    close(up[:, :, 4, ::8], (score[:, :, 0] + score[:, :, 1])[..., : -(-width // 8)] / 2, 1e-6)


@pytest.mark.parametrize(
    ("variant", "backbone", "options"),
    [
        ("largefov", "vgg16", {"rates": (2,)}),
        ("aspp", "vgg16", {"rates": (1, 2, 3)}),
        ("v3plus", "vgg16", {}),
        ("v3", "vgg16", {"output_stride": 16, "image_pooling": False}),
        pytest.param("v3", "efficientnet_lite0", {"output_stride": 16}, marks=pytest.mark.slow),
        pytest.param("v3plus", "efficientnet_lite0", {}, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_whole_networks_at_odd_sizes(variant, backbone, options, narrow):
    network = without_chance(stirred(narrow(variant, backbone, **options), scale=0.1))
    report = check_layer(network, picture(17, 23), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report
    assert report.checked >= sum(not parameter.frozen for parameter in network.parameters().values())


@pytest.mark.parametrize("variant", ["v3", "v3plus"])
def test_gradients_through_the_statistics_of_a_batch(variant, narrow):
    """Without image pooling, whose four values a channel its normalisation would put near ±1."""
    network = without_dropout(stirred(narrow(variant, "vgg16", image_pooling=False), scale=0.1))
    report = check_layer(network, picture(17, 23, batch=4), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report


def vgg_classifier():
    return stirred(narrow_vgg())


def over(classifier, variant, rates, width):
    """A narrow DeepLab whose trunk has that classifier's widths."""
    rng = np.random.default_rng(3)
    body = vgg.atrous_vgg_backbone(8, rng, (3, 4, 5, 6, 6))
    nodes = deeplab_nodes(body, variant, 3, rates, True, rng, width)
    return Graph(nodes, card=Card("deeplab", {"variant": variant, "num_classes": 3}), backbone_prefix="vgg")


@pytest.mark.parametrize(("variant", "score"), [("largefov", "score"), ("aspp", "sum_2"), ("v3plus", "score")])
def test_a_loss_on_shrunk_labels_is_that_of_the_scores_before_they_are_enlarged(variant, score, narrow, rng):
    """Over VGG16, as Chen et al. trained: every parameter's gradient is that of the network cut off there."""
    rates = (2,) if variant == "largefov" else (1, 2)
    network = without_chance(stirred(narrow(variant, "vgg16", rates=rates)).astype(np.float64))
    image, labels = picture(41, 57, np.float64), rng.integers(0, 2, (1, 41, 57)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = 255
    nodes = {name: network.nodes[name] for name in network.nodes if not name.startswith("upscore")}
    small = Graph(nodes, [score])
    grid = tasks.grid_of(network)
    assert grid == ((4, 0) if variant == "v3plus" else (8, 0))
    found = []
    for one, task, given in (
        (network, tasks.SemanticSegmentation(grid=grid), labels),
        (small, tasks.SEGMENTATION, labels[:, :: grid[0], :: grid[0]]),
    ):
        network.zero_grad()
        logits = one.forward(image, train=True)
        total, weight, cache = task.loss(logits, np.ascontiguousarray(given))
        one.backward(task.loss_backward(1 / weight, cache))
        found.append([float(total), weight, *(p.grad.copy() for p in network.parameters().values() if not p.frozen)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "grid"),
    [
        (lambda narrow: narrow("v3", "efficientnet_lite0"), (8, 4)),
        (lambda narrow: narrow("v3", "efficientnet_lite0", 16), (16, 8)),
        (lambda narrow: narrow("v3plus", "efficientnet_lite0", 16), (4, 2)),
        (lambda narrow: narrow("v3", "vgg16", 16), (16, 0)),
        *((lambda narrow, v=v: tiny(v, "same"), (s, s // 2)) for v, s in (("32s", 32), ("16s", 16), ("8s", 8))),
        # The published crops, 19, 27 and 31, move cells by 31.5 − 19, 15.5 − 27 and 7.5 − 31 pixels.
        *((lambda narrow, v=v: tiny(v, "paper"), g) for v, g in (("32s", (32, 13)), ("16s", (16, 5)), ("8s", (8, 1)))),
    ],
)
def test_scores_lie_on_a_grid_of_pixels(build, grid, narrow):
    assert tasks.grid_of(build(narrow)) == grid


def test_a_network_that_enlarges_no_scores_has_no_grid():
    with pytest.raises(InputError, match="^shrink-labels: a network that scores every pixel itself"):
        tasks.grid_of(models.unet(width=2))


def test_decimation_keeps_every_third_tap_and_what_leads_from_kept_kernels_to_kept_kernels():
    classifier = vgg_classifier()
    network = over(classifier, "aspp", (1, 2), 5)
    unused = models.surgery.decimate(classifier, network, seed=4)
    assert unused == ["fc8.weight", "fc8.bias"]
    given, own = classifier.state_dict(), network.state_dict()
    np.testing.assert_array_equal(own["vgg.conv5_3.weight"], given["conv5_3.weight"])
    fc6 = given["fc6.weight"].reshape(7, 6, 7, 7)[:, :, ::3, ::3]
    drawn = []
    for branch in ("_1", "_2"):
        kept = [int(np.flatnonzero((fc6 == w).all(axis=(1, 2, 3)))[0]) for w in own[f"fc6{branch}.weight"]]
        np.testing.assert_array_equal(own[f"fc6{branch}.bias"], given["fc6.bias"][kept])
        parts = given["fc7.weight"][:, kept]
        rows = [int(np.flatnonzero((parts == w[:, 0, 0]).all(axis=1))[0]) for w in own[f"fc7{branch}.weight"]]
        np.testing.assert_array_equal(own[f"fc7{branch}.bias"], given["fc7.bias"][rows])
        assert len(set(kept)) == len(set(rows)) == 5
        drawn.append((kept, rows))
    assert drawn[0] != drawn[1]
    again = over(classifier, "aspp", (1, 2), 5)
    models.surgery.decimate(classifier, again, seed=4)
    np.testing.assert_array_equal(again.state_dict()["fc6_2.weight"], own["fc6_2.weight"])


def test_decimation_refuses_networks_without_fc6_and_too_few_kernels_and_changes_nothing():
    classifier = vgg_classifier()
    network = over(classifier, "largefov", (2,), 8)
    before = network.state_dict()
    with pytest.raises(InputError, match="fc6: expected 8 or more kernels of 6 channels, got"):
        models.surgery.decimate(classifier, network)
    with pytest.raises(InputError, match="decimate: expected VGG16's classifier"):
        models.surgery.decimate(classifier, over(classifier, "v3", (2,), 4))
    assert all((before[name] == value).all() for name, value in network.state_dict().items())


@pytest.mark.parametrize("variant", ["largefov", "aspp"])
def test_released_caffemodels_are_read_by_their_names(variant, tmp_path):
    rates = (2,) if variant == "largefov" else (1, 2)
    theirs, ours = (over(None, variant, rates, 5) for _ in range(2))
    stirred(theirs)

    def row(name, *blobs):
        return caffe_layer(name.replace("score", "fc8_voc12"), *blobs)

    path = caffe_file(tmp_path / "train_iter_20000.caffemodel", theirs, form=row, leave_out=("upscore",))
    ours.card.options["backbone"] = "vgg16"
    loaded = weights.load_caffemodel(path, ours)
    assert not loaded.missing_keys and not loaded.unexpected_keys
    x = picture(33, 40)
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(x))


def test_an_average_that_only_the_released_network_has_is_named(tmp_path):
    theirs, ours = (over(None, "largefov", (2,), 5) for _ in range(2))
    ours.card.options["backbone"] = "vgg16"
    path = caffe_file(tmp_path / "train_iter_6000.caffemodel", stirred(theirs), leave_out=("upscore",))
    assert "pool5a" not in str(weights.load_any(path, ours))
    for form in (caffe_layer, v1_layer):
        caffe_file(path, theirs, form=form, leave_out=("upscore",))
        path.write_bytes(path.read_bytes() + form("pool5a"))
        assert str(weights.load_any(path, ours)).endswith(
            "32 arrays loaded; its pool5a, an average of 3x3 behind pool5, is not in this network: scores are not the published ones"
        )


@pytest.mark.torch
@pytest.mark.parametrize("trunk", ["Caffe", "torchvision"])
@pytest.mark.parametrize("variant", ["largefov", "aspp"])
def test_ports_to_pytorch_are_read_by_their_names_and_say_how_they_see_pixels(variant, trunk, tmp_path):
    """Trunks under torchvision's numbers, or all under Caffe's names; behind them Caffe's, or the numbers of a classifier."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rates = (2,) if variant == "largefov" else (1, 2)
    theirs, ours = (over(None, variant, rates, 5) for _ in range(2))
    numbered = {ours: theirs for theirs, ours in names._VGG16.items()} if trunk == "torchvision" else {}
    state = {}
    for name, array in stirred(theirs).state_dict().items():
        layer, _, kind = name.removeprefix("vgg.").replace("score", "fc8" if numbered else "fc8_voc12").rpartition(".")
        if kind != "kernel_1d":
            state[f"module.{numbered.get(layer, layer)}.{kind}"] = torch.tensor(array)
    assert ("module.features.28.weight" in state) == (trunk == "torchvision")
    assert f"module.{ {'aspp': 'fc6_1', 'largefov': 'classifier.0' if numbered else 'fc6'}[variant] }.weight" in state
    torch.save({"state_dict": state, "iteration": 20000}, tmp_path / "deeplab.pth")
    ours.card.options["backbone"] = "vgg16"
    loaded = weights.load_any(tmp_path / "deeplab.pth", ours)
    assert not loaded.missing_keys and not loaded.unexpected_keys
    x = picture(33, 40)
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(x))
    taken, other = (TORCHVISION, "CAFFE") if numbered else (CAFFE, "TORCHVISION")
    assert ours.card.preprocessing == taken
    assert f"arrays loaded; taken to see pixels as {trunk}'s" in str(loaded)
    assert str(loaded).endswith(f": network.card.preprocessing = minifcn.preprocessing.{other}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "v4"}, "variant: expected one of largefov, aspp, v3, v3plus; got 'v4'"),
        (
            {"backbone": "alexnet"},
            "backbone: expected one of vgg16, efficientnet_lite0, efficientnet_lite0_head; got 'alexnet'",
        ),
        ({"output_stride": 4}, "output_stride: expected one of 8, 16; got 4"),
        ({"output_stride": 0}, "output_stride: expected one of 8, 16; got 0"),
        ({"rates": 3}, "rates: expected 0 or more of at least 1 for v3plus, got 3"),
        ({"rates": [float("nan")]}, "rates: expected a whole number of at least 1, got nan"),
        ({"num_classes": 2.5}, "num_classes: expected a whole number of at least 1, got 2.5"),
        ({"output_stride": 32}, "output_stride: expected one of 8, 16; got 32"),
        ({"rates": (3, 0)}, "rates: expected a whole number of at least 1, got 0"),
        ({"variant": "aspp", "rates": ()}, "rates: expected 1 or more of at least 1 for aspp, got"),
        ({"variant": "largefov", "rates": (6, 12)}, "rates: expected one of at least 1 for largefov, got"),
        ({"num_classes": 0}, "num_classes: expected a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=f"deeplab: {message}") as error:
        models.deeplab(**arguments)
    assert "\n" not in str(error.value)


def test_rates_at_the_other_output_stride_reach_equally_far():
    assert models.deeplab("v3", num_classes=2).card.options["rates"] == [3, 6, 9]
    assert models.deeplab("v3", num_classes=2, output_stride=8).card.options["rates"] == [6, 12, 18]
    network = models.deeplab("v3plus", num_classes=2, rates=(), image_pooling=False)
    assert not [name for name in network.nodes if name.startswith(("aspp2", "image"))]


def test_a_rate_larger_than_the_map_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(layers.Conv2d, "warned_sizes", set())
    rng = np.random.default_rng(0)
    network = Graph({"far": (layers.Conv2d(3, 2, 3, rng, pad=6, dilation=6), [IMAGE])})
    with caplog.at_level(logging.WARNING):
        network.forward(picture(7, 6)), network.forward(picture(6, 7))
        assert not caplog.records
        network.forward(picture(6, 5)), network.forward(picture(5, 5))
    (record,) = caplog.records
    assert record.getMessage().startswith("far (Conv2d): rate (6, 6) on a map of 6x5: only the centre tap sees pixels")
    with caplog.at_level(logging.WARNING):
        models.deeplab("aspp", "efficientnet_lite0", 2, output_stride=16).forward(picture(32, 32))
    assert len(caplog.records) == 2


def test_saved_and_loaded_again(tmp_path):
    network = stirred(models.deeplab("v3", num_classes=3, rates=(2,)))
    weights.save(tmp_path / "network.npz", network)
    again = models.load_segmenter(tmp_path / "network.npz")
    assert again.card.options == network.card.options and again.card.title == "DeepLabv3"
    x = picture(40, 33)
    np.testing.assert_array_equal(again.forward(x), network.forward(x))


def test_prepared_for_inference_it_computes_the_same(narrow):
    network = stirred(narrow("v3plus", "efficientnet_lite0"))
    x = picture(50, 39)
    close(network.prepare().forward(x), network.forward(x), 1e-5)


def test_prefixes_stay_those_of_the_trunk():
    """So that a classifier's weights, and the learning rate of the backbone, reach the trunk and nothing else."""
    network = models.deeplab("v3plus", num_classes=2)
    trunk = efficientnet_lite0_backbone("same", np.random.default_rng(0), output_stride=16)
    names = [name for name in network.nodes if name.startswith(f"{network.backbone_prefix}.")]
    assert names == list(prefixed(trunk.nodes, "lite0"))


def test_trained_and_used_from_the_command_line(tmp_path, capsys):
    root, out = str(tmp_path / "toy"), tmp_path / "run"
    data.write_toyvoc(root, train=2, val=1, size=40, seed=1)
    command = ["train", "--network", "deeplab", "--rates", "1", "2", "--data", root, "--out", str(out)]
    assert cli.main([*command, *["--iterations", "1", "--eval-every", "1", "--crop", "33", "--batch-size", "2"]]) == 0
    assert "DeepLabv3+" in capsys.readouterr().out
    network = models.load_segmenter(out / "best.npz")
    assert network.card.options["rates"] == [1, 2] and network.card.options["output_stride"] == 16
    again = models.deeplab(num_classes=network.card.num_classes, rates=[1, 2])
    assert "starts where that DeepLabv3+ ended" in checkpoint.start_from(str(out / "best.npz"), again)
    np.testing.assert_array_equal(again.state_dict()["score.weight"], network.state_dict()["score.weight"])
    refused = [*command[:-1], str(tmp_path / "other"), "--variant"]
    for variant, more in (("8s", ()), ("v3", ("--backbone", "mini"))):
        assert cli.main([*refused, variant, *more]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("minifcn: deeplab: ")


def test_a_classifier_of_vgg16_starts_a_largefov_with_parts_of_fc6_and_fc7(tmp_path, monkeypatch):
    classifier = vgg_classifier()
    network = over(classifier, "largefov", (2,), 5)
    monkeypatch.setattr(models, "load", lambda path: classifier)
    weights.save(tmp_path / "vgg16.npz", classifier)
    message = checkpoint.start_from(str(tmp_path / "vgg16.npz"), network)
    assert "gives its backbone and parts of fc6 and fc7; 2 unexpected keys: fc8.weight, fc8.bias" in message
    theirs = {ours: name for name, ours in names._VGG16.items()}
    of = {
        f"{theirs[layer]}.{kind}": array
        for name, array in classifier.state_dict().items()
        for layer, kind in [name.split(".")]
    }
    write_safetensors(tmp_path / "torchvision.safetensors", of, {})
    foreign = over(classifier, "largefov", (2,), 5)
    foreign.card.options["backbone"] = "vgg16"
    monkeypatch.setattr(surgery, "vgg16", narrow_vgg)
    message = checkpoint.start_from(str(tmp_path / "torchvision.safetensors"), foreign)
    assert message.endswith("32 arrays loaded, of which fc6 and fc7 gave parts")
    assert foreign.card.preprocessing == TORCHVISION
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(foreign.state_dict()[name], array, err_msg=name)
