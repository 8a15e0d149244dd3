"""DeepLab as tables: maps that stay fine, and dilated convolutions, which see far in them.

A convolution of rate r (its dilation) reads every r-th pixel. So a trunk can drop its last strides and still use its
learned weights, and a head can look at several rates side by side:

    largefov   trunk 1/8 ── fc6 rate 12 ── fc7 ── score ── ×8                         Chen et al., ICLR 2015
    aspp       trunk 1/8 ──┬ fc6_1 rate  6 ── fc7_1 ── score_1 ┬ + ── ×8              Chen et al., TPAMI 2018
                           └ … four of them, to rate 24        ┘
    v3         trunk 1/16 ─┬ 1×1 ┬ ‖ ── project ── score ── ×16                       Chen et al., arXiv 1706.05587
                           ├ 3×3, three rates
                           └ the image's mean ┘
    v3plus     as v3 to project ── ×4 ┬ ‖ ── two 3×3 ── score ── ×4                   Chen et al., ECCV 2018
               trunk 1/4 ── 1×1 to 48 ┘

The 3×3 convolutions of v3 and v3plus are separable: one over each channel, then a 1×1. Dense ones at 1/4 would cost ten
times as much as the trunk of EfficientNet-Lite0.
"""

from collections.abc import Sequence
from math import inf

import numpy as np

from .. import layers
from ..card import Card
from ..errors import InputError, require_counts, require_known
from ..layers.graph import IMAGE, Graph, in_a_row, prefixed
from ..preprocessing import CAFFE, LITE0
from .backbone import Backbone
from .classifier import convolution, generator, separable
from .efficientnet_lite0 import LITE0_BACKBONES
from .vgg import atrous_vgg_backbone

# variant -> its usual backbone, output stride, and rates at that stride. Those of v3 are half the paper's: a crop of 320
# pixels is a map of 20, at whose rim a rate of 18 meets padding only.
DEEPLABS: dict = {
    "largefov": ("vgg16", 8, (12,)),
    "aspp": ("vgg16", 8, (6, 12, 18, 24)),
    "v3": ("efficientnet_lite0", 16, (3, 6, 9)),
    "v3plus": ("efficientnet_lite0", 16, (3, 6, 9)),
}
BACKBONES = ("vgg16", *LITE0_BACKBONES)
OUTPUT_STRIDES = (8, 16)
WIDE, WIDTH, LOW_WIDTH = 1024, 256, 48  # channels of fc6 and fc7; of v3's units; of v3plus's skip
SCORE_SPREAD = 0.01


def deeplab(
    variant: str = "v3plus",
    backbone: str | None = None,
    num_classes: int = 21,
    *,
    output_stride: int | None = None,
    rates: Sequence[int] | None = None,
    image_pooling: bool = True,
    seed: int = 0,
) -> Graph:
    """A DeepLab with freshly drawn weights: (N, 3, H, W) -> logits (N, num_classes, H, W), for any H and W.

    variant: "largefov", "aspp", "v3" or "v3plus". backbone: "vgg16" (default for the first two),
    "efficientnet_lite0" (default for the others) or "efficientnet_lite0_head" (with its last 1×1 convolution). output_stride:
    8 or 16, image pixels from one value of the trunk's last map to the next; by default 8 for the first two variants
    and 16 for the others. rates: the dilations of the head's 3×3 convolutions: largefov takes one, by default 12; aspp at least
    one, by default 6, 12, 18 and 24; v3 and v3plus any number or none, by default 3, 6 and 9. At another output stride than
    the default, the default rates are scaled to reach equally far. image_pooling: whether v3 and v3plus see the image's mean.
    The network's `card` holds these arguments. Raises InputError for what is not among these.
    """
    require_known("deeplab: ", {"variant": variant}, {"variant": DEEPLABS})
    usual_backbone, usual_stride, usual_rates = DEEPLABS[variant]
    backbone = usual_backbone if backbone is None else backbone
    output_stride = usual_stride if output_stride is None else output_stride
    options = {"variant": variant, "backbone": backbone, "num_classes": num_classes, "output_stride": output_stride}
    require_known("deeplab: ", options, {"backbone": BACKBONES, "output_stride": OUTPUT_STRIDES})
    if rates is None:
        rates = [rate * usual_stride // output_stride for rate in usual_rates]
    fewest = 0 if variant.startswith("v3") else 1
    most = 1 if variant == "largefov" else inf
    if not np.iterable(rates) or not fewest <= len(rates) <= most:
        expected = "one" if most == 1 else f"{fewest} or more"
        raise InputError(f"deeplab: rates: expected {expected} of at least 1 for {variant}, got {rates!r}")
    for rate in rates:
        require_counts("deeplab: ", {"rates": rate})
    rates = [int(rate) for rate in rates]  # a card is JSON
    options |= {"rates": rates, "image_pooling": image_pooling, "seed": seed}
    rng = generator("deeplab: ", seed, num_classes=num_classes)
    if backbone == "vgg16":
        body, preprocessing = atrous_vgg_backbone(output_stride, rng), CAFFE
    else:
        body, preprocessing = LITE0_BACKBONES[backbone]("same", rng, output_stride=output_stride), LITE0
    nodes = deeplab_nodes(body, variant, num_classes, rates, image_pooling, rng)
    return Graph(nodes, card=Card("deeplab", options, preprocessing), backbone_prefix=body.prefix)


def deeplab_nodes(
    backbone: Backbone,
    variant: str,
    num_classes: int,
    rates: Sequence[int],
    image_pooling: bool,
    rng: np.random.Generator,
    width: int | None = None,
) -> dict:
    """The table of a DeepLab over a Backbone; width: channels of fc6 and fc7, or of v3's units, by default as published."""
    head = _Head(backbone, num_classes, rng)
    node, channels, stride = backbone.features["fc7"]
    source = f"{backbone.prefix}.{node}"
    if not variant.startswith("v3"):
        scores = head.fully_connected(source, channels, width or WIDE, rates, numbered=variant == "aspp")
        head.to_image(scores, stride)
        return head.table
    width = width or WIDTH
    last = head.pyramid(source, channels, width, rates, image_pooling)
    if variant == "v3plus":
        last, width, stride = head.decode(last, width, stride)
    head.score("score", last, width)
    head.to_image("score", stride)
    return head.table


class _Head:
    """The table over a Backbone as it grows."""

    def __init__(self, backbone: Backbone, num_classes: int, rng: np.random.Generator):
        self.backbone, self.num_classes, self.rng = backbone, num_classes, rng
        self.cells = backbone.cells
        self.table = {"pad_input": (layers.PadToMultiple(backbone.features["fc7"][2]), [IMAGE])} if self.cells else {}
        self.table |= prefixed(backbone.nodes, backbone.prefix, "pad_input" if self.cells else IMAGE)

    def add(self, name, chain, source):
        """Layers in a row under a name. -> the last node"""
        self.table |= prefixed(in_a_row(chain), name, source)
        return list(self.table)[-1]

    def unit(self, name, source, inputs, outputs, rate=None):
        """A 1×1 convolution, or with a rate a separable 3×3 one, normalised, with its ReLU. -> the last node"""
        if rate is None:
            return self.add(name, convolution("conv", "", inputs, outputs, 1, self.rng, batch_norm=True), source)
        return self.add(name, separable(inputs, outputs, self.rng, rate=rate), source)

    def score(self, name, source, inputs, rate=1):
        """A 1×1 convolution to the classes; rate: the learning rate's multiple. -> the node"""
        weights = self.rng.normal(0, SCORE_SPREAD, (self.num_classes, inputs, 1, 1)).astype(np.float32)
        bias = layers.Parameter(layers.init.zeros((self.num_classes,)), lr_mult=2 * rate, decay_mult=0.0)
        self.table[name] = (layers.Conv2d.of(layers.Parameter(weights, lr_mult=rate), bias), [source])
        return name

    def fully_connected(self, source, channels, width, rates, numbered):
        """fc6, fc7 and scores at every rate, and the scores' sum. -> the node"""
        total = None
        for i, rate in enumerate(rates, start=1):
            suffix = f"_{i}" if numbered else ""
            where = {"pad": rate, "dilation": rate}
            chain = convolution("fc", f"6{suffix}", channels, width, 3, self.rng, **where)
            chain[f"drop6{suffix}"] = layers.Dropout(0.5, self.rng)
            chain |= convolution("fc", f"7{suffix}", width, width, 1, self.rng)
            chain[f"drop7{suffix}"] = layers.Dropout(0.5, self.rng)
            self.table |= in_a_row(chain, source)
            score = self.score(f"score{suffix}", list(chain)[-1], width, 10)
            if total:
                self.table[f"sum{suffix}"] = (layers.Add(), [total, score])
            total = f"sum{suffix}" if total else score
        return total

    def pyramid(self, source, channels, width, rates, image_pooling):
        """Atrous spatial pyramid pooling: branches at each of the rates, and the whole image's mean. -> the node"""
        branches = [self.unit("aspp1", source, channels, width)]
        for i, rate in enumerate(rates, start=2):
            branches.append(self.unit(f"aspp{i}", source, channels, width, rate))
        if image_pooling:
            self.table["image.average"] = (layers.AdaptiveAvgPool2d(1), [source])
            mean = self.unit("image", "image.average", channels, width)
            self.table["image.everywhere"] = (layers.ResizeLike(), [mean, branches[0]])
            branches.append("image.everywhere")
        self.table["aspp"] = (layers.Concat(), branches)
        return self.unit("project", "aspp", len(branches) * width, width)

    def decode(self, source, width, stride):
        """The maps enlarged to 1/4, a few channels of the trunk's maps there, two convolutions. -> (node, channels, stride)"""
        node, channels, fine = self.backbone.features["pool2"]
        low_width = LOW_WIDTH * width // WIDTH
        low = self.unit("low", f"{self.backbone.prefix}.{node}", channels, low_width)
        up = self.enlarge("decoder.up", source, stride // fine, low)
        self.table["decoder.concat"] = (layers.Concat(), [up, low])
        last = self.unit("decoder1", "decoder.concat", width + low_width, width, rate=1)
        return self.unit("decoder2", last, width, width, rate=1), width, fine

    def to_image(self, source, stride):
        """Logits of the image's own size."""
        up = self.enlarge("upscore", source, stride, "pad_input" if self.cells else IMAGE)
        if self.cells:
            self.table["crop"] = (layers.CropLike(0), [up, IMAGE])

    def enlarge(self, name, source, factor, target):
        """Bilinear interpolation to where the target's pixels lie. -> the node"""
        if self.cells:
            self.table[name] = (layers.ResizeLike(), [source, target])
            return name
        self.table[name] = (layers.Upsample(factor, kernel=2 * factor - 1, pad=factor - 1), [source])
        self.table[f"{name}.crop"] = (layers.CropLike(0), [name, target])
        return f"{name}.crop"
