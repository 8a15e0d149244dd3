"""The layers that hold parameters: each binds one operation to its settings and to what it learns."""

import logging
from collections.abc import Callable
from math import prod
from typing import ClassVar, Self

import numpy as np

from .. import ops
from ..backend import Array, array_module, to_device
from ..errors import InputError
from ..ops.geometry import Cache, Pair, pair, require_nchw, require_shape, same_pads, window
from .base import Leaf, Parameter
from .init import bilinear, bilinear_1d, he_normal, zeros
from .windowed import Transposed, Windowed

log = logging.getLogger("minifcn.layers")


def _bias(outputs):
    """Biases follow the published solver: twice the learning rate and no decay."""
    return Parameter(zeros((outputs,)), lr_mult=2.0, decay_mult=0.0)


def _require_groups(op, groups, inputs, outputs):
    """Raise InputError unless the groups divide the channels, which integer division would hide."""
    if groups < 1 or inputs % groups or outputs % groups:
        raise InputError(
            f"{op}: expected channels that divide into groups, got {inputs}, {outputs} and {groups} groups"
        )


class Conv2d(Windowed):
    """A convolution of `outputs` kernels with bias. Weights (outputs, inputs/groups, kh, kw) start He-normal.

    zero=True starts from zero instead (score layers). kernel, stride, pad, dilation, groups as in ops.conv2d_forward; pad
    may also be "same", TensorFlow's padding, which depends on the input's size.
    """

    onnx_operator = "Conv"
    caches_input = True
    warned = False
    warned_sizes: ClassVar[set] = set()  # sizes of maps that some layer has warned about

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        rng: np.random.Generator,
        *,
        stride: Pair = 1,
        pad: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        zero: bool = False,
    ):
        _require_groups("conv2d", groups, inputs, outputs)
        shape = (outputs, inputs // groups, *pair("kernel", kernel))
        self.settings = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        self.weight = Parameter(zeros(shape) if zero else he_normal(shape, rng))
        self.bias = _bias(outputs) if bias else None

    @classmethod
    def of(
        cls,
        weight: Parameter,
        bias: Parameter | None = None,
        *,
        stride: Pair = 1,
        pad: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Self:
        """A convolution with existing Parameters."""
        layer = cls.__new__(cls)
        layer.settings = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
        layer.weight, layer.bias = weight, bias
        return layer

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        require_nchw("conv2d", x)
        return ops.conv2d_forward(x, self.weight.value, self.bias and self.bias.value, **self.settings_for(x.shape))

    def run_backward(self, dy: Array, cache: Cache, inputs: bool = True) -> Array:
        """inputs=False: the gradient of the input is not needed, as for an image; dx is None."""
        dx, dw, db = ops.conv2d_backward(dy, cache, inputs=inputs, weights=not self.weight.frozen)
        self.weight.add_gradient(dw)
        if self.bias:
            self.bias.add_gradient(db)
        return dx

    def settings_for(self, shape: tuple) -> dict:
        """The settings for an input of this shape, with the padding worked out where it was given as "same".

        Warns if the dilation is too large for the input, once for all layers with inputs of that size.
        """
        pad, stride, dilation = (self.settings[key] for key in ("pad", "stride", "dilation"))
        rates = pair("dilation", dilation)
        if max(rates) > 1 and not self.warned and all(r >= n for r, n in zip(rates, shape[2:], strict=True)):
            self.warned = True
            if shape[2:] not in self.warned_sizes:
                self.warned_sizes.add(shape[2:])
                why = "only the centre tap sees pixels; take larger images or smaller rates"
                log.warning("%s: rate %s on a map of %dx%d: %s", self.title, rates, *shape[2:], why)
        if pad == "same":
            pad = same_pads(shape[2:], self.kernel, stride, dilation)
        return {**self.settings, "pad": pad}

    def output_shape(self, shape: tuple) -> tuple:
        outputs, per_group = self.weight.value.shape[:2]
        expected = per_group * self.settings["groups"]
        if len(shape) != 4 or shape[1] != expected:
            raise InputError(f"conv2d: expected {expected} input channels, got {shape[1]} in shape {shape}")
        where = window("conv2d", self.kernel, **self.settings_for(shape), input_size=shape[2:])
        return shape[0], outputs, *where.output_size

    def multiply_adds(self, shape: tuple) -> int:
        return prod(self.output_shape(shape)) * prod(self.weight.value.shape[1:])


class ConvTranspose2d(Transposed):
    """A transposed convolution. Weights (inputs, outputs/groups, kh, kw) start He-normal.

    kernel, stride, pad, output_pad, dilation, groups as in ops.conv_transpose2d_forward.
    """

    caches_input = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair,
        rng: np.random.Generator,
        *,
        stride: Pair = 1,
        pad: Pair = 0,
        output_pad: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        _require_groups("conv_transpose2d", groups, inputs, outputs)
        self.settings = {"stride": stride, "pad": pad, "output_pad": output_pad, "dilation": dilation, "groups": groups}
        taps, steps = prod(pair("kernel", kernel)), prod(pair("stride", stride))
        fan_in = max(1, inputs // groups * taps // steps)  # the stamps that meet at one output
        self.weight = Parameter(he_normal((inputs, outputs // groups, *pair("kernel", kernel)), rng, fan_in))
        self.bias = _bias(outputs) if bias else None

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.conv_transpose2d_forward(x, self.weight.value, self.bias and self.bias.value, **self.settings)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        dx, dw, db = ops.conv_transpose2d_backward(dy, cache, weights=not self.weight.frozen)
        self.weight.add_gradient(dw)
        if self.bias:
            self.bias.add_gradient(db)
        return dx

    def output_shape(self, shape: tuple) -> tuple:
        inputs, per_group = self.weight.value.shape[:2]
        if len(shape) != 4 or shape[1] != inputs:
            raise InputError(f"conv_transpose2d: expected {inputs} input channels, got {shape[1]} in shape {shape}")
        return (shape[0], per_group * self.settings.get("groups", 1), *self.output_size(shape[2:]))

    def multiply_adds(self, shape: tuple) -> int:
        """One for each tap of each stamp."""
        return prod(shape) * prod(self.weight.value.shape[1:])


class LearnedUpsample(ConvTranspose2d):
    """A transposed convolution that upsamples by `factor`, starts as bilinear interpolation and is then learned.

    Weights (channels, channels, kernel, kernel), no bias, no decay, as in the published networks.
    kernel, pad: 2·factor and 0 as published; pad = factor/2 makes the output exactly factor times the input.
    """

    def __init__(self, channels: int, factor: int, *, kernel: int, pad: Pair = 0):
        self.settings = {"stride": factor, "pad": pad}
        self.weight = Parameter(bilinear(channels, kernel), decay_mult=0.0)
        self.bias = None


class Upsample(Transposed):
    """Frozen bilinear upsampling: what LearnedUpsample computes before it has learned anything.

    Its kernel is kernel_1d ⊗ kernel_1d on the diagonal of the channels and zero elsewhere, so kernel_1d (kernel,) says it all.
    """

    def __init__(self, factor: int, *, kernel: int, pad: Pair = 0):
        self.settings = {"stride": factor, "pad": pad}
        self.kernel_1d = Parameter(bilinear_1d(kernel), frozen=True)

    @property
    def kernel(self) -> tuple:
        return self.kernel_1d.value.size, self.kernel_1d.value.size

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.upsample_forward(x, self.kernel_1d.value, **self.settings)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        return ops.upsample_backward(dy, cache)

    def output_shape(self, shape: tuple) -> tuple:
        return (*shape[:2], *self.output_size(shape[2:]))

    def multiply_adds(self, shape: tuple) -> int:
        return prod(shape) * self.kernel_1d.value.size**2

    def extra_cached(self, shape: tuple) -> int:
        """The two matrices of the separable product."""
        return sum(after * before for after, before in zip(self.output_shape(shape)[2:], shape[2:], strict=True))


class Linear(Leaf):
    """y = x · Wᵀ + b; weight (outputs, inputs) starts He-normal."""

    onnx_operator, onnx_attributes = "Gemm", {"transB": 1}
    caches_input = owns_results = True

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator):
        self.weight = Parameter(he_normal((outputs, inputs), rng))
        self.bias = _bias(outputs)

    def run(self, x: Array, train: bool) -> tuple[Array, Cache]:
        return ops.linear_forward(x, self.weight.value, self.bias.value)

    def run_backward(self, dy: Array, cache: Cache) -> Array:
        dx, dw, db = ops.linear_backward(dy, cache, weights=not self.weight.frozen)
        self.weight.add_gradient(dw)
        self.bias.add_gradient(db)
        return dx

    def output_shape(self, shape: tuple) -> tuple:
        outputs, inputs = self.weight.value.shape
        if shape[1:] != (inputs,):
            raise InputError(f"linear: expected {inputs} values an image, got {shape[1:]}")
        return shape[0], outputs

    def multiply_adds(self, shape: tuple) -> int:
        return shape[0] * self.weight.value.size


class BatchNorm2d(Leaf):
    """Batch normalisation by channel: the batch's statistics while training, the running ones otherwise.

    With `frozen`, the running statistics, such as a pretrained network's, are used in training too and stay unchanged: small
    batches are too small a sample to replace them. gamma and beta are still learned. The running statistics are also used
    for any batch with a single value per channel (a 1 × 1 map, a batch of one), which has no variance.
    sums: as for ops.batch_norm_forward, where several processes share a batch.
    """

    onnx_operator = "BatchNormalization"
    buffer_names = ("running_mean", "running_var")
    caches_input = owns_results = True
    sums: Callable[[Array], Array] | None = None

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, frozen: bool = False):
        self.eps, self.momentum, self.frozen = float(eps), float(momentum), frozen
        self.onnx_attributes = {"epsilon": self.eps, "momentum": 1 - self.momentum}  # ONNX's is the share that stays
        self.gamma = Parameter(np.ones(channels, np.float32), decay_mult=0.0)
        self.beta = Parameter(zeros((channels,)), decay_mult=0.0)
        self.running_mean = to_device(zeros((channels,)))
        self.running_var = to_device(np.ones(channels, np.float32))

    def run(self, x: Array, train: bool, activation: str = "none") -> tuple[Array, Cache]:
        y, cache = ops.batch_norm_forward(
            x,
            self.gamma.value,
            self.beta.value,
            self.running_mean,
            self.running_var,
            eps=self.eps,
            momentum=self.momentum,
            train=train and not self.frozen and (x.size > x.shape[1] or self.sums is not None),
            activation=activation,
            sums=self.sums,
        )
        self.running_mean, self.running_var = cache.running_mean, cache.running_var
        return y, cache

    def run_backward(self, dy: Array, cache: Cache, overwrite: bool = False) -> Array:
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, cache, out=dy if overwrite else None)
        self.gamma.add_gradient(dgamma)
        self.beta.add_gradient(dbeta)
        return dx

    def folded_into(self, w: Array, b: Array | None = None) -> tuple[Array, Array]:
        """(w, b) of the one convolution that equals convolution w (C, …), b (C,) or None, followed by this layer in inference."""
        require_shape(self.title, "one value per channel", self.gamma.value, w.shape[:1])
        scale = self.gamma.value / array_module(w).sqrt(self.running_var + self.eps)
        centre = self.running_mean if b is None else self.running_mean - b
        return w * scale[:, None, None, None], self.beta.value - centre * scale
