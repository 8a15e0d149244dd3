"""U-Net: its published numbers, its sizes, its gradients, and what it starts from."""

import numpy as np
import pytest
from networks import close, picture, stirred, without_chance, without_dropout

from minifcn import inference, layers, models, weights
from minifcn.errors import InputError
from minifcn.gradcheck import check_layer
from minifcn.models.unet import sizes
from minifcn.preprocessing import Preprocessing
from minifcn.training import checkpoint


def tiny(padding="same", classes=2, depth=2, width=2, **options):
    return models.unet(classes, width=width, depth=depth, padding=padding, **options)


def test_the_published_network():
    network = models.unet(2, channels=1)
    found = models.explain(network, 572)
    assert (found.learned, found.output_shape) == (31_030_658, (1, 2, 388, 388))
    assert round(found.multiply_adds / 1e9, 1) == 150.4
    shapes = network.shapes((1, 1, 572, 572))
    assert [shapes[f"down{i}.relu2"][1:] for i in range(5)] == [
        *((64, 568, 568), (128, 280, 280), (256, 136, 136), (512, 64, 64), (1024, 28, 28)),
    ]
    assert [shapes[f"up{i}.relu2"][1:] for i in (3, 2, 1, 0)] == [
        *((512, 52, 52), (256, 100, 100), (128, 196, 196), (64, 388, 388)),
    ]
    assert [network[f"up{i}.crop"].offset for i in (3, 2, 1, 0)] == [4, 16, 40, 88]
    assert len(network.layers_of(layers.Conv2d)) + len(network.layers_of(layers.ConvTranspose2d)) == 23


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        ({"num_classes": 21}, 31_033_045),
        ({"num_classes": 11}, 31_032_395),
        # With convolutions without a bias where they are normalised.
        ({"num_classes": 2, "channels": 1, "batch_norm": True}, 31_030_658 + 11_776 - 5_888),
        # The network of the much used PyTorch implementation, with bilinear enlargement.
        ({"num_classes": 1, "padding": "same", "batch_norm": True, "upsampling": "bilinear"}, 17_262_977),
    ],
)
def test_numbers_learned(options, learned):
    assert sum(p.value.size for p in models.unet(**options).parameters().values() if not p.frozen) == learned


def test_initial_weights_have_the_papers_spread():
    network = models.unet(2)
    for name, layer in network.nodes.items():
        if isinstance(layer.layer, layers.Conv2d | layers.ConvTranspose2d):
            weight = layer.layer.weight.value
            inputs = weight.shape[1] if isinstance(layer.layer, layers.Conv2d) else weight.shape[0] / 4
            expected = np.sqrt(2 / (inputs * weight.shape[2] * weight.shape[3]))
            assert weight.std() == pytest.approx(expected, rel=0.12 if weight.size < 2000 else 0.02), name


def test_features_of_a_backbone_count_the_same_however_large_they_are():
    """As loud as those of ImageNet's weights are, they would drown what comes up from the coarser scales."""
    network = models.unet(3, width=2, batch_norm=True, backbone="efficientnet_lite0").astype(np.float64)
    x = picture(64, 64, np.float64, batch=2)
    logits = network.forward(x, train=True)
    for name, parameter in network.parameters().items():
        if name.endswith(
            "bn_project.gamma"
        ):  # what the blocks give, and so all features; the blocks normalise what they take
            parameter.value *= 8
    np.testing.assert_allclose(network.forward(x, train=True), logits, atol=0.1 * logits.std())


def test_dropout_ends_the_contracting_path_of_the_paper():
    paper, normalised = models.unet(2, width=1), models.unet(2, width=1, batch_norm=True)
    assert [layer.name for layer in paper.layers_of(layers.Dropout)] == ["down3.drop", "down4.drop"]
    assert not normalised.layers_of(layers.Dropout)


@pytest.mark.parametrize(("depth", "found"), [(1, (18, 2, 8)), (2, (44, 4, 20)), (3, (92, 8, 44)), (4, (188, 16, 92))])
def test_sides_of_an_unpadded_network(depth, found):
    """Worked out by hand: 188 + 16k gives 4 + 16k in the published depth."""
    least, step, context = found
    assert sizes(depth)[1:] == (step, context)
    assert sizes(depth)[0] == least
    network = tiny("valid", depth=depth)
    for side in (least, least + step, least + 3 * step):
        assert network.output_shape((1, 3, side, side))[2:] == (side - 2 * context,) * 2


def test_other_sides_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="570x572, nearest to 570: 556 or 572"):
        models.unet(2).forward(np.zeros((1, 3, 570, 572), np.float32))
    with pytest.raises(InputError, match=r"ExactSize.*: expected \(N, C, H, W\), got shape \(3, 44, 44\)"):
        tiny("valid").forward(np.zeros((3, 44, 44), np.float32))
    with pytest.raises(InputError, match="nearest to 20: 44"):
        tiny("valid").forward(np.zeros((1, 3, 20, 44), np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (33, 47), (64, 64)])
@pytest.mark.parametrize("upsampling", models.UNET_UPSAMPLING)
def test_padded_networks_give_logits_of_the_images_size(size, upsampling):
    network = tiny(depth=4, upsampling=upsampling, batch_norm=True)
    assert network.forward(picture(*size)).shape == (1, 2, *size)


def test_an_unpadded_networks_value_hangs_on_its_own_surroundings_only():
    """The middle of a larger image: the same pixels seen, the same logits."""
    network = tiny("valid", depth=3)
    image = picture(92 + 4 * 8, 92 + 2 * 8)
    whole = network.forward(image)
    part = network.forward(np.ascontiguousarray(image[:, :, 16 : 16 + 100, 8:108]))
    close(part, whole[:, :, 16 : 16 + 12, 8:20], 1e-5)


@pytest.mark.parametrize(
    ("padding", "size", "options"),
    [
        ("valid", (44, 48), {}),
        ("same", (7, 10), {}),
        ("same", (9, 13), {"upsampling": "bilinear"}),
        ("same", (9, 16), {"batch_norm": True}),
        ("same", (1, 5), {"channels": 1}),
        pytest.param(
            "valid", (188, 188), {"depth": 4, "width": 1}, marks=pytest.mark.slow
        ),  # as published but for the width
        pytest.param("same", (33, 47), {"depth": 4, "batch_norm": True}, marks=pytest.mark.slow),
    ],
)
def test_gradients(padding, size, options):
    # Large biases and a faint picture: few of so many ReLUs are near their kink.
    network = without_chance(stirred(tiny(padding, **options), scale=1))
    channels = options.get("channels", 3)
    report = check_layer(
        network, 0.1 * picture(*size)[:, :channels], np.random.default_rng(2), directions=1, elements=1
    )
    learned = [p for p in network.parameters().values() if not p.frozen]
    assert report.max_relative_error <= 1e-6, report
    assert report.checked >= 2 * (1 + len(learned))


def test_gradients_through_the_statistics_of_a_batch():
    network = without_dropout(stirred(tiny(batch_norm=True), scale=1))
    report = check_layer(network, picture(9, 16, batch=4), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report


@pytest.mark.slow
def test_gradients_over_lite0():
    network = models.unet(2, width=1, padding="same", batch_norm=True, backbone="efficientnet_lite0")
    network = without_chance(stirred(network, scale=1))
    report = check_layer(network, 0.1 * picture(17, 23), np.random.default_rng(2), directions=1, elements=0)
    assert report.max_relative_error <= 1e-6, report
    assert report.checked >= 1 + sum(not parameter.frozen for parameter in network.parameters().values())


def test_gradients_reach_both_ends_of_a_skip():
    """What the contracting path learns comes through the pool and through the crop: without one of them it differs."""
    network, image = without_chance(tiny("valid")), picture(44, 44)
    dy = np.ones((1, 2, 4, 4), np.float32)
    network.forward(image, train=True)
    network.backward(dy)
    both = network["down0.conv1"].weight.grad
    for name, channels in (("up0.concat", slice(0, 2)), ("up0.concat", slice(2, 4))):
        cut = without_chance(tiny("valid"))
        cut[name].run_backward = _without(cut[name].run_backward, channels)
        cut.forward(image, train=True)
        cut.backward(dy)
        assert np.abs(cut["down0.conv1"].weight.grad - both).max() > 0.01 * np.abs(both).max()


def _without(backward, channels):
    def cut(dy, cache, **options):
        dy = dy.copy()
        dy[:, channels] = 0
        return backward(dy, cache, **options)

    return cut


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "full"}, "padding: expected one of valid, same; got 'full'"),
        ({"padding": "valid", "upsampling": "bilinear"}, "upsampling: expected one of learned; got 'bilinear'"),
        ({"width": 0}, "width: expected a whole number of at least 1, got 0"),
        ({"depth": 6}, "depth: expected a whole number from 1 to 5, got 6"),
        ({"num_classes": 0}, "num_classes: expected a whole number of at least 1, got 0"),
        ({"backbone": "vgg16", "padding": "same"}, "backbone: expected one of None, efficientnet_lite0"),
        ({"backbone": "efficientnet_lite0", "padding": "valid"}, "padding: expected one of same; got 'valid'"),
        ({"backbone": "efficientnet_lite0", "padding": "same", "channels": 1}, "channels: expected one of 3; got 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        models.unet(**options)


def test_grey_images_are_seen_in_one_channel():
    grey = Preprocessing("grey", (127.5,), (1 / 64,))
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(
        grey.apply(image[:, :, None].repeat(3, axis=2))[0], (image - np.float32(127.5)) / np.float32(64)
    )
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(grey.apply(red), (0.299 * 200 - 127.5) / 64, rtol=1e-6)
    assert Preprocessing.from_dict(grey.as_dict(), "test") == grey
    assert grey.fill().tolist() == [128, 128, 128]
    assert models.unet(channels=1).card.preprocessing == grey


@pytest.mark.parametrize("tile", [100, 117, 132, 4000])
def test_tiles_of_an_unpadded_network_join_without_a_seam(tile):
    network = tiny("valid", classes=3, depth=3, seed=1)
    image = np.random.default_rng(0).integers(0, 256, (95, 61, 3), dtype=np.uint8)
    whole = inference.probabilities(network, image)
    close(inference.probabilities(network, image, tile), whole, 1e-5)
    np.testing.assert_array_equal(inference.predict(network, image, tile), whole.argmax(axis=0))


def test_the_image_goes_on_mirrored_beyond_its_border():
    network = tiny("valid", seed=1)
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    around = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    logits = network.forward(network.card.preprocessing.apply(around)[None])
    np.testing.assert_array_equal(inference.predict(network, image), logits[0].argmax(axis=0))
    assert inference.predict(network, image[:1, :3]).shape == (1, 3)


def test_a_tile_too_small_for_the_context_is_refused():
    with pytest.raises(
        InputError, match="tile: expected at least 224 pixels, a multiple of 32, for this network, got 203"
    ):
        inference.predict(models.unet(width=1), np.zeros((300, 300, 3), np.uint8), 203)


def test_probabilities_add_up_and_lead_to_the_prediction():
    network = tiny(classes=4)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = inference.probabilities(network, image)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=0), inference.predict(network, image))


def test_turns_are_turned_back():
    """What a network finds in eight turns of an image does not depend on how the image lies."""
    network = tiny(classes=3)
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    turned = inference.probabilities(network, image, turns=True)
    quarter = inference.probabilities(network, np.ascontiguousarray(np.rot90(image)), turns=True)
    mirrored = inference.probabilities(network, np.ascontiguousarray(image[:, ::-1]), turns=True)
    close(np.rot90(quarter, -1, axes=(1, 2)), turned, 1e-5)
    close(mirrored[:, :, ::-1], turned, 1e-5)
    assert np.abs(turned - inference.probabilities(network, image)).max() > 0.01
    np.testing.assert_array_equal(inference.predict(network, image, turns=True), turned.argmax(axis=0))


def test_training_starts_from_another_unet_a_classifier_and_an_fcn(tmp_path):
    given = stirred(models.unet(2, width=2, depth=2, padding="same"))
    weights.save(tmp_path / "given.npz", given)
    other = models.unet(3, width=2, depth=2, padding="same", seed=5)
    message = checkpoint.start_from(tmp_path / "given.npz", other)
    assert "but for the scores: it has 2 classes, this network 3" in message
    for name, value in given.state_dict().items():
        assert name.startswith("score") or (other.state_dict()[name] == value).all()
    fcn = models.fcn("8s", "efficientnet_lite0", 4, "same", seed=7)
    weights.save(tmp_path / "fcn.npz", fcn)
    over = models.unet(3, width=2, padding="same", backbone="efficientnet_lite0")
    assert "gives its backbone" in checkpoint.start_from(tmp_path / "fcn.npz", over)
    np.testing.assert_array_equal(over["lite0.stem"].weight.value, fcn["lite0.stem"].weight.value)
    with pytest.raises(InputError, match=r"fcn\.npz: it gives its backbone only, and this network has none"):
        checkpoint.start_from(tmp_path / "fcn.npz", other)
    weights.save(tmp_path / "deeper.npz", models.unet(2, width=2, depth=3, padding="same"))
    with pytest.raises(InputError, match=r"deeper\.npz: down3\.conv1\.bias: a network of other depth or options"):
        checkpoint.start_from(tmp_path / "deeper.npz", other)
    weights.save(tmp_path / "grey.npz", models.unet(2, width=2, depth=2, padding="same", channels=1))
    with pytest.raises(InputError, match="a network for images of 1 channel, the data have 3; train without --start"):
        checkpoint.start_from(tmp_path / "grey.npz", other)
    weights.save(tmp_path / "wider.npz", models.unet(2, width=3, depth=2, padding="same"))
    with pytest.raises(
        InputError, match=r"wider\.npz: down0\.conv1\.weight: expected shape \(2, 3, 3, 3\), got \(3, 3, 3, 3\)"
    ):
        checkpoint.start_from(tmp_path / "wider.npz", other)
    weights.save(tmp_path / "mini.npz", models.mini(2, width=2))
    with pytest.raises(InputError, match="a classifier gives its backbone, and this network has none"):
        checkpoint.start_from(tmp_path / "mini.npz", other)


def test_weights_return_from_a_file(tmp_path):
    network = stirred(models.unet(3, channels=1, width=2, depth=2, padding="valid"))
    weights.save(tmp_path / "unet.npz", network)
    again = models.load_segmenter(tmp_path / "unet.npz")
    assert again.card.options == network.card.options and again.card.preprocessing.order == "grey"
    image = picture(44, 44)[:, :1]
    np.testing.assert_array_equal(again.forward(image), network.forward(image))
