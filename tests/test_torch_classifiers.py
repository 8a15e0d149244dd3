"""Every classifier and every FCN against the same network in PyTorch's functions: logits and gradients.

The references are written from the papers' tables, with literal kernels, pads and crops, and share nothing with the
library but the weights. All are of their published sizes, but for FCNs over VGG16, which have few channels.
"""

import zlib
from functools import partial
from itertools import product

import numpy as np
import pytest

from minifcn import layers, models
from minifcn.models.fcn import fcn_nodes
from minifcn.models.vgg import vgg_backbone

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.torch

slow = pytest.mark.slow  # many millions of numbers
CLASSES = 4
LOGITS, GRADIENTS = 1e-4, 1e-9  # relative: in float32, and by norm in float64
LITE0 = [  # repeats, kernel, stride, width, expansion
    *((1, 3, 1, 16, 1), (2, 3, 2, 24, 6), (2, 5, 2, 40, 6), (3, 3, 2, 80, 6)),
    *((3, 5, 1, 112, 6), (4, 5, 2, 192, 6), (1, 3, 1, 320, 6)),
]


# --- The references -----------------------------------------------------------------------------------------------


def conv(x, w, name, **settings):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **settings)


def vgg_features(x, w, first_pad=1):
    pools = []
    for group, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, depth + 1):
            x = F.relu(conv(x, w, f"conv{group}_{i}", padding=first_pad if (group, i) == (1, 1) else 1))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    return pools


def pool_3_2(x, lean):
    """Caffe's: the last window may fit in part. `lean`: every window fits, with a row more at the end."""
    if lean:
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def caffenet_features(x, w, first_pad=(0, 0), lean=False):
    before, after = first_pad
    x = F.relu(conv(F.pad(x, (before, after, before, after)), w, "conv1", stride=4))
    pool1 = pool_3_2(x, lean)
    x = F.local_response_norm(pool1, 5, alpha=1e-4, beta=0.75, k=1.0)
    pool2 = pool_3_2(F.relu(conv(x, w, "conv2", padding=2, groups=2)), lean)
    x = F.local_response_norm(pool2, 5, alpha=1e-4, beta=0.75, k=1.0)
    x = F.relu(conv(x, w, "conv3", padding=1))
    x = F.relu(conv(x, w, "conv4", padding=1, groups=2))
    x = F.relu(conv(x, w, "conv5", padding=1, groups=2))
    return pool1, pool2, pool_3_2(x, lean)


def lite0_features(x, w, train):
    def unit(x, name, act=True, **settings):
        norm = name.replace("expand", "bn_expand").replace("depthwise", "bn_depthwise").replace("project", "bn_project")
        norm = {"stem": "bn_stem", "head": "bn_head"}.get(name, norm)
        mean, var = w[f"{norm}.running_mean"].clone(), w[f"{norm}.running_var"].clone()
        x = conv(x, w, name, **settings)
        x = F.batch_norm(x, mean, var, w[f"{norm}.gamma"], w[f"{norm}.beta"], training=train, eps=1e-3)
        return F.relu6(x) if act else x

    def padded(x, kernel, stride):
        totals = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in totals)
        return F.pad(x, (left, right, top, bottom))

    x = unit(padded(x, 3, 2), "stem", stride=2)
    outputs = []
    for repeats, kernel, first_stride, width, expansion in LITE0:
        for i in range(repeats):
            block, stride, start = f"block{len(outputs)}", first_stride if i == 0 else 1, x
            if expansion > 1:
                x = unit(x, f"{block}.expand")
            assert x.shape[1] == start.shape[1] * expansion
            x = unit(padded(x, kernel, stride), f"{block}.depthwise", stride=stride, groups=x.shape[1])
            x = unit(x, f"{block}.project", act=False)
            assert x.shape[1] == width
            x = x + start if i > 0 else x
            outputs.append(x)
    return outputs, unit


def fully_connected(x, w, names):
    for name in names[:-1]:
        x = F.relu(F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]))
    return F.linear(x, w[f"{names[-1]}.weight"], w[f"{names[-1]}.bias"])


def vgg16(x, w, train):
    return fully_connected(vgg_features(x, w)[-1].flatten(1), w, ("fc6", "fc7", "fc8"))


def alexnet(x, w, train):
    return fully_connected(caffenet_features(x, w)[-1].flatten(1), w, ("fc6", "fc7", "fc8"))


def alexnet_torchvision(x, w, train):
    x = F.max_pool2d(F.relu(conv(x, w, "conv1", stride=4, padding=2)), 3, 2)
    x = F.max_pool2d(F.relu(conv(x, w, "conv2", padding=2)), 3, 2)
    for name in ("conv3", "conv4", "conv5"):
        x = F.relu(conv(x, w, name, padding=1))
    x = F.adaptive_avg_pool2d(F.max_pool2d(x, 3, 2), 6)
    return fully_connected(x.flatten(1), w, ("fc6", "fc7", "fc8"))


def efficientnet_lite0(x, w, train):
    outputs, unit = lite0_features(x, w, train)
    x = unit(outputs[-1], "head").mean(dim=(2, 3))
    return F.linear(x, w["fc.weight"], w["fc.bias"])


def vgg16_pools(x, w, paper, train):
    pools = vgg_features(x, w, first_pad=100 if paper else 1)
    fc6 = F.relu(conv(pools[4], w, "fc6", padding=0 if paper else 3))
    return pools[2], pools[3], F.relu(conv(fc6, w, "fc7"))


def alexnet_pools(x, w, paper, train):
    pool1, pool2, pool5 = caffenet_features(x, w, *(((100, 100), False) if paper else ((3, 4), True)))
    fc6 = F.relu(conv(pool5 if paper else F.pad(pool5, (3, 2, 3, 2)), w, "fc6"))
    return pool1, pool2, F.relu(conv(fc6, w, "fc7"))


def lite0_pools(x, w, paper, train):
    outputs, unit = lite0_features(x, w, train)
    return outputs[4], outputs[10], unit(outputs[15], "head") if "head.weight" in w else outputs[15]


# Of each upsampling the kernel, the rows to cut off before and after, and the crop that follows: of pool4, of pool3, of the
# result. For VGG16 and FCN-32s-AlexNet in the paper's alignment as published; for the others worked out by hand from the
# coordinates: a window moves them by (pad − (k − 1)/2)/stride, an upsampling by (k − 1)/2 − cut.
STEPS = ("pool4", "pool3", "32s", "16s", "8s")
GEOMETRY = {
    ("vgg16", "paper"): [(4, 0, 0, 5), (4, 0, 0, 9), (64, 0, 0, 19), (32, 0, 0, 27), (16, 0, 0, 31)],
    ("vgg16", "same"): [(4, 1, 1, 0), (4, 1, 1, 0), (64, 16, 16, 0), (32, 8, 8, 0), (16, 4, 4, 0)],
    ("alexnet", "paper"): [(3, 0, 0, 5), (3, 0, 0, 10), (63, 0, 0, 18), (31, 0, 0, 18), (15, 0, 0, 18)],
    ("alexnet", "same"): [(3, 1, 0, 0), (3, 0, 1, 0), (63, 17, 14, 0), (31, 1, 14, 0), (15, 1, 6, 0)],
    ("efficientnet_lite0", "paper"): [(4, 1, 1, 0), (4, 1, 1, 0), (64, 16, 16, 100), (32, 8, 8, 100), (16, 4, 4, 100)],
    ("efficientnet_lite0", "same"): [(4, 1, 1, 0), (4, 1, 1, 0), (64, 16, 16, 0), (32, 8, 8, 0), (16, 4, 4, 0)],
}
GEOMETRY |= {("efficientnet_lite0_head", a): GEOMETRY["efficientnet_lite0", a] for a in ("paper", "same")}
FEATURES = {"vgg16": vgg16_pools, "alexnet": alexnet_pools, "efficientnet_lite0": lite0_pools}
BACKBONES = tuple(FEATURES)
FEATURES["efficientnet_lite0_head"] = lite0_pools
PREFIXES = "vgg.", "alexnet.", "lite0."


def upsample(x, factor, kernel, before, after):
    f = (kernel + 1) // 2
    centre = f - 1 if kernel % 2 else f - 0.5
    row = 1 - abs(torch.arange(kernel, dtype=x.dtype) - centre) / f
    y = F.conv_transpose2d(x, torch.outer(row, row).expand(CLASSES, 1, -1, -1), stride=factor, groups=CLASSES)
    return y[:, :, before : y.shape[2] - after, before : y.shape[3] - after]


def part(x, offset, like):
    return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]


def fcn(image, w, train, *, variant, backbone, alignment, at_once=False):
    x, paper = image, alignment == "paper"
    input_pad = 100 if paper and backbone.startswith("efficientnet") else 0
    if input_pad or not paper:
        height, width = (side + 2 * input_pad for side in image.shape[2:])
        x = F.pad(image, (input_pad, input_pad + -width % 32, input_pad, input_pad + -height % 32))
    bare = {name.removeprefix(next(filter(name.startswith, PREFIXES), "")): value for name, value in w.items()}
    pool3, pool4, fc7 = FEATURES[backbone](x, bare, paper, train)
    steps = dict(zip(STEPS, GEOMETRY[backbone, alignment], strict=True))
    score = conv(fc7, w, "score_fr")
    if variant != "32s":
        score = upsample(score, 2, *steps["pool4"][:3])
        score = score + part(conv(pool4 * (0.01 if at_once else 1), w, "score_pool4"), steps["pool4"][3], score)
    if variant == "8s":
        score = upsample(score, 2, *steps["pool3"][:3])
        score = score + part(conv(pool3 * (0.0001 if at_once else 1), w, "score_pool3"), steps["pool3"][3], score)
    *enlarged, crop = steps[variant]
    return part(upsample(score, int(variant.removesuffix("s")), *enlarged), crop, image)


# --- The same weights on both sides -------------------------------------------------------------------------------


def drawn(name, shape, dtype):
    """The values of a parameter or buffer, by its name; batch normalisation's statistics are not those of any batch."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(("running_var", "gamma")):
        return (rng.random(shape, np.float32) + np.float32(0.5)).astype(dtype)
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
    return (rng.standard_normal(shape, np.float32) * np.float32(scale)).astype(dtype)


def prepared(network, dtype, frozen):
    """The network with drawn weights of this dtype, and its state as tensors."""
    network.astype(dtype)
    for name, parameter in network.parameters().items():
        if not parameter.frozen:
            parameter.value = drawn(name, parameter.value.shape, dtype)
    for name, (layer, key) in network.buffers().items():
        setattr(layer, key, drawn(name, getattr(layer, key).shape, dtype))
    for layer in network.layers_of(layers.Dropout):
        layer.p = 0.0
    for layer in network.layers_of(layers.BatchNorm2d):
        layer.frozen = frozen
    return {name: torch.from_numpy(value) for name, value in network.state_dict().items()}


def compare_logits(network, reference, image):
    tensors, image = prepared(network, "float32", frozen=True), image.astype("float32")
    with torch.no_grad():
        expected = reference(torch.from_numpy(image), tensors, False).numpy()
    logits = network.forward(image)
    assert logits.shape == expected.shape
    assert expected.std() > 0
    np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS * abs(expected).max())


def compare_gradients(network, reference, image, frozen):
    tensors = prepared(network, "float64", frozen)
    learned = {name: p for name, p in network.parameters().items() if not p.frozen}
    leaves = {"image": torch.from_numpy(image), **{name: tensors[name] for name in learned}}
    for leaf in leaves.values():
        leaf.requires_grad_()
    expected = reference(leaves["image"], tensors, not frozen)
    logits = network.forward(image, train=True)
    dlogits = np.random.default_rng(4).standard_normal(logits.shape)
    theirs = [expected, *torch.autograd.grad(expected, list(leaves.values()), torch.from_numpy(dlogits))]
    ours = {"logits": logits, "image": network.backward(dlogits), **{name: p.grad for name, p in learned.items()}}
    theirs = [tensor.detach().numpy() for tensor in theirs]
    largest = max(map(np.linalg.norm, theirs))
    for (name, array), other in zip(ours.items(), theirs, strict=True):
        assert array.shape == other.shape, name
        size = np.linalg.norm(other)
        assert size > 0, name
        # A shift that the next normalisation takes away has a gradient of zero, which rounding leaves at something less.
        vanishes = not frozen and size <= 1e-12 * largest
        assert np.linalg.norm(array - other) <= (1e-12 * largest if vanishes else GRADIENTS * size), name


def narrow_vgg16_fcn(variant, backbone, alignment, at_once=False):
    rng = np.random.default_rng(0)
    body = vgg_backbone((4, 5, 6, 8, 7), (2, 2, 3, 3, 3), 9, alignment, rng)
    return models.Graph(fcn_nodes(body, variant, CLASSES, alignment, at_once=at_once, rng=rng))


def case(name, build, reference, size, frozen=True, gradients=True, scale=60, marks=()):
    """scale: the range of pixels that the network is made for; AlexNet's normalisation sees small ones hardly at all."""
    name += "" if frozen else "-train"
    return pytest.param(build, reference, size, scale, frozen, gradients, id=name, marks=marks)


def segmenter(backbone, alignment, variant, frozen=True, **options):
    settings = {"variant": variant, "backbone": backbone, "alignment": alignment, **options}
    build = narrow_vgg16_fcn if backbone == "vgg16" else partial(models.fcn, num_classes=CLASSES)
    size = (28, 8) if alignment == "paper" else (40, 70)  # fc7's map is 2 × 1, and 2 × 3
    name = "-".join([variant, backbone, alignment, *options])
    scale = 1 if backbone.startswith("efficientnet") else 60
    build, reference = partial(build, **settings), partial(fcn, **settings)
    wide = backbone == "alexnet" and (alignment, variant) != ("same", "16s")  # fc6 has 38 million weights
    marks = slow if wide or (alignment == "paper" and not frozen) else ()
    return case(name, build, reference, size, frozen, variant == "8s", scale, marks)


published = (models.vgg16, models.alexnet, models.alexnet_torchvision, models.efficientnet_lite0)
vgg, caffenet, other_alexnet, lite0 = (partial(build, CLASSES) for build in published)
NETWORKS = [
    case(
        "vgg16", vgg, vgg16, (193, 196), gradients=False, marks=slow
    ),  # the smallest that its pools, rounding up, take to 7 × 7
    case("alexnet", caffenet, alexnet, (227, 227), marks=slow),
    case("alexnet_torchvision", other_alexnet, alexnet_torchvision, (224, 224), scale=1, marks=slow),
    case("alexnet_torchvision-average", other_alexnet, alexnet_torchvision, (250, 300), gradients=False, scale=1),
    case("lite0", lite0, efficientnet_lite0, (64, 64), gradients=False, scale=1),
    case("lite0-odd", lite0, efficientnet_lite0, (65, 50), scale=1),
    case("lite0", lite0, efficientnet_lite0, (64, 64), frozen=False, scale=1),
    *(segmenter(*setting) for setting in product(BACKBONES, ("paper", "same"), ("32s", "16s", "8s"))),
    segmenter("vgg16", "paper", "8s", at_once=True),
    *(segmenter("efficientnet_lite0", alignment, "8s", frozen=False) for alignment in ("paper", "same")),
    *(segmenter("efficientnet_lite0_head", alignment, "8s") for alignment in ("paper", "same")),
]


@pytest.mark.parametrize(("build", "reference", "size", "scale", "frozen", "gradients"), NETWORKS)
def test_both_compute_alike(build, reference, size, scale, frozen, gradients, blank):
    network, batch = build(), 1 if frozen else 2
    image = np.random.default_rng(3).standard_normal((batch, 3, *size)) * scale
    compare_logits(network, reference, image)
    if gradients:
        compare_gradients(network, reference, image, frozen)
