"""The heavy operations on a device that runs kernels of our own: the CUDA sources, and what launches them.

Each module does what the operation of its name does on a CPU, by one launch where that takes a loop over tiles. What
libraries do better is left to them: products of matrices go to cuBLAS, sums of what a kernel has left to CuPy.
"""

import numpy as np

from ...backend import array_module, constant
from ..maps import channels_last
from ..pointwise import Clip

# Bytes of what a convolution lays out beside its maps, patches or values at the points: it takes images, or rows of one, at a time.
WORKSPACE = 512 << 20


def packed(maps):
    """Maps (N, C, H, W) as (N, H, W, C), contiguous; a view where memory allows."""
    return array_module(maps).ascontiguousarray(channels_last(maps))


def bias_or_zeros(bias, like, channels):
    """A bias, contiguous, and where there is none the zeros that change nothing."""
    if bias is None:
        return constant(like, _zeros, channels, str(like.dtype))
    return array_module(bias).ascontiguousarray(bias)


def _zeros(channels, dtype):
    return np.zeros(channels, dtype)


def limits(then):
    """((low, high), rest): what a kernel does of `then` by clipping, and what is left to call."""
    if isinstance(then, Clip):
        return (float(then.low), float(then.high)), None
    return (float("-inf"), float("inf")), then


def whole_geometry(window, channels):
    """All numbers of a window over whole maps of so many channels: channels, input and output size, and `geometry`."""
    return (channels, *window.input_size, *window.output_size, *geometry(window))


def geometry(window, first_row=0):
    """A window's numbers as kernels want them: kernel, stride, dilation, and where in the image the first output row begins."""
    (top, _), (left, _) = window.pad
    return (*window.kernel, *window.stride, *window.dilation, top - first_row * window.stride[0], left)
