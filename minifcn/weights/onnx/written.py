"""A network's layers as nodes of an ONNX file: most by their own description, the others by a function each.

(file, name, layer, the names of its inputs, the shape of the first) -> the name of its output
"""

import numpy as np

from ... import layers
from ...backend import to_host
from ...errors import InputError
from ...layers.sizes import dimension

INPUTS = ("min", "max", "factor")  # what a layer says as an attribute and this opset takes as an input
_END = (1 << 63) - 1  # of a slice that goes on to the end


def plain(file, name, layer, inputs, shape):
    """A layer that its operator and attributes describe completely."""
    try:
        operator, attributes = layer.onnx()
    except NotImplementedError as error:
        raise InputError(f"{layer.title}: has no operator in ONNX that takes images of any size") from error
    file.require(operator, layer.title)
    if "auto_pad" in attributes and max(attributes["dilations"]) > 1:
        raise InputError(f'{layer.title}: stride, dilation and pad "same" at once are more than ONNX Runtime takes')
    learned = [file.learned(f"{name}.{key}", parameter) for key, parameter in layer.parameters().items()]
    learned += [file.array(f"{name}.{key}", to_host(getattr(*at))) for key, at in layer.buffers().items()]
    settings = [file.array(f"{name}.{key}", attributes.pop(key)) for key in INPUTS if key in attributes]
    return file.node(operator, name, [*inputs, *learned, *settings], **attributes)


def _upsample(file, name, layer, inputs, shape):
    """A transposed convolution with the kernel written out, the same for each channel."""
    line, channels = to_host(layer.kernel_1d.value), shape[1]
    kernel = file.array(f"{name}.weight", np.tile(np.outer(line, line), (channels, 1, 1, 1)))
    operator, attributes = layer.onnx()
    return file.node(operator, name, [*inputs, kernel], group=channels, **attributes)


def _slice(file, name, layer, inputs, shape):
    parts = {axis: part for axis, part in enumerate(layer.numbers) if part != slice(None)} or {0: slice(None)}
    starts = [part.start or 0 for part in parts.values()]
    ends = [_END if part.stop is None else part.stop for part in parts.values()]
    settings = [file.sizes(f"{name}.starts", starts, inputs), file.sizes(f"{name}.ends", ends, inputs)]
    settings.append(file.integers(f"{name}.axes", *parts))
    if any(part.step for part in parts.values()):
        settings.append(file.integers(f"{name}.steps", *(part.step or 1 for part in parts.values())))
    return file.node("Slice", name, [inputs[0], *settings])


def _pad(file, name, layer, inputs, shape):
    sides = dimension(0, 2), dimension(0, 3)
    pad = layer.pad_for(sides) if isinstance(layer, layers.PadToMultiple) else layer.numbers
    front, behind = zip(*pad, strict=True)
    settings = [file.sizes(f"{name}.pads", [0, 0, *front, 0, 0, *behind], inputs)]
    if value := getattr(layer, "value", 0):
        settings.append(file.array(f"{name}.value", value))
    return file.node("Pad", name, [inputs[0], *settings])


def _resize(file, name, layer, inputs, shape):
    operator, attributes = layer.onnx()
    unused = file.array(f"{name}.unused", [], np.float32)  # regions and scales, which this opset requires
    if layer.scale:
        scales = file.array(f"{name}.scales", [1, 1, *layer.scale], np.float32)
        return file.node(operator, name, [inputs[0], unused, scales], **attributes)
    sizes = file.sizes(f"{name}.sizes", [dimension(0, 0), dimension(0, 1), *layer.numbers], inputs)
    return file.node(operator, name, [inputs[0], unused, unused, sizes], **attributes)


def _constant(file, name, layer, inputs, shape):
    return file.learned(f"{name}.weight", layer.weight)


def _softmax(file, name, layer, inputs, shape):
    """Along the last axis: along another, this opset takes the sum over all axes from there on."""
    if layer.axis in (-1, len(shape) - 1):
        return file.node("Softmax", name, inputs, axis=len(shape) - 1)
    order = list(range(len(shape)))
    order[layer.axis], order[-1] = order[-1], order[layer.axis]  # which is its own inverse
    last = file.node("Transpose", f"{name}.last", inputs, perm=order)
    found = file.node("Softmax", f"{name}.softmax", [last], axis=len(shape) - 1)
    return file.node("Transpose", name, [found], perm=order)


def _global_average(file, name, layer, inputs, shape):
    operator, attributes = layer.onnx()
    return file.node("Flatten", name, [file.node(operator, f"{name}.map", inputs, **attributes)])


def average_of_parts(file, name, layer, inputs, shape):
    """Adaptive average pooling of a map of known size, as plain average pooling."""
    parts = layer.output_shape(shape)[2:]
    if any(side % count for side, count in zip(shape[2:], parts, strict=True)):
        raise InputError(f"{layer.title}: expected a map that divides into {parts} equal parts, got {shape[2:]}")
    kernel = [side // count for side, count in zip(shape[2:], parts, strict=True)]
    return file.node("AveragePool", name, inputs, kernel_shape=kernel, strides=kernel)


def _prepared(file, name, layer, inputs, shape):
    raise InputError(f"{layer.title}: prepared for inference; write the network that it was made of, with fold=True")


WRITERS = {
    layers.FusedConv2d: _prepared,
    layers.Upsample: _upsample,
    layers.Constant: _constant,
    layers.CropLike: _slice,
    layers.Slice: _slice,
    layers.ResizeLike: _resize,
    layers.Resize: _resize,
    layers.Pad: _pad,
    layers.PadToMultiple: _pad,
    layers.Softmax: _softmax,
    layers.GlobalAvgPool: _global_average,
}
