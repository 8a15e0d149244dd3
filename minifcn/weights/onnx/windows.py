"""ONNX's operators that slide windows over maps or mix their channels: for each, a function that makes a layer of a node.

Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

import numpy as np

from ... import layers
from ...backend import to_device
from ...errors import InputError
from ...layers import Parameter
from ...layers.init import bilinear_1d
from .nodes import same

_RNG = np.random.default_rng  # for layers whose initial weights are replaced


def _window(node, kernel=None):
    """The settings of a sliding window: kernel, stride, dilation and pad."""
    kernel = node.take("kernel_shape", list(kernel or (0, 0)))
    stride, dilation, pads = node.take("strides", [1, 1]), node.take("dilations", [1, 1]), node.take("pads", [0] * 4)
    top, left, bottom, right = pads
    auto = node.take("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER"):
        raise InputError(f"auto_pad = {auto}; known: NOTSET, VALID, SAME_UPPER")
    if auto != "NOTSET" and any(pads):
        raise InputError(f"auto_pad = {auto} and pads {pads}; known: one of the two")
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        raise InputError(f"expected a positive kernel, got {kernel}, stride {stride}, dilation {dilation}, pads {pads}")
    pad = "same" if auto == "SAME_UPPER" else ((top, bottom), (left, right))
    return {"kernel": tuple(kernel), "stride": tuple(stride), "dilation": tuple(dilation), "pad": pad}


def _conv(node):
    x, kernel, group = node.map(rank=4), node.parameter(1, (None,) * 4), node.take("group", 1)
    outputs, per_group, *size = kernel.value.shape
    if group < 1 or outputs % group or x.channels not in (None, per_group * group):
        raise InputError(f"a kernel of shape {kernel.value.shape} in {group} groups does not fit {x.channels} channels")
    bias = None if node.given(2) is None else node.parameter(2, (outputs,))
    settings = _window(node, size)
    if list(settings.pop("kernel")) != size:
        raise InputError(f"kernel_shape differs from the kernel's shape {kernel.value.shape}")
    return layers.Conv2d.of(kernel, bias, groups=group, **settings), [x], 4, outputs


def _conv_transpose(node):
    x, kernel, group = node.map(rank=4), node.parameter(1, (None,) * 4), node.take("group", 1)
    inputs, per_group, *size = kernel.value.shape
    if group < 1 or inputs % group or x.channels not in (None, inputs):
        raise InputError(f"a kernel of shape {kernel.value.shape} in {group} groups does not fit {x.channels} channels")
    settings, more = _window(node, size), node.take("output_padding", [0, 0])
    if list(settings.pop("kernel")) != size or settings["pad"] == "same":
        raise InputError("kernel_shape differs from the kernel's shape, or auto_pad; known: pads")
    steps, plain = settings["stride"], node.given(2) is None and more == [0, 0] and settings["dilation"] == (1, 1)
    if node.network.frozen_upsampling and plain and steps[0] == steps[1] and _is_bilinear(node.array(1), group):
        return same(layers.Upsample(steps[0], kernel=size[0], pad=settings["pad"]), x)
    bias = None if node.given(2) is None else node.parameter(2, (per_group * group,))
    layer = layers.ConvTranspose2d(group, group, 1, _RNG(0), output_pad=more, groups=group, **settings)
    layer.weight, layer.bias = kernel, bias
    return layer, [x], 4, per_group * group


def _is_bilinear(weight, group):
    """Whether minifcn wrote this kernel for a frozen upsampling: each channel by itself, bilinear."""
    line = bilinear_1d(weight.shape[3])
    return (
        group == weight.shape[0] and weight.shape[1:] == (1, *line.shape * 2) and (weight == np.outer(line, line)).all()
    )


def _batch_norm(node):
    x = node.map(rank=4)
    node.only("training_mode", 0, 0)
    names = ("gamma", "beta", "running_mean", "running_var")
    arrays = [node.array(position, (x.channels,)) for position in range(1, 5)]
    layer = layers.BatchNorm2d(len(arrays[0]), eps=node.take("epsilon", 1e-5), momentum=1 - node.take("momentum", 0.9))
    for name, array in zip(names, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise InputError(f"arrays of {len(arrays[0])} and {len(array)} channels")
        setattr(layer, name, Parameter(array) if name in names[:2] else to_device(array))
    if layer.eps < 0 or arrays[3].min() < 0:
        raise InputError("a negative variance, or epsilon")
    return same(layer, x)


def _pool(kind, *options):
    def read(node):
        x, settings = node.map(rank=4), _window(node)
        if settings["pad"] == "same":
            raise InputError("auto_pad = SAME_UPPER; known: NOTSET, VALID")
        node.only("storage_order", 0, 0)
        settings |= {key: bool(node.take(key, 0)) for key in options}
        if kind is layers.AvgPool2d and settings.pop("dilation") != (1, 1):
            raise InputError("dilations; known: 1")
        return same(kind(**settings), x)

    return read


def _global_average(node):
    return same(layers.AdaptiveAvgPool2d(1), node.map(rank=4))


def _lrn(node):
    size, k = node.take("size", 1), node.take("bias", 1.0)
    if size < 1:
        raise InputError(f"a size of {size}; known: 1 or more")
    return same(layers.LRN(size, node.take("alpha", 1e-4), node.take("beta", 0.75), k), node.map(rank=4))


def _gemm(node):
    """y = alpha · x · W + beta · b"""
    x = node.map(rank=2)
    node.only("transA", 0, 0)
    turned, alpha, beta = node.take("transB", 0), node.take("alpha", 1.0), node.take("beta", 1.0)
    weight = node.array(1, (None, None))
    weight = weight if turned else np.ascontiguousarray(weight.T)
    bias, shared = np.zeros(len(weight), weight.dtype), False
    if node.given(2) is not None:
        given = node.array(2)
        if given.shape not in ((), (1,), bias.shape, (1, *bias.shape)):
            raise InputError(f"expected a bias of {len(weight)} values, got shape {given.shape}")
        shared = given.shape == bias.shape and turned and alpha == beta == 1
        bias += given.ravel()
    if x.channels not in (None, weight.shape[1]):
        raise InputError(f"a matrix for {weight.shape[1]} values, got {x.channels}")
    layer = layers.Linear(1, 1, _RNG(0))
    layer.weight = node.parameter(1) if turned and alpha == 1 else Parameter(weight * weight.dtype.type(alpha))
    layer.bias = node.parameter(2) if shared else Parameter(bias * weight.dtype.type(beta))
    return layer, [x], 2, len(weight)


OPERATORS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "MaxPool": _pool(layers.MaxPool2d, "ceil_mode"),
    "AveragePool": _pool(layers.AvgPool2d, "ceil_mode", "count_include_pad"),
    "GlobalAveragePool": _global_average,
    "Gemm": _gemm,
    "LRN": _lrn,
}
