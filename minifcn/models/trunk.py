"""A trunk: the part of a classifier that an FCN keeps, a chain of layers with named taps where the skips begin."""

from .. import layers


class Trunk(layers.Layer):
    """Layers by name, one after the other; three of them are tapped.

    taps: {"pool3": (layer, channels), "pool4": …, "fc7": …}: the maps at 1/8, 1/16 and 1/32 of the image, named after
    VGG's layers as in the paper, whatever this trunk calls them. family: what the trunk's parameters are filed under.
    frame: zeros that the FCN is to put around the image, for a trunk whose own padding is not the place for them.
    """

    stride = 32  # from the image to fc7

    def __init__(self, family, chain, taps, frame=0):
        self.family, self.layers, self.taps, self.frame = family, chain, taps, frame

    def children(self):
        return self.layers

    def forward(self, x, train=False):
        """x (N, 3, H, W) -> {"pool3": 1/8, "pool4": 1/16, "fc7": 1/32 of the padded image}."""
        seen = {}
        for name, maps in layers.run_chain(self.layers, x, train):
            seen.update({tap: maps for tap, (after, _) in self.taps.items() if after == name})
        return seen

    def backward(self, dtaps, inputs=True):
        """dtaps: a gradient for fc7, and for pool3 and pool4 where a skip used them. -> dx (N, 3, H, W); None without `inputs`

        A tap is a fork: what flowed on through the trunk and what left by the skip both send a gradient back, and they add.
        """
        skips = {after: dtaps[tap] for tap, (after, _) in self.taps.items() if tap in dtaps and tap != "fc7"}
        dx = dtaps.pop("fc7")
        first, *_ = self.layers  # a convolution
        for name, layer in reversed(self.layers.items()):
            if name in skips:
                dx = dx + skips.pop(name)
            dx = layer.backward(dx) if inputs or name != first else layer.backward(dx, inputs=False)
        return dx

    def up_to(self, tap):
        """The layers from the image to a tap, in order."""
        names = list(self.layers)
        return [self.layers[name] for name in names[: names.index(self.taps[tap][0]) + 1]]
