"""An ONNX file as a network that trains: its nodes become layers with backward passes of their own.

The package onnx parses the file. Everything in it is checked before an array or a layer is made of it.
"""

import json
from math import prod
from pathlib import Path

import numpy as np

from ..card import Card, settings_of
from ..errors import InputError
from ..layers import graph
from ..layers.graph import IMAGE, Graph
from . import onnx_sizes
from .checks import check_arrays, existing, from_bfloat16, parsed, parsing
from .onnx_operators import OPERATORS, Map, Node
from .onnx_writer import OPSET, PRODUCER, onnx_package

_MAX_BYTES = 2 << 30  # what protobuf holds
_MAX_NODES = 100_000
_DTYPES = {"FLOAT": "<f4", "DOUBLE": "<f8", "FLOAT16": "<f2", "BFLOAT16": "<u2", "BOOL": "?"}
_DTYPES |= {f"{kind}INT{8 * size}": f"<{kind or 'i'}{size}".lower() for kind in ("", "U") for size in (8, 4, 2, 1)}
_TYPED = {"FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "INT32": "int32_data"}
_KNOWN = (*OPERATORS, "Shape", "Constant", "Identity", *onnx_sizes.COMPUTED)


def load_onnx(path: str | Path) -> Graph:
    """The network in an .onnx file: every node with its hand-written backward, float32 or float64 as its input is declared.

    A layer has the name of its weights, or else of its node: "layer1.0.conv1" of "layer1.0.conv1.weight". What minifcn wrote
    has its card again; the card of another program's file is None. Opsets 11 and newer. Raises InputError in one line that names
    the file and the node, for an operator, an attribute or a form of it that is not known, for shapes that do not
    fit and for arrays that the file (or its folder, where they lie beside it) does not hold; MissingFileError where
    the file or the package onnx is not there.
    """
    onnx = onnx_package()
    if (size := existing(path, "an .onnx file").stat().st_size) > _MAX_BYTES:
        raise InputError(f"{path}: expected an .onnx file of at most 2 GiB, got {size} bytes")
    model = parsed(path, "an .onnx file", onnx.ModelProto.FromString)
    with parsing(path, "an .onnx file"):
        opset = _opset(model, onnx)
    _check_operators(path, model.graph.node)
    with parsing(path, "an .onnx file of a network"):
        network = _Network(model, opset, _Tensors(onnx, Path(path).parent)).graph()
    if meta := _metadata(path, model):
        builder, options = settings_of(meta["network"], path)
        with parsing(path, "the card of a network"):
            network.card = Card(builder, options)
            network.card.take_over(meta, path)
    return network


def _opset(model, onnx):
    """The version of the operators. Refuses what is no network of standard operators."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not OPSET <= versions[0] <= newest:
        raise InputError(f"operators of version {versions}; known: {OPSET} to {newest}")
    if model.functions or model.graph.sparse_initializer:
        raise InputError("functions or sparse arrays; export without them")
    if not 0 < len(model.graph.node) <= _MAX_NODES:
        raise InputError(f"{len(model.graph.node)} nodes; known: 1 to {_MAX_NODES}")
    return versions[0]


def _check_operators(path, nodes):
    for node in nodes:
        if node.op_type not in _KNOWN or node.domain not in ("", "ai.onnx"):
            # Texts that are no UTF-8 arrive as bytes.
            found = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            known = ", ".join(sorted(set(_KNOWN)))
            raise InputError(f"{path}: expected nodes of {known}; got {found[:60]!r} (node {node.name[:60]!r})")


def _metadata(path, model):
    """What `save_onnx` wrote beside the network, {} for another program's file."""
    texts = {entry.key: entry.value for entry in model.metadata_props}
    known = {key: texts[key] for key in ("network", "preprocessing", "classes", "palette") if key in texts}
    with parsing(path, "metadata in JSON"):
        return {key: json.loads(text) for key, text in known.items()} if model.producer_name == PRODUCER else {}


class _Tensors:
    """Makes arrays of a file's tensors, once their bytes were counted."""

    def __init__(self, onnx, folder):
        self.kinds, self.external, self.folder = onnx.TensorProto.DataType, onnx.TensorProto.EXTERNAL, folder

    def array(self, tensor):
        name, dims = tensor.name, tuple(tensor.dims)
        kind = self.kinds.Name(tensor.data_type) if tensor.data_type in self.kinds.values() else tensor.data_type
        if kind not in _DTYPES:
            raise InputError(f"{name!r} of type {kind}; known: {', '.join(_DTYPES)}")
        dtype = np.dtype(_DTYPES[kind])
        if any(n < 0 for n in dims) or len(dims) > 8:
            raise InputError(f"{name!r} of shape {dims}")
        if tensor.data_location == self.external:
            found = self._external(tensor, dtype, prod(dims))
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != prod(dims) * dtype.itemsize:
                raise InputError(f"{name!r} of shape {dims} in {len(tensor.raw_data)} bytes")
            found = np.frombuffer(tensor.raw_data, dtype)
        else:
            numbers = getattr(tensor, _TYPED.get(kind, "int32_data"))
            if len(numbers) != prod(dims):
                raise InputError(f"{name!r} of shape {dims} with {len(numbers)} numbers")
            half = kind in ("FLOAT16", "BFLOAT16")  # their bits stand in integers
            found = np.array(numbers, np.uint16).view(dtype) if half else np.array(numbers).astype(dtype)
        found = found.reshape(dims)
        return from_bfloat16(found) if kind == "BFLOAT16" else found

    def _external(self, tensor, dtype, count):
        """Numbers in a file of their own, in the folder of the network's."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = (self.folder / entries.get("location", "")).resolve()
        if not where.is_relative_to(self.folder.resolve()):
            raise InputError(f"{tensor.name!r} in a file outside the folder, {entries['location']!r}")
        if not where.is_file():
            raise InputError(f"{tensor.name!r} in a file that is not there, {entries.get('location')!r}")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", count * dtype.itemsize))
        if offset < 0 or length != count * dtype.itemsize or offset + length > where.stat().st_size:
            raise InputError(f"{tensor.name!r} of {length} bytes from {offset} on, which {where.name!r} does not hold")
        return np.fromfile(where, dtype, count, offset=offset)


class _Network:
    """The nodes of a file as they become layers.

    values: {name in the file: Map | array | list of sizes}. read: the names of those that some node or the user reads.
    """

    def __init__(self, model, opset, tensors):
        self.file, self.opset, self.tensors = model.graph, opset, tensors
        self.own = model.producer_name == PRODUCER
        self.nodes, self.values = {}, {}
        self.read = {name for node in self.file.node for name in node.input} | {v.name for v in self.file.output}
        for tensor in self.file.initializer:
            self._define(tensor.name, tensors.array(tensor))
        check_arrays({name: array for name, array in self.values.items() if name and array.dtype.kind == "f"})
        images = [value for value in self.file.input if value.name not in self.values]
        if len(images) != 1:
            raise InputError(f"inputs {[value.name for value in images][:9]}; known: a single one, the image")
        self._image(images[0])

    def _image(self, declared):
        kind = self.tensors.kinds.Name(declared.type.tensor_type.elem_type)
        if kind not in ("FLOAT", "DOUBLE"):
            raise InputError(f"an input {declared.name!r} of {kind}; known: FLOAT, DOUBLE (export without --pixels)")
        self.dtype = np.dtype(_DTYPES[kind])
        self.shape = _declared(declared)
        self._define(declared.name, Map(IMAGE, len(self.shape), self.shape[1] if len(self.shape) > 1 else None))

    def _define(self, name, value):
        if name in self.values:
            raise InputError(f"the name {name!r} twice")
        self.values[name] = value

    def graph(self):
        for position, node in enumerate(self.file.node):
            title = node.name or f"{node.op_type} number {position}"
            try:
                self._add(node, title)
            except Exception as error:
                if not isinstance(error, ValueError):
                    error = f"{type(error).__name__}: {error}"
                raise InputError(f"{title!r} ({node.op_type}): {error}") from None
        outputs = []
        for value in self.file.output:
            if not isinstance(self.values.get(value.name), Map):
                raise InputError(f"an output {value.name!r} that no node computes from the image")
            outputs.append(self.values[value.name].node)
        if len(set(outputs)) < len(outputs):
            raise InputError("two outputs that are one value; known: each its own")
        if not outputs or IMAGE in outputs:
            raise InputError("no output that a layer computes")
        used = {step.name for step in graph.schedule(self.nodes, outputs)}
        network = Graph({name: node for name, node in self.nodes.items() if name in used}, outputs)
        self._check_shapes(network)
        return network

    def _check_shapes(self, network):
        """What the file declares of its outputs' sizes, where it says the image's."""
        if None in self.shape:
            return
        shapes = network.shapes(self.shape)
        for value in self.file.output:
            declared, found = _declared(value), shapes[self.values[value.name].node]
            if value.type.tensor_type.HasField("shape") and (
                len(declared) != len(found) or any(n not in (None, m) for n, m in zip(declared, found, strict=True))
            ):
                raise InputError(f"an output {value.name!r} declared as {declared}, which is {found}")

    def _add(self, proto, title):
        inputs = []
        for name in proto.input:
            if name and name not in self.values:
                raise InputError(f"reads {name!r}, which no earlier node gives")
            inputs.append(self.values[name] if name else None)
        attributes = {}
        for attribute in proto.attribute:
            if attribute.name in attributes:
                raise InputError(f"the attribute {attribute.name!r} twice")
            attributes[attribute.name] = self._attribute(attribute)
        output, *others = proto.output
        if unknown := self.read.intersection(filter(None, others)):
            raise InputError(f"a second output, {min(unknown)!r}, that is used")
        if proto.op_type == "Constant":
            (value,) = attributes.values()
            value = np.asarray(value)
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise InputError("a constant that is no number (NaN)")
            return self._define(output, value)
        if proto.op_type == "Shape":
            return self._define(output, self._sizes_of(*inputs, attributes))
        if proto.op_type == "Identity":
            return self._define(output, *inputs)
        if not any(isinstance(value, Map) for value in inputs):
            return self._define(output, onnx_sizes.computed(proto.op_type, attributes, inputs))
        if proto.op_type not in OPERATORS:
            raise InputError(f"known for sizes only, got a map; known for maps: {', '.join(OPERATORS)}")
        node = Node(self, inputs, attributes, self._name(proto, title))
        layer, maps, rank, channels = OPERATORS[proto.op_type](node)
        if attributes := node.attributes:
            raise InputError(f"the attribute {min(attributes)!r}, which is not known")
        if self.dtype != np.float32:
            layer.astype(self.dtype)
        self.nodes[node.name] = graph.Node(layer, tuple(m.node for m in maps))
        return self._define(output, Map(node.name, rank, channels))

    def _attribute(self, attribute):
        """An attribute's value: a number, a text, a list of numbers, or an array."""
        kind = attribute.AttributeType.Name(attribute.type)
        if kind == "TENSOR":
            return self.tensors.array(attribute.t)
        if kind in ("INTS", "FLOATS"):
            return list(getattr(attribute, kind.lower()))
        if kind not in ("INT", "FLOAT", "STRING"):
            raise InputError(f"the attribute {attribute.name!r} of type {kind}")
        value = getattr(attribute, kind[0].lower())
        return value.decode() if kind == "STRING" else value

    def _sizes_of(self, value, attributes):
        """The sizes of a map, as numbers where the file says them."""
        if not isinstance(value, Map):
            raise InputError("the shape of what is no map")
        sizes = np.empty(value.rank, object)
        sizes[:] = [onnx_sizes.dimension(value.node, axis) for axis in range(value.rank)]
        if value.channels is not None and value.rank > 1:
            sizes[1] = value.channels
        return sizes[attributes.get("start", 0) : attributes.get("end", value.rank)]

    def _name(self, proto, title):
        """What a layer is called: as the first of its arrays, or its node."""
        array = (
            proto.input[1] if len(proto.input) > 1 and isinstance(self.values.get(proto.input[1]), np.ndarray) else ""
        )
        names = [
            array.rpartition(".")[0],
            title.strip("/").replace("/", "."),
            proto.output[0].strip("/").replace("/", "."),
        ]
        for name in names:
            if name and name != IMAGE and name not in self.nodes:
                return name
        raise InputError(f"the name {title!r} twice")


def _declared(value):
    """The shape that a file declares of a value, None for a size that is open."""
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim
    )
