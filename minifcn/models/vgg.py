"""VGG: groups of 3×3 convolutions. The published classifier and a small one, and the backbones that an FCN makes of them."""

from numpy.random import Generator

from .. import layers
from ..card import Card
from ..layers.graph import Graph, Sequential, in_a_row
from ..preprocessing import CAFFE
from .backbone import Backbone
from .classifier import convolution, fully_connected, fully_convolutional, generator

WIDTHS, DEPTHS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)


def vgg16(num_classes: int = 1000, seed: int = 0) -> Sequential:
    """The 16-layer classifier. Simonyan and Zisserman, 2014, table 1, D. For images of 224 × 224; freshly drawn weights."""
    rng = generator("vgg16: ", seed, num_classes=num_classes)
    chain = _groups(WIDTHS, DEPTHS, rng=rng) | fully_connected(512 * 7 * 7, num_classes, rng)
    card = Card("vgg16", {"num_classes": num_classes, "seed": seed}, CAFFE, native=224)
    return Sequential(**chain, card=card)


def vgg16_backbone(alignment: str, rng: Generator) -> Backbone:
    """The backbone of the published FCNs: 13 convolutions of up to 512 channels, then fc6 (7×7) and fc7 of 4096."""
    return vgg_backbone(WIDTHS, DEPTHS, 4096, alignment, rng)


def mini_backbone(alignment: str, rng: Generator, width: int = 12) -> Backbone:
    """A VGG small enough to train from nothing, on a CPU, in minutes.

    `width` channels in the first group, then 2, 4, 8 and 8 times as many; 8 times in fc6 (7×7) and fc7 too. Seven 3×3
    convolutions instead of thirteen, and batch normalisation, as it starts from random weights.
    """
    widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    return vgg_backbone(widths, (1, 1, 2, 2, 1), 8 * width, alignment, rng, dropout=0.1, batch_norm=True)


def mini(num_classes: int = 1000, seed: int = 0, *, width: int = 12) -> Graph:
    """The classifier over `mini_backbone`: an average over its last map, 2 × 2 for windows of 64 × 64, and the scores."""
    rng = generator("mini: ", seed, num_classes=num_classes, width=width)
    nodes = mini_backbone("same", rng, width).nodes
    head = {"average": layers.GlobalAvgPool(), "score": layers.Linear(8 * width, num_classes, rng)}
    card = Card("mini", {"num_classes": num_classes, "seed": seed, "width": width}, native=64)
    return Graph({**nodes, **in_a_row(head, list(nodes)[-1])}, card=card)


def vgg_backbone(
    widths: tuple,
    depths: tuple,
    fc_width: int,
    alignment: str,
    rng: Generator,
    *,
    dropout: float = 0.5,
    batch_norm: bool = False,
) -> Backbone:
    """VGG, fully convolutional: the groups, then fc6 and fc7 as convolutions. Long et al., 2015, section 4.

    widths, depths: channels and number of convolutions of each of the five groups. fc_width: channels of fc6 and fc7.
    alignment: "paper" pads the image by 100 in conv1_1 and fc6 not at all; "same" pads each so that maps keep their size.
    batch_norm: normalise after every convolution, without which a deep VGG hardly starts to learn from random weights.
    """
    first_pad, fc_pad = (100, 0) if alignment == "paper" else (1, 3)
    chain = _groups(widths, depths, first_pad=first_pad, batch_norm=batch_norm, rng=rng)
    chain |= fully_convolutional(widths[-1], fc_width, 7, fc_pad, rng, dropout=dropout, batch_norm=batch_norm)
    features = {f"pool{i}": (f"pool{i}", width, 2**i) for i, width in enumerate(widths[:4], start=1)}
    features["fc7"] = ("drop7", fc_width, 32)
    return Backbone("vgg", in_a_row(chain), features)


def atrous_vgg_backbone(output_stride: int, rng: Generator, widths: tuple = WIDTHS, depths: tuple = DEPTHS) -> Backbone:
    """The backbone of the DeepLabs over VGG16, "fc7" being its pool5 at 1/8 or 1/16. Chen et al., 2015, section 3.1.

    Pools are 3×3, so that a map's pixel i lies on pixel 2i of the map before: 321, 161, 81, 41. A pool that no longer
    halves leaves its maps twice as fine, and the convolutions after it reach twice as far: each sees what it saw before.
    """
    chain, channels, dilation = {}, 3, 1
    for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            where = {"pad": dilation, "dilation": dilation}
            chain |= convolution("conv", f"{group}_{i}", channels, width, 3, rng, **where)
            channels = width
        stride = 2 if 2**group <= output_stride else 1
        dilation *= 2 // stride
        chain[f"pool{group}"] = layers.MaxPool2d(3, stride=stride, pad=1, ceil_mode=True)
    features = {"pool2": ("pool2", widths[1], 4), "fc7": ("pool5", widths[4], output_stride)}
    return Backbone("vgg", in_a_row(chain), features, cells=False)


def _groups(widths, depths, *, first_pad=1, batch_norm=False, rng):
    """The convolutions by name, each group closed by a 2×2 pool with ceil rounding."""
    chain, channels = {}, 3
    for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            pad = first_pad if (group, i) == (1, 1) else 1
            chain |= convolution("conv", f"{group}_{i}", channels, width, 3, rng, pad=pad, batch_norm=batch_norm)
            channels = width
        chain[f"pool{group}"] = layers.MaxPool2d(2, stride=2, ceil_mode=True)
    return chain
