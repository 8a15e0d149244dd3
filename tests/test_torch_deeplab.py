"""DeepLab against the same networks in PyTorch's functions: logits, all gradients, and twenty steps of training.

The references are written from the papers and share nothing with the library but the weights.
"""

import numpy as np
import pytest
from networks import stirred, without_chance

from minifcn import layers
from minifcn.layers.graph import Graph
from minifcn.models import vgg
from minifcn.models.deeplab import deeplab_nodes
from minifcn.models.efficientnet_lite0 import LITE0_BACKBONES
from minifcn.training import loop
from minifcn.training.optimizers import SGD

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
from test_torch_unet import compared, in_pytorch  # noqa: E402 - it needs PyTorch

F = torch.nn.functional

pytestmark = pytest.mark.torch

STEPS, LR = 20, 0.001
LITE0 = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]  # repeats, kernel, stride


def conv(x, w, name, **settings):
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **settings)


def norm(x, w, name, train=False, eps=1e-5):
    keys = ("running_mean", "running_var", "gamma", "beta")
    return F.batch_norm(x, *(w[f"{name}.{key}"] for key in keys), training=train, eps=eps)


def vgg_trunk(x, w, output_stride):
    """-> maps at 1/4, the last maps"""
    dilation, found = 1, []
    for group, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, depth + 1):
            x = F.relu(conv(x, w, f"vgg.conv{group}_{i}", padding=dilation, dilation=dilation))
        halves = 2**group <= output_stride
        x = F.max_pool2d(x, 3, 2 if halves else 1, 1, ceil_mode=True)
        dilation *= 1 if halves else 2
        found.append(x)
    return found[1], x


def lite0_trunk(x, w, output_stride):
    """The same; strides beyond the output stride are left out, and all windows behind them spread."""

    def depthwise(x, name, kernel, stride, dilation):
        need = [max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0) for n in x.shape[2:]]
        x = F.pad(x, (need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2))
        groups = x.shape[1] if w[f"{name}.weight"].shape[1] == 1 else 1
        return conv(x, w, name, stride=stride, dilation=dilation, groups=groups)

    x = F.relu6(norm(depthwise(x, "lite0.stem", 3, 2, 1), w, "lite0.bn_stem", eps=1e-3))
    reached, dilation, block, low = 2, 1, 0, None
    for repeats, kernel, first in LITE0:
        for i in range(repeats):
            name, before, stride = f"lite0.block{block}", x, first if i == 0 else 1
            if f"{name}.expand.weight" in w:
                x = F.relu6(norm(conv(x, w, f"{name}.expand"), w, f"{name}.bn_expand", eps=1e-3))
            kept = stride if reached * stride <= output_stride else 1
            x = depthwise(x, f"{name}.depthwise", kernel, kept, dilation)
            reached, dilation = reached * kept, dilation * (stride // kept)
            x = F.relu6(norm(x, w, f"{name}.bn_depthwise", eps=1e-3))
            x = norm(conv(x, w, f"{name}.project"), w, f"{name}.bn_project", eps=1e-3)
            if stride == 1 and x.shape == before.shape:
                x = x + before
            block += 1
            low = x if reached == 4 else low
    if "lite0.head.weight" in w:
        x = F.relu6(norm(conv(x, w, "lite0.head"), w, "lite0.bn_head", eps=1e-3))
    return low, x


def unit(x, w, name, train, rate=None):
    if rate is None:
        return F.relu(norm(conv(x, w, f"{name}.conv"), w, f"{name}.bn", train))
    x = conv(x, w, f"{name}.depthwise1", padding=rate, dilation=rate, groups=x.shape[1])
    x = F.relu(norm(x, w, f"{name}.bn1", train))
    return F.relu(norm(conv(x, w, f"{name}.pointwise2"), w, f"{name}.bn2", train))


def enlarged(x, size, factor, cells):
    """Bilinear, from cells' middles or from the pixels that values lie on, to (height, width)."""
    if cells:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    whole = [factor * (n - 1) + 1 for n in x.shape[2:]]
    return F.interpolate(x, size=whole, mode="bilinear", align_corners=True)[:, :, : size[0], : size[1]]


def forward(x, w, options, train):
    variant, stride, rates = (options[key] for key in ("variant", "output_stride", "rates"))
    cells, size = options["backbone"] != "vgg16", x.shape[2:]
    if cells:
        x = F.pad(x, (0, -size[1] % stride, 0, -size[0] % stride))
    padded = x.shape[2:]
    low, x = (lite0_trunk if cells else vgg_trunk)(x, w, stride)
    if variant in ("largefov", "aspp"):
        total = 0
        for i, rate in enumerate(rates, start=1):
            end = f"_{i}" if variant == "aspp" else ""
            y = F.relu(conv(x, w, f"fc6{end}", padding=rate, dilation=rate))
            total = total + conv(F.relu(conv(y, w, f"fc7{end}")), w, f"score{end}")
        return enlarged(total, padded, stride, cells)[:, :, : size[0], : size[1]]
    branches = [unit(x, w, "aspp1", train)]
    branches += [unit(x, w, f"aspp{i}", train, rate) for i, rate in enumerate(rates, start=2)]
    if options["image_pooling"]:
        branches.append(unit(x.mean(dim=(2, 3), keepdim=True), w, "image", False).expand_as(branches[0]))
    x = unit(torch.cat(branches, dim=1), w, "project", train)
    if variant == "v3plus":
        low = unit(low, w, "low", train)
        x = torch.cat([enlarged(x, low.shape[2:], stride // 4, cells), low], dim=1)
        x, stride = unit(unit(x, w, "decoder1", train, 1), w, "decoder2", train, 1), 4
    return enlarged(conv(x, w, "score"), padded, stride, cells)[:, :, : size[0], : size[1]]


CASES = {  # size, options
    "largefov": ((33, 47), {"variant": "largefov", "rates": [3]}),
    "aspp": ((40, 29), {"variant": "aspp", "rates": [1, 2, 3, 4]}),
    "aspp-16": ((50, 33), {"variant": "aspp", "rates": [1, 2], "output_stride": 16}),
    "v3": ((37, 45), {"variant": "v3", "rates": [1, 2, 3]}),
    "v3-8": ((41, 35), {"variant": "v3", "rates": [2, 4], "output_stride": 8}),
    "v3-plain": ((37, 45), {"variant": "v3", "rates": [], "image_pooling": False}),
    "v3plus": ((37, 45), {"variant": "v3plus", "rates": [1, 2, 3]}),
    "v3plus-head": ((33, 40), {"variant": "v3plus", "rates": [1], "backbone": "efficientnet_lite0_head"}),
    "v3plus-vgg16": ((35, 41), {"variant": "v3plus", "rates": [1, 2], "backbone": "vgg16"}),
}


def made(name, seed=1):
    """A network of few channels behind the trunk, over VGG also in it; images; labels."""
    size, options = CASES[name]
    options = {"output_stride": 8, "backbone": "vgg16", "image_pooling": True, **options}
    if options["variant"].startswith("v3") and name != "v3plus-vgg16":
        options = {**options, "output_stride": 16, "backbone": "efficientnet_lite0", **CASES[name][1]}
    rng = np.random.default_rng(2)
    if options["backbone"] == "vgg16":
        body = vgg.atrous_vgg_backbone(options["output_stride"], rng, (2, 3, 4, 4, 5))
    else:
        body = LITE0_BACKBONES[options["backbone"]]("same", rng, output_stride=options["output_stride"])
    nodes = deeplab_nodes(body, options["variant"], 3, options["rates"], options["image_pooling"], rng, 16)
    network = stirred(Graph(nodes, backbone_prefix=body.prefix), scale=0.05)
    without_chance(network)
    for layer in network.layers_of(layers.BatchNorm2d):
        # Two images are two values a channel of their means, which a batch's statistics would put at ±1.
        layer.frozen = layer.name.startswith(("lite0.", "image."))
    images = np.random.default_rng(seed).standard_normal((2, 3, *size))
    labels = np.random.default_rng(2).integers(0, 3, (2, *size))
    return network, images, np.where(labels == 2, 255, labels), options


@pytest.mark.parametrize(("dtype", "logits", "gradients"), [("float64", 1e-10, 1e-9), ("float32", 1e-4, 1e-3)])
@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients(name, dtype, logits, gradients):
    worst = []
    for seed in range(1, 11):  # in float32 a value within rounding of ReLU's kink may fall to either side: drawn anew
        network, images, _, options = made(name, seed)
        network.astype(dtype)
        by_batch = dtype == "float64"  # statistics of a few values make much of float32's rounding
        for norm_layer in network.layers_of(layers.BatchNorm2d):
            norm_layer.frozen = norm_layer.frozen or not by_batch

        def reference(image, w, options=options, by_batch=by_batch):
            return forward(image, w, options, train=by_batch)

        # What a normalisation takes away again has no gradient but rounding: hence the least size.
        worst.append(compared(network, images.astype(dtype), reference, logits, least=1e-3))
        if worst[-1][0] <= gradients:
            return
        assert dtype == "float32", worst
    pytest.fail(f"{worst}")


@pytest.mark.parametrize(
    "name", ["largefov", "aspp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v3", "v3plus"))]
)
def test_both_train_alike(name):
    network, images, labels, options = made(name)
    network.astype("float64")
    w, learned = in_pytorch(network)
    velocity = {key: torch.zeros_like(tensor) for key, tensor in learned.items()}
    optimizer = SGD(network.parameters(), momentum=0.9, weight_decay=0.0)
    labels, ours, theirs = labels.astype(np.uint8), [], []
    for _ in range(STEPS):
        ours.append(loop.update(network, images, labels, optimizer, LR))
        scores = forward(torch.tensor(images), w, options, train=True)
        loss = F.cross_entropy(scores, torch.tensor(labels.astype(np.int64)), ignore_index=255)
        theirs.append(loss.item())
        found = torch.autograd.grad(loss, list(learned.values()))
        with torch.no_grad():
            for (key, tensor), gradient in zip(learned.items(), found, strict=True):
                velocity[key] = 0.9 * velocity[key] + LR * network.parameters()[key].lr_mult * gradient
                tensor -= velocity[key]
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)  # twenty steps make more of rounding
    assert ours[-1] < ours[0]
