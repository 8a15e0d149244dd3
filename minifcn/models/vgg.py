"""VGG: groups of 3×3 convolutions. The published classifier, and the trunk that an FCN makes of it."""

import numpy as np

from .. import layers
from ..card import Card
from ..preprocessing import CAFFE
from .classifier import Classifier, fully_connected
from .trunk import Trunk

WIDTHS, DEPTHS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)


def vgg16(num_classes=1000, seed=0):
    """The 16-layer classifier. Simonyan and Zisserman, 2014, table 1, D. For images of 224 × 224; freshly drawn weights."""
    rng = np.random.default_rng(seed)
    chain = _groups(WIDTHS, DEPTHS, rng=rng)
    chain |= fully_connected(512 * 7 * 7, num_classes, rng)
    card = Card("vgg16", {"num_classes": num_classes, "seed": seed}, CAFFE, native=224)
    return Classifier(chain, card=card, map_size=7)


class VGG(Trunk):
    """The VGG trunk, fully convolutional: the groups, then fc6 and fc7 as convolutions. Long et al., 2015, section 4.

    widths, depths: channels and number of convolutions of each of the five groups. fc_width, fc_kernel: channels of
    fc6 and fc7, and fc6's kernel. first_pad: the padding of conv1_1. fc_pad: the padding of fc6.
    batch_norm: normalise after every convolution, without which a deep trunk hardly starts to learn from random weights.
    """

    def __init__(self, widths, depths, fc_width, fc_kernel, *, first_pad, fc_pad, rng, dropout=0.5, batch_norm=False):
        chain = _groups(widths, depths, first_pad=first_pad, batch_norm=batch_norm, rng=rng)
        channels = widths[-1]
        for number, kernel, pad in (("6", fc_kernel, fc_pad), ("7", 1, 0)):
            chain |= _convolution("fc", number, channels, fc_width, kernel, pad, batch_norm, rng)
            chain[f"drop{number}"] = layers.Dropout(dropout, rng)
            channels = fc_width
        taps = {"pool3": ("pool3", widths[2]), "pool4": ("pool4", widths[3]), "fc7": ("drop7", fc_width)}
        super().__init__("vgg", chain, taps)


def vgg16_trunk(alignment, rng):
    """The trunk of the published FCNs: 13 convolutions of up to 512 channels, then fc6 (7×7) and fc7 of 4096."""
    return VGG(WIDTHS, DEPTHS, 4096, 7, rng=rng, **trunk_pads(alignment, fc_kernel=7))


def trunk_pads(alignment, fc_kernel):
    """The paddings of a trunk. "paper": the image by 100, fc6 not at all. "same": each so that maps keep their size."""
    if alignment == "paper":
        return {"first_pad": 100, "fc_pad": 0}
    return {"first_pad": 1, "fc_pad": fc_kernel // 2}


def _groups(widths, depths, *, first_pad=1, batch_norm=False, rng):
    """The convolutions by name, each group closed by a 2×2 pool with ceil rounding."""
    chain, channels = {}, 3
    for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            pad = first_pad if (group, i) == (1, 1) else 1
            chain |= _convolution("conv", f"{group}_{i}", channels, width, 3, pad, batch_norm, rng)
            channels = width
        chain[f"pool{group}"] = layers.MaxPool2d(2, stride=2, ceil_mode=True)
    return chain


def _convolution(kind, number, inputs, outputs, kernel, pad, batch_norm, rng):
    """A convolution, its normalisation if wanted (which makes a bias pointless), its ReLU."""
    chain = {kind + number: layers.Conv2d(inputs, outputs, kernel, rng, pad=pad, bias=not batch_norm)}
    if batch_norm:
        chain["bn" + number] = layers.BatchNorm2d(outputs, in_place=True)
    chain["relu" + number] = layers.ReLU(in_place=True)
    return chain
