"""U-Net in PyTorch, in the form that runs fastest on a CPU. Modules have the names of minifcn's layers, so that weights can be copied."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

DEPTH, DROPOUT = 4, 0.5


class UNet(nn.Module):
    """The paper's network for colour images, `width` channels at their own scale; valid: unpadded, else padded to keep sizes."""

    prefix = ""

    def __init__(self, width, classes, valid):
        super().__init__()
        self.valid = valid
        channels = [3, *(width << level for level in range(DEPTH + 1))]
        for level in range(DEPTH + 1):
            more = {"drop": nn.Dropout(DROPOUT)} if level >= DEPTH - 1 else {}
            self.add_module(f"down{level}", self.convolutions(channels[level], channels[level + 1], more))
        for level in range(DEPTH):
            wide = channels[level + 1]
            upsample = nn.ConvTranspose2d(2 * wide, wide, 2, stride=2)
            self.add_module(f"up{level}", self.convolutions(2 * wide, wide, {"upsample": upsample}))
        self.score = nn.Conv2d(width, classes, 1)

    def convolutions(self, inputs, outputs, more):
        pad = 0 if self.valid else 1
        chain = OrderedDict(conv1=nn.Conv2d(inputs, outputs, 3, padding=pad), relu1=nn.ReLU(inplace=True))
        chain |= {"conv2": nn.Conv2d(outputs, outputs, 3, padding=pad), "relu2": nn.ReLU(inplace=True), **more}
        return nn.ModuleDict(chain)

    def run(self, x, name):
        for key, module in getattr(self, name).items():
            x = x if key == "upsample" else module(x)
        return x

    def forward(self, image):
        height, width = image.shape[2:]
        x = image if self.valid else F.pad(image, (0, -width % 2**DEPTH, 0, -height % 2**DEPTH))
        skips = []
        for level in range(DEPTH):
            skips.append(self.run(x, f"down{level}"))
            x = F.max_pool2d(skips[-1], 2)
        x = self.run(x, f"down{DEPTH}")
        for level in reversed(range(DEPTH)):
            x = getattr(self, f"up{level}")["upsample"](x)
            top, left = ((have - want) // 2 for have, want in zip(skips[level].shape[2:], x.shape[2:], strict=True))
            skip = skips[level][:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.run(torch.cat([skip, x], dim=1), f"up{level}")
        return self.score(x)[:, :, :height, :width]


def unet(work):
    """The network of a piece of work, with He-normal weights."""
    network = UNet(64 // work.narrow, work.classes, work.alignment == "valid")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network
