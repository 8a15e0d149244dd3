"""The VGG trunk, fully convolutional, with named taps for the skips."""

from .. import layers


class VGG(layers.Layer):
    """Groups of 3×3 convolutions, each group closed by a 2×2 pool, then fc6 and fc7 as convolutions.

    Simonyan and Zisserman, 2014; made convolutional as in Long, Shelhamer and Darrell, 2015.
    widths, depths: channels and number of convolutions of each of the five groups. fc_width, fc_kernel: channels of
    fc6 and fc7, and fc6's kernel. first_pad: the padding of conv1_1. fc_pad: the padding of fc6.
    batch_norm: normalise after every convolution, without which a deep trunk hardly starts to learn from random weights.
    """

    family = "vgg"
    stride = 32  # from the image to fc7

    def __init__(self, widths, depths, fc_width, fc_kernel, *, first_pad, fc_pad, rng, dropout=0.5, batch_norm=False):
        self.layers = {}
        channels = 3
        for group, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            for i in range(1, depth + 1):
                pad = first_pad if (group, i) == (1, 1) else 1
                self._add_convolution("conv", f"{group}_{i}", channels, width, 3, pad, batch_norm, rng)
                channels = width
            self.layers[f"pool{group}"] = layers.MaxPool2d(2, stride=2, ceil_mode=True)
        for number, kernel, pad in (("6", fc_kernel, fc_pad), ("7", 1, 0)):
            self._add_convolution("fc", number, channels, fc_width, kernel, pad, batch_norm, rng)
            self.layers[f"drop{number}"] = layers.Dropout(dropout, rng)
            channels = fc_width
        # Where the skips begin: after this layer, this many channels.
        self.taps = {"pool3": ("pool3", widths[2]), "pool4": ("pool4", widths[3]), "fc7": ("drop7", fc_width)}

    def _add_convolution(self, kind, number, inputs, outputs, kernel, pad, batch_norm, rng):
        """A convolution, its normalisation if wanted (which makes a bias pointless), its ReLU."""
        self.layers[kind + number] = layers.Conv2d(inputs, outputs, kernel, rng, pad=pad, bias=not batch_norm)
        if batch_norm:
            self.layers["bn" + number] = layers.BatchNorm2d(outputs)
        self.layers["relu" + number] = layers.ReLU()

    def children(self):
        return self.layers

    def forward(self, x, train=False):
        """x (N, 3, H, W) -> {"pool3": 1/8, "pool4": 1/16, "fc7": 1/32 of the padded image}."""
        seen = {}
        for name, layer in self.layers.items():
            x = layer.forward(x, train)
            seen.update({tap: x for tap, (after, _) in self.taps.items() if after == name})
        return seen

    def backward(self, dtaps):
        """dtaps: a gradient for fc7, and for pool3 and pool4 where a skip used them. -> dx (N, 3, H, W)

        A tap is a fork: what flowed on through the trunk and what left by the skip both send a gradient back, and they add.
        """
        skips = {after: dtaps[tap] for tap, (after, _) in self.taps.items() if tap in dtaps and tap != "fc7"}
        dx = dtaps["fc7"]
        for name, layer in reversed(self.layers.items()):
            if name in skips:
                dx = dx + skips[name]
            dx = layer.backward(dx)
        return dx

    def up_to(self, tap):
        """The layers from the image to a tap, in order."""
        names = list(self.layers)
        return [self.layers[name] for name in names[: names.index(self.taps[tap][0]) + 1]]


def vgg16(alignment, rng):
    """The trunk of the published FCNs: 13 convolutions of up to 512 channels, then fc6 (7×7) and fc7 of 4096."""
    return VGG((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), 4096, 7, rng=rng, **trunk_pads(alignment, fc_kernel=7))


def trunk_pads(alignment, fc_kernel):
    """The paddings of a trunk. "paper": the image by 100, fc6 not at all. "same": each so that maps keep their size."""
    if alignment == "paper":
        return {"first_pad": 100, "fc_pad": 0}
    return {"first_pad": 1, "fc_pad": fc_kernel // 2}
