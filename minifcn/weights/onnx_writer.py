"""A network as an ONNX file, of standard operators only; the package onnx writes it.

A node of the network is a node of the file, or several where a size depends on the image's; the last has the network's name for it, as
has its value, and the learned arrays have the names of the network's state. Batch, height and width are the user's to choose.
Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .. import layers
from ..backend import to_host
from ..errors import InputError, MissingFileError
from ..files import atomic_write
from ..layers.graph import IMAGE, Graph
from ..layers.parametric import Conv2d

PRODUCER = "minifcn"
OPSET = 11  # the lowest in which Slice, Pad and Resize take sizes that the file computes
IR_VERSION = 6  # of the same release of ONNX
INPUTS = ("min", "max", "factor")  # what a layer says as an attribute and this opset takes as an input
PIXELS, LABELS = "pixels", "labels"
_END = (1 << 63) - 1  # of a slice that goes on to the end
_MAX_BYTES = (2 << 30) - (1 << 20)  # protobuf's 2 GiB, with room for all but the arrays
_SIDE = 512  # of the image by which channels are counted, for networks that take any


def save_onnx(path: str | Path, network: Graph, *, fold: bool = False, pixels: bool = False) -> None:
    """Write a network for inference as .onnx, its card beside the weights as metadata: JSON under the keys of `save`.

    (N, C, H, W) -> what `forward` gives, in the dtype of the weights, for any N, H and W that the network takes; for the native
    H and W only where it flattens its maps. fold: batch normalisation as part of the convolutions, the same but for rounding. pixels: with the card's
    preprocessing before the network and the likeliest class behind it: (N, H, W, 3) uint8 RGB -> (N, H, W) uint8, or int64 where there
    are more than 256 classes. Raises InputError for a layer that ONNX cannot express and for a file of 2 GiB or more;
    MissingFileError where the package onnx is not installed.
    """
    if (size := sum(parameter.value.nbytes for parameter in network.parameters().values())) > _MAX_BYTES:
        raise InputError(
            f"{path}: an ONNX file holds less than 2 GiB; expected fewer weights than {size / 2**30:.2f} GiB"
        )
    model = onnx_package().ModelProto(ir_version=IR_VERSION, producer_name=PRODUCER, graph={"name": "network"})
    model.opset_import.add(version=OPSET)
    if network.card:
        model.graph.name = network.card.title
        for key, value in network.card.describe().items():
            model.metadata_props.add(key=key, value=json.dumps(value))
    _write(_File(model.graph, network), network.prepare() if fold else network, pixels)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def onnx_package() -> Any:
    """The package onnx. Raises MissingFileError, saying how to install it, where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise MissingFileError(
            "ONNX files take the package onnx; install it with: pip install 'minifcn[onnx]'"
        ) from error
    return onnx


class _File:
    """The graph of a file as it grows. Each method adds a node or an array and gives back the name of its value."""

    def __init__(self, graph: Any, network: Graph):
        self.graph, self.onnx = graph, onnx_package()
        self.dtype = next((p.value.dtype for p in network.parameters().values()), np.dtype(np.float32))

    def array(self, name, values, dtype=None):
        values = np.asarray(values, dtype or self.dtype)
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        # Put together in its place, as a tensor that is appended would be copied.
        self.graph.initializer.add(name=name, dims=values.shape, data_type=kind, raw_data=values.tobytes())
        return name

    def integers(self, name, *values):
        return self.array(name, values, np.int64)

    def node(self, operator, name, inputs, *more_outputs, **attributes):
        node = self.onnx.helper.make_node(operator, inputs, [name, *more_outputs], name, **attributes)
        self.graph.node.append(node)
        return name

    def part_of_shape(self, name, of, begin, end):
        """Dimensions begin … end − 1 of a value."""
        shape = self.node("Shape", f"{name}.shape", [of])
        parts = [self.integers(f"{name}.begin", begin), self.integers(f"{name}.end", end)]
        return self.node("Slice", name, [shape, *parts])

    def cast(self, name, value, dtype):
        return self.node("Cast", name, [value], to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def declare(self, values, name, dtype, shape):
        """Say what an input or output of the graph is."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))


def _write(file, network, pixels):
    """Add a network's nodes, and declare its input and outputs."""
    shape = _image_shape(network)
    shapes = network.shapes(shape)
    fixed = bool(network.layers_of(layers.Flatten) and network.card and network.card.native)
    size = shape[2:] if fixed else ("height", "width")
    if pixels:
        if len(network.outputs) > 1 or network.card is None or shape[1] not in (1, 3):
            raise InputError("pixels: expected a network with a card, one output, and one or three channels")
        file.declare(file.graph.input, PIXELS, np.uint8, ("batch", *size, 3))
        _preprocess(file, network.card.preprocessing)
    else:
        file.declare(file.graph.input, IMAGE, file.dtype, ("batch", shape[1], *size))
    values = {IMAGE: IMAGE}
    for name, (layer, inputs) in network.nodes.items():
        write = _layer
        if special := WRITERS.get(type(layer)):
            write = special
        elif fixed and isinstance(layer, layers.AdaptiveAvgPool2d):
            write = _average_of_parts
        values[name] = write(file, name, layer, [values[i] for i in inputs], shapes[inputs[0]])
    for name in network.outputs:
        _, classes, *found = shapes[name]
        # A padded network's output is as large as the image; others have names of their own for their sizes.
        sides = [
            side if fixed else axis if side == whole else f"{name}_{axis}"
            for side, axis, whole in zip(found, ("height", "width"), shape[2:], strict=False)
        ]
        if pixels:
            dtype = np.uint8 if classes <= 256 else np.int64
            likeliest = file.node("ArgMax", "likeliest", [values[name]], axis=1, keepdims=0)
            file.cast(LABELS, likeliest, dtype)
            file.declare(file.graph.output, LABELS, dtype, ("batch", *sides))
        else:
            file.declare(file.graph.output, values[name], file.dtype, ("batch", classes, *sides))


def _image_shape(network):
    """The shape of an image that the network takes."""
    channels, side = 3, (network.card and network.card.native) or _SIDE
    for layer, _ in network.nodes.values():
        if isinstance(layer, layers.ExactSize):
            side = layer.fitting(side)
        conv = getattr(layer, "conv", layer)  # of a FusedConv2d, or itself
        if isinstance(conv, Conv2d):
            channels = conv.weight.value.shape[1] * conv.settings["groups"]
            break
    return 1, channels, side, side


def _layer(file, name, layer, inputs, shape):
    """A layer whose operator and attributes say all."""
    try:
        operator, attributes = layer.onnx()
    except NotImplementedError as error:
        raise InputError(f"{layer.title}: has no operator in ONNX that takes images of any size") from error
    if "auto_pad" in attributes and max(attributes["dilations"]) > 1:
        raise InputError(f'{layer.title}: stride, dilation and pad "same" at once are more than ONNX Runtime takes')
    arrays = {key: parameter.value for key, parameter in layer.parameters().items()}
    arrays |= {key: getattr(*at) for key, at in layer.buffers().items()}
    learned = [file.array(f"{name}.{key}", to_host(array)) for key, array in arrays.items()]
    settings = [file.array(f"{name}.{key}", attributes.pop(key)) for key in INPUTS if key in attributes]
    return file.node(operator, name, [*inputs, *learned, *settings], **attributes)


def _fused(file, name, layer, inputs, shape):
    """A convolution with the normalisation folded in, and its ReLU as a node of its own."""
    conv = layer.conv
    arrays = {"weight": layer.folded[0], "bias": layer.folded[1]}
    learned = [file.array(f"{conv.name}.{key}", to_host(a)) for key, a in arrays.items() if a is not None]
    operator, attributes = conv.onnx()
    value = file.node(operator, conv.name, [*inputs, *learned], **attributes)
    relu = layer.parts[-1]
    return _layer(file, name, relu, [value], shape) if isinstance(relu, layers.ReLU) else value


def _upsample(file, name, layer, inputs, shape):
    """The kernel written out, the same for each channel by itself."""
    line, channels = to_host(layer.kernel_1d.value), shape[1]
    kernel = file.array(f"{name}.weight", np.tile(np.outer(line, line), (channels, 1, 1, 1)))
    operator, attributes = layer.onnx()
    return file.node(operator, name, [*inputs, kernel], group=channels, **attributes)


def _crop_like(file, name, layer, inputs, shape):
    x, like = inputs
    starts = file.integers(f"{name}.starts", layer.offset, layer.offset)
    ends = file.node("Add", f"{name}.ends", [starts, file.part_of_shape(f"{name}.size", like, 2, 4)])
    return file.node("Slice", name, [x, starts, ends, file.integers(f"{name}.axes", 2, 3)])


def _resize(file, name, layer, inputs, shape):
    x, *like = inputs
    operator, attributes = layer.onnx()
    unused = file.array(f"{name}.unused", [], np.float32)  # regions and scales, which this opset wants to be there
    if layer.scale:
        scales = file.array(f"{name}.scales", [1, 1, *layer.scale], np.float32)
        return file.node(operator, name, [x, unused, scales], **attributes)
    batch = file.part_of_shape(f"{name}.batch", x, 0, 2)
    size = f"{name}.size"
    size = file.part_of_shape(size, *like, 2, 4) if like else file.integers(size, *layer.size)
    sizes = file.node("Concat", f"{name}.sizes", [batch, size], axis=0)
    return file.node(operator, name, [x, unused, unused, sizes], **attributes)


def _slice(file, name, layer, inputs, shape):
    parts = [(part.start or 0, _END if part.stop is None else part.stop, part.step or 1) for part in layer.parts]
    settings = zip(("starts", "ends", "steps"), zip(*parts, strict=True), strict=True)
    starts, ends, steps = (file.integers(f"{name}.{key}", *values) for key, values in settings)
    return file.node("Slice", name, [*inputs, starts, ends, file.integers(f"{name}.axes", *range(len(parts))), steps])


def _slice_like(file, name, layer, inputs, shape):
    x, like = inputs
    axes = file.integers(f"{name}.axes", *layer.starts)
    starts = file.integers(f"{name}.starts", *layer.starts.values())
    size = file.node("Gather", f"{name}.size", [file.node("Shape", f"{name}.shape", [like]), axes])
    return file.node("Slice", name, [x, starts, file.node("Add", f"{name}.ends", [starts, size]), axes])


def _pad(file, name, layer, inputs, shape):
    operator, attributes = layer.onnx()
    return file.node(operator, name, [*inputs, file.integers(f"{name}.pads", *attributes["pads"])])


def _softmax(file, name, layer, inputs, shape):
    """Along the last axis: along another, this opset takes the sum over all axes from there on."""
    if layer.axis in (-1, len(shape) - 1):
        return file.node("Softmax", name, inputs, axis=len(shape) - 1)
    order = list(range(len(shape)))
    order[layer.axis], order[-1] = order[-1], order[layer.axis]  # which is its own inverse
    last = file.node("Transpose", f"{name}.last", inputs, perm=order)
    found = file.node("Softmax", f"{name}.softmax", [last], axis=len(shape) - 1)
    return file.node("Transpose", name, [found], perm=order)


def _pad_to_multiple(file, name, layer, inputs, shape):
    """pad in front, pad + (−size − 2 · pad) mod multiple behind; Mod has the sign of the divisor."""
    size = file.part_of_shape(f"{name}.size", *inputs, 2, 4)
    negative = file.node("Sub", f"{name}.negative", [file.integers(f"{name}.both", -2 * layer.pad), size])
    missing = file.node("Mod", f"{name}.missing", [negative, file.integers(f"{name}.multiple", layer.multiple)])
    behind = file.node("Add", f"{name}.behind", [missing, file.integers(f"{name}.pad", layer.pad)])
    front = file.integers(f"{name}.front", 0, 0, layer.pad, layer.pad, 0, 0)
    pads = file.node("Concat", f"{name}.pads", [front, behind], axis=0)
    operator, attributes = layer.onnx()
    return file.node(operator, name, [*inputs, pads], **attributes)


def _global_average(file, name, layer, inputs, shape):
    operator, attributes = layer.onnx()
    return file.node("Flatten", name, [file.node(operator, f"{name}.map", inputs, **attributes)])


def _average_of_parts(file, name, layer, inputs, shape):
    """An adaptive average of a map of known size, as a plain one."""
    parts = layer.output_shape(shape)[2:]
    if any(side % count for side, count in zip(shape[2:], parts, strict=True)):
        raise InputError(f"{layer.title}: expected a map that divides into {parts} equal parts, got {shape[2:]}")
    kernel = [side // count for side, count in zip(shape[2:], parts, strict=True)]
    return file.node("AveragePool", name, inputs, kernel_shape=kernel, strides=kernel)


WRITERS = {
    layers.FusedConv2d: _fused,
    layers.Upsample: _upsample,
    layers.CropLike: _crop_like,
    layers.ResizeLike: _resize,
    layers.Resize: _resize,
    layers.Slice: _slice,
    layers.SliceLike: _slice_like,
    layers.Pad: _pad,
    layers.Softmax: _softmax,
    layers.PadToMultiple: _pad_to_multiple,
    layers.GlobalAvgPool: _global_average,
}


def _preprocess(file, preprocessing):
    """The nodes from pixels to the network's image, to the same bits as `Preprocessing.stretched` and `apply`."""
    x = _stretch(file) if preprocessing.stretch else PIXELS
    x = file.cast("pixels.cast", x, file.dtype)
    if preprocessing.order == "BGR":
        x = file.node("Gather", "pixels.bgr", [x, file.integers("pixels.order", 2, 1, 0)], axis=3)
    if preprocessing.order == "grey":  # whole numbers and one division, so that what is grey already stays as it is
        shares = file.node("Mul", "pixels.shares", [x, file.array("pixels.luma", [299, 587, 114])])
        total = file.node("ReduceSum", "pixels.total", [shares], axes=[3])
        x = file.node("Div", "pixels.grey", [total, file.array("pixels.thousand", 1000)])
    x = file.node("Sub", "pixels.centred", [x, file.array("pixels.mean", preprocessing.mean)])
    x = file.node("Mul", "pixels.scaled", [x, file.array("pixels.scale", preprocessing.scale)])
    file.node("Transpose", IMAGE, [x], perm=[0, 3, 1, 2])


def _stretch(file):
    """`preprocessing.spread`: of each image's n values the ⌈n / 100⌉th smallest to 0, the ⌈998 n / 1000⌉th to 255."""

    def number(name, *value):
        return file.integers(f"stretch.{name}", *value)

    def value_of_rank(name, rank, largest):
        """The value of this rank in each image, (N, 1, 1, 1)."""
        found = file.node("TopK", f"stretch.{name}s", [flat, rank], f"stretch.{name}_places", axis=1, largest=largest)
        last = file.node("Gather", f"stretch.{name}_last", [found, number(f"{name}_place", -1)], axis=1)
        return file.node("Unsqueeze", f"stretch.{name}", [last], axes=[2, 3])

    x = file.cast("stretch.values", PIXELS, np.float64)
    flat = file.node("Flatten", "stretch.flat", [x])
    count = file.part_of_shape("stretch.count", flat, 1, 2)
    hundredth = file.node("Add", "stretch.count99", [count, number("99", 99)])
    low = value_of_rank("low", file.node("Div", "stretch.low_rank", [hundredth, number("100", 100)]), largest=0)
    # The ⌈998 n / 1000⌉th smallest is the (⌊2 n / 1000⌋ + 1)th largest.
    doubled = file.node("Mul", "stretch.count2", [count, number("2", 2)])
    above = file.node("Div", "stretch.above", [doubled, number("1000", 1000)])
    high = value_of_rank("high", file.node("Add", "stretch.high_rank", [above, number("1", 1)]), largest=1)
    one, least, most = (
        file.array(f"stretch.{name}", n, np.float64) for name, n in (("one", 1), ("least", 0), ("most", 255))
    )
    width = file.node("Max", "stretch.width", [file.node("Sub", "stretch.range", [high, low]), one])
    gain = file.node("Div", "stretch.gain", [most, width])
    x = file.node("Mul", "stretch.scaled", [file.node("Sub", "stretch.moved", [x, low]), gain])
    x = file.node("Min", "stretch.clipped", [file.node("Max", "stretch.positive", [x, least]), most])
    return file.cast("stretch.bytes", x, np.uint8)
