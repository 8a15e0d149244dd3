"""EfficientNet-Lite0: a small classifier of 1×1 and depthwise convolutions. Tan and Le, 2019; the Lite form, 2020.

Its ImageNet weights come with a Python package (`weights.pretrained`), so that it is the backbone to fine-tune today.
"""

from functools import partial

import numpy as np

from .. import layers
from ..card import Card
from ..layers.graph import Graph, in_a_row, prefixed
from ..preprocessing import LITE0
from .backbone import Backbone
from .classifier import generator

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


def efficientnet_lite0(num_classes: int = 1000, seed: int = 0) -> Graph:
    """The classifier. For images of 224 × 224, and any other size, as it averages its last maps; freshly drawn weights."""
    rng = generator("efficientnet_lite0: ", seed, num_classes=num_classes)
    nodes, ends = _features(rng)
    chain = _convolution("head", 320, 1280, 1, rng)
    chain |= {"average": layers.GlobalAvgPool(), "drop": layers.Dropout(0.2, rng)}
    chain["fc"] = layers.Linear(1280, num_classes, rng)
    card = Card("efficientnet_lite0", {"num_classes": num_classes, "seed": seed}, LITE0, native=224)
    return Graph({**nodes, **in_a_row(chain, ends[-1])}, card=card)


def efficientnet_lite0_backbone(
    alignment: str, rng: np.random.Generator, head: bool = False, output_stride: int = 32
) -> Backbone:
    """The backbone of an FCN: everything before the head; features at 1/2 (16 channels), 1/4 (24),
    1/8 (40), 1/16 (112) and 1/32 (320).

    Its padding, TensorFlow's, is the same in both alignments; "paper" puts the pad of 100 around the image itself.
    head: keep the classifier's last 1×1 convolution, too, as the article keeps fc6 and fc7; 1280 channels at 1/32.
    output_stride: 8 or 16 if features must not become coarser, as in DeepLab: strides beyond it turn into dilations.
    """
    nodes, ends = _features(rng, output_stride)
    features = {"pool1": (ends[0], 16, 2), "pool2": (ends[2], 24, 4), "pool3": (ends[4], 40, 8)}
    features |= {"pool4": (ends[10], 112, min(16, output_stride)), "fc7": (ends[15], 320, output_stride)}
    if head:
        nodes |= in_a_row(_convolution("head", 320, 1280, 1, rng), ends[15])
        features["fc7"] = ("relu_head", 1280, output_stride)
    return Backbone("lite0", nodes, features, input_pad=100 if alignment == "paper" else 0)


# name -> its builder; the second keeps the classifier's last 1×1 convolution
LITE0_BACKBONES: dict = {
    "efficientnet_lite0": efficientnet_lite0_backbone,
    "efficientnet_lite0_head": partial(efficientnet_lite0_backbone, head=True),
}


def _inverted_residual(name, before, inputs, outputs, kernel, stride, expansion, rng, dilation=1):
    """Widen (1×1), filter every channel by itself (depthwise), narrow (1×1), and add the input where the shapes agree.

    Sandler et al., MobileNetV2, 2018, section 3.3. The last convolution has no ReLU: narrow maps would lose too much.
    before: the node that the block reads. -> (its nodes, the name of its last)
    """
    wide = inputs * expansion
    chain = _convolution("expand", inputs, wide, 1, rng) if expansion > 1 else {}
    where = {"stride": stride, "pad": "same", "dilation": dilation}
    chain |= _convolution("depthwise", wide, wide, kernel, rng, groups=wide, **where)
    chain["project"] = layers.Conv2d(wide, outputs, 1, rng, bias=False)
    chain["bn_project"] = layers.BatchNorm2d(outputs, eps=EPS)
    nodes = prefixed(in_a_row(chain), name, before)
    if stride == 1 and inputs == outputs:
        nodes[f"{name}.add"] = (layers.Add(), [f"{name}.bn_project", before])
    return nodes, list(nodes)[-1]


def _features(rng, output_stride=32):
    """(The nodes of the stem and the sixteen blocks, the last node of each block.)

    A stride that would exceed the output stride is left out, and the windows of all later blocks are dilated by as much:
    on every second row and column of the finer maps they compute what they did before.
    """
    nodes = in_a_row(_convolution("stem", 3, 32, 3, rng, stride=2, pad="same"))
    inputs, before, ends = 32, list(nodes)[-1], []
    reached, dilation = 2, 1
    for repeats, kernel, first_stride, width, expansion in STAGES:
        for i in range(repeats):
            stride = first_stride if i == 0 else 1
            left_out = stride if reached * stride > output_stride else 1
            stride //= left_out
            block, before = _inverted_residual(
                f"block{len(ends)}", before, inputs, width, kernel, stride, expansion, rng, dilation
            )
            reached, dilation = reached * stride, dilation * left_out
            nodes |= block
            ends.append(before)
            inputs = width
    return nodes, ends


def _convolution(name, inputs, outputs, kernel, rng, **settings):
    """A convolution without bias, its normalisation, its ReLU6."""
    return {
        name: layers.Conv2d(inputs, outputs, kernel, rng, bias=False, **settings),
        f"bn_{name}": layers.BatchNorm2d(outputs, eps=EPS),
        f"relu_{name}": layers.ReLU6(),
    }
