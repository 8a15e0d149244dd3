"""FCN-8s over VGG16, the small VGG and EfficientNet-Lite0 in PyTorch, in the form that runs fastest on a CPU.

ReLUs work in place, the frozen bilinear upsamplings are one kernel a channel and get no gradient, and nothing is padded
in memory that a convolution can pad itself. Modules have the names of minifcn's layers, so that weights can be copied.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

LITE0_STAGES = (  # repeats, kernel, stride of the first, width, expansion
    *((1, 3, 1, 16, 1), (2, 3, 2, 24, 6), (2, 5, 2, 40, 6), (3, 3, 2, 80, 6)),
    *((3, 5, 1, 112, 6), (4, 5, 2, 192, 6), (1, 3, 1, 320, 6)),
)
RENAMED = {"gamma": "weight", "beta": "bias"}  # of batch normalisation, minifcn's names and PyTorch's


class Upsample(nn.Module):
    """Bilinear upsampling of every channel by itself. paper: not cut; else to exactly `factor` times the size."""

    def __init__(self, channels, factor, paper):
        super().__init__()
        row = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)
        self.settings = {"stride": factor, "padding": 0 if paper else factor // 2, "groups": channels}

    def forward(self, x):
        return F.conv_transpose2d(x, self.kernel, **self.settings)


class FCN8s(nn.Module):
    """A backbone with features at 1/8, 1/16 and 1/32, a score layer on each, and upsamplings between them."""

    def __init__(self, prefix, backbone, features, classes, paper):
        super().__init__()
        self.prefix, self.paper = prefix, paper
        self.features = {name: feature for feature, (name, _) in features.items()}
        self.add_module(prefix, backbone)
        self.score_pool3, self.score_pool4, self.score_fr = (nn.Conv2d(c, classes, 1) for _, c in features.values())
        self.upscore2, self.upscore_pool4 = Upsample(classes, 2, paper), Upsample(classes, 2, paper)
        self.upscore8 = Upsample(classes, 8, paper)

    def forward(self, image):
        height, width = image.shape[2:]
        x = image
        if not self.paper and (height % 32 or width % 32):
            x = F.pad(image, (0, -width % 32, 0, -height % 32))
        seen = {}
        for name, layer in getattr(self, self.prefix).named_children():
            x = layer(x)
            if name in self.features:
                seen[self.features[name]] = x
        score = self.upscore2(self.score_fr(seen["fc7"]))
        score = score + self._part(self.score_pool4(seen["pool4"]), 5, score.shape[2:])
        score = self.upscore_pool4(score)
        score = score + self._part(self.score_pool3(seen["pool3"]), 9, score.shape[2:])
        return self._part(self.upscore8(score), 31, (height, width))

    def _part(self, x, offset, size):
        """The part of x that lies on the other branch: in the paper's alignment from its published crop on."""
        top = offset if self.paper else 0
        return x[:, :, top : top + size[0], top : top + size[1]]


def load_from_minifcn(network, state):
    """Take over the weights of the same network in minifcn."""
    named = {}
    for name, value in state.items():
        stem, _, last = name.rpartition(".")
        if last != "kernel_1d":
            named[f"{stem}.{RENAMED.get(last, last)}"] = torch.tensor(value)
    missing, unexpected = network.load_state_dict(named, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def fcn8s(work):
    """The network of a piece of work, with He-normal weights."""
    paper = work.alignment == "paper"
    if work.backbone == "efficientnet_lite0":
        network = FCN8s("lite0", *lite0_backbone(), work.classes, paper)
    else:
        widths, depths, fc_width, batch_norm, dropout = {
            "vgg16": ((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), 4096, False, 0.5),
            "mini": ((12, 24, 48, 96, 96), (1, 1, 2, 2, 1), 96, True, 0.1),
        }[work.backbone]
        if work.backbone == "vgg16":
            widths, fc_width = [width // work.narrow for width in widths], fc_width // work.narrow
        network = FCN8s("vgg", *vgg_backbone(widths, depths, fc_width, batch_norm, dropout, paper), work.classes, paper)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def vgg_backbone(widths, depths, fc_width, batch_norm, dropout, paper):
    """-> (the groups of 3×3 convolutions, each closed by a pool, then fc6 and fc7; its features)"""
    chain, channels = OrderedDict(), 3

    def add(kind, number, outputs, kernel, pad):
        nonlocal channels
        chain[kind + number] = nn.Conv2d(channels, outputs, kernel, padding=pad, bias=not batch_norm)
        if batch_norm:
            chain["bn" + number] = nn.BatchNorm2d(outputs)
        chain["relu" + number] = nn.ReLU(inplace=True)
        channels = outputs

    for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for i in range(1, depth + 1):
            add("conv", f"{group}_{i}", width, 3, 100 if paper and (group, i) == (1, 1) else 1)
        chain[f"pool{group}"] = nn.MaxPool2d(2, ceil_mode=True)
    for number, kernel, pad in (("6", 7, 0 if paper else 3), ("7", 1, 0)):
        add("fc", number, fc_width, kernel, pad)
        chain["drop" + number] = nn.Dropout(dropout)
    features = {"pool3": ("pool3", widths[2]), "pool4": ("pool4", widths[3]), "fc7": ("drop7", fc_width)}
    return nn.Sequential(chain), features


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding; only an uneven one, which strides bring about, is made in memory."""

    def forward(self, x):
        totals = [
            max((-(-n // s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        if any(total % 2 for total in totals):
            (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
            x, pad = F.pad(x, (left, right, top, bottom)), 0
        else:
            pad = [total // 2 for total in totals]
        return F.conv2d(x, self.weight, None, self.stride, pad, groups=self.groups)


class InvertedResidual(nn.Sequential):
    """Widen, filter every channel by itself, narrow; the input is added where the shapes agree."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        wide = inputs * expansion
        chain = _unit("expand", inputs, wide, 1) if expansion > 1 else OrderedDict()
        chain.update(_unit("depthwise", wide, wide, kernel, stride=stride, groups=wide))
        chain.update(_unit("project", wide, outputs, 1))
        del chain["relu_project"]
        super().__init__(chain)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = super().forward(x)
        return y.add_(x) if self.residual else y


def lite0_backbone():
    """-> (the stem and the sixteen blocks, where it is tapped)"""
    chain, inputs, number = _unit("stem", 3, 32, 3, stride=2), 32, 0
    for repeats, kernel, first_stride, width, expansion in LITE0_STAGES:
        for i in range(repeats):
            chain[f"block{number}"] = InvertedResidual(inputs, width, kernel, 1 if i else first_stride, expansion)
            inputs, number = width, number + 1
    return nn.Sequential(chain), {"pool3": ("block4", 40), "pool4": ("block10", 112), "fc7": ("block15", 320)}


def _unit(name, inputs, outputs, kernel, **settings):
    """A convolution without bias, its normalisation, its ReLU6."""
    return OrderedDict(
        {
            name: SameConv2d(inputs, outputs, kernel, bias=False, **settings),
            f"bn_{name}": nn.BatchNorm2d(outputs, eps=1e-3),
            f"relu_{name}": nn.ReLU6(inplace=True),
        }
    )
