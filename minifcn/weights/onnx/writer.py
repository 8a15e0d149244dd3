"""A network as an ONNX file, of standard operators only; the package onnx writes it.

Each node of the network becomes a node of the file, or several if a size depends on the image's; the last of them, and its value, have
the name of the network's node. Learned arrays have the names of the network's state. Batch, height and width are free.
Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ... import layers
from ...backend import to_host
from ...errors import InputError, MissingFileError
from ...files import atomic_write
from ...layers.graph import IMAGE, Graph
from ...layers.parametric import Conv2d
from ...layers.sizes import Dimension, Size
from ..checks import check_arrays, require_ending
from .pixels import PIXELS, preprocess
from .written import WRITERS, average_of_parts, plain

PRODUCER = "minifcn"
OPSET = 11  # the lowest in which Slice, Pad and Resize take sizes that the file computes
IR_VERSION = 6  # of the same release of ONNX
LABELS = "labels"
_MAX_BYTES = (2 << 30) - (1 << 20)  # protobuf's 2 GiB, with room for everything besides the arrays
_SIDE = 512  # of the image by which shapes are found, for networks that take any size


def save_onnx(path: str | Path, network: Graph, *, fold: bool = False, pixels: bool = False) -> None:
    """Write a network for inference as .onnx, its card beside the weights as metadata: JSON under the keys of `save`.

    (N, C, H, W) -> what `forward` gives, in the dtype of the weights, for any N, H and W that the network takes; if it
    flattens its maps, only for the native H and W. fold: batch normalisation merged into the convolutions, the same but for rounding.
    pixels: with the card's preprocessing before the network and the likeliest class after it: (N, H, W, 3) uint8 RGB -> (N, H, W)
    uint8, or int64 for more than 256 classes. Raises InputError for a layer that ONNX cannot express and for a file of 2 GiB or more;
    MissingFileError where the package onnx is not installed.
    """
    require_ending(path, ".onnx")
    if (size := sum(parameter.value.nbytes for parameter in network.parameters().values())) > _MAX_BYTES:
        raise InputError(
            f"{path}: an ONNX file holds less than 2 GiB; expected fewer weights than {size / 2**30:.2f} GiB"
        )
    model = onnx_package().ModelProto(ir_version=IR_VERSION, producer_name=PRODUCER, graph={"name": "network"})
    model.opset_import.add(version=OPSET)
    network = network.folded() if fold else network
    if network.card:
        model.graph.name = network.card.title
        for key, value in network.card.describe().items():
            model.metadata_props.add(key=key, value=json.dumps(value))
    _write(_File(model.graph, network), network, pixels)
    check_arrays(network.state_dict())  # what no reader would take
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
    """The graph of a file while it is built. Each method adds a node or an array and returns the name of its value."""

    def __init__(self, graph: Any, network: Graph):
        self.graph, self.onnx = graph, onnx_package()
        self.names: set = set()  # of the nodes
        self.written, self.shared = {}, set()  # the names of parameters by id, and of sizes that several nodes read
        self.dtype = next((p.value.dtype for p in network.parameters().values()), np.dtype(np.float32))

    def array(self, name, values, dtype=None):
        values = np.asarray(values, dtype or self.dtype)
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        # Built in place: an appended tensor would be copied.
        self.graph.initializer.add(name=name, dims=values.shape, data_type=kind, raw_data=values.tobytes())
        return name

    def integers(self, name, *values):
        return self.array(name, values, np.int64)

    def require(self, operator, title):
        """Raise InputError, naming the layer, unless the opset of the written files has this operator."""
        try:
            self.onnx.defs.get_schema(operator, OPSET)
        except self.onnx.defs.SchemaError:
            raise InputError(
                f"{title}: its operator {operator} is none of those of opset {OPSET}, in which files are written"
            ) from None

    def node(self, operator, name, inputs, *more_outputs, **attributes):
        if name in self.names:
            raise InputError(f"{name}: a name that the file needs for itself; rename this node")
        self.names.update((name, *more_outputs))
        node = self.onnx.helper.make_node(operator, inputs, [name, *more_outputs], name, **attributes)
        self.graph.node.append(node)
        return name

    def learned(self, name, parameter):
        """A parameter's array, written once if several layers share it."""
        if id(parameter) not in self.written:
            self.written[id(parameter)] = self.array(name, to_host(parameter.value))
        return self.written[id(parameter)]

    def dimension(self, of, axis):
        """One size of a value, as a list."""
        name = f"{of}.shape{axis}"
        if name not in self.shared:
            self.shared.add(name)
            if f"{of}.shape" not in self.shared:
                self.shared.add(self.node("Shape", f"{of}.shape", [of]))
            self.node("Gather", name, [f"{of}.shape", self.constant(axis)])
        return name

    def constant(self, number):
        """One integer, as a list."""
        name = f"number.{number}"
        if name not in self.shared:
            self.shared.add(self.integers(name, number))
        return name

    def sizes(self, name, sizes, inputs):
        """A list of integers, and of Sizes of a layer's inputs."""
        if not any(isinstance(size, Size) for size in sizes):
            return self.integers(name, *sizes)
        parts = [self.size(f"{name}{place}", size, inputs) for place, size in enumerate(sizes)]
        return self.node("Concat", name, parts, axis=0)

    def size(self, name, size, inputs):
        """One integer, or one Size of a layer's inputs, as a list."""
        if not isinstance(size, Size):
            return self.constant(size)
        total = None
        for place, (term, factor) in enumerate(size.terms.items()):
            part = f"{name}.{place}"
            if isinstance(term, Dimension):
                found = self.dimension(inputs[term.of], term.axis)
            else:
                of = [self.size(f"{part}.{side}", x, inputs) for side, x in zip("ab", term[1:], strict=True)]
                found = self.node(term.operator, f"{part}.rounded", of)
            if factor != 1:
                found = self.node("Mul", f"{part}.times", [found, self.constant(factor)])
            total = found if total is None else self.node("Add", f"{part}.sum", [total, found])
        return self.node("Add", f"{name}.sum", [total, self.constant(size.constant)]) if size.constant else total

    def cast(self, name, value, dtype):
        return self.node("Cast", name, [value], to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def declare(self, values, name, dtype, shape):
        """Declare an input or output of the graph."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        values.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))


def _write(file, network, pixels):
    """Add a network's nodes, and declare its input and outputs."""
    shape, names = _image_shape(network)
    shapes = network.shapes(shape)
    if pixels:
        if len(network.outputs) > 1 or network.card is None or shape[1] not in (1, 3):
            raise InputError("pixels: expected a network with a card, one output, and one or three channels")
        file.names.add(PIXELS)
        file.declare(file.graph.input, PIXELS, np.uint8, (names[0], *names[2:], 3))
        preprocess(file, network.card.preprocessing)
    else:
        file.declare(file.graph.input, IMAGE, file.dtype, names)
    values, fixed = {IMAGE: IMAGE}, not {"height", "width"}.intersection(names)
    for name, (layer, inputs) in network.nodes.items():
        write = WRITERS.get(type(layer), plain)
        if fixed and isinstance(layer, layers.AdaptiveAvgPool2d):
            write = average_of_parts
        values[name] = write(file, name, layer, [values[i] for i in inputs], shapes[inputs[0]])
    for name in network.outputs:
        if len(shapes[name]) < 2:
            raise InputError(f"{name}: expected an output of images and classes, got one of shape {shapes[name]}")
        _, classes, *found = shapes[name]
        # A padded network's output is as large as the image; the sizes of other outputs get names of their own.
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
    """The shape of an image that the network takes, and the same as the file declares it, with names for free sizes."""
    declared, side = network.image_shape, (network.card and network.card.native) or _SIDE
    for layer in network.layers_of(layers.ExactSize):
        side = layer.fitting(side)
    channels = next((c.weight.value.shape[1] * c.settings["groups"] for c in network.layers_of(Conv2d)), 3)
    if declared is None:
        fixed = side if network.layers_of(layers.Flatten) and network.card and network.card.native else None
        declared = (None, channels, fixed, fixed)
    free = {"batch": 1, "channels": channels, "height": side, "width": side}
    named = ["batch", *(n or name for n, name in zip(declared[1:], [*free][1:], strict=False))]
    return tuple(free.get(n, n) for n in named), named
