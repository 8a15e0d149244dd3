"""The layers that hold no parameters: each binds one operation to its settings."""

from math import inf

from .. import ops
from .base import Leaf


class ReLU(Leaf):
    """y = max(x, 0).

    in_place: y is written over x, and dx over dy. That saves a pass over memory inside a chain, where both belong to the
    neighbouring layers and nobody else reads them.
    """

    clip = ops.Clip(0, inf)  # the same, for a convolution to do in passing

    def __init__(self, in_place=False):
        self.in_place = in_place

    def run(self, x, train):
        return ops.relu_forward(x, out=x if self.in_place else None)

    def run_backward(self, dy, cache):
        return ops.relu_backward(dy, cache, out=dy if self.in_place else None)


class ReLU6(ReLU):
    """y = min(max(x, 0), 6); in_place as in ReLU."""

    clip = ops.Clip(0, 6)

    def run(self, x, train):
        return ops.relu6_forward(x, out=x if self.in_place else None)

    def run_backward(self, dy, cache):
        return ops.relu6_backward(dy, cache, out=dy if self.in_place else None)


class Dropout(Leaf):
    """Drops each value with probability p while training; rng, a numpy.random.Generator, is its own."""

    def __init__(self, p, rng):
        self.p = p
        self.rng = rng

    def run(self, x, train):
        return ops.dropout_forward(x, self.p, self.rng, train)

    def run_backward(self, dy, cache):
        return ops.dropout_backward(dy, cache)


class MaxPool2d(Leaf):
    """Max pooling; kernel, stride, pad, dilation, ceil_mode as in ops.max_pool2d_forward."""

    def __init__(self, kernel, *, stride=None, pad=0, dilation=1, ceil_mode=False):
        self.kernel = kernel
        self.settings = {"stride": stride or kernel, "pad": pad, "dilation": dilation, "ceil_mode": ceil_mode}

    def run(self, x, train):
        return ops.max_pool2d_forward(x, self.kernel, **self.settings)

    def run_backward(self, dy, cache):
        return ops.max_pool2d_backward(dy, cache)


class AvgPool2d(Leaf):
    """Average pooling; kernel, stride, pad, ceil_mode, count_include_pad as in ops.avg_pool2d_forward."""

    def __init__(self, kernel, *, stride=None, pad=0, ceil_mode=False, count_include_pad=True):
        self.kernel = kernel
        self.settings = {
            "stride": stride or kernel,
            "pad": pad,
            "ceil_mode": ceil_mode,
            "count_include_pad": count_include_pad,
        }

    def run(self, x, train):
        return ops.avg_pool2d_forward(x, self.kernel, **self.settings)

    def run_backward(self, dy, cache):
        return ops.avg_pool2d_backward(dy, cache)


class AdaptiveAvgPool2d(Leaf):
    """The means of `size` (height, width) parts of a map, whatever its size."""

    def __init__(self, size):
        self.size = size

    def run(self, x, train):
        return ops.adaptive_avg_pool2d_forward(x, self.size)

    def run_backward(self, dy, cache):
        return ops.adaptive_avg_pool2d_backward(dy, cache)


class GlobalAvgPool(Leaf):
    """The mean of each map: (N, C, H, W) -> (N, C)."""

    def run(self, x, train):
        return ops.global_avg_pool_forward(x)

    def run_backward(self, dy, cache):
        return ops.global_avg_pool_backward(dy, cache)


class Flatten(Leaf):
    """(N, C, H, W) -> (N, C·H·W), channel by channel, row by row."""

    def run(self, x, train):
        return x.reshape(len(x), -1), x.shape

    def run_backward(self, dy, cache):
        return dy.reshape(cache)


class LRN(Leaf):
    """Local response normalisation across channels; size, alpha, beta, k as in ops.lrn_forward."""

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0):
        self.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def run(self, x, train):
        return ops.lrn_forward(x, **self.settings)

    def run_backward(self, dy, cache):
        return ops.lrn_backward(dy, cache)


class PadToMultiple(Leaf):
    """`frame` zeros on every side, and more below and to the right, up to the next multiple of `multiple`."""

    def __init__(self, multiple, frame=0):
        self.multiple, self.frame = multiple, frame

    def pad_for(self, size):
        """((top, bottom), (left, right)) for an input of `size` (height, width)."""
        return tuple((self.frame, self.frame + -(n + 2 * self.frame) % self.multiple) for n in size)

    def run(self, x, train):
        return ops.pad_forward(x, self.pad_for(x.shape[2:]))

    def run_backward(self, dy, cache):
        return ops.pad_backward(dy, cache)


class Crop(Leaf):
    """The part of a map that begins at `offset`; its size is given with each forward."""

    def __init__(self, offset):
        self.offset = offset

    def forward_to(self, x, size, train=False):
        """x (N, C, H, W) -> (N, C, *size)"""
        self.size = size
        return self.forward(x, train)

    def run(self, x, train):
        return ops.crop_forward(x, self.offset, self.size)

    def run_backward(self, dy, cache):
        return ops.crop_backward(dy, cache)
