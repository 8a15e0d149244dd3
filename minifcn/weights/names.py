"""Name maps: what other libraries call an array -> our name, by network.

Our names are those of the original releases where there is one (conv1_1, fc6), with `.weight` and `.bias`, and
`.gamma`, `.beta`, `.running_mean`, `.running_var` in a batch normalisation. None stands for an array that is not needed.
"""

import re

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}


def torchvision_vgg16(name):
    """features.28.weight -> conv5_3.weight; classifier.0.bias -> fc6.bias"""
    return _of_layer(name, _VGG16)


def torchvision_alexnet(name):
    """features.10.weight -> conv5.weight; classifier.1.bias -> fc6.bias"""
    return _of_layer(name, _ALEXNET)


def pytorch_lite0(name):
    """_blocks.4._depthwise_conv.weight -> block4.depthwise.weight; _bn1.bias -> bn_head.beta

    As in the package efficientnet-lite-pytorch.
    """
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?_(\w+)\.(\w+)", name)
    if not match:
        return name
    block, layer, kind = match.groups()
    if kind == "num_batches_tracked":
        return None
    ours = (_LITE0_BLOCK if block else _LITE0_ENDS).get(layer)
    if ours is None:
        return name
    kind = _BATCH_NORM.get(kind, kind) if ours.startswith("bn_") else kind
    return f"block{block}.{ours}.{kind}" if block else f"{ours}.{kind}"


def caffe(layer, number):
    """The number-th blob of a layer: conv1_1, 0 -> conv1_1.weight; 1 -> conv1_1.bias. Caffe's layer names are ours."""
    return f"{layer}.{('weight', 'bias')[number]}" if number < 2 else f"{layer}.{number}"


def _of_layer(name, layers):
    layer, _, kind = name.rpartition(".")
    return f"{layers[layer]}.{kind}" if layer in layers else name


# Each group's first convolution and its depth; a convolution and its ReLU take two numbers.
_VGG16 = {
    f"features.{first + 2 * i}": f"conv{group}_{i + 1}"
    for group, (first, depth) in enumerate(((0, 2), (5, 2), (10, 3), (17, 3), (24, 3)), start=1)
    for i in range(depth)
} | {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
_ALEXNET = {f"features.{index}": f"conv{i}" for i, index in enumerate((0, 3, 6, 8, 10), start=1)}
_ALEXNET |= {"classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8"}
_LITE0_ENDS = {"conv_stem": "stem", "bn0": "bn_stem", "conv_head": "head", "bn1": "bn_head", "fc": "fc"}
_LITE0_BLOCK = {"expand_conv": "expand", "depthwise_conv": "depthwise", "project_conv": "project"}
_LITE0_BLOCK |= {"bn0": "bn_expand", "bn1": "bn_depthwise", "bn2": "bn_project"}
