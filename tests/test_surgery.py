"""From a classifier to a segmentation network: what each cut keeps, and what it does not."""

import numpy as np
import pytest

from minifcn import backend, layers, models, ops
from minifcn.models import surgery, vgg
from minifcn.models.alexnet import _caffe_features
from minifcn.models.efficientnet_lite0 import InvertedResidual

FIELD = {"vgg16": 404, "alexnet": 355, "alexnet_torchvision": 355}  # the receptive fields, as published


@pytest.fixture
def quick(monkeypatch):
    """Weights of the usual size, drawn in float32: a hundred million of them in a second."""

    def draw(shape, rng):
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))

    monkeypatch.setattr(layers.blocks, "he_normal", draw)


@pytest.fixture
def blank(monkeypatch):
    """Zeros in place of drawn weights, where the numbers do not matter."""
    monkeypatch.setattr(layers.blocks, "he_normal", lambda shape, rng: np.zeros(shape, np.float32))


def stirred(network, seed=1):
    """Biases, scores and running statistics that are not the ones every network starts with."""
    rng = np.random.default_rng(seed)
    for name, p in network.parameters().items():
        if name.endswith(("bias", "beta", "gamma")) or name.startswith("score"):
            p.value = p.value + rng.normal(0, 0.2, p.value.shape).astype(p.value.dtype)
    for name, (layer, key) in network.buffers().items():
        drawn = (
            rng.normal(0, 0.1, getattr(layer, key).shape)
            if name.endswith("mean")
            else rng.random(getattr(layer, key).shape) + 0.5
        )
        setattr(layer, key, drawn.astype(getattr(layer, key).dtype))
    return network


def picture(height, width, dtype=np.float64, seed=2):
    return np.random.default_rng(seed).normal(size=(1, 3, height, width)).astype(dtype)


def narrow_vgg(classes=3, padless=False):
    """VGG16's layers with a few channels."""
    rng = np.random.default_rng(0)
    chain = vgg._groups((3, 4, 5, 6, 6), vgg.DEPTHS, rng=rng)
    chain |= {"flatten": layers.Flatten(), "fc6": layers.Linear(6 * 49, 7, rng), "relu6": layers.ReLU()}
    chain |= {"fc7": layers.Linear(7, 8, rng), "relu7": layers.ReLU(), "fc8": layers.Linear(8, classes, rng)}
    network = models.Classifier(chain, config={}, native=224, map_size=7, preprocessing=None)
    return without_padding(network) if padless else network


def narrow_alexnet():
    """CaffeNet's convolutions with small fully connected layers."""
    rng = np.random.default_rng(0)
    chain = _caffe_features(rng)
    chain |= {"flatten": layers.Flatten(), "fc6": layers.Linear(256 * 36, 7, rng), "relu6": layers.ReLU()}
    chain |= {"fc7": layers.Linear(7, 3, rng)}
    return models.Classifier(chain, config={}, native=227, map_size=6, preprocessing=None)


def without_padding(network):
    for conv in network.layers_of(layers.Conv2d):
        conv.settings["pad"] = 0
    return network


# --- The classifier as a convolution ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.CLASSIFIERS)
def test_the_weights_are_the_classifiers_own_under_the_same_names(name, blank):
    classifier = models.CLASSIFIERS[name](num_classes=5)
    for i, p in enumerate(classifier.parameters().values()):
        p.value.ravel()[-1] = i + 1  # a mark on each
    heat = surgery.convolutionalize(classifier)
    before, after = classifier.parameters(), heat.parameters()
    assert list(after) == list(before)
    for parameter, p in before.items():
        assert np.shares_memory(after[parameter].value, p.value)
        assert np.shares_memory(after[parameter].grad, p.grad)
        assert after[parameter].value.ravel()[-1] == p.value.ravel()[-1]
        if p.value.ndim == 2:
            first = name != "efficientnet_lite0" and parameter == "fc6.weight"
            side = classifier.map_size if first else 1
            assert after[parameter].value.shape == (len(p.value), p.value.shape[1] // side**2, side, side)
        else:
            assert after[parameter].value.shape == p.value.shape
    assert {n: key for n, (_, key) in heat.buffers().items()} == {n: k for n, (_, k) in classifier.buffers().items()}
    assert heat.config == {**classifier.config, "convolutional": True, "window": None}
    assert (heat.card.native, heat.card.preprocessing) == (classifier.card.native, classifier.card.preprocessing)


def test_each_kernel_holds_its_linear_row_channel_by_channel_row_by_row():
    classifier = narrow_vgg()
    weight = classifier.layers["fc6"].weight.value
    kernel = surgery.convolutionalize(classifier).layers["fc6"].weight.value
    assert kernel[2, 3, 4, 5] == weight[2, 3 * 49 + 4 * 7 + 5]


@pytest.mark.slow
@pytest.mark.parametrize("name", models.CLASSIFIERS)
def test_at_the_native_size_the_one_column_is_the_classifiers_output(name, quick):
    classifier = stirred(models.CLASSIFIERS[name](num_classes=7))
    image = picture(classifier.card.native, classifier.card.native, np.float32)
    scores = classifier.forward(image)
    heat = surgery.convolutionalize(classifier).forward(image)
    assert scores.std() > 0
    assert heat.shape == (1, 7, 1, 1)
    np.testing.assert_allclose(heat[:, :, 0, 0], scores, rtol=0, atol=1e-5 * abs(scores).max())


def test_what_one_learns_the_other_knows():
    classifier = narrow_vgg()
    heat = surgery.convolutionalize(classifier)
    dy = heat.forward(picture(224, 224, np.float32), train=True)
    heat.backward(dy)
    assert classifier.layers["fc6"].weight.grad.any()
    for p in heat.parameters().values():
        p.value -= np.float32(0.01) * p.grad
    image = picture(224, 224, np.float32, seed=3)
    np.testing.assert_allclose(heat.forward(image)[:, :, 0, 0], classifier.forward(image), rtol=1e-4, atol=1e-6)


def test_the_cut_is_made_where_the_arrays_live(device):
    network, image = narrow_vgg(), picture(256, 224, np.float32)
    heat = surgery.convolutionalize(network)
    found = device.get(heat.forward(device.put(image)))
    assert found.shape == (1, 3, 2, 1)
    backend.use("numpy")
    there = narrow_vgg()
    there.load_state_dict(network.state_dict())
    expected = surgery.convolutionalize(there).forward(image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())


def slid(classifier, image, side):
    """The classifier at every place, 32 pixels apart: (1, classes, rows, columns)."""
    rows, columns = ((n - side) // 32 + 1 for n in image.shape[2:])
    scores = [
        classifier.forward(image[:, :, i : i + side, j : j + side])
        for i in range(0, 32 * rows, 32)
        for j in range(0, 32 * columns, 32)
    ]
    return np.stack(scores, axis=2).reshape(1, -1, rows, columns)


def torchvision_alexnet():
    return models.alexnet_torchvision(3)


@pytest.mark.parametrize(
    ("build", "name", "dtype"),
    [
        (narrow_vgg, "vgg16", np.float64),
        (narrow_alexnet, "alexnet", np.float64),
        pytest.param(torchvision_alexnet, "alexnet_torchvision", np.float32, marks=pytest.mark.slow),
    ],
)
def test_without_padding_the_heat_map_is_the_classifier_slid_over_the_image(build, name, dtype, quick):
    """Every cell of it. Its native size is then its receptive field."""
    side = FIELD[name]
    classifier = without_padding(stirred(build())).astype(dtype)
    for dropout in classifier.layers_of(layers.Dropout):
        dropout.p = 0.0
    image = picture(side + 64, side + 32, dtype)
    heat = surgery.convolutionalize(classifier).forward(image)
    expected = slid(classifier, image, side)
    assert heat.shape == expected.shape == (1, 3, 3, 2)
    assert expected.std(axis=(2, 3)).min() > 0
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(heat, expected, rtol=0, atol=tolerance * abs(expected).max())


def test_with_padding_a_cell_inside_the_image_sees_its_whole_field_and_not_the_zeros_of_a_crop():
    """Cell i looks at the rows 32·i − 90 … 32·i + 313: the paddings sum up to 2·1 + 2·2 + 3·4 + 3·8 + 3·16 = 90 pixels."""
    padded, padless = (stirred(narrow_vgg(padless=p)).astype(np.float64) for p in (False, True))
    image = picture(448, 416)
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


def test_lite0s_heat_map_is_its_last_layer_on_the_mean_of_every_7_by_7_window(quick):
    """Its native size has no padless form: a residual needs maps that keep their size."""
    classifier = stirred(models.efficientnet_lite0(num_classes=3))
    image = picture(320, 270, np.float32)
    heat = surgery.convolutionalize(classifier).forward(image)
    maps = image
    for name, layer in classifier.layers.items():
        if name == "average":
            break
        maps = layer.forward(maps)
    assert maps.shape[2:] == (10, 9)
    assert heat.shape == (1, 3, 4, 3)
    fc = classifier.layers["fc"]
    for i, j in np.ndindex(4, 3):
        scores, _ = ops.linear_forward(
            maps[:, :, i : i + 7, j : j + 7].mean(axis=(2, 3)), fc.weight.value, fc.bias.value
        )
        np.testing.assert_allclose(heat[:, :, i, j], scores, rtol=0, atol=1e-4 * abs(heat).max())


@pytest.mark.parametrize("window", [1, 3, 9])
def test_a_window_of_ones_own_averages_what_lies_around_every_cell(window, quick):
    """A column for each of the last maps' cells; at the border of what there is."""
    classifier = stirred(models.efficientnet_lite0(num_classes=3))
    image = picture(100, 130, np.float32)
    heat = surgery.convolutionalize(classifier, window)
    assert heat.config["window"] == window
    found = heat.forward(image)
    maps = image
    for layer in list(classifier.layers.values())[:-3]:
        maps = layer.forward(maps)
    assert found.shape == (1, 3, *maps.shape[2:]) == (1, 3, 4, 5)
    fc, reach = classifier.layers["fc"], window // 2
    for i, j in np.ndindex(4, 5):
        around = maps[:, :, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
        scores, _ = ops.linear_forward(around.mean(axis=(2, 3)), fc.weight.value, fc.bias.value)
        np.testing.assert_allclose(found[:, :, i, j], scores, rtol=0, atol=1e-4 * abs(found).max())


@pytest.mark.parametrize("window", [0, -1, 2, 4])
def test_a_window_without_a_middle_is_refused(window, blank):
    with pytest.raises(ValueError, match=f"convolutionalize: a window needs .* an odd side; got {window}"):
        surgery.convolutionalize(models.efficientnet_lite0(3), window)


def test_a_window_without_a_global_average_is_refused():
    with pytest.raises(ValueError, match="convolutionalize: a window needs a global average"):
        surgery.convolutionalize(narrow_vgg(), 3)


def test_an_image_below_the_native_size_is_refused_by_the_layer_that_lacks_room():
    with pytest.raises(ValueError, match=r"^fc6 \(Conv2d\): .*does not fit"):
        surgery.convolutionalize(narrow_vgg()).forward(picture(100, 224, np.float32))


# --- Transplanting a trunk ----------------------------------------------------------------------------------------

LEFT = {
    "vgg16": ["fc8.weight", "fc8.bias"],
    "alexnet": ["fc8.weight", "fc8.bias"],
    "efficientnet_lite0": [
        *("head.weight", "bn_head.gamma", "bn_head.beta", "fc.weight", "fc.bias"),
        *("bn_head.running_mean", "bn_head.running_var"),
    ],
}


@pytest.mark.parametrize(
    ("backbone", "alignment"),
    [
        pytest.param("vgg16", "paper", marks=pytest.mark.slow),
        *((backbone, alignment) for backbone in ("alexnet", "efficientnet_lite0") for alignment in ("paper", "same")),
    ],
)
def test_a_transplanted_trunk_is_the_classifiers(backbone, alignment, quick):
    classifier = stirred(models.CLASSIFIERS[backbone](num_classes=5, seed=3))
    network = models.fcn("16s", backbone, 4, alignment)
    network.card.preprocessing = None
    before = {name: p.value for name, p in network.parameters().items()}
    assert surgery.transplant(classifier, network) == LEFT[backbone]
    family, found = network.backbone.family + ".", network.parameters()
    given = {**{n: p.value for n, p in classifier.parameters().items()}}
    given |= {n: getattr(layer, key) for n, (layer, key) in classifier.buffers().items()}
    arrays = {n: p.value for n, p in found.items()}
    arrays |= {n: getattr(layer, key) for n, (layer, key) in network.buffers().items()}
    trunk = {n: a for n, a in arrays.items() if n.startswith(family)}
    assert len(trunk) == len(given) - len(LEFT[backbone])
    for name, array in trunk.items():
        source = given[name.removeprefix(family)]
        np.testing.assert_array_equal(array, source.reshape(array.shape), err_msg=name)
        assert not np.shares_memory(array, source)
    for name in found.keys() - trunk.keys():
        np.testing.assert_array_equal(found[name].value, before[name], err_msg=name)
    assert not found["score_fr.weight"].value.any()
    assert network.card.preprocessing is classifier.card.preprocessing


def test_the_transplanted_trunk_computes_what_the_classifier_does(quick):
    """FCN-AlexNet on an image of a receptive field without its frame: fc7 is the classifier's."""
    classifier = stirred(models.alexnet(num_classes=5))
    network = models.fcn("32s", "alexnet", 4, "paper")
    surgery.transplant(classifier, network)
    network.backbone.layers["conv1"].settings["pad"] = 0
    image = picture(227, 227, np.float32)
    fc7 = network.backbone.forward(image)["fc7"]
    x = image
    for name, layer in classifier.layers.items():
        if name == "fc8":
            break
        x = layer.forward(x)
    np.testing.assert_allclose(fc7[:, :, 0, 0], x, rtol=0, atol=1e-5 * abs(x).max())


@pytest.mark.parametrize(
    ("classifier", "backbone", "named"),
    [
        ("alexnet_torchvision", "alexnet", r"alexnet.conv1.weight \(96, 3, 11, 11\), found \(64, 3, 11, 11\)"),
        ("alexnet", "efficientnet_lite0", r"lite0.stem.weight \(32, 3, 3, 3\), found nothing of that name"),
        ("efficientnet_lite0", "alexnet", r"alexnet.conv1.weight .*found nothing of that name"),
    ],
)
def test_the_wrong_classifier_is_refused_and_nothing_changed(classifier, backbone, named, blank):
    network = models.fcn("32s", backbone, 4)
    before, preprocessing = {n: p.value for n, p in network.parameters().items()}, network.card.preprocessing
    with pytest.raises(ValueError, match=named):
        surgery.transplant(models.CLASSIFIERS[classifier](), network)
    assert all(p.value is before[n] for n, p in network.parameters().items())
    assert network.card.preprocessing is preprocessing


def test_a_trunk_that_differs_late_is_refused_before_anything_is_changed():
    network = models.fcn("32s", "efficientnet_lite0", 4)
    classifier = models.efficientnet_lite0(num_classes=5, seed=1)
    late = classifier.layers["block15"].branch.layers["project"]
    late.weight = layers.Parameter(late.weight.value[:300])
    before = network.state_dict()
    with pytest.raises(
        ValueError, match=r"lite0.block15.project.weight \(320, 1152, 1, 1\), found \(300, 1152, 1, 1\)"
    ):
        surgery.transplant(classifier, network)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


# --- Other classes, finer variants --------------------------------------------------------------------------------


@pytest.mark.parametrize("upsampling", ["frozen", "learned"])
@pytest.mark.parametrize("classes", [1, 4, 9])
def test_replaced_scores_start_from_zero_over_the_same_trunk(classes, upsampling):
    options = {"width": 2, "upsampling": upsampling, "at_once": True, "alignment": "same"}
    network = stirred(models.fcn("8s", "mini", 4, seed=1, **options))
    network.card.preprocessing = object()
    before = network.state_dict()
    changed = surgery.replace_scores(network, classes)
    assert changed.config == {**network.config, "num_classes": classes, "seed": 0}
    assert changed.card.preprocessing is network.card.preprocessing
    after = changed.state_dict()
    assert after.keys() == before.keys()
    for name, array in after.items():
        if name.startswith("score"):
            assert not array.any(), name
        elif name.startswith("upscore"):
            kernel = array.shape[-1]
            start = layers.init.bilinear_line(kernel) if array.ndim == 1 else layers.init.bilinear(classes, kernel)
            np.testing.assert_array_equal(array, start, err_msg=name)
        else:
            np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert changed.forward(picture(40, 50, np.float32)).shape == (1, classes, 40, 50)
    changed.parameters()["vgg.conv1_1.weight"].value[...] = 0
    for name, array in network.state_dict().items():  # the network that it was made of stays as it was
        np.testing.assert_array_equal(array, before[name], err_msg=name)


STEPS = {("32s", "16s"): (2, 16), ("16s", "8s"): (2, 2, 8), ("32s", "8s"): (2, 2, 8)}


@pytest.mark.parametrize("alignment", ["paper", "same"])
@pytest.mark.parametrize(("coarse", "fine"), STEPS)
def test_added_skips_leave_the_coarser_scores_enlarged_in_steps(coarse, fine, alignment):
    """What the finer network predicts at first: the coarser one's sum, enlarged in more and smaller steps, and nothing else."""
    network = stirred(models.fcn(coarse, "mini", 3, alignment, seed=1, width=2))
    finer = surgery.add_skips(network, fine)
    assert finer.config == {**network.config, "variant": fine}
    image = picture(70, 101, np.float32)
    taps = network.backbone.forward(network.pad_input.forward(image))
    score = network.score_fr.forward(taps["fc7"])
    if coarse == "16s":
        score = network.upscore2.forward(score)
        score = score + network.crop_pool4.forward_to(network.score_pool4.forward(taps["pool4"]), score.shape[2:])
    factors = STEPS[coarse, fine][1 if coarse == "16s" else 0 :]
    for factor in factors:
        line, pad = layers.init.bilinear_line(2 * factor), factor // 2 if alignment == "same" else 0
        score, _ = ops.upsample_forward(score, line, stride=factor, pad=pad)
    offset = 0 if alignment == "same" else {"16s": 27, "8s": 31}[fine]  # as published
    expected, _ = ops.crop_forward(score, offset, (70, 101))
    logits = finer.forward(image)
    assert expected.std() > 0
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())
    # Not the coarser network's own prediction: ×2 and ×16 blend a little further than ×32 does.
    before = network.forward(image)
    assert 0 < np.square(logits - before).mean() < 0.2 * before.var()


def test_added_skips_can_learn_from_the_first_step_on():
    finer = surgery.add_skips(stirred(models.fcn("32s", "mini", 3, seed=1, width=2)), "8s")
    logits = finer.forward(picture(64, 64, np.float32), train=True)
    finer.backward(np.random.default_rng(0).normal(size=logits.shape).astype(np.float32))
    for name in ("score_pool4.weight", "score_pool3.weight"):
        assert not finer.parameters()[name].value.any()
        assert abs(finer.parameters()[name].grad).min() > 0


def test_added_skips_share_nothing_with_the_coarser_network():
    network = stirred(models.fcn("32s", "mini", 3, seed=1, width=2))
    network.card.preprocessing = object()
    before = network.state_dict()
    finer = surgery.add_skips(network, "16s")
    assert finer.card.preprocessing is network.card.preprocessing
    for p in finer.parameters().values():
        p.value[...] = 7
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_skips_are_not_taken_away():
    with pytest.raises(ValueError, match="FCN-32s cannot start from the finer FCN-16s"):
        surgery.add_skips(models.fcn("16s", "mini", 2, width=1), "32s")


# --- Networks from their description ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.CLASSIFIERS)
@pytest.mark.parametrize("convolutional", [False, True], ids=["classifier", "heat-map"])
def test_a_classifier_is_built_again_from_its_config(name, convolutional, blank):
    network = models.CLASSIFIERS[name](num_classes=6, seed=4)
    network = surgery.convolutionalize(network) if convolutional else network
    again = models.from_config(network.config)
    assert again.config == network.config
    shapes = {n: p.value.shape for n, p in network.parameters().items()}
    assert {n: p.value.shape for n, p in again.parameters().items()} == shapes


def test_a_heat_maps_window_is_built_again_too(blank):
    heat = surgery.convolutionalize(models.efficientnet_lite0(3), 5)
    again = models.from_config(heat.config)
    assert again.config == heat.config
    assert again.layers["average"].settings == heat.layers["average"].settings


def test_an_fcn_is_built_again_from_its_config():
    network = models.fcn("16s", "mini", 3, "same", True, 5, upsampling="learned", width=2)
    again = models.from_config(network.config)
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, network.state_dict()[name], err_msg=name)


@pytest.mark.parametrize("config", [{}, {"network": "resnet50"}, {"network": None, "num_classes": 3}])
def test_a_config_that_describes_nothing_is_refused(config):
    with pytest.raises(ValueError, match="expected a network out of vgg16, .*efficientnet_lite0, got"):
        models.from_config(config)


def test_a_residual_block_keeps_its_branch_under_plain_names():
    """So that its parameters are called block1.expand.weight, and not block1.branch.expand.weight."""
    block = InvertedResidual(4, 4, 3, 1, 6, np.random.default_rng(0))
    assert [n for n in block.parameters() if n.endswith("weight")] == [
        "expand.weight",
        "depthwise.weight",
        "project.weight",
    ]
