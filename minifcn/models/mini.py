"""A VGG small enough to train from nothing, on a CPU, in minutes."""

from .vgg import VGG, trunk_pads


def mini(alignment, rng, width=12):
    """`width` channels in the first group, then 2, 4, 8 and 8 times as many; 8 times in fc6 (7×7) and fc7 too.

    Seven 3×3 convolutions instead of thirteen, and batch normalisation, as it starts from random weights.
    """
    widths = (width, 2 * width, 4 * width, 8 * width, 8 * width)
    pads = trunk_pads(alignment, fc_kernel=7)
    return VGG(widths, (1, 1, 2, 2, 1), 8 * width, 7, rng=rng, dropout=0.1, batch_norm=True, **pads)
