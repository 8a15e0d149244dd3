"""The networks: alignment, sizes, skips, staged initialisation."""

from fractions import Fraction

import numpy as np
import pytest
from networks import ALIGNMENTS, VARIANTS, close, narrow_fcn, picture, stirred, tiny, without_chance

from minifcn import backend, layers, models
from minifcn.errors import InputError
from minifcn.layers import coordinates
from minifcn.layers.coordinates import IDENTITY, Affine
from minifcn.models.efficientnet_lite0 import _inverted_residual
from minifcn.models.surgery import initialise_from

BACKBONES = ("vgg16", "alexnet", "efficientnet_lite0")
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 500)
COARSER = (("32s", "16s"), ("16s", "8s"), ("32s", "8s"))


# --- Alignment ----------------------------------------------------------------------------------------------------

CROPS = {  # of the published networks
    "32s": {"crop": 19},
    "16s": {"crop_pool4": 5, "crop": 27},
    "8s": {"crop_pool4": 5, "crop_pool3": 9, "crop": 31},
}


def crops(network):
    return {name: node.layer.offset for name, node in network.nodes.items() if isinstance(node.layer, layers.CropLike)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_crops_follow_from_the_layers(variant, blank):
    for network in (models.fcn(variant, "vgg16", 21), tiny(variant), narrow_fcn(variant, "paper")):
        assert crops(network) == CROPS[variant]


def test_alexnets_crop_and_kernel_follow_too(blank):
    network = models.fcn("32s", "alexnet", 21)
    assert crops(network) == {"crop": 18}
    assert network["upscore"].kernel_1d.value.shape == (63,)  # where VGG16's is 64
    assert tiny("32s")["upscore"].kernel_1d.value.shape == (64,)


@pytest.mark.parametrize(
    "larger, target",
    [((1, 0), (2, 0)), ((1, 0.5), (1, 0)), ((1, 0), (1, 3))],
    ids=["scales differ", "half a pixel", "negative offset"],
)
def test_maps_that_no_crop_aligns_are_refused(larger, target):
    larger, target = (Affine(*map(Fraction, m)) for m in (larger, target))
    with pytest.raises(InputError, match="no crop"):
        coordinates.crop_offset(larger, target)


@pytest.mark.parametrize("upsampling", ["frozen", "learned"])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", [*BACKBONES, "mini"])
def test_every_way_from_the_image_to_the_logits_comes_back_to_its_pixel(
    backbone, variant, alignment, upsampling, blank
):
    network = models.fcn(variant, backbone, 2, alignment, upsampling=upsampling)
    found = {"image": {IDENTITY}}
    for name, (layer, inputs) in network.nodes.items():
        read = [i for position, i in enumerate(inputs) if position not in layer.size_only]
        found[name] = {at.then(layer.coordinates()) for i in read for at in found[i]}
        assert len(found[name]) == 1, name  # whichever branch one comes by
    assert found["crop"] == {IDENTITY}
    assert sum(name.startswith("fuse") for name in found) == VARIANTS.index(variant)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_the_upsampling_kernel_is_the_one_that_lies_on_the_grid(factor):
    """Between the cells where the coordinates ask for half a pixel, else on them."""
    half, whole = (Affine(Fraction(1, factor), Fraction(b, 2 * factor)) for b in (1, 0))
    for at, kernel in ((half, 2 * factor), (whole, 2 * factor - 1)):
        assert coordinates.upsampling_kernel(factor, at, IDENTITY) == kernel
        a, b = at.then(coordinates.upsampled(kernel, factor))
        assert (a, b.denominator) == (1, 1)
    third = Affine(Fraction(1, factor), Fraction(1, 3 * factor))
    with pytest.raises(InputError, match=f"no upsampling by {factor} takes offset 1/{3 * factor}"):
        coordinates.upsampling_kernel(factor, third, IDENTITY)


@pytest.mark.parametrize("kernel", [3, 5])
def test_an_inverted_residuals_values_lie_in_the_middle_of_their_cells(kernel, rng):
    """Of stride 2, output i stands for the pixels 2i and 2i + 1, however its window leans."""
    for outputs, stride, expected in ((4, 1, IDENTITY), (6, 2, (Fraction(1, 2), Fraction(-1, 4)))):
        nodes, last = _inverted_residual("block", "image", 4, outputs, kernel, stride, 6, rng)
        assert models.coordinates(nodes, last) == expected
        assert last == ("block.add" if stride == 1 else "block.bn_project")


# --- Sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    ("backbone", "variant"), [("alexnet", "8s"), ("efficientnet_lite0", "8s"), *(("mini", v) for v in VARIANTS)]
)
def test_logits_and_gradients_have_the_images_size_from_one_pixel_up(backbone, variant, alignment, blank):
    width, sizes = ({"width": 1}, SIZES) if backbone == "mini" else ({}, (1, 33))
    network = without_chance(models.fcn(variant, backbone, 2, alignment, **width))
    for size in zip(sizes, sizes[1:] + sizes[:1], strict=True):
        assert network.output_shape((1, 3, *size)) == (1, 2, *size)
        if max(size) <= 100:
            logits = network.forward(picture(*size), train=True)
            assert logits.shape == (1, 2, *size)
            assert network.backward(logits).shape == (1, 3, *size)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_have_the_images_size_for_every_side_up_to_1100(backbone, alignment, blank):
    """Worked out without running; with pools that round down, a third of these sizes would leave too little to crop."""
    for variant in VARIANTS:
        network = models.fcn(variant, backbone, 2, alignment)
        sizes = [(n, 1101 - n) for n in range(VARIANTS.index(variant) + 1, 551, 3)]
        assert [size for size in sizes if network.output_shape((1, 3, *size)) != (1, 2, *size)] == []


# --- Where things lie ---------------------------------------------------------------------------------------------


def linear(network):
    """Averages in place of maxima, nothing dropped, no batch statistics, equal scores: the average of what a pixel sees."""
    nodes = dict(network.nodes)
    for name, (layer, inputs) in nodes.items():
        if isinstance(layer, layers.MaxPool2d):
            settings = {key: value for key, value in layer.settings.items() if key != "dilation"}
            nodes[name] = (layers.AvgPool2d(**settings), inputs)
        if name.startswith("score"):
            layer.weight.value += np.float32(1 / layer.weight.value.shape[1])
    return without_chance(models.Graph(nodes))


WIDTHS = {"mini": 640, "alexnet": 640, "efficientnet_lite0": 1056}  # more than a receptive field around the middle


@pytest.mark.slow
@pytest.mark.parametrize(("alignment", "across"), [("paper", True), ("same", False)])
@pytest.mark.parametrize(
    ("backbone", "variant"), [("mini", "8s"), ("mini", "16s"), ("mini", "32s"), ("efficientnet_lite0", "32s")]
)
def test_what_a_pixel_of_the_logits_depends_on_lies_around_that_pixel(
    backbone, variant, alignment, across, monkeypatch
):
    """The centre of mass of a logit's gradient is the logit's own place: bilinear interpolation keeps it, between cells too.

    But for EfficientNet-Lite0: each of its five halvings leans half a cell to the bottom and right, which `alignment` leaves
    to the trained weights. In FCN-32s that adds up to 15.5 pixels; with skips it depends on the weights.
    """
    monkeypatch.setattr(  # a layer then averages what it sees, and the middle of what it sees is its place
        layers.parametric,
        "he_normal",
        lambda shape, rng, fan_in=None: np.full(shape, 1 / np.prod(shape[1:]), np.float32),
    )
    lean = 15.5 if backbone == "efficientnet_lite0" else 0
    width = {"width": 1} if backbone == "mini" else {}
    network = linear(models.fcn(variant, backbone, 1, alignment, **width))
    length, place = WIDTHS[backbone], WIDTHS[backbone] // 2 + 5
    size = (32, length) if across else (length, 32)
    image = np.full((1, 3, *size), 1e-3, np.float32)  # residuals add up: no ReLU6 may come to its end
    logits = network.forward(image, train=True)
    dlogits = np.zeros_like(logits)
    dlogits[(0, 0, 16, place) if across else (0, 0, place, 16)] = 1
    dx = network.backward(dlogits).astype(np.float64)
    weight = dx.sum(axis=(0, 1, 2) if across else (0, 1, 3))
    assert weight.min() >= -1e-6 * weight.max()
    assert weight.sum() > 0
    assert (weight * np.arange(length)).sum() / weight.sum() == pytest.approx(place + lean, abs=0.02)


@pytest.mark.parametrize("alignment, size", [("paper", (90, 122)), ("same", (64, 96))])  # no pool has a partial window
@pytest.mark.parametrize("variant", VARIANTS)
def test_symmetric_kernels_give_a_mirrored_image_mirrored_logits(variant, alignment, size):
    """Any branch that lay off by a single pixel would break the symmetry."""
    network = stirred(tiny(variant, alignment, seed=3)).astype(np.float64)
    for parameter in network.parameters().values():
        if parameter.value.ndim == 4:
            parameter.value = parameter.value + parameter.value[:, :, ::-1, ::-1]
    image = picture(*size, np.float64)
    logits = network.forward(image)
    assert logits.std() > 1e-3
    mirrored = network.forward(np.ascontiguousarray(image[:, :, ::-1, ::-1]))
    close(mirrored[:, :, ::-1, ::-1], logits, 1e-10)


def test_lite0_computes_the_same_on_every_device(device):
    """In float64: in float32 a unit whose input is nearly 0 or 6 may be on one side of it here and on the other there."""
    if device.name == "numpy":
        pytest.skip("compares the others with NumPy")
    results = []
    for name, put, get in (("numpy", np.asarray, np.asarray), (device.name, device.put, device.get)):
        backend.use("numpy" if name == "compiled" else name)  # parameters are born on the backend that is chosen
        backend.use_native(name == "compiled")
        network = without_chance(stirred(models.fcn("8s", "efficientnet_lite0", 2, "same", seed=1))).astype("float64")
        logits = network.forward(put(picture(20, 33, np.float64)), train=True)
        dx = network.backward(put(np.random.default_rng(3).standard_normal(logits.shape)))
        gradients = {name: get(p.grad) for name, p in network.parameters().items() if not p.frozen}
        results.append({"logits": get(logits), "image": get(dx), **gradients})
    expected, found = results
    for name, array in found.items():
        assert expected[name].any(), name
        close(array, expected[name], 1e-11)


# --- Staged training, and what the options do ---------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("coarse, fine", COARSER)
def test_a_staged_network_starts_from_the_coarser_ones_prediction(coarse, fine, alignment):
    """It has its own copies of what both have, and the new skips add nothing. Upsampling ×2 and ×16 is nearly, not quite,
    upsampling ×32; a shift by 4 pixels must make that worse."""
    start = stirred(tiny(coarse, alignment, seed=1))
    network = tiny(fine, alignment, seed=2)
    assert initialise_from(network, start) is network
    own, given = network.state_dict(), start.state_dict()
    shared = own.keys() & given.keys()
    assert {"vgg.conv1_1.weight", "vgg.fc7.weight", "vgg.bn1_1.running_mean", "score_fr.weight"} <= shared
    for name in shared:
        np.testing.assert_array_equal(own[name], given[name], err_msg=name)
    new = [name for name in own.keys() - given.keys() if name.startswith("score")]
    assert new and not any(own[name].any() for name in new)
    image = picture(160, 192)
    before, after = start.forward(image)[..., 40:-40, 40:-40], network.forward(image)

    def distance(dy, dx):
        return np.square(after[..., 40 + dy : 120 + dy, 40 + dx : 152 + dx] - before).mean()

    shifts = [(dy, dx) for dy in (-4, 0, 4) for dx in (-4, 0, 4)]
    assert min(shifts, key=lambda shift: distance(*shift)) == (0, 0)
    assert distance(0, 0) < 0.05 * before.var()
    network["score_fr"].bias.value[...] = 77
    assert not (start["score_fr"].bias.value == 77).any()
    with pytest.raises(InputError, match=f"FCN-{coarse} cannot start from the finer FCN-{fine}"):
        initialise_from(tiny(coarse), tiny(fine))


def bare(variant="16s", **options):
    return narrow_fcn(variant, "same", **{"widths": (1,) * 5, **options})


@pytest.mark.parametrize(
    "start, network, named",
    [
        (lambda: tiny("32s", classes=3), lambda: tiny("16s", classes=2), "score_fr.weight"),
        (lambda: bare("32s", widths=(2,) * 5), bare, "vgg.conv1_1.weight"),
        (lambda: bare("32s", depths=(1, 2, 1, 1, 1)), bare, "vgg.conv2_2.weight"),
        (lambda: bare("32s"), lambda: bare(depths=(1, 2, 1, 1, 1)), "vgg.conv2_2.weight"),
        (lambda: bare("32s", batch_norm=True), bare, "vgg.bn1_1.gamma"),
        (lambda: tiny("16s", upsampling="learned"), tiny, "upscore2.weight"),
    ],
    ids=["classes", "width", "deeper start", "deeper network", "batch norm", "learned upsampling"],
)
def test_a_start_from_another_kind_of_network_is_refused_by_parameter(start, network, named):
    start, network = start(), network()
    before = network.state_dict()
    with pytest.raises(InputError, match=named):
        initialise_from(network, start)
    assert all((before[name] == array).all() for name, array in network.state_dict().items())


def test_at_once_scales_the_skips_as_published():
    image = picture(40, 50)
    plain, at_once = stirred(tiny(seed=1)), stirred(tiny(seed=1, at_once=True))
    expected = at_once.forward(image)
    for name, scale in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
        plain[name].weight.value *= np.float32(scale)
    np.testing.assert_allclose(expected, plain.forward(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_learned_upsampling_starts_as_the_frozen_one(variant, alignment):
    frozen, learned = (stirred(tiny(variant, alignment, upsampling=u)) for u in ("frozen", "learned"))
    for network, expected in ((frozen, True), (learned, False)):
        upscores = [p for name, p in network.parameters().items() if name.startswith("upscore")]
        assert len(upscores) == 1 + VARIANTS.index(variant)
        assert all(parameter.frozen is expected for parameter in upscores)
    image = picture(40, 70)
    close(learned.forward(image), frozen.forward(image), 1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"variant": "4s"}, {"backbone": "resnet"}, {"alignment": "none"}, {"upsampling": "magic"}, {"num_classes": 0}],
)
def test_unknown_names_are_refused(wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{argument}.*{value}"):
        models.fcn(**{"width": 1, **wrong})
    with pytest.raises(InputError, match="width: only the mini backbone"):
        models.fcn(backbone="alexnet", width=1)


@pytest.mark.parametrize("builder", [*models.SEGMENTERS, *models.CLASSIFIERS])
def test_counts_are_whole_numbers(builder):
    for wrong in ({"num_classes": "3"}, {"num_classes": 2.0}, {"num_classes": True}, {"seed": -1}, {"seed": "0"}):
        ((argument, value),) = wrong.items()
        with pytest.raises(
            InputError, match=f"^{builder}: {argument}: expected a whole number of at least ., got {value!r}"
        ):
            models.build(builder, wrong)
