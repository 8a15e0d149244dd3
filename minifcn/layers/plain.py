"""The layers that hold no parameters: each binds one operation to its settings."""

from math import inf, prod

from .. import ops
from ..errors import InputError
from ..ops.geometry import pair
from ..ops.pool import pool_window
from .base import Leaf
from .coordinates import Affine
from .windowed import Windowed


class ReLU(Leaf):
    """y = max(x, 0)."""

    activation = "relu"  # the same, for a convolution to do in passing
    caches_output = True

    def run(self, x, train, overwrite=False):
        return ops.relu_forward(x, out=x if overwrite else None)

    def run_backward(self, dy, cache, overwrite=False):
        return ops.relu_backward(dy, cache, out=dy if overwrite else None)

    def onnx(self):
        return "Relu", {}


class ReLU6(Leaf):
    """y = min(max(x, 0), 6)."""

    activation = "relu6"
    caches_output = True

    def run(self, x, train, overwrite=False):
        return ops.relu6_forward(x, out=x if overwrite else None)

    def run_backward(self, dy, cache, overwrite=False):
        return ops.relu6_backward(dy, cache, out=dy if overwrite else None)

    def onnx(self):
        return "Clip", {"min": 0.0, "max": 6.0}


class Dropout(Leaf):
    """Drops each value with probability p while training; rng, a numpy.random.Generator, is its own."""

    output_is_its_own = gradient_is_its_own = False

    def __init__(self, p, rng):
        self.p = p
        self.rng = rng

    def run(self, x, train):
        return ops.dropout_forward(x, self.p, self.rng, train)

    def run_backward(self, dy, cache):
        return ops.dropout_backward(dy, cache)

    def extra_cached(self, shape):
        return prod(shape) if self.p else 0

    def is_view(self, shape, train):
        return not train or self.p == 0

    def onnx(self):
        return "Dropout", {}


class _Pool(Windowed):
    """What max and average pooling share: kernel and settings."""

    def _window(self, shape):
        settings = {key: self.settings.get(key, 1) for key in ("stride", "pad", "dilation", "ceil_mode")}
        return pool_window(type(self).__name__, shape[2:], self.kernel, **settings)

    def output_shape(self, shape):
        return (*shape[:2], *self._window(shape).output_size)


class MaxPool2d(_Pool):
    """Max pooling; kernel, stride, pad, dilation, ceil_mode as in ops.max_pool2d_forward."""

    caches_input = caches_output = True
    onnx_operator = "MaxPool"

    def __init__(self, kernel, *, stride=None, pad=0, dilation=1, ceil_mode=False):
        self.kernel = pair("kernel", kernel)
        self.settings = {"stride": stride or kernel, "pad": pad, "dilation": dilation, "ceil_mode": ceil_mode}

    def run(self, x, train):
        return ops.max_pool2d_forward(x, self.kernel, **self.settings)

    def run_backward(self, dy, cache):
        return ops.max_pool2d_backward(dy, cache)


class AvgPool2d(_Pool):
    """Average pooling; kernel, stride, pad, ceil_mode, count_include_pad as in ops.avg_pool2d_forward."""

    onnx_operator = "AveragePool"

    def __init__(self, kernel, *, stride=None, pad=0, ceil_mode=False, count_include_pad=True):
        self.kernel = pair("kernel", kernel)
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


class _WholeMap(Leaf):
    """What sees the whole map: a value of its output has no place in it."""

    def coordinates(self):
        raise InputError(f"{self.title}: its output has no coordinates in the image")

    def receptive_field(self, field, step):
        return inf, step


class AdaptiveAvgPool2d(_WholeMap):
    """The means of `size` (height, width) parts of a map, whatever its size."""

    def __init__(self, size):
        self.size = size

    def run(self, x, train):
        return ops.adaptive_avg_pool2d_forward(x, self.size)

    def run_backward(self, dy, cache):
        return ops.adaptive_avg_pool2d_backward(dy, cache)

    def output_shape(self, shape):
        return (*shape[:2], *pair("size", self.size))


class GlobalAvgPool(_WholeMap):
    """The mean of each map: (N, C, H, W) -> (N, C)."""

    def run(self, x, train):
        return ops.global_avg_pool_forward(x)

    def run_backward(self, dy, cache):
        return ops.global_avg_pool_backward(dy, cache)

    def output_shape(self, shape):
        return shape[:2]

    def onnx(self):
        return "GlobalAveragePool", {}


class Flatten(_WholeMap):
    """(N, C, H, W) -> (N, C·H·W), channel by channel, row by row."""

    output_is_its_own = gradient_is_its_own = False

    def run(self, x, train):
        return x.reshape(len(x), -1), x.shape

    def run_backward(self, dy, cache):
        return dy.reshape(cache)

    def output_shape(self, shape):
        return shape[0], prod(shape[1:])

    def is_view(self, shape, train):
        """A copy where a pixel's channels lie together in memory, which is not the order of the result."""
        return shape[1] == 1 or shape[2:] == (1, 1)

    def onnx(self):
        return "Flatten", {}


class LRN(Leaf):
    """Local response normalisation across channels; size, alpha, beta, k as in ops.lrn_forward."""

    caches_input = True

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0):
        self.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def run(self, x, train):
        return ops.lrn_forward(x, **self.settings)

    def run_backward(self, dy, cache):
        return ops.lrn_backward(dy, cache)

    def extra_cached(self, shape):
        return prod(shape)

    def onnx(self):
        names = {"k": "bias"}
        return "LRN", {names.get(key, key): value for key, value in self.settings.items()}


class PadToMultiple(Leaf):
    """`pad` zeros on every side, and more below and to the right, up to the next multiple of `multiple`."""

    output_is_its_own = gradient_is_its_own = False

    def __init__(self, multiple, pad=0):
        self.multiple, self.pad = multiple, pad

    def pad_for(self, size):
        """((top, bottom), (left, right)) for an input of `size` (height, width)."""
        return tuple((self.pad, self.pad + -(n + 2 * self.pad) % self.multiple) for n in size)

    def run(self, x, train):
        return ops.pad_forward(x, self.pad_for(x.shape[2:]))

    def run_backward(self, dy, cache):
        return ops.pad_backward(dy, cache)

    def output_shape(self, shape):
        return (*shape[:2], *(n + sum(both) for n, both in zip(shape[2:], self.pad_for(shape[2:]), strict=True)))

    def is_view(self, shape, train):
        return self.output_shape(shape) == shape

    def coordinates(self):
        return Affine(1, self.pad)

    def onnx(self):
        return "Pad", {"mode": "constant"}
