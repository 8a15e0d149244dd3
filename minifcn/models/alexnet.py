"""AlexNet. Two different networks go by this name: Caffe's (CaffeNet) and torchvision's.

CaffeNet pools before it normalises and splits conv2, conv4 and conv5 into two groups, as the paper did for its two GPUs
(Krizhevsky, Sutskever, Hinton, 2012). torchvision's has neither normalisation nor groups, and narrower layers
(Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014).
"""

import numpy as np

from .. import layers
from ..card import Card
from ..layers.graph import Sequential, in_a_row
from ..ops.geometry import Pair
from ..preprocessing import CAFFE, TORCHVISION
from .backbone import Backbone
from .classifier import convolution, fully_connected, fully_convolutional, generator


def alexnet(num_classes: int = 1000, seed: int = 0) -> Sequential:
    """CaffeNet. For images of 227 × 227; freshly drawn weights."""
    rng = generator("alexnet: ", seed, num_classes=num_classes)
    chain = _caffe_features(rng)
    chain |= fully_connected(256 * 6 * 6, num_classes, rng)
    card = Card("alexnet", {"num_classes": num_classes, "seed": seed}, CAFFE, native=227)
    return Sequential(**chain, card=card)


def alexnet_backbone(alignment: str, rng: np.random.Generator) -> Backbone:
    """The backbone of FCN-AlexNet: CaffeNet with fc6 (6×6) and fc7 as convolutions; features pool1, pool2 and fc7.

    "paper": the image padded by 100, fc6 not at all. "same": every layer padded so that an image whose sides are
    multiples of 32 gives maps of exactly 1/4, 1/8, 1/16 and 1/32; even windows have to lean to one side for that, and
    fc6 leans the other way.
    """
    if alignment == "paper":
        chain = _caffe_features(rng, first_pad=100)
        fc_pad: Pair = 0
    else:
        chain = _caffe_features(rng, first_pad=((3, 4), (3, 4)), pool={"pad": ((0, 1), (0, 1))})
        fc_pad = ((3, 2), (3, 2))
    chain |= fully_convolutional(256, 4096, 6, fc_pad, rng)
    features = {"pool3": ("pool1", 96, 8), "pool4": ("pool2", 256, 16), "fc7": ("drop7", 4096, 32)}
    return Backbone("alexnet", in_a_row(chain), features)


def alexnet_torchvision(num_classes: int = 1000, seed: int = 0) -> Sequential:
    """torchvision's AlexNet. For images of 224 × 224; freshly drawn weights."""
    rng = generator("alexnet_torchvision: ", seed, num_classes=num_classes)
    chain = convolution("conv", "1", 3, 64, 11, rng, stride=4, pad=2)
    chain["pool1"] = layers.MaxPool2d(3, stride=2)
    chain |= convolution("conv", "2", 64, 192, 5, rng, pad=2)
    chain["pool2"] = layers.MaxPool2d(3, stride=2)
    chain |= convolution("conv", "3", 192, 384, 3, rng, pad=1)
    chain |= convolution("conv", "4", 384, 256, 3, rng, pad=1)
    chain |= convolution("conv", "5", 256, 256, 3, rng, pad=1)
    chain |= {
        "pool5": layers.MaxPool2d(3, stride=2),
        "average": layers.AdaptiveAvgPool2d(6),
        "flatten": layers.Flatten(),
        "drop5": layers.Dropout(0.5, rng),
        "fc6": layers.Linear(256 * 6 * 6, 4096, rng),
        "relu6": layers.ReLU(),
        "drop6": layers.Dropout(0.5, rng),
        "fc7": layers.Linear(4096, 4096, rng),
        "relu7": layers.ReLU(),
        "fc8": layers.Linear(4096, num_classes, rng),
    }
    card = Card("alexnet_torchvision", {"num_classes": num_classes, "seed": seed}, TORCHVISION, native=224)
    return Sequential(**chain, card=card)


def _caffe_features(rng, first_pad=0, pool=None):
    """conv1 to pool5; pool: how the pools treat what does not fit (by default as Caffe: keep a last window that partly fits)."""
    pool = pool or {"ceil_mode": True}
    chain = convolution("conv", "1", 3, 96, 11, rng, stride=4, pad=first_pad)
    chain |= {"pool1": layers.MaxPool2d(3, stride=2, **pool), "norm1": layers.LRN()}
    chain |= convolution("conv", "2", 96, 256, 5, rng, pad=2, groups=2)
    chain |= {"pool2": layers.MaxPool2d(3, stride=2, **pool), "norm2": layers.LRN()}
    chain |= convolution("conv", "3", 256, 384, 3, rng, pad=1)
    chain |= convolution("conv", "4", 384, 384, 3, rng, pad=1, groups=2)
    chain |= convolution("conv", "5", 384, 256, 3, rng, pad=1, groups=2)
    chain["pool5"] = layers.MaxPool2d(3, stride=2, **pool)
    return chain
