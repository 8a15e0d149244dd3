"""The networks: alignment, sizes, staged initialisation, names and state."""

import numpy as np
import pytest

from minifcn import backend, layers, models, ops
from minifcn.models import alignment
from minifcn.models.efficientnet_lite0 import InvertedResidual
from minifcn.models.explain import Memory, Sketch, _sketching
from minifcn.models.fcn import FCN
from minifcn.models.vgg import VGG, trunk_pads

VARIANTS = ("32s", "16s", "8s")
ALIGNMENTS = ("paper", "same")
CROPS = {"32s": (None, None, 19), "16s": (5, None, 27), "8s": (5, 9, 31)}  # pool4, pool3, image: as published
LEARNED = {"32s": 134_346_581, "16s": 134_357_354, "8s": 134_362_751}  # biases included
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 500)
COARSER = (("32s", "16s"), ("16s", "8s"), ("32s", "8s"))


def tiny(variant="8s", alignment="paper", classes=2, **options):
    return models.fcn(variant, "mini", classes, alignment, width=1, **options)


def tiny_vgg16(variant):
    """The published network's layers with 1 to 3 channels, so that its maps fit anywhere."""
    rng = np.random.default_rng(0)
    trunk = VGG((1, 1, 2, 2, 2), (2, 2, 3, 3, 3), 3, 7, rng=rng, **trunk_pads("paper", fc_kernel=7))
    return FCN(trunk, variant, 2, "paper", rng=rng)


def draw_scores(network, seed=1):
    """Score layers start at zero; fill them, or every prediction is zero."""
    rng = np.random.default_rng(seed)
    for name, parameter in network.parameters().items():
        if name.startswith("score"):
            parameter.value = rng.normal(size=parameter.value.shape).astype(parameter.value.dtype)
    return network


def photograph(height, width, dtype=np.float32, seed=2):
    return np.random.default_rng(seed).normal(size=(1, 3, height, width)).astype(dtype)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("build", [tiny_vgg16, tiny], ids=["vgg16", "mini"])
def test_published_crops_follow_from_the_layers(build, variant):
    network = build(variant)
    crops = tuple(
        getattr(getattr(network, name, None), "offset", None) for name in ("crop_pool4", "crop_pool3", "crop")
    )
    assert crops == CROPS[variant]


def alexnet_chain():
    """CaffeNet made convolutional: each layer by its name, one channel each."""
    rng = np.random.default_rng(0)
    return {
        "conv1": layers.Conv2d(3, 1, 11, rng, stride=4, pad=100),
        "relu1": layers.ReLU(),
        "pool1": layers.MaxPool2d(3, stride=2, ceil_mode=True),
        "norm1": layers.LRN(),
        "conv2": layers.Conv2d(1, 1, 5, rng, pad=2),
        "pool2": layers.MaxPool2d(3, stride=2, ceil_mode=True),
        "norm2": layers.LRN(),
        "conv3": layers.Conv2d(1, 1, 3, rng, pad=1),
        "conv4": layers.Conv2d(1, 1, 3, rng, pad=1),
        "conv5": layers.Conv2d(1, 1, 3, rng, pad=1),
        "pool5": layers.MaxPool2d(3, stride=2, ceil_mode=True),
        "fc6": layers.Conv2d(1, 1, 6, rng),
        "fc7": layers.Conv2d(1, 1, 1, rng),
        "score_fr": layers.Conv2d(1, 1, 1, rng),
        "upscore": layers.Upsample(32, kernel=63),
    }


def test_alexnets_crop_of_18_follows_from_its_layers():
    chain = alexnet_chain().values()
    assert alignment.crop_offset(alignment.affine_of_chain(chain), alignment.IDENTITY) == 18
    assert alignment.affine_of(layers.Sequential(**alexnet_chain())) == alignment.affine_of_chain(chain)


def test_alexnets_map_sizes_at_500():
    x, sizes = photograph(500, 500), {}
    for name, layer in alexnet_chain().items():
        x = layer.forward(x)
        sizes[name] = x.shape[2]
    expected = {"conv1": 173, "pool1": 86, "pool2": 43, "pool5": 21, "fc6": 16, "upscore": 543}
    assert {name: sizes[name] for name in expected} == expected


@pytest.mark.parametrize(
    "variant, expected",
    [
        ("32s", {"upscore": 544}),
        ("16s", {"upscore2": 34, "upscore16": 560}),
        ("8s", {"upscore2": 34, "upscore_pool4": 70, "upscore8": 568}),
    ],
)
def test_map_sizes_at_500(variant, expected, monkeypatch):
    sizes, forward = {}, layers.Leaf.forward

    def recorded(layer, x, train=False, **options):
        y = forward(layer, x, train, **options)
        sizes[layer.name] = y.shape[2:]
        return y

    monkeypatch.setattr(layers.Leaf, "forward", recorded)
    tiny_vgg16(variant).forward(photograph(500, 500))
    trunk = {"conv1_1": 698, "pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc6": 16}
    expected = {**{f"vgg.{name}": size for name, size in trunk.items()}, **expected}
    assert {name: sizes[name] for name in expected} == {name: (size, size) for name, size in expected.items()}


@pytest.mark.parametrize(
    "larger, target",
    [((1, 0), (2, 0)), ((1, 0.5), (1, 0)), ((1, 0), (1, 3))],
    ids=["scales differ", "half a pixel", "negative offset"],
)
def test_maps_that_no_crop_aligns_are_refused(larger, target):
    larger, target = (alignment.Affine(*map(alignment.Fraction, m)) for m in (larger, target))
    with pytest.raises(ValueError, match="no crop"):
        alignment.crop_offset(larger, target)


def test_a_layer_without_a_coordinate_map_is_refused():
    with pytest.raises(TypeError, match="Linear"):
        alignment.affine_of(layers.Linear(1, 1, np.random.default_rng(0)))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_have_the_images_size_from_one_pixel_up(variant, alignment):
    network = tiny(variant, alignment)
    pairs = {*zip(SIZES, SIZES, strict=True), *zip(SIZES, SIZES[::-1], strict=True)}
    pairs |= set(zip(SIZES, SIZES[1:] + SIZES[:1], strict=True))
    wrong = {size for size in pairs if network.forward(photograph(*size)).shape != (1, 2, *size)}
    assert wrong == set()


@pytest.fixture
def blank(monkeypatch):
    """Zeros in place of drawn weights, where only shapes matter."""
    monkeypatch.setattr(layers.blocks, "he_normal", lambda shape, rng: np.zeros(shape, np.float32))


@pytest.fixture
def even(monkeypatch):
    """Every weight the mean's: a layer then averages what it sees, and the middle of what it sees is its place."""
    monkeypatch.setattr(
        layers.blocks, "he_normal", lambda shape, rng: np.full(shape, 1 / np.prod(shape[1:]), np.float32)
    )


TRUNKS = ("vgg16", "alexnet", "efficientnet_lite0")
OFFSETS = {  # of the published networks, built as they are
    ("32s", "vgg16"): {"crop": 19},
    ("16s", "vgg16"): {"crop_pool4": 5, "crop": 27},
    ("8s", "vgg16"): {"crop_pool4": 5, "crop_pool3": 9, "crop": 31},
    ("32s", "alexnet"): {"crop": 18},
}


@pytest.mark.parametrize(("variant", "backbone"), OFFSETS)
def test_the_six_published_crops(variant, backbone, blank):
    network = models.fcn(variant, backbone, 21, "paper")
    crops = {name: layer.offset for name, layer in network.children().items() if isinstance(layer, layers.Crop)}
    assert crops == OFFSETS[variant, backbone]


@pytest.mark.parametrize(("backbone", "kernel"), [("vgg16", 64), ("alexnet", 63)])
def test_the_published_kernels(backbone, kernel, blank):
    upscore = models.fcn("32s", backbone, 21, "paper").upscore
    assert upscore.line.value.shape == (kernel,)
    assert upscore.settings == {"stride": 32, "pad": 0}


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backbone", ["alexnet", "efficientnet_lite0"])
def test_other_trunks_give_logits_of_the_images_size_too(backbone, alignment, blank):
    network = models.fcn("8s", backbone, 2, alignment)
    for size in [(1, 1), (1, 40), (33, 2), (64, 65)]:
        logits = network.forward(photograph(*size), train=True)
        assert logits.shape == (1, 2, *size)
        assert network.backward(logits).shape == (1, 3, *size)


def logits_shape(network, height, width):
    with _sketching(network, train=False):
        return network.forward(Sketch((1, 3, height, width), Memory())).shape


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", TRUNKS)
def test_logits_have_the_images_size_for_every_side_up_to_1100(backbone, variant, alignment, blank):
    """Worked out without running; with pools that round down, a third of these sizes would leave too little to crop."""
    network = models.fcn(variant, backbone, 2, alignment)
    pairs = [(n, 1101 - n) for n in range(1, 551)]
    assert [size for size in pairs if logits_shape(network, *size) != (1, 2, *size)] == []


def test_the_sweep_would_notice_pools_that_round_down(blank):
    """396 of the 1,068 sides from 32 to 1,099, as has been counted for the published network."""
    network = models.fcn("32s", "vgg16", 2, "paper")
    for pool in network.layers_of(layers.MaxPool2d):
        pool.settings["ceil_mode"] = False
    failures = 0
    for side in range(32, 1100):
        try:
            logits_shape(network, side, side)
        except ValueError as error:
            assert str(error).startswith("crop (Crop): ")
            failures += 1
    assert failures == 396


def steps_of(network):
    """The parts of a variant: (the way from the image to a score, the layers from there to the logits)."""

    def chain(tap):
        return [network.pad_input, *network.backbone.up_to(tap)]

    if network.variant == "32s":
        return {"fc7": [*chain("fc7"), network.upscore]}
    if network.variant == "16s":
        fine, joined = [network.upscore16], [network.upscore2]
    else:
        fine, joined = [network.upscore_pool4, network.upscore8], [network.upscore2]
    paths = {"fc7": [*chain("fc7"), *joined, *fine], "pool4": [*chain("pool4"), network.crop_pool4, *fine]}
    if network.variant == "8s":
        paths["pool3"] = [*chain("pool3"), network.crop_pool3, network.upscore8]
    return paths


@pytest.mark.parametrize("upsampling", ["frozen", "learned"])
@pytest.mark.parametrize("network_alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", [*TRUNKS, "mini"])
def test_every_way_from_the_image_to_the_logits_comes_back_to_its_pixel(
    backbone, variant, network_alignment, upsampling, blank
):
    network = models.fcn(variant, backbone, 2, network_alignment, upsampling=upsampling)
    paths = steps_of(network)
    assert len(paths) == 1 + VARIANTS.index(variant)
    for tap, chain in paths.items():
        assert alignment.affine_of_chain([*chain, network.crop]) == alignment.IDENTITY, tap


def linear(network):
    """Averages in place of maxima, nothing dropped, no batch statistics, equal scores: the average of what a pixel sees."""
    for name, layer in network.backbone.layers.items():
        if isinstance(layer, layers.MaxPool2d):
            settings = {key: value for key, value in layer.settings.items() if key != "dilation"}
            network.backbone.layers[name] = layers.AvgPool2d(layer.kernel, **settings)
    for dropout in network.layers_of(layers.Dropout):
        dropout.p = 0.0
    for norm in network.layers_of(layers.BatchNorm2d):
        norm.frozen = True
    for name, p in network.parameters().items():
        if name.startswith("score") and name.endswith("weight"):
            p.value += np.float32(1 / p.value.shape[1])
    return network


WIDTHS = {"mini": 640, "alexnet": 640, "efficientnet_lite0": 1056}  # more than a receptive field around the middle


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
@pytest.mark.parametrize("across", [True, False], ids=["across", "down"])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    ("backbone", "variant"), [(b, v) for b in WIDTHS for v in VARIANTS if b != "efficientnet_lite0" or v == "32s"]
)
def test_what_a_pixel_of_the_logits_depends_on_lies_around_that_pixel(
    backbone, variant, alignment, across, algorithm, even
):
    """The centre of mass of a logit's gradient is the logit's own place: bilinear interpolation keeps it, between cells too.

    But for EfficientNet-Lite0: each of its five halvings leans half a cell to the bottom and right, which `alignment` leaves
    to the trained weights. In FCN-32s that adds up to 15.5 pixels; with skips it depends on the weights.
    """
    lean = 15.5 if backbone == "efficientnet_lite0" else 0
    network = linear(models.fcn(variant, backbone, 1, alignment))
    length, place = WIDTHS[backbone], WIDTHS[backbone] // 2 + 5
    size = (32, length) if across else (length, 32)
    image = np.full((1, 3, *size), 1e-3, np.float32)  # residuals add up: no ReLU6 may come to its end
    with ops.conv_algorithm(algorithm):
        logits = network.forward(image, train=True)
        dlogits = np.zeros_like(logits)
        dlogits[(0, 0, 16, place) if across else (0, 0, place, 16)] = 1
        dx = network.backward(dlogits).astype(np.float64)
    weight = dx.sum(axis=(0, 1, 2) if across else (0, 1, 3))
    rounding = 0 if algorithm == "im2col" else 1e-6  # of Winograd's differences; im2col adds up products alone
    assert weight.min() >= -rounding * weight.max()
    assert weight.sum() > 0
    assert (weight * np.arange(length)).sum() / weight.sum() == pytest.approx(place + lean, abs=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_the_images_gradient_the_others_are_the_same(variant, monkeypatch):
    calls, input_gradient = [], ops.conv_algorithms.input_gradient
    monkeypatch.setattr(ops.conv_algorithms, "input_gradient", lambda *a: calls.append(1) or input_gradient(*a))
    network = draw_scores(tiny(variant, "same"))
    for dropout in network.layers_of(layers.Dropout):
        dropout.p = 0.0
    x, found, counts = photograph(40, 33), [], []
    for options in ({}, {"inputs": False}):
        calls.clear()
        network.zero_grad()
        dx = network.backward(network.forward(x, train=True), **options)
        assert (dx is None) == bool(options)
        found.append({name: p.grad.copy() for name, p in network.parameters().items()})
        counts.append(len(calls))
    assert counts[1] == counts[0] - 1
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(found[1][name], gradient, err_msg=name)
    assert sum(gradient.any() for gradient in found[0].values()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("backbone", ["alexnet", "efficientnet_lite0"])
def test_other_trunks_compute_the_same_on_every_device(backbone, alignment, device, monkeypatch):
    """In float64: in float32 a unit whose input is nearly 0 or 6 may be on one side of it here and on the other there."""

    def draw(shape, rng):
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))

    monkeypatch.setattr(layers.blocks, "he_normal", draw)
    results = []
    for name, put, get in (("numpy", np.asarray, np.asarray), (device.name, device.put, device.get)):
        backend.use(name)  # parameters are born on the backend that is chosen
        network = models.fcn("8s", backbone, 2, alignment, seed=1)
        for score in (network.score_fr, network.score_pool4, network.score_pool3):
            score.weight.value = put(draw(score.weight.value.shape, np.random.default_rng(2)))
        for norm in network.layers_of(layers.BatchNorm2d):
            norm.frozen = True
        network.astype("float64")
        logits = network.forward(put(photograph(20, 33).astype("float64")), train=True)
        dx = network.backward(put(np.random.default_rng(3).standard_normal(logits.shape)))
        gradients = {name: get(p.grad) for name, p in network.parameters().items() if not p.frozen}
        results.append({"logits": get(logits), "image": get(dx), **gradients})
    expected, found = results
    for name, array in found.items():
        reference = expected[name]
        assert reference.any(), name
        np.testing.assert_allclose(array, reference, rtol=0, atol=1e-11 * abs(reference).max(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backbone", ["alexnet", "efficientnet_lite0"])
def test_over_other_trunks_a_shift_by_32_pixels_shifts_the_logits_by_32(backbone, variant, alignment):
    network = draw_scores(models.fcn(variant, backbone, 2, alignment))
    length = WIDTHS[backbone] + 160
    scene = photograph(32, length + 32)
    here, shifted = network.forward(scene[..., :length]), network.forward(scene[..., 32:])
    inner = slice(length // 2 - 32, length // 2 + 32)  # beyond the reach of the borders
    expected = here[..., inner.start + 32 : inner.stop + 32]
    assert expected.std() > 0
    np.testing.assert_allclose(shifted[..., inner], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.abs(shifted[..., inner] - here[..., inner]).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_the_enlarging_kernel_is_the_one_that_lies_on_the_grid(factor):
    """Between the cells where the coordinates ask for half a pixel, else on them."""
    half, whole = (alignment.Affine(alignment.Fraction(1, factor), alignment.Fraction(b)) for b in ("1/2", "0"))
    half = half._replace(b=half.b / factor)
    assert alignment.enlarging_kernel(factor, half, alignment.IDENTITY) == 2 * factor
    assert alignment.enlarging_kernel(factor, whole, alignment.IDENTITY) == 2 * factor - 1
    for at, kernel in ((half, 2 * factor), (whole, 2 * factor - 1)):
        a, b = alignment.enlarged(at, factor, kernel)
        assert (a, b.denominator) == (1, 1)
    third = alignment.Affine(alignment.Fraction(1, factor), alignment.Fraction(1, 3 * factor))
    with pytest.raises(ValueError, match=f"no enlargement by {factor} takes offset 1/{3 * factor}"):
        alignment.enlarging_kernel(factor, third, alignment.IDENTITY)


@pytest.mark.parametrize("kernel", [3, 5])
def test_an_inverted_residuals_values_lie_in_the_middle_of_their_cells(kernel):
    """Of stride 2, output i stands for the pixels 2i and 2i + 1, however its window leans."""
    rng = np.random.default_rng(0)
    assert alignment.affine_of(InvertedResidual(4, 4, kernel, 1, 6, rng)) == alignment.IDENTITY
    halved = alignment.affine_of(InvertedResidual(4, 6, kernel, 2, 6, rng))
    assert halved == (alignment.Fraction(1, 2), alignment.Fraction(-1, 4))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2)])
def test_backward_returns_a_gradient_of_the_images_size(size, alignment):
    network = draw_scores(tiny("8s", alignment))
    logits = network.forward(photograph(*size), train=True)
    assert network.backward(np.ones_like(logits)).shape == (1, 3, *size)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_shifted_by_32_pixels_has_its_logits_shifted_by_32(variant, alignment):
    network = draw_scores(tiny(variant, alignment, seed=3)).astype(np.float64)
    scene = photograph(600, 632, np.float64)
    here, shifted = network.forward(scene[..., :600]), network.forward(scene[..., 32:])
    inner = slice(224, 352)  # beyond the reach of the borders
    expected = here[..., inner, inner.start + 32 : inner.stop + 32]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(shifted[..., inner, inner], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("alignment, size", [("paper", (90, 122)), ("same", (64, 96))])  # no pool has a partial window
@pytest.mark.parametrize("variant", VARIANTS)
def test_symmetric_kernels_give_a_mirrored_image_mirrored_logits(variant, alignment, size):
    """Any branch that lay off by a single pixel would break the symmetry."""
    network = draw_scores(tiny(variant, alignment, seed=3)).astype(np.float64)
    for parameter in network.parameters().values():
        if parameter.value.ndim == 4:
            parameter.value = parameter.value + parameter.value[:, :, ::-1, ::-1]
    image = photograph(*size, np.float64)
    logits = network.forward(image)
    assert logits.std() > 1e-3
    mirrored = network.forward(np.ascontiguousarray(image[:, :, ::-1, ::-1]))
    np.testing.assert_allclose(mirrored[:, :, ::-1, ::-1], logits, rtol=0, atol=1e-10 * np.abs(logits).max())


@pytest.mark.parametrize("coarse, fine", COARSER)
def test_a_staged_network_shares_weights_and_its_new_skips_add_nothing(coarse, fine):
    start = draw_scores(tiny(coarse, seed=1))
    network = tiny(fine, seed=2)
    assert network.initialise_from(start) is network
    own, given = network.state_dict(), start.state_dict()
    shared = own.keys() & given.keys()
    assert {"vgg.conv1_1.weight", "vgg.fc7.weight", "vgg.bn1_1.running_mean", "score_fr.weight"} <= shared
    for name in shared:
        np.testing.assert_array_equal(own[name], given[name], err_msg=name)
    new = [name for name in own.keys() - given.keys() if name.startswith("score")]
    assert new and not any(own[name].any() for name in new)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("coarse, fine", COARSER)
def test_a_staged_networks_first_prediction_lies_where_the_coarser_ones_lay(coarse, fine, alignment):
    """Enlarging ×2 and ×16 is nearly, not quite, enlarging ×32; a shift by 4 pixels must make that worse."""
    start = draw_scores(tiny(coarse, alignment, seed=1))
    image = photograph(160, 192)
    before = start.forward(image)[..., 40:-40, 40:-40]
    after = tiny(fine, alignment, seed=2).initialise_from(start).forward(image)

    def distance(dy, dx):
        return np.square(after[..., 40 + dy : 120 + dy, 40 + dx : 152 + dx] - before).mean()

    shifts = [(dy, dx) for dy in (-4, 0, 4) for dx in (-4, 0, 4)]
    assert min(shifts, key=lambda shift: distance(*shift)) == (0, 0)
    assert distance(0, 0) < 0.05 * before.var()


def test_staged_weights_are_copies():
    start = draw_scores(tiny("32s"))
    network = tiny("16s").initialise_from(start)
    network.parameters()["score_fr.bias"].value[...] = 77
    assert not (start.parameters()["score_fr.bias"].value == 77).any()


@pytest.mark.parametrize("coarse, fine", COARSER)
def test_a_coarser_network_cannot_start_from_a_finer_one(coarse, fine):
    with pytest.raises(ValueError, match=f"FCN-{coarse} cannot start from the finer FCN-{fine}"):
        tiny(coarse).initialise_from(tiny(fine))


def bare(depths=(1, 1, 1, 1, 1), width=1, batch_norm=False, variant="16s"):
    rng = np.random.default_rng(0)
    trunk = VGG((width,) * 5, depths, 1, 7, rng=rng, batch_norm=batch_norm, **trunk_pads("same", fc_kernel=7))
    return FCN(trunk, variant, 2, "same", rng=rng)


@pytest.mark.parametrize(
    "start, network, named",
    [
        (lambda: tiny("32s", classes=3), lambda: tiny("16s", classes=2), "score_fr.weight"),
        (lambda: bare(width=2, variant="32s"), bare, "vgg.conv1_1.weight"),
        (lambda: bare(depths=(1, 2, 1, 1, 1), variant="32s"), bare, "vgg.conv2_2.weight"),
        (lambda: bare(variant="32s"), lambda: bare(depths=(1, 2, 1, 1, 1)), "vgg.conv2_2.weight"),
        (lambda: bare(batch_norm=True, variant="32s"), bare, "vgg.bn1_1.gamma"),
        (lambda: tiny("16s", upsampling="learned"), tiny, "upscore2.weight"),
    ],
    ids=["classes", "width", "deeper start", "deeper network", "batch norm", "learned upsampling"],
)
def test_a_start_from_another_kind_of_network_is_refused_by_parameter(start, network, named):
    start, network = start(), network()
    before = network.state_dict()
    with pytest.raises(ValueError, match=named):
        network.initialise_from(start)
    assert all((before[name] == array).all() for name, array in network.state_dict().items())


def test_at_once_scales_the_skips_as_published():
    image = photograph(40, 50)
    plain, at_once = draw_scores(tiny(seed=1)), draw_scores(tiny(seed=1, at_once=True))
    expected = at_once.forward(image)
    for name, scale in (("score_pool4.weight", 0.01), ("score_pool3.weight", 0.0001)):
        plain.parameters()[name].value *= np.float32(scale)
    np.testing.assert_allclose(expected, plain.forward(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_learned_upsampling_starts_as_the_frozen_one(variant, alignment):
    frozen, learned = (draw_scores(tiny(variant, alignment, upsampling=u)) for u in ("frozen", "learned"))
    for network, expected in ((frozen, True), (learned, False)):
        upscores = [p for name, p in network.parameters().items() if name.startswith("upscore")]
        assert len(upscores) == 1 + VARIANTS.index(variant)
        assert all(parameter.frozen is expected for parameter in upscores)
    image = photograph(40, 70)
    logits = frozen.forward(image)
    np.testing.assert_allclose(learned.forward(image), logits, rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize(
    "wrong",
    [{"variant": "4s"}, {"backbone": "resnet"}, {"alignment": "none"}, {"upsampling": "magic"}, {"num_classes": 0}],
)
def test_unknown_names_are_refused(wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{argument}.*{value}"):
        models.fcn(**{"width": 1, **wrong})


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_parameter_counts(variant, monkeypatch):
    monkeypatch.setattr(layers.blocks, "he_normal", lambda shape, rng: np.zeros(shape, np.float32))  # no need to draw
    parameters = models.fcn(variant, "vgg16", 21).parameters()
    assert sum(p.value.size for p in parameters.values() if not p.frozen) == LEARNED[variant]
