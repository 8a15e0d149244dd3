"""Max pooling by kernels: the winning tap of each window is written down, and a pixel asks the windows that saw it."""

from ...backend import Source, array_module, launch
from ..maps import channels_last, empty_maps
from . import packed, whole_geometry

SOURCE = Source.beside(__file__)


def max_pool_forward(x, where):
    """(y (N, C, Ho, Wo), which tap has won: (N, Ho, Wo, C) int32)"""
    xp, (n, channels) = array_module(x), x.shape[:2]
    y = empty_maps(xp, (n, channels, *where.output_size), x.dtype)
    winner = xp.empty((n, *where.output_size, channels), "int32")
    launch(
        SOURCE, "max_pool", y.size, packed(x), channels_last(y), winner, float("-inf"), *whole_geometry(where, channels)
    )
    return y, winner


def max_pool_backward(dy, winner, where):
    """dx: each dy goes to the pixel that won its window.   -> (N, C, H, W)"""
    n, channels = dy.shape[:2]
    dx = empty_maps(array_module(dy), (n, channels, *where.input_size), dy.dtype)
    launch(
        SOURCE, "max_pool_gradient", dx.size, packed(dy), winner, channels_last(dx), *whole_geometry(where, channels)
    )
    return dx
