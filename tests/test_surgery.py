"""From a classifier to a segmentation network: what each cut keeps, and what it does not."""

import numpy as np
import pytest
from networks import ALIGNMENTS, close, narrow_vgg, picture, stirred, weights_of, without_chance

from minifcn import backend, layers, models, ops
from minifcn.card import Card
from minifcn.errors import InputError
from minifcn.models import surgery
from minifcn.models.alexnet import _caffe_features


def narrow_alexnet():
    """CaffeNet's convolutions with small fully connected layers."""
    rng = np.random.default_rng(0)
    chain = _caffe_features(rng)
    chain |= {"flatten": layers.Flatten(), "fc6": layers.Linear(256 * 36, 7, rng), "relu6": layers.ReLU()}
    chain |= {"fc7": layers.Linear(7, 3, rng)}
    return models.Sequential(**chain, card=Card("alexnet", {"num_classes": 3}, native=227))


def without_padding(network):
    for conv in network.layers_of(layers.Conv2d):
        conv.settings["pad"] = 0
    return network


# --- The classifier as a convolution ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alexnet", "alexnet_torchvision", "efficientnet_lite0"])
def test_the_weights_are_copies_of_the_classifiers_under_the_same_names(name, blank):
    classifier = models.CLASSIFIERS[name](num_classes=5)
    for i, p in enumerate(classifier.parameters().values()):
        p.value.ravel()[-1] = i + 1  # a mark on each
        p.lr_mult = i
    names = {node: layer.name for node, (layer, _) in classifier.nodes.items()}
    heat = surgery.convolutionalize(classifier)
    before, after = classifier.parameters(), heat.parameters()
    assert list(after) == list(before)
    for parameter, p in before.items():
        assert after[parameter].value.ravel()[-1] == p.value.ravel()[-1]
        assert not np.shares_memory(after[parameter].value, p.value)
        assert after[parameter].lr_mult == p.lr_mult
        side = 6 if parameter == "fc6.weight" else 1
        shape = (len(p.value), p.value.shape[1] // side**2, side, side) if p.value.ndim == 2 else p.value.shape
        assert after[parameter].value.shape == shape
    assert {n: key for n, (_, key) in heat.buffers().items()} == {n: k for n, (_, k) in classifier.buffers().items()}
    assert heat.card.options == {**classifier.card.options, "convolutional": True, "window": None}
    assert (heat.card.native, heat.card.preprocessing) == (classifier.card.native, classifier.card.preprocessing)
    assert {node: layer.name for node, (layer, _) in classifier.nodes.items()} == names  # it stays as it was
    assert not {id(layer) for _, layer in heat.walk()} & {id(layer) for _, layer in classifier.walk()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "alexnet_torchvision", "efficientnet_lite0", "narrow"])
def test_at_the_native_size_the_one_column_is_the_classifiers_output(name, quick):
    classifier = stirred(narrow_vgg() if name == "narrow" else models.CLASSIFIERS[name](num_classes=3))
    image = picture(classifier.card.native, classifier.card.native)
    scores = classifier.forward(image)
    heat = surgery.convolutionalize(classifier).forward(image)
    assert scores.std() > 0
    assert heat.shape == (1, 3, 1, 1)
    close(heat[:, :, 0, 0], scores, 1e-5)


def test_what_the_heat_map_learns_the_classifier_does_not(rng):
    """Nothing is shared, whether it was cut before, in, or after a step of training; but what layers share among
    themselves, such as one generator, their copies share too."""
    classifier = narrow_vgg()
    image = picture(224, 224)
    dy = classifier.forward(image, train=True)
    heat = surgery.convolutionalize(classifier)
    before = weights_of(classifier)
    for layer, _ in heat.nodes.values():
        with pytest.raises(InputError, match="backward needs a forward"):
            layer.backward(dy)
    heat.backward(heat.forward(image, train=True))
    assert not any(p.grad.any() for p in classifier.parameters().values())
    for p in heat.parameters().values():
        assert p.grad.any()
        p.value -= np.float32(0.01) * p.grad
    for name, value in weights_of(classifier).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert classifier.backward(dy).any()  # its caches are its own, too
    chain = {"drop1": layers.Dropout(0.5, rng), "drop2": layers.Dropout(0.5, rng), "average": layers.GlobalAvgPool()}
    card = Card("pair", {"num_classes": 3}, native=8)
    copied = surgery.convolutionalize(models.Sequential(**chain, card=card))
    assert copied["drop1"].rng is copied["drop2"].rng is not rng


def test_the_cut_is_made_where_the_arrays_live(device):
    network, image = narrow_vgg(), picture(256, 224)
    heat = surgery.convolutionalize(network)
    found = device.get(heat.forward(device.put(image)))
    assert found.shape == (1, 3, 2, 1)
    backend.use("numpy")
    there = narrow_vgg()
    there.load_state_dict(network.state_dict())
    with device.numpy_alone():
        close(found, surgery.convolutionalize(there).forward(image), 1e-4)


def slid(classifier, image, side):
    """The classifier at every place, 32 pixels apart: (1, classes, rows, columns)."""
    size = tuple((n - side) // 32 + 1 for n in image.shape[2:])
    crops = (image[:, :, 32 * i : 32 * i + side, 32 * j : 32 * j + side] for i, j in np.ndindex(size))
    return np.stack([classifier.forward(crop) for crop in crops], axis=2).reshape(1, -1, *size)


SLID = [(narrow_vgg, 404, np.float64, 1e-10), (narrow_alexnet, 355, np.float64, 1e-10)]  # and the fields, as published
SLID += [pytest.param(lambda: models.alexnet_torchvision(3), 355, np.float32, 1e-4, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("build", "side", "dtype", "tolerance"), SLID)
def test_without_padding_the_heat_map_is_the_classifier_slid_over_the_image(build, side, dtype, tolerance, quick):
    """Every cell of it. Its native size is then its receptive field."""
    classifier = without_chance(without_padding(stirred(build()))).astype(dtype)
    classifier.card.native = side
    image = picture(side + 32, side + 32, dtype)
    heat = surgery.convolutionalize(classifier).forward(image)
    expected = slid(classifier, image, side)
    assert heat.shape == expected.shape == (1, 3, 2, 2)
    assert expected.std(axis=(2, 3)).min() > 0
    close(heat, expected, tolerance)


def test_with_padding_a_cell_inside_the_image_sees_its_whole_field_and_not_the_zeros_of_a_crop():
    """Cell i looks at the rows 32·i − 90 … 32·i + 313: the paddings sum up to 2·1 + 2·2 + 3·4 + 3·8 + 3·16 = 90 pixels."""
    padded, padless = (stirred(narrow_vgg()).astype(np.float64) for _ in range(2))
    without_padding(padless)
    image = picture(448, 416, np.float64)
    heat = surgery.convolutionalize(padded).forward(image)
    assert heat.shape[2:] == (8, 7)
    inside = [(i, j) for i, j in np.ndindex(8, 7) if 90 <= 32 * i <= 448 - 314 and 90 <= 32 * j <= 416 - 314]
    assert inside == [(3, 3), (4, 3)]
    spread = heat.std()
    for i, j in inside:
        top, left = 32 * i - 90, 32 * j - 90
        whole = padless.forward(image[:, :, top : top + 404, left : left + 404])
        np.testing.assert_allclose(heat[:, :, i, j], whole, rtol=0, atol=1e-10 * abs(heat).max())
        crop = padded.forward(image[:, :, 32 * i : 32 * i + 224, 32 * j : 32 * j + 224])  # around the same centre
        assert abs(heat[:, :, i, j] - crop).max() > 0.02 * spread
    border = padless.forward(image[:, :, :404, :404])
    assert abs(heat[:, :, 2, 2] - border).max() > 0.02 * spread  # a cell that lies 26 pixels over the border


@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_lite0s_heat_map_is_its_last_layer_on_the_mean_of_every_window(window, quick):
    """Of 7 × 7 as at its native size, or of a window of one's own around every cell, at the border of what there is."""
    classifier = stirred(models.efficientnet_lite0(num_classes=3))
    image = picture(100, 130) if window else picture(320, 270)
    heat = surgery.convolutionalize(classifier, window)
    assert heat.card.options["window"] == window
    found = heat.forward(image)
    (maps,) = classifier.features(image, ["relu_head"]).values()
    assert maps.shape[2:] == ((4, 5) if window else (10, 9))
    assert found.shape == ((1, 3, 4, 5) if window else (1, 3, 4, 3))
    fc, (before, after) = classifier["fc"], (window // 2, window // 2 + 1) if window else (0, 7)
    for i, j in np.ndindex(found.shape[2:]):
        around = maps[:, :, max(i - before, 0) : i + after, max(j - before, 0) : j + after]
        scores, _ = ops.linear_forward(around.mean(axis=(2, 3)), fc.weight.value, fc.bias.value)
        np.testing.assert_allclose(found[:, :, i, j], scores, rtol=0, atol=1e-4 * abs(found).max())


def test_a_window_that_cannot_be_is_refused(blank):
    for window in (0, -1, 2):
        with pytest.raises(InputError, match=f"a window needs .* an odd side; got {window}"):
            surgery.convolutionalize(models.efficientnet_lite0(3), window)
    with pytest.raises(InputError, match="a window needs a global average"):
        surgery.convolutionalize(narrow_vgg(), 3)


def test_only_classifiers_are_cut():
    with pytest.raises(InputError, match="convolutionalize: expected a classifier with a native size, got FCN-8s"):
        surgery.convolutionalize(mini("8s"))


# --- Transplanting a backbone -------------------------------------------------------------------------------------

LEFT = ["head.weight", "bn_head.gamma", "bn_head.beta", "fc.weight", "fc.bias"]
LEFT += ["bn_head.running_mean", "bn_head.running_var"]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_transplanted_backbone_is_the_classifiers(alignment):
    classifier = stirred(models.efficientnet_lite0(num_classes=5, seed=3))
    network = models.fcn("16s", "efficientnet_lite0", 4, alignment)
    network.card.preprocessing = None
    before, given = network.state_dict(), classifier.state_dict()
    assert surgery.transplant(classifier, network) == LEFT
    prefix, found = network.backbone_prefix + ".", network.state_dict()
    of_backbone = {name for name in found if name.startswith(prefix)}
    assert len(of_backbone) == len(given) - len(LEFT)
    for name, array in found.items():
        expected = given[name.removeprefix(prefix)].reshape(array.shape) if name in of_backbone else before[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    learned = classifier.parameters()
    for name, p in network.parameters().items():
        assert name not in of_backbone or not np.shares_memory(p.value, learned[name.removeprefix(prefix)].value)
    assert not found["score_fr.weight"].any()
    assert network.card.preprocessing is classifier.card.preprocessing


def test_with_its_head_the_backbone_computes_what_the_classifier_averages():
    classifier = stirred(models.efficientnet_lite0(num_classes=5, seed=3))
    network = models.fcn("8s", "efficientnet_lite0_head", 4, "same")
    assert surgery.transplant(classifier, network) == ["fc.weight", "fc.bias"]
    image = picture(64, 96)
    fc7 = network.features(image, ["lite0.relu_head"])["lite0.relu_head"]
    close(fc7, classifier.features(image, ["relu_head"])["relu_head"], 1e-5)
    assert network["score_fr"].weight.value.shape == (4, 1280, 1, 1)


def test_the_transplanted_backbone_computes_what_the_classifier_does(quick):
    """FCN-AlexNet on an image of a receptive field without its pad of 100: fc7 is the classifier's."""
    classifier = stirred(models.alexnet(num_classes=5))
    network = models.fcn("32s", "alexnet", 4, "paper")
    assert surgery.transplant(classifier, network) == ["fc8.weight", "fc8.bias"]
    network["alexnet.conv1"].settings["pad"] = 0
    image = picture(227, 227)
    fc7 = network.features(image, ["alexnet.drop7"])["alexnet.drop7"]
    close(fc7[:, :, 0, 0], classifier.features(image, ["drop7"])["drop7"], 1e-5)


def test_scores_that_come_along_make_the_classifier_dense():
    """FCN-32s scores every cell as the classifier does, and the classifier's output is their average over its window."""
    classifier = stirred(models.mini(num_classes=4, seed=2, width=2))
    network = models.fcn("32s", "mini", 4, "same", width=2)
    assert surgery.transplant(classifier, network, scores=True) == []
    image = picture(128, 96)
    cells = network.features(image, ["score_fr"])["score_fr"]
    close(cells, surgery.convolutionalize(classifier, window=1).forward(image), 1e-5)
    window = image[:, :, :64, :64]
    scores = network.features(window, ["score_fr"])["score_fr"]
    close(scores.mean(axis=(2, 3)), classifier.forward(window), 1e-5)
    with pytest.raises(InputError, match=r"expected score_fr.weight of shape \(5, 16, 1, 1\), got \(4, 16\)"):
        surgery.transplant(classifier, models.fcn("32s", "mini", 5, "same", width=2), scores=True)


WRONG = [  # classifier, backbone, what is refused
    ("alexnet_torchvision", "alexnet", r"alexnet.conv1.weight .*\(96, 3, 11, 11\), got \(64, 3, 11, 11\)"),
    ("alexnet", "efficientnet_lite0", r"lite0.stem.weight .*\(32, 3, 3, 3\), got no such name"),
    ("a late layer", "efficientnet_lite0", r"lite0.block15.project.weight .*1152, 1, 1\), got \(300, 1152, 1, 1\)"),
]


@pytest.mark.parametrize(("classifier", "backbone", "named"), WRONG)
def test_the_wrong_classifier_is_refused_and_nothing_changed(classifier, backbone, named, blank):
    network = models.fcn("32s", backbone, 4)
    late, classifier = classifier == "a late layer", models.CLASSIFIERS.get(classifier, models.efficientnet_lite0)()
    if late:
        classifier["block15.project"].weight = layers.Parameter(np.ones((300, 1152, 1, 1), np.float32))
    before, preprocessing = {n: p.value for n, p in network.parameters().items()}, network.card.preprocessing
    with pytest.raises(InputError, match=named):
        surgery.transplant(classifier, network)
    assert all(p.value is before[n] for n, p in network.parameters().items())
    assert network.card.preprocessing is preprocessing


# --- Other classes, finer variants --------------------------------------------------------------------------------


def test_only_fcns_start_from_coarser_ones():
    unet = models.unet(2, width=1, depth=1)
    with pytest.raises(InputError, match="initialise_from: expected two FCNs, got U-Net and U-Net"):
        surgery.initialise_from(unet, unet)


def mini(variant, **options):
    network = stirred(models.fcn(variant, "mini", 3, seed=1, width=2, **options))
    network.card.preprocessing = object()
    return network


@pytest.mark.parametrize("upsampling", ["frozen", "learned"])
@pytest.mark.parametrize("classes", [1, 9])
def test_replaced_scores_start_from_zero_over_the_same_backbone(classes, upsampling):
    network = mini("8s", upsampling=upsampling, at_once=True, alignment="same")
    before = network.state_dict()
    changed = surgery.replace_scores(network, classes)
    assert changed.card.options == {**network.card.options, "num_classes": classes, "seed": 0}
    assert changed.card.preprocessing is network.card.preprocessing
    after = changed.state_dict()
    assert after.keys() == before.keys()
    for name, array in after.items():
        if name.startswith("score"):
            assert not array.any(), name
        elif name.startswith("upscore"):
            kernel = array.shape[-1]
            start = layers.init.bilinear_1d(kernel) if array.ndim == 1 else layers.init.bilinear(classes, kernel)
            np.testing.assert_array_equal(array, start, err_msg=name)
        else:
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert changed.forward(picture(40, 50)).shape == (1, classes, 40, 50)
    changed["vgg.conv1_1"].weight.value[...] = 0
    for name, array in network.state_dict().items():  # the network that it was made of stays as it was
        np.testing.assert_array_equal(array, before[name], err_msg=name)


STEPS = {("32s", "16s"): (2, 16), ("16s", "8s"): (2, 8), ("32s", "8s"): (2, 2, 8)}


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(("coarse", "fine"), STEPS)
def test_added_skips_leave_the_coarser_scores_upsampled_in_steps(coarse, fine, alignment):
    """What the finer network predicts at first: the coarser one's sum, upsampled in more and smaller steps, and nothing
    else. It learns from the first step on, and shares nothing with the coarser one."""
    network = mini(coarse, alignment=alignment)
    finer = surgery.add_skips(network, fine)
    assert finer.card.options == {**network.card.options, "variant": fine}
    assert finer.card.preprocessing is network.card.preprocessing
    image, last = picture(70, 101), "score_fr" if coarse == "32s" else "fuse_pool4"
    score = network.features(image, [last])[last]
    for factor in STEPS[coarse, fine]:
        kernel_1d, pad = layers.init.bilinear_1d(2 * factor), factor // 2 if alignment == "same" else 0
        score, _ = ops.upsample_forward(score, kernel_1d, stride=factor, pad=pad)
    offset = 0 if alignment == "same" else {"16s": 27, "8s": 31}[fine]  # as published
    expected, _ = ops.crop_forward(score, offset, (70, 101))
    logits = finer.forward(image)
    close(logits, expected, 1e-5)
    # Not the coarser network's own prediction: ×2 and ×16 blend a little further than ×32 does.
    assert 0 < np.square(logits - network.forward(image)).mean() < 0.2 * network.forward(image).var()
    finer.backward(np.random.default_rng(0).normal(size=finer.forward(image, train=True).shape).astype(np.float32))
    for name in {"score_pool4", "score_pool3"} & finer.nodes.keys() - network.nodes.keys():
        assert not finer[name].weight.value.any()
        assert abs(finer[name].weight.grad).min() > 0
    before = network.state_dict()
    for p in finer.parameters().values():
        p.value[...] = 7
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    with pytest.raises(InputError, match=f"FCN-{coarse} cannot start from the finer FCN-{fine}"):
        surgery.add_skips(finer, coarse)


# --- Networks from their card -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg16", "alexnet_torchvision", "alexnet", "efficientnet_lite0", "fcn"])
def test_a_network_is_built_again_from_its_card(name, blank):
    if name == "fcn":
        network = models.fcn("16s", "mini", 3, "same", True, 5, upsampling="learned", width=2)
    else:
        network = models.CLASSIFIERS[name](num_classes=6, seed=4)
    if name in ("alexnet", "efficientnet_lite0"):
        network = surgery.convolutionalize(network, 5 if name == "efficientnet_lite0" else None)
    again = models.build(network.card.builder, network.card.options)
    assert again.card == network.card
    shapes = {n: p.value.shape for n, p in network.parameters().items()}
    assert {n: p.value.shape for n, p in again.parameters().items()} == shapes
    for one, other in zip(network.layers_of(layers.AvgPool2d), again.layers_of(layers.AvgPool2d), strict=True):
        assert (one.kernel, one.settings) == (other.kernel, other.settings)
    with pytest.raises(
        InputError,
        match="expected a network out of fcn, unet, deeplab, panoptic, vgg16, .*efficientnet_lite0, mini, got 'resnet50'",
    ):
        models.build("resnet50", {"num_classes": 3})
