"""Batch normalisation by kernels: sums line by line, a line being a row of an image, and the lines put together."""

from ...backend import Source, array_module, launch
from ..maps import channels_last, empty_maps
from . import packed

SOURCE = Source.beside(__file__)


def statistics(x):
    """The mean and the variance of each channel.   x (N, C, H, W) -> (C,), (C,)

    A variance is the mean of the variances in the lines plus the variance of their means. (Chan, Golub, LeVeque, 1979.)
    """
    xp, lines = array_module(x), packed(x)
    n, height, width, channels = lines.shape
    means, squares = (xp.empty((n * height, channels), x.dtype) for _ in range(2))
    launch(SOURCE, "moments_of_lines", means.size, lines, means, squares, width, channels)
    mean = means.mean(axis=0)
    between = means - mean
    return mean, (squares.sum(axis=0) / width + (between * between).sum(axis=0)) / (n * height)


def scale_and_shift(x, factor, offset):
    """y = x · factor + offset, by channel.   x, y (N, C, H, W), factor, offset (C,)"""
    y = empty_maps(array_module(x), x.shape, x.dtype)
    launch(SOURCE, "scale_and_shift", y.size, packed(x), channels_last(y), factor, offset, x.shape[1])
    return y


def sums_of_gradients(x, dy, mean):
    """Σ dy · (x − mean) and Σ dy by channel.   x, dy (N, C, H, W) -> (C,), (C,)"""
    xp, lines = array_module(x), packed(x)
    n, height, width, channels = lines.shape
    sums, products = (xp.empty((n * height, channels), x.dtype) for _ in range(2))
    launch(SOURCE, "gradients_of_lines", sums.size, lines, packed(dy), mean, sums, products, width, channels)
    return products.sum(axis=0), sums.sum(axis=0)


def normalized_gradient(x, dy, mean, scale, shift, slope):
    """dx = scale · (dy − shift − slope · (x − mean)), by channel.   x, dy, dx (N, C, H, W), the others (C,)"""
    dx = empty_maps(array_module(x), x.shape, x.dtype)
    arrays = packed(x), packed(dy), channels_last(dx), mean, scale, shift, slope
    launch(SOURCE, "normalized_gradient", dx.size, *arrays, x.shape[1])
    return dx
