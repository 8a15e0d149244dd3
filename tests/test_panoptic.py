"""Panoptic networks: their three outputs and the fork between them, where they start, what stays frozen, and that tools know them."""

import numpy as np
import pytest
from networks import close, picture, stirred, without_chance

from minifcn import inference, layers, models, weights
from minifcn.errors import InputError
from minifcn.gradcheck import check_layer
from minifcn.models.panoptic import instance_nodes
from minifcn.training import checkpoint

KINDS = [
    ("mini", "fcn"),
    ("mini", "unet"),
    ("mini", "v3plus"),
    ("efficientnet_lite0", "fcn"),
    ("efficientnet_lite0_head", "v3plus"),
    (None, "unet"),
]
SEMANTIC = {
    "fcn": lambda: models.fcn("8s", "mini", 3, "same", width=2),
    "unet": lambda: models.unet(3, width=2, padding="same", batch_norm=True),
    "v3plus": lambda: models.deeplab(num_classes=3),
}
OVER = {"fcn": "mini", "unet": None, "v3plus": "efficientnet_lite0"}  # the backbone of each


def small(backbone="mini", decoder="fcn", classes=3, **options):
    width = 2 if backbone in ("mini", None) or decoder == "unet" else None
    return models.panoptic(backbone, decoder, classes, **{"width": width, **options})


@pytest.mark.parametrize(("backbone", "decoder"), KINDS)
def test_three_outputs_of_the_images_size(backbone, decoder, quick):
    network = small(backbone, decoder, peak_window=3, things=[2])
    for size in ((1, 1), (37, 50)):
        found = network.forward(picture(*size))
        assert {name: maps.shape[1:] for name, maps in found.items()} == {
            "semantic": (3, *size),
            "centre": (1, *size),
            "offset": (2, *size),
        }
    assert network.card.title.startswith("panoptic ")
    again = models.build("panoptic", network.card.options)
    assert again.state_dict().keys() == network.state_dict().keys() and again.card == network.card


def narrow():
    """A trunk of two scales with both ways up, small enough to check every parameter."""
    rng = np.random.default_rng(0)
    table = {
        "pad_input": (layers.PadToMultiple(4), ["image"]),
        "half": (layers.Conv2d(3, 4, 3, rng, stride=2, pad=1), ["pad_input"]),
        "quarter": (layers.Conv2d(4, 5, 3, rng, stride=2, pad=1), ["half"]),
        "score": (layers.Conv2d(5, 3, 1, rng), ["quarter"]),
        "up": (layers.ResizeLike(), ["score", "pad_input"]),
        "semantic": (layers.CropLike(0), ["up", "image"]),
    }
    table |= instance_nodes({2: ("half", 4), 4: ("quarter", 5)}, 6, 2, rng)
    return models.Graph(table, models.HEADS)


@pytest.mark.parametrize(
    ("build", "size", "scale", "contrast"),
    [
        (narrow, (9, 7), 0.1, 1),
        (small, (33, 40), 0.1, 1),
        (lambda: small("mini", "unet"), (33, 40), 0.1, 1),
        (lambda: small("mini", "v3plus"), (17, 23), 1, 0.1),
        (lambda: small(None, "unet"), (17, 23), 0.1, 1),
        pytest.param(lambda: small("efficientnet_lite0", "fcn"), (9, 11), 0.1, 1, marks=pytest.mark.slow),
        pytest.param(lambda: small("efficientnet_lite0", "v3plus"), (5, 7), 1, 0.1, marks=pytest.mark.slow),
    ],
    ids=["narrow", "mini-fcn", "mini-unet", "mini-v3plus", "unet", "lite0-fcn", "lite0-v3plus"],
)
def test_gradients_of_the_whole_network(build, size, scale, contrast):
    """scale of what is stirred, contrast of the picture: such that no gradient is small beside the rounding of the outputs."""
    network = without_chance(stirred(build(), scale=scale))
    for name, p in network.parameters().items():
        if name.endswith("score.weight"):  # which begin near zero, so that nothing would flow back
            p.value = np.random.default_rng(5).standard_normal(p.value.shape)
    report = check_layer(network, contrast * picture(*size), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report
    learned = [p for p in network.parameters().values() if not p.frozen]
    assert report.checked >= 1 + len(learned)


def test_gradients_through_the_statistics_of_a_batch():
    network = stirred(narrow(), scale=0.1)
    for name, p in network.parameters().items():
        if name.endswith("score.weight"):
            p.value = np.random.default_rng(5).standard_normal(p.value.shape)
    report = check_layer(network, picture(17, 15, batch=4), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report


def test_the_trunk_gets_the_sum_of_what_comes_back_from_the_heads():
    network = without_chance(stirred(small())).astype(np.float64)
    image = picture(33, 40, np.float64)
    upstream = {
        name: picture(*maps.shape[2:], np.float64)[:, :1] + 0 * maps for name, maps in network.forward(image).items()
    }
    found = []
    for names in (["semantic"], ["centre"], ["offset"], list(upstream)):
        network.forward(image, train=True)
        network.zero_grad()
        network.backward({name: upstream[name] for name in names})
        found.append({name: p.grad.copy() for name, p in network.parameters().items() if name.startswith("vgg.")})
    for name, together in found[3].items():
        assert found[0][name].any() and found[1][name].any() and found[2][name].any()
        close(together, sum(part[name] for part in found[:3]), 1e-10)


@pytest.mark.parametrize("decoder", SEMANTIC)
def test_a_trained_network_keeps_its_predictions_bit_by_bit(decoder, tmp_path):
    trained = stirred(SEMANTIC[decoder]())
    weights.save(tmp_path / "trained.npz", trained)
    network = small(OVER[decoder], decoder)
    message = checkpoint.start_from(tmp_path / "trained.npz", network)
    assert "its objects afresh" in message
    image = picture(50, 70)
    np.testing.assert_array_equal(network.forward(image)["semantic"], trained.forward(image))
    photo = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    found = inference.panoptic(network, photo)
    np.testing.assert_array_equal(found.labels, inference.predict(trained, photo))
    assert not found.instances.any()  # there is no centre yet


@pytest.mark.parametrize(
    ("decoder", "build", "expected"),
    [
        ("fcn", lambda: models.fcn("8s", "mini", 3, "same", at_once=True, width=2), "at-once: expected False"),
        ("unet", lambda: models.unet(3, width=2, batch_norm=True), "padding: expected same, .* got valid"),
        ("v3plus", lambda: models.deeplab(num_classes=3, rates=[2, 4, 6]), r"rates: expected \[3, 6, 9\], .* got \[2"),
        (
            "v3plus",
            lambda: models.deeplab(num_classes=3, output_stride=8, rates=[3, 6, 9]),
            "output-stride: expected 16",
        ),
    ],
)
def test_a_start_that_computes_something_else_by_the_same_names_is_refused(decoder, build, expected, tmp_path):
    weights.save(tmp_path / "trained.npz", build())
    network = small(OVER[decoder], decoder)
    with pytest.raises(InputError, match=expected):
        checkpoint.start_from(tmp_path / "trained.npz", network)


def test_it_starts_from_another_panoptic_network_whole_and_from_another_trunk_in_part(tmp_path):
    first, again = stirred(small(seed=1)), small(seed=2)
    weights.save(tmp_path / "first.npz", first)
    checkpoint.start_from(tmp_path / "first.npz", again)
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)
    coarse = stirred(models.fcn("32s", "mini", 3, "same", width=2))
    weights.save(tmp_path / "coarse.npz", coarse)
    assert "gives its backbone" in checkpoint.start_from(tmp_path / "coarse.npz", again)
    own, given = again.state_dict(), coarse.state_dict()
    assert all(np.array_equal(own[name], given[name]) for name in own if name.startswith("vgg."))
    assert np.array_equal(own["instance.centre.score.weight"], first.state_dict()["instance.centre.score.weight"])


def test_frozen_nodes_learn_nothing_and_compute_what_inference_does():
    network = stirred(small())
    state, image = network.state_dict(), picture(40, 40, batch=2)
    expected = network.forward(image)["semantic"]
    network.freeze(name for name in network.nodes if not name.startswith(("centre", "offset", "instance")))
    found = network.forward(image, train=True)
    close(found["semantic"], expected, 1e-5)
    assert network.backward({name: found[name] for name in ("centre", "offset")}) is None
    for name, p in network.parameters().items():
        assert p.grad.any() == name.startswith("instance"), name
    after = network.state_dict()
    moved = {name for name in state if not np.array_equal(state[name], after[name])}
    assert moved and all(name.startswith("instance") for name in moved)  # statistics


def test_only_frozen_nodes_are_fused():
    rng = np.random.default_rng(0)
    table = {"conv": (layers.Conv2d(3, 2, 1, rng), ["image"]), "norm": (layers.BatchNorm2d(2), ["conv"])}
    network = models.Graph(table)
    network.freeze(["conv"])
    image = picture(4, 5)
    y = network.forward(image, train=True)
    close(y, network["norm"].forward(network["conv"].forward(image), train=True), 1e-6)
    network.forward(image, train=True)
    network.backward(y)
    assert network["norm"].gamma.grad.any() and not network["conv"].weight.grad.any()


def test_explain_and_preparation_know_all_outputs():
    network = stirred(small())
    explanation = models.explain(network, (40, 56))
    rows = {row.name: row.shape for row in explanation.rows}
    assert (rows["semantic"], rows["centre"], rows["offset"]) == ((1, 3, 40, 56), (1, 1, 40, 56), (1, 2, 40, 56))
    image = picture(40, 56)
    expected, found = network.forward(image), network.prepare().forward(image)
    for name, maps in expected.items():
        close(found[name], maps, 1e-5)


def test_tiles_and_the_whole_image_find_the_same_where_windows_see_all():
    network = stirred(small()).prepare()
    photo = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for one, other in zip(inference.panoptic(network, photo), inference.panoptic(network, photo, 128), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"decoder": "v3"}, "decoder: expected one of fcn, unet, v3plus; got 'v3'"),
        ({"backbone": "vgg16"}, "backbone: expected one of .*mini; got 'vgg16'"),
        ({"backbone": None}, "backbone: expected one of .*; got None"),
        ({"channels": 1}, "channels: expected one of 3; got 1"),
        ({"things": []}, "things: expected classes 0..2"),
        ({"things": [3]}, "things: expected a whole number from 0 to 2, got 3"),
        ({"things": ["x"]}, "things: expected a whole number from 0 to 2, got 'x'"),
        ({"peak_window": 7.5}, "peak_window: expected a whole number of at least 1, got 7.5"),
        ({"classes": 0}, "num_classes: expected a whole number of at least 1, got 0"),
        ({"least": 0}, "least: expected a whole number of at least 1, got 0"),
        ({"width": 0}, "width: expected a whole number of at least 1, got 0"),
        (
            {"backbone": "efficientnet_lite0", "width": 2},
            "width: only mini and a U-Net have one, not fcn over efficientnet_lite0",
        ),
        ({"peak_window": 8}, "peak_window: expected an odd number of pixels, got 8"),
    ],
)
def test_other_options_are_refused(options, expected):
    with pytest.raises(InputError, match=expected):
        small(**options)


def test_only_its_things_become_objects():
    network = stirred(small(things=[2]))
    assert inference.things_of(network) == [2] and list(inference.things_of(small())) == [1, 2]
    network.parameters()["instance.centre.score.bias"].value += 1
    found = inference.panoptic(network, np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    assert found.instances.any()
    np.testing.assert_array_equal(found.instances > 0, found.labels == 2)


@pytest.mark.onnx
@pytest.mark.parametrize("fold", [False, True])
def test_onnx_has_the_three_outputs(fold, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    network = stirred(small())
    weights.save_onnx(tmp_path / "network.onnx", network, fold=fold)
    session = runtime.InferenceSession(tmp_path / "network.onnx")
    assert [output.name for output in session.get_outputs()] == list(models.HEADS)
    for size in ((40, 56), (33, 47)):
        image = picture(*size)
        expected = network.forward(image)
        for name, found in zip(models.HEADS, session.run(None, {"image": image}), strict=True):
            close(found, expected[name], 1e-4)
    with pytest.raises(InputError, match="one output"):
        weights.save_onnx(tmp_path / "pixels.onnx", network, pixels=True)
