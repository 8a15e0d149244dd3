"""EfficientNet-Lite0: a small classifier of 1×1 and depthwise convolutions. Tan and Le, 2019; the Lite form, 2020.

Its ImageNet weights come with a Python package (`weights.pretrained`), so that it is the trunk to fine-tune today.
"""

import numpy as np

from .. import layers
from ..card import Card
from ..preprocessing import LITE0
from .classifier import Classifier
from .trunk import Trunk

STAGES = (  # repeats, kernel, stride of the first, width, expansion
    (1, 3, 1, 16, 1),
    (2, 3, 2, 24, 6),
    (2, 5, 2, 40, 6),
    (3, 3, 2, 80, 6),
    (3, 5, 1, 112, 6),
    (4, 5, 2, 192, 6),
    (1, 3, 1, 320, 6),
)
EPS = 1e-3


def efficientnet_lite0(num_classes=1000, seed=0):
    """The classifier. For images of 224 × 224, and any other size, as it averages its last maps; freshly drawn weights."""
    rng = np.random.default_rng(seed)
    chain = {**_features(rng), **_convolution("head", 320, 1280, 1, rng)}
    chain |= {"average": layers.GlobalAvgPool(), "drop": layers.Dropout(0.2, rng)}
    chain["fc"] = layers.Linear(1280, num_classes, rng)
    card = Card("efficientnet_lite0", {"num_classes": num_classes, "seed": seed}, LITE0, native=224)
    return Classifier(chain, card=card, map_size=7)


def efficientnet_lite0_trunk(alignment, rng):
    """The trunk of an FCN: everything before the head, tapped at 1/8 (40 channels), 1/16 (112) and 1/32 (320).

    Its padding, TensorFlow's, is the same in both alignments; "paper" puts the frame of 100 around the image itself.
    """
    taps = {"pool3": ("block4", 40), "pool4": ("block10", 112), "fc7": ("block15", 320)}
    return Trunk("lite0", _features(rng), taps, frame=100 if alignment == "paper" else 0)


class InvertedResidual(layers.Layer):
    """Widen (1×1), filter every channel by itself (depthwise), narrow (1×1), and add the input where the shapes agree.

    Sandler et al., MobileNetV2, 2018, section 3.3. The last convolution has no ReLU: narrow maps would lose too much.
    """

    def __init__(self, inputs, outputs, kernel, stride, expansion, rng):
        wide = inputs * expansion
        chain = _convolution("expand", inputs, wide, 1, rng) if expansion > 1 else {}
        chain |= _convolution("depthwise", wide, wide, kernel, rng, stride=stride, pad="same", groups=wide)
        chain["project"] = layers.Conv2d(wide, outputs, 1, rng, bias=False)
        chain["bn_project"] = layers.BatchNorm2d(outputs, eps=EPS)
        self.branch = layers.Sequential(**chain)
        self.residual = stride == 1 and inputs == outputs

    def children(self):
        return self.branch.layers

    def forward(self, x, train=False):
        """x (N, inputs, H, W) -> (N, outputs, ⌈H/stride⌉, ⌈W/stride⌉)"""
        y = self.branch.forward(x, train)
        return x + y if self.residual else y

    def backward(self, dy):
        """The sum hands dy to the branch and to x alike; what comes back from both adds up."""
        dx = self.branch.backward(dy)
        return dx + dy if self.residual else dx


def _features(rng):
    """The stem and the sixteen blocks, by name."""
    chain = _convolution("stem", 3, 32, 3, rng, stride=2, pad="same")
    inputs, number = 32, 0
    for repeats, kernel, first_stride, width, expansion in STAGES:
        for i in range(repeats):
            stride = first_stride if i == 0 else 1
            chain[f"block{number}"] = InvertedResidual(inputs, width, kernel, stride, expansion, rng)
            inputs, number = width, number + 1
    return chain


def _convolution(name, inputs, outputs, kernel, rng, **settings):
    """A convolution without bias, its normalisation, its ReLU6."""
    return {
        name: layers.Conv2d(inputs, outputs, kernel, rng, bias=False, **settings),
        f"bn_{name}": layers.BatchNorm2d(outputs, eps=EPS, in_place=True),
        f"relu_{name}": layers.ReLU6(in_place=True),
    }
