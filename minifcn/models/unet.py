"""U-Net as a table: a contracting path, an expanding path, and at every scale the maps of the one joined to those of the other.

Ronneberger, Fischer and Brox, MICCAI 2015, figure 1. With its four levels and a width of 64:

    image ── 64 ─────────────────────── crop ── ‖ ── 64 ── score
              └ pool ── 128 ─────────── crop ── ‖ ── 128 ── up ┘
                         └ pool ── 256 ─ crop ── ‖ ── 256 ── up ┘        ‖ concatenation; each number
                                   └ pool ── 512 ── ‖ ── 512 ── up ┘     two 3×3 convolutions of so many
                                              └ pool ── 1024 ── up ┘     channels, each with its ReLU

Maps on the way down are read twice, by the pool and by the crop: in backward the two gradients are added. The two maps of a
concatenation are read once each: in backward each gets its channels of the gradient, the cropped one with zeros around
it. The graph does both; see `Graph.backward`, `ops.concat_backward` and `ops.crop_backward`.
"""

from itertools import pairwise

import numpy as np

from .. import layers
from ..card import Card
from ..errors import require_counts, require_known
from ..layers.coordinates import crop_offset
from ..layers.graph import IMAGE, Graph, coordinates, in_a_row, prefixed
from ..preprocessing import LITE0, of_channels
from .backbone import Backbone
from .classifier import convolution, generator
from .efficientnet_lite0 import LITE0_BACKBONES

PADDINGS = ("valid", "same")
UNET_UPSAMPLING = ("learned", "bilinear")
UNET_BACKBONES = LITE0_BACKBONES
SCALES = ("pool1", "pool2", "pool3", "pool4", "fc7")  # a backbone's features that are read, from 1/2 to 1/32
MOST_LEVELS = 5
DROPOUT = 0.5  # at the end of the contracting path; the paper gives no rate


def unet(
    num_classes: int = 2,
    *,
    channels: int = 3,
    width: int | None = None,
    depth: int = 4,
    padding: str | None = None,
    batch_norm: bool = False,
    upsampling: str = "learned",
    backbone: str | None = None,
    seed: int = 0,
) -> Graph:
    """A U-Net with freshly drawn weights: (N, channels, H, W) -> logits (N, num_classes, H', W').

    channels: of the images: 3, 1 for grey ones, or the number of bands. padding: "valid" (default), the paper's,
    takes sides of 188 + 16k (at depth 4) and labels the middle 4 + 16k; "same" (default over a backbone) pads every
    convolution, takes any H and W from 1 up and gives logits of that size. width: channels at the image's own scale, doubled
    from level to level; default 64, 16 over a backbone. depth: how often the contracting path halves, 1 to 5; a backbone's is
    5. batch_norm: normalise after every convolution, instead of dropout at the end of the contracting path. upsampling:
    "learned", a 2×2 transposed convolution that halves the channels, or for padded networks "bilinear", with half as many
    channels above it instead. backbone: in place of the contracting path "efficientnet_lite0" or "efficientnet_lite0_head"
    (with its last 1×1 convolution), which halves five times; "same" and 3 channels only.
    The network's `card` holds these arguments. Raises InputError for what is not among these.
    """
    padding = padding or ("same" if backbone else "valid")
    options = dict(locals())  # the arguments, by name
    width = (16 if backbone else 64) if width is None else width
    known: dict = {"padding": PADDINGS, "upsampling": UNET_UPSAMPLING, "backbone": (None, *UNET_BACKBONES)}
    if backbone:  # which has its own padding and channels
        known |= {"padding": ("same",), "channels": (3,)}
    elif padding == "valid":  # bilinear maps would lack neighbours at their rim, which nothing crops away
        known |= {"upsampling": ("learned",)}
    require_known("unet: ", options, known)
    require_counts("unet: ", {"depth": depth}, most=MOST_LEVELS)
    rng = generator("unet: ", seed, num_classes=num_classes, channels=channels, width=width)
    body = UNET_BACKBONES[backbone]("same", rng) if backbone else None
    ways = {"same": padding == "same", "batch_norm": batch_norm, "learned": upsampling == "learned"}
    nodes, _ = unet_nodes(num_classes, body, rng, channels=channels, width=width, depth=depth, **ways)
    preprocessing = LITE0 if backbone else of_channels(channels)
    return Graph(nodes, card=Card("unet", options, preprocessing), backbone_prefix="lite0" if backbone else None)


def unet_nodes(
    num_classes: int,
    backbone: Backbone | None,
    rng: np.random.Generator,
    *,
    channels: int,
    width: int,
    depth: int,
    same: bool,
    batch_norm: bool,
    learned: bool,
) -> tuple[dict, dict]:
    """The table of a U-Net, over a Backbone if there is one, and {stride: (node, channels)} of the way down at each scale."""
    path = _Path(same, batch_norm, learned, rng)
    if backbone:
        path.add_backbone(backbone)
    else:
        path.contract(channels, width, depth)
    down = {2**level: found for level, found in enumerate([*path.skips, (path.last, path.channels)]) if found}
    path.expand(width)
    path.add("score", layers.Conv2d(width, num_classes, 1, rng))
    if same:
        path.add("crop", layers.CropLike(0), IMAGE)
    return path.table, down


class _Path:
    """A table as it grows. last, channels: the node that the next one reads, and its channels. skips: (node, channels) of the maps
    kept on the way down, the coarsest last; None for a scale without any."""

    def __init__(self, same: bool, batch_norm: bool, learned: bool, rng: np.random.Generator):
        self.same, self.batch_norm, self.learned, self.rng = same, batch_norm, learned, rng
        self.table: dict = {}
        self.last, self.channels, self.skips = IMAGE, 0, []

    def add(self, name, layer, *others):
        self.table[name] = (layer, [self.last, *others])
        self.last = name

    def convolve(self, name, *widths):
        """3×3 convolutions with these numbers of channels, one after the other."""
        chain, pad = {}, int(self.same)
        for i, (inputs, outputs) in enumerate(pairwise((self.channels, *widths)), start=1):
            chain |= convolution("conv", str(i), inputs, outputs, 3, self.rng, pad=pad, batch_norm=self.batch_norm)
        self.table |= prefixed(in_a_row(chain), name, self.last)
        self.last, self.channels = list(self.table)[-1], widths[-1]

    def contract(self, channels, width, depth):
        """The way down: two convolutions, whose output is kept for the way up, and a pool that halves it."""
        if self.same:
            self.add("pad_input", layers.PadToMultiple(2**depth))
        else:
            self.add("size", layers.ExactSize(*sizes(depth)))
        self.channels = channels
        for level in range(depth + 1):
            wide = width << level
            if level == depth and not self.learned:  # the maps go up as they are, and are no wider than those they meet
                wide //= 2
            self.convolve(f"down{level}", wide, wide)
            if level >= depth - 1 and not self.batch_norm:
                self.add(f"down{level}.drop", layers.Dropout(DROPOUT, self.rng))
            if level < depth:
                self.skips.append((self.last, wide))
                self.add(f"pool{level}", layers.MaxPool2d(2))

    def add_backbone(self, backbone):
        """A classifier's features as the way down; at the image's own scale there is none.

        Those of EfficientNet-Lite0 are narrow and have no ReLU: their values are eight times as large as the normalised maps that
        come up to them, so that at every scale a new network would see little else. Once normalised too, both count alike.
        """
        self.add("pad_input", layers.PadToMultiple(2 ** len(SCALES)))
        self.table |= prefixed(backbone.nodes, backbone.prefix, self.last)
        self.skips = [None]
        for level, scale in enumerate(SCALES, start=1):
            node, channels, _ = backbone.features[scale]
            self.last = f"{backbone.prefix}.{node}"
            if self.batch_norm:
                self.add(f"down{level}.bn", layers.BatchNorm2d(channels))
            self.skips.append((self.last, channels))
        self.last, self.channels = self.skips.pop()

    def expand(self, width):
        """The way up: maps enlarged to twice the size, joined to those from the way down, and two convolutions."""
        for level in reversed(range(len(self.skips))):
            wide, skip, name = width << level, self.skips[level], f"up{level}"
            if self.learned:
                self.add(f"{name}.upsample", layers.ConvTranspose2d(self.channels, wide, 2, self.rng, stride=2))
                self.channels = wide
            else:
                self.add(f"{name}.upsample", layers.Upsample(2, kernel=4, pad=1))
            if skip:
                self.concatenate(name, *skip)
            self.convolve(name, wide, wide if self.learned or level == 0 else wide // 2)

    def concatenate(self, name, skip, channels):
        """The maps from the way down, cropped to where those on the way up lie, before these."""
        up = self.last
        if not self.same:
            offset = crop_offset(coordinates(self.table, skip), coordinates(self.table, up))
            self.table[f"{name}.crop"] = (layers.CropLike(offset), [skip, up])
            skip = f"{name}.crop"
        self.table[f"{name}.concat"] = (layers.Concat(), [skip, up])
        self.last, self.channels = f"{name}.concat", channels + self.channels


def sizes(depth: int) -> tuple[int, int, int]:
    """What an unpadded U-Net takes: (its least side, the step from one side to the next, by how many pixels the output is smaller on each side)."""
    side = next(side for side in range(1, 10_000) if _output(side, depth) > 0)
    return side, 2**depth, (side - _output(side, depth)) // 2


def _output(side, depth):
    """The side of the output for that of the image; not above 0 where there is none."""
    for _ in range(depth):
        side = (side - 4) // 2
    for _ in range(depth):
        side = 2 * (side - 4)
    return side - 4
