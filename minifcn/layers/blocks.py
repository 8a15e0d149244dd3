"""The layers that hold parameters: each binds one operation to its settings and to what it learns."""

import numpy as np

from .. import ops
from ..backend import array_module, to_device
from ..ops.window import require_nchw, require_shape, same_pads
from .base import Leaf, Parameter
from .init import bilinear, bilinear_line, he_normal, zeros


class Conv2d(Leaf):
    """A convolution of `outputs` kernels with bias. Weights (outputs, inputs/groups, kh, kw) start He-normal.

    Biases follow the published solver: twice the learning rate and no decay. zero=True starts from zero instead
    (score layers). kernel, stride, pad, dilation, groups as in ops.conv2d_forward; pad may also be "same", TensorFlow's
    padding, which depends on the input's size.
    """

    def __init__(self, inputs, outputs, kernel, rng, *, stride=1, pad=0, dilation=1, groups=1, bias=True, zero=False):
        self.settings = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        shape = (outputs, inputs // groups, kh, kw)
        self.weight = Parameter(zeros(shape) if zero else he_normal(shape, rng))
        self.bias = Parameter(zeros((outputs,)), lr_mult=2.0, decay_mult=0.0) if bias else None

    @classmethod
    def of(cls, weight, bias=None, *, stride=1, pad=0, dilation=1, groups=1):
        """A convolution with Parameters that are there already."""
        layer = cls.__new__(cls)
        layer.settings = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        layer.weight, layer.bias = weight, bias
        return layer

    def run(self, x, train, norm=None, relu=None):
        """norm, relu: in inference, the BatchNorm2d and the ReLU that follow, to be done at once."""
        require_nchw("conv2d", x)
        settings = {**self.settings, "pad": self.pad_for(x.shape[2:])}
        w, b = self.weight.value, self.bias and self.bias.value
        if norm:
            w, b = norm.folded_into(w, b)
        return ops.conv2d_forward(x, w, b, **settings, then=relu and relu.clip)

    def pad_for(self, size):
        """The padding of an input of `size` (height, width): as given, or worked out where it was given as "same"."""
        if self.settings["pad"] != "same":
            return self.settings["pad"]
        return same_pads(size, self.weight.value.shape[2:], self.settings["stride"], self.settings["dilation"])

    def run_backward(self, dy, cache, inputs=True):
        """inputs=False: this is the first layer, and nobody asks for the gradient of the image; dx is None."""
        dx, dw, db = ops.conv2d_backward(dy, cache, inputs=inputs)
        self.weight.add_gradient(dw)
        if self.bias:
            self.bias.add_gradient(db)
        return dx


class ConvTranspose2d(Leaf):
    """A transposed convolution. Weights (inputs, outputs/groups, kh, kw) start He-normal.

    kernel, stride, pad, output_pad, dilation, groups as in ops.conv_transpose2d_forward.
    """

    def __init__(self, inputs, outputs, kernel, rng, *, stride=1, pad=0, output_pad=0, dilation=1, groups=1, bias=True):
        self.settings = {"stride": stride, "pad": pad, "output_pad": output_pad, "dilation": dilation, "groups": groups}
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        self.weight = Parameter(he_normal((inputs, outputs // groups, kh, kw), rng))
        self.bias = Parameter(zeros((outputs,)), lr_mult=2.0, decay_mult=0.0) if bias else None

    def run(self, x, train):
        return ops.conv_transpose2d_forward(x, self.weight.value, self.bias and self.bias.value, **self.settings)

    def run_backward(self, dy, cache):
        dx, dw, db = ops.conv_transpose2d_backward(dy, cache)
        self.weight.add_gradient(dw)
        if self.bias:
            self.bias.add_gradient(db)
        return dx


class LearnedUpsample(ConvTranspose2d):
    """A transposed convolution that enlarges `factor` times, starts as bilinear interpolation and is then learned.

    Weights (channels, channels, kernel, kernel), no bias, no decay, as in the published networks.
    kernel, pad: 2·factor and 0 as published; pad = factor/2 makes the output exactly factor times the input.
    """

    def __init__(self, channels, factor, *, kernel, pad=0):
        self.settings = {"stride": factor, "pad": pad}
        self.weight = Parameter(bilinear(channels, kernel), decay_mult=0.0)
        self.bias = None


class Upsample(Leaf):
    """Frozen bilinear enlargement: what LearnedUpsample computes before it has learned anything.

    Its kernel is line ⊗ line on the diagonal of the channels and zero elsewhere, so `line` (kernel,) says it all.
    """

    def __init__(self, factor, *, kernel, pad=0):
        self.settings = {"stride": factor, "pad": pad}
        self.line = Parameter(bilinear_line(kernel), frozen=True)

    def run(self, x, train):
        return ops.upsample_forward(x, self.line.value, **self.settings)

    def run_backward(self, dy, cache):
        return ops.upsample_backward(dy, cache)


class Linear(Leaf):
    """y = x · Wᵀ + b; weight (outputs, inputs) starts He-normal, or zero with zero=True."""

    def __init__(self, inputs, outputs, rng, *, zero=False):
        self.weight = Parameter(zeros((outputs, inputs)) if zero else he_normal((outputs, inputs), rng))
        self.bias = Parameter(zeros((outputs,)), lr_mult=2.0, decay_mult=0.0)

    def run(self, x, train):
        return ops.linear_forward(x, self.weight.value, self.bias.value)

    def run_backward(self, dy, cache):
        dx, dw, db = ops.linear_backward(dy, cache)
        self.weight.add_gradient(dw)
        self.bias.add_gradient(db)
        return dx


class BatchNorm2d(Leaf):
    """Batch normalisation by channel: the batch's statistics while training, the running ones otherwise.

    With `frozen` the running statistics, a pretrained network's, serve in training too and stay as they are; gamma and
    beta are learned all the same. Small batches are too small a sample to replace them.
    in_place: dx is written over dy, for use before a ReLU that is in place too: then nobody else reads that dy.
    """

    buffer_names = ("running_mean", "running_var")

    def __init__(self, channels, *, eps=1e-5, momentum=0.1, frozen=False, in_place=False):
        self.eps, self.momentum, self.frozen, self.in_place = eps, momentum, frozen, in_place
        self.gamma = Parameter(np.ones(channels, np.float32), decay_mult=0.0)
        self.beta = Parameter(zeros((channels,)), decay_mult=0.0)
        self.running_mean = to_device(zeros((channels,)))
        self.running_var = to_device(np.ones(channels, np.float32))

    def run(self, x, train):
        y, cache = ops.batch_norm_forward(
            x,
            self.gamma.value,
            self.beta.value,
            self.running_mean,
            self.running_var,
            eps=self.eps,
            momentum=self.momentum,
            train=train and not self.frozen,
        )
        self.running_mean, self.running_var = cache.running_mean, cache.running_var
        return y, cache

    def folded_into(self, w, b=None):
        """(w, b) of the one convolution that is the convolution w (C, …), b (C,) or None, and then this, in inference."""
        require_shape(self.title, "one value per channel", self.gamma.value, w.shape[:1])
        scale = self.gamma.value / array_module(w).sqrt(self.running_var + self.eps)
        centre = self.running_mean if b is None else self.running_mean - b
        return w * scale[:, None, None, None], self.beta.value - centre * scale

    def run_backward(self, dy, cache):
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, cache, out=dy if self.in_place else None)
        self.gamma.add_gradient(dgamma)
        self.beta.add_gradient(dbeta)
        return dx
