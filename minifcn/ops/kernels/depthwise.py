"""Depthwise convolution by kernels: a thread adds up the taps of one result."""

from ...backend import Source, array_module, launch
from ..maps import channels_last, empty_maps
from . import bias_or_zeros, limits, packed, whole_geometry

SOURCE = Source.beside(__file__)


def forward(x, w, window, bias=None, then=None):
    """y = Σ over taps of w[tap] · (x, a tap further on).   -> (N, C, Ho, Wo)"""
    y = empty_maps(array_module(x), (*x.shape[:2], *window.output_size), x.dtype)
    (low, high), rest = limits(then)
    arrays = packed(x), _by_tap(w), channels_last(y), bias_or_zeros(bias, x, len(w))
    launch(SOURCE, "depthwise", y.size, *arrays, low, high, *whole_geometry(window, len(w)))
    if rest is not None:
        rest(y)
    return y


def input_gradient(dy, w, window):
    """dx: each tap's share w[tap] · dy goes to where that tap looked.   -> (N, C, H, W)"""
    dx = empty_maps(array_module(dy), (*dy.shape[:2], *window.input_size), dy.dtype)
    arrays = packed(dy), _by_tap(w), channels_last(dx)
    launch(SOURCE, "depthwise_input_gradient", dx.size, *arrays, *whole_geometry(window, len(w)))
    return dx


def weight_gradient(x, dy, window):
    """dw[tap] = Σ of dy · (x, a tap further on), over images and pixels.   -> (C, 1, kh, kw)

    A thread adds up one row of results, and the rows are then added up by themselves.
    """
    n, channels, rows, _ = dy.shape
    sums = array_module(x).empty((n * rows, *window.kernel, channels), x.dtype)
    launch(
        SOURCE, "depthwise_weight_gradient", sums.size, packed(x), packed(dy), sums, *whole_geometry(window, channels)
    )
    return sums.sum(axis=0).transpose(2, 0, 1)[:, None]


def _by_tap(w):
    """w (C, 1, kh, kw) -> (kh, kw, C), contiguous"""
    return array_module(w).ascontiguousarray(w[:, 0].transpose(1, 2, 0))
