"""What `gpu.py` measures, and the arithmetic of it: operations, bytes, and the least time that both allow."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import works

FLOAT = 4  # bytes
PAPER_SECONDS = 0.175  # an image of 500 × 500 by FCN-8s on the paper's GPU (Long et al., 2015, table 2)
PAPER_GOAL = 20  # times as fast as that, at least
RATIO_GOALS = (1.5, 1.0)  # ratios of minifcn's time to PyTorch's: the first goal, and the next
HEAVIEST = 5  # layers whose roofline is written down

DEPTHS, WIDTHS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Layer:
    """A convolution with bias and stride 1 over square maps. task: "forward", or "backward", which is dx, dw and db at once.

    image: its input is the image, so that dx is not wanted.
    """

    name: str
    task: str
    inputs: int
    outputs: int
    kernel: int
    pad: int
    side: int  # of the input maps
    batch: int = 1
    image: bool = False

    @property
    def out_side(self):
        return self.side + 2 * self.pad - self.kernel + 1

    @property
    def flops(self):
        """Multiplications and additions of the definition; those of the bias are left out."""
        products = 1 if self.task == "forward" or self.image else 2
        taps = self.inputs * self.kernel**2
        return 2 * products * self.batch * self.outputs * taps * self.out_side**2

    @property
    def bytes(self):
        """The least that has to be read and written: every array once."""
        x, y = (self.batch * c * n**2 for c, n in ((self.inputs, self.side), (self.outputs, self.out_side)))
        w = self.outputs * self.inputs * self.kernel**2
        if self.task == "forward":
            values = x + w + self.outputs + y
        else:  # x, w and dy are read; dx (unless this is the first layer), dw and db are written
            values = x + y + w + self.outputs + (0 if self.image else x + w)
        return FLOAT * values


class Bound(NamedTuple):
    """The least seconds that a piece of work can take: that of its operations, and that of its bytes."""

    by_operations: float
    by_bytes: float

    @property
    def seconds(self):
        return max(self)

    @property
    def limit(self):
        return "operations" if self.by_operations >= self.by_bytes else "bytes"


def roofline(layer, rate, bandwidth):
    """The Bound of a layer on a device of `rate` operations and `bandwidth` bytes a second. Williams et al., 2009."""
    return Bound(layer.flops / rate, layer.bytes / bandwidth)


def vgg16(side, task, batch=1):
    """The layers of VGG16 in FCN-8s with the paper's padding, for images of side × side: 13 of 3×3, then fc6 and fc7."""
    layers, channels = [], 3
    for group, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
        for i in range(1, depth + 1):
            first = (group, i) == (1, 1)
            layer = Layer(f"conv{group}_{i}", task, channels, width, 3, 100 if first else 1, side, batch, first)
            layers.append(layer)
            channels, side = width, layer.out_side
        side = -(-side // 2)  # pools round up
    fc6 = Layer("fc6", task, channels, 4096, 7, 0, side, batch)
    return [*layers, fc6, Layer("fc7", task, 4096, 4096, 1, 0, fc6.out_side, batch)]


def heaviest(measured, count=HEAVIEST):
    """The `count` entries that took minifcn longest, the longest first. measured: [{"minifcn": seconds, …}]"""
    return sorted(measured, key=lambda entry: -entry["minifcn"])[:count]


def all_works(dry=False):
    """[(title, work)] of everything that is measured. dry: the same at sizes that take no time."""
    layers = [layer for task in ("forward", "backward") for layer in vgg16(500, task)]
    networks = [
        (f"FCN-8s-VGG16 {task}, 500 × 500, batch {batch}", replace(works.VGG, task=task, batch=batch))
        for batch in (1, 8)
        for task in ("forward", "step")
    ]
    networks.append(("FCN-8s-mini step, 128 × 128, batch 32", replace(works.MINI, batch=32)))
    if dry:
        layers = [
            replace(layer, inputs=3, outputs=4, side=8, pad=layer.kernel // 2) for layer in (*layers[:2], layers[-1])
        ]
        networks = [(title, works.tiny(work)) for title, work in (networks[0], *networks[3:])]
    return [(f"{layer.name} {layer.task}", layer) for layer in layers] + networks
