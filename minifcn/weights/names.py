"""Name maps: what other libraries call an array -> our name, by network.

Our names are those of the original releases where there is one (conv1_1, fc6), with `.weight` and `.bias`, and
`.gamma`, `.beta`, `.running_mean`, `.running_var` in a batch normalisation. None stands for an array that is not needed.
"""

from functools import partial

_BATCH_NORM = {"weight": "gamma", "bias": "beta", "num_batches_tracked": None}

# torchvision's VGG16 has each group's first convolution at a number; a convolution and its ReLU take two.
_VGG16 = {
    f"features.{first + 2 * i}": f"conv{group}_{i + 1}"
    for group, (first, depth) in enumerate(((0, 2), (5, 2), (10, 3), (17, 3), (24, 3)), start=1)
    for i in range(depth)
} | {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
_ALEXNET = {f"features.{index}": f"conv{i}" for i, index in enumerate((0, 3, 6, 8, 10), start=1)}
_ALEXNET |= {"classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8"}
# As in the package efficientnet-lite-pytorch.
_LITE0 = {"_conv_stem": "stem", "_bn0": "bn_stem", "_conv_head": "head", "_bn1": "bn_head", "_fc": "fc"}
_LITE0_BLOCK = {"expand_conv": "expand", "depthwise_conv": "depthwise", "project_conv": "project"}
_LITE0_BLOCK |= {"bn0": "bn_expand", "bn1": "bn_depthwise", "bn2": "bn_project"}
_LITE0 |= {f"_blocks.{i}._{theirs}": f"block{i}.{ours}" for i in range(16) for theirs, ours in _LITE0_BLOCK.items()}

# The same in timm, which counts the blocks of each stage anew, and whose first stage has no expansion.
_LITE0 |= {"conv_stem": "stem", "bn1": "bn_stem", "conv_head": "head", "bn2": "bn_head", "classifier": "fc"}
_TIMM_BLOCK = {"conv_pw": "expand", "bn1": "bn_expand", "conv_dw": "depthwise", "bn2": "bn_depthwise"}
_TIMM_BLOCK |= {"conv_pwl": "project", "bn3": "bn_project"}
_TIMM_FIRST = {"conv_dw": "depthwise", "bn1": "bn_depthwise", "conv_pw": "project", "bn2": "bn_project"}
_TIMM_BLOCKS = [(stage, i) for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(repeats)]
_LITE0 |= {
    f"blocks.{stage}.{i}.{theirs}": f"block{number}.{ours}"
    for number, (stage, i) in enumerate(_TIMM_BLOCKS)
    for theirs, ours in (_TIMM_BLOCK if number else _TIMM_FIRST).items()
}
# What DataParallel, torch.compile and training loops put before all names.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def unwrapped(arrays):
    """Arrays by name, without what wrappers of PyTorch's put before every name."""
    while wrapper := next((w for w in _WRAPPERS if arrays and all(name.startswith(w) for name in arrays)), None):
        arrays = {name.removeprefix(wrapper): array for name, array in arrays.items()}
    return arrays


def caffe(name):
    """conv1_1[0] -> conv1_1.weight; conv1_1[1] -> conv1_1.bias. Caffe's layer names are ours."""
    return name.replace("[0]", ".weight").replace("[1]", ".bias")


def chainer(name):
    """conv1_1/W -> conv1_1.weight; conv1_1/b -> conv1_1.bias. The layers of Chainer's VGG16 and FCNs have Caffe's names."""
    layer, _, kind = name.rpartition("/")
    return f"{layer}.{ {'W': 'weight', 'b': 'bias'}.get(kind, kind) }"


def keras_vgg16(name):
    """block1_conv2.weight -> conv1_2.weight; None for what stands beside VGG16 in a file."""
    return name.replace("block", "conv").replace("_conv", "_") if name.startswith("block") else None


def _of_layer(layers, name):
    layer, _, kind = name.rpartition(".")
    if layer not in layers:
        return name
    if "bn_" in layers[layer]:
        kind = _BATCH_NORM.get(kind, kind)
    return kind and f"{layers[layer]}.{kind}"


torchvision_vgg16 = partial(_of_layer, _VGG16)  # features.28.weight -> conv5_3.weight; classifier.0.bias -> fc6.bias
torchvision_alexnet = partial(_of_layer, _ALEXNET)  # features.10.weight -> conv5.weight; classifier.1.bias -> fc6.bias
pytorch_lite0 = partial(_of_layer, _LITE0)  # _blocks.4._depthwise_conv.weight -> block4.depthwise.weight
