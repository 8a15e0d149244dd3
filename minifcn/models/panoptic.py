"""Which object each pixel belongs to, from what a fully convolutional network can predict: a class, a centre and an offset.

    image ── trunk ──┬── the semantic network's way up ───────────────────────────── semantic (K)
                     └── 1/32 ── ×2 ─ ‖ 1/16 ── ×2 ─ ‖ 1/8 ──┬── centre (1): how near is the middle of an object
                                                             └── offset (2): how far is it, down and across, in pixels

An object consists of the pixels whose offsets lead to the same peak of the centre map: see `inference.panoptic`. The trunk is
a fork: both decoders read its maps, and in backward it gets the sum of their gradients; the graph does that.

Cheng et al., Panoptic-DeepLab, CVPR 2020, https://arxiv.org/abs/1911.10194
"""

from collections.abc import Sequence

import numpy as np

from .. import layers
from ..card import Card
from ..errors import InputError, require_counts, require_known
from ..layers.graph import IMAGE, Graph, in_a_row, prefixed
from ..preprocessing import of_channels
from .classifier import convolution, generator, separable
from .deeplab import DEEPLABS, deeplab_nodes
from .efficientnet_lite0 import LITE0_BACKBONES
from .fcn import BACKBONES, fcn_nodes
from .unet import unet_nodes

DECODERS = ("fcn", "unet", "v3plus")
PANOPTIC_BACKBONES = (*LITE0_BACKBONES, "mini")
HEADS = ("semantic", "centre", "offset")
INSTANCE = "instance"  # the prefix of the instance part's node names
SPREAD = 0.001  # of the last initial weights, as published: no centre yet, and no offset
HEAD_WIDTH = 32
# backbone -> channels of the instance part, and the stride of its finest maps: objects are small where mini and U-Net are used
FINEST: dict = {"mini": (64, 4), "efficientnet_lite0": (128, 8), "efficientnet_lite0_head": (128, 8), None: (64, 2)}


def panoptic(
    backbone: str | None = "efficientnet_lite0",
    decoder: str = "fcn",
    num_classes: int = 21,
    *,
    width: int | None = None,
    channels: int = 3,
    things: Sequence[int] | None = None,
    peak_window: int = 7,
    least: int = 1,
    seed: int = 0,
) -> Graph:
    """A network with freshly drawn weights: (N, channels, H, W) -> {"semantic": logits (N, num_classes, H, W), "centre": (N, 1, H, W),
    "offset": (N, 2, H, W), down and across in pixels}, for any H and W.

    decoder: the semantic network, which keeps its parameter names, so that its weights fit: "fcn", an FCN-8s of alignment
    "same"; "unet", of padding "same", normalised; "v3plus", DeepLabv3+. backbone: "efficientnet_lite0",
    "efficientnet_lite0_head" (with its last 1×1 convolution), "mini"; None for a U-Net without one, of 4 levels. width: mini's
    or U-Net's. channels: of the images, as for `unet`; 3 over a backbone. things: the classes with instances, by default all but the first.
    peak_window: the side in pixels of a window that holds at most one centre; the article has 7 for images of 2049 × 1025.
    least: objects of fewer pixels do not count.
    The network's `card` holds these arguments. Raises InputError for what is not among these.
    """
    options = {
        "backbone": backbone,
        "decoder": decoder,
        "num_classes": num_classes,
        "width": width,
        "channels": channels,
    }
    backbones = (*PANOPTIC_BACKBONES, *((None,) if decoder == "unet" else ()))
    choices = {"decoder": DECODERS, "backbone": backbones, **({"channels": (3,)} if backbone else {})}
    require_known("panoptic: ", options, choices)
    counts = {"num_classes": num_classes, "channels": channels, "least": least, "peak_window": peak_window}
    rng = generator("panoptic: ", seed, **counts, **({} if width is None else {"width": width}))
    if width is not None and backbone not in ("mini", None) and decoder != "unet":
        raise InputError(f"panoptic: width: only mini and a U-Net have one, not {decoder} over {backbone}; got {width}")
    if things is not None:
        for thing in things:
            require_counts("panoptic: ", {"things": thing}, 0, num_classes - 1)
        things = sorted({int(thing) for thing in things})
        if not things:
            raise InputError(f"panoptic: things: expected classes 0..{num_classes - 1}, got none")
    if peak_window % 2 == 0:
        raise InputError(f"panoptic: peak_window: expected an odd number of pixels, got {peak_window}")
    options |= {"things": things, "peak_window": peak_window, "least": least, "seed": seed}
    body, preprocessing = None, of_channels(channels)
    if backbone:
        build, preprocessing = BACKBONES[backbone]
        stride = {"output_stride": 16} if decoder == "v3plus" and backbone != "mini" else {}
        of_mini = {"width": width} if backbone == "mini" and width else {}
        body = build("same", rng, **stride, **of_mini)
    if decoder == "unet":
        wide = (None if body and backbone == "mini" else width) or 16
        ways = {"same": True, "batch_norm": True, "learned": True}
        nodes, features = unet_nodes(num_classes, body, rng, channels=channels, width=wide, depth=4, **ways)
    else:
        if decoder == "fcn":
            nodes = fcn_nodes(body, "8s", num_classes, "same", rng=rng)
        else:
            nodes = deeplab_nodes(body, "v3plus", num_classes, DEEPLABS["v3plus"][2], True, rng)
        ordered = sorted(body.features.values(), key=lambda feature: feature[2])
        features = {stride: (f"{body.prefix}.{node}", count) for node, count, stride in ordered}
    nodes["semantic"] = nodes.pop("crop")
    instance_width, finest = FINEST[backbone]
    nodes |= instance_nodes(features, instance_width, finest, rng)
    return Graph(nodes, HEADS, card=Card("panoptic", options, preprocessing), backbone_prefix=body and body.prefix)


def instance_nodes(features: dict, width: int, finest: int, rng: np.random.Generator) -> dict:
    """The table of the instance part over maps {stride: (node, channels)}: from the coarsest to those of stride `finest`, with the two heads.

    width: channels of its maps. At each finer scale they are joined by half as many channels from the trunk.
    """
    table: dict = {}

    def add(name, chain, source):
        table.update(prefixed(in_a_row(chain), f"{INSTANCE}.{name}", source))
        return list(table)[-1]

    coarsest, *finer = sorted((stride for stride in features if stride >= finest), reverse=True)
    node, channels = features[coarsest]
    last = add(f"project{coarsest}", convolution("conv", "", channels, width, 1, rng, batch_norm=True), node)
    last = add(f"decode{coarsest}", separable(width, width, rng, kernel=5), last)
    for stride in finer:
        node, channels = features[stride]
        skip = add(f"project{stride}", convolution("conv", "", channels, width // 2, 1, rng, batch_norm=True), node)
        up, both = f"{INSTANCE}.up{stride}", f"{INSTANCE}.concat{stride}"
        table[up] = (layers.ResizeLike(), [last, skip])
        table[both] = (layers.Concat(), [up, skip])
        last = add(f"decode{stride}", separable(width + width // 2, width, rng, kernel=5), both)
    for name, outputs in (("centre", 1), ("offset", 2)):
        chain = separable(width, HEAD_WIDTH, rng, kernel=5)
        weight = rng.normal(0, SPREAD, (outputs, HEAD_WIDTH, 1, 1)).astype(np.float32)
        bias = layers.Parameter(layers.init.zeros((outputs,)), lr_mult=2.0, decay_mult=0.0)
        chain["score"] = layers.Conv2d.of(layers.Parameter(weight), bias)
        if name == "offset":
            chain["pixels"] = layers.Scale(finest)  # what it learns is in cells
        found = add(name, chain, last)
        table[f"{INSTANCE}.{name}.up"] = (layers.ResizeLike(), [found, "pad_input"])
        table[name] = (layers.CropLike(0), [f"{INSTANCE}.{name}.up", IMAGE])
    return table
