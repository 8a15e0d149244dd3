"""An ONNX file as a network that trains: its nodes become layers with backward passes of their own.

The package onnx parses the file. Everything in it is checked before an array or a layer is made of it.
"""

import json
from pathlib import Path

import numpy as np

from ...card import Card, settings_of
from ...errors import InputError
from ...layers import graph
from ...layers.graph import IMAGE, Graph
from ...layers.sizes import dimension
from ..checks import check_arrays, existing, parsed, parsing
from . import lists, places, values, windows
from .nodes import Map, Node, Transposed
from .tensors import DTYPES, Tensors, check_structure
from .writer import OPSET, PRODUCER, onnx_package

_MAX_BYTES = 2 << 30  # what protobuf holds
_MAX_NODES = 100_000
OPERATORS = {**windows.OPERATORS, **values.OPERATORS, **places.OPERATORS}
_KNOWN = (*OPERATORS, "Shape", "Constant", "Identity", *lists.COMPUTED)


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

    def parse(content):
        check_structure(memoryview(content))
        return onnx.ModelProto.FromString(content)

    model = parsed(path, "an .onnx file", parse)
    with parsing(path, "an .onnx file"):
        opset = _opset(model, onnx)
    _check_operators(path, model.graph, onnx.TensorProto.UINT8)
    meta = _metadata(path, model)
    builder, options = settings_of(meta.get("network"), path) if meta else (None, None)
    tensors = Tensors(onnx, Path(path).parent)
    with parsing(path, "an .onnx file of a network"):
        network = _Network(model, opset, tensors, onnx.defs.get_schema, options).graph()
    if meta:
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


def _check_operators(path, graph, pixels):
    if any(value.type.tensor_type.elem_type == pixels for value in graph.input):
        raise InputError(
            f"{path}: expected a network that takes preprocessed images, got one that takes pixels already, for other programs; "
            "for use in minifcn export it without --pixels"
        )
    for node in graph.node:
        if node.op_type not in _KNOWN or node.domain not in ("", "ai.onnx"):
            # Texts that are no UTF-8 arrive as bytes.
            found = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            known = ", ".join(sorted(set(_KNOWN)))
            raise InputError(f"{path}: expected nodes of {known}; got {found[:60]!r} (node {node.name[:60]!r})")


def _metadata(path, model):
    """What `save_onnx` wrote beside the network, {} for another program's file."""
    texts = {entry.key: entry.value for entry in model.metadata_props}
    known = {key: texts[key] for key in Card.KEYS if key in texts}
    with parsing(path, "metadata in JSON"):
        return {key: json.loads(text) for key, text in known.items()} if model.producer_name == PRODUCER else {}


class _Network:
    """Turns the nodes of a file into layers.

    values: {name in the file: Map | array | list of sizes}. read: the names that some node reads or the file outputs.
    parameters: {names of arrays: the Parameter that all nodes share for them}. options: those of the card, None in another
    program's file. frozen_upsampling: whether bilinear kernels are those of a frozen upsampling.
    """

    def __init__(self, model, opset, tensors, schema_of, options):
        self.file, self.opset, self.tensors, self.schema_of = model.graph, opset, tensors, schema_of
        self.own = options is not None
        self.frozen_upsampling = self.own and options.get("upsampling") != "learned"
        self.nodes, self.values, self.parameters = {}, {}, {}
        self.read = {name for node in self.file.node for name in node.input} | {v.name for v in self.file.output}
        for tensor in self.file.initializer:
            self._define(tensor.name, tensors.array(tensor))
        floats = {name: array for name, array in self.values.items() if name and array.dtype.kind == "f"}
        check_arrays({name: array for name, array in floats.items() if array.size != 1 or not np.isinf(array).all()})
        images = [value for value in self.file.input if value.name not in self.values]
        if len(images) != 1:
            raise InputError(f"inputs {[value.name for value in images][:9]}; known: a single one, the image")
        self._image(images[0])

    def _image(self, declared):
        kind = self.tensors.kinds.Name(declared.type.tensor_type.elem_type)
        if kind not in ("FLOAT", "DOUBLE"):
            raise InputError(f"an input {declared.name!r} of {kind}; known: FLOAT, DOUBLE")
        self.dtype = np.dtype(DTYPES[kind])
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
        network.image_shape = self.shape
        self._check_shapes(network)
        return network

    def _check_shapes(self, network):
        """Compare the outputs' sizes with those that the file declares, if it declares the image's."""
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
        schema = self.schema_of(proto.op_type, self.opset)
        if not schema.min_input <= len(inputs) <= schema.max_input or not proto.output:
            few, most = schema.min_input, schema.max_input
            raise InputError(f"{len(inputs)} inputs and {len(proto.output)} outputs; known: {few} to {most}, and 1")
        if missing := [key for key, a in schema.attributes.items() if a.required and key not in attributes]:
            raise InputError(f"no attribute {min(missing)!r}")
        output, *others = proto.output
        if unknown := self.read.intersection(filter(None, others)):
            raise InputError(f"a second output, {min(unknown)!r}, that is used")
        if proto.op_type == "Constant":
            (value,) = attributes.values()
            value = np.asarray(value)
            if value.dtype.kind == "f" and (np.isnan(value).any() or (value.size > 1 and np.isinf(value).any())):
                raise InputError("a constant of NaN or infinite values")
            return self._define(output, value)
        if proto.op_type == "Shape":
            return self._define(output, self._sizes_of(*inputs, attributes))
        if proto.op_type == "Identity":
            return self._define(output, *inputs)
        if not any(isinstance(value, Map | Transposed) for value in inputs):
            return self._define(output, lists.computed(proto.op_type, attributes, inputs))
        if proto.op_type not in OPERATORS:
            raise InputError(f"known for sizes only, got a map; known for maps: {', '.join(OPERATORS)}")
        kernel = proto.input[1] if proto.op_type in windows.OPERATORS and len(inputs) > 1 else ""
        name = self.name_of(kernel.rpartition(".")[0], title, output)
        node = Node(self, inputs, list(proto.input), attributes, name)
        found = OPERATORS[proto.op_type](node)
        if attributes := node.attributes:
            raise InputError(f"the attribute {min(attributes)!r}, which is not known")
        return self._define(output, found if isinstance(found, Transposed) else self.put(name, *found))

    def put(self, name, layer, maps, rank, channels):
        """Add a layer that reads maps. -> the Map of its output, with this rank and these channels"""
        if self.dtype != np.float32:
            layer.astype(self.dtype)
        self.nodes[name] = graph.Node(layer, tuple(m.node for m in maps))
        return Map(name, rank, channels)

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
        """The sizes of a map or an array, as numbers where the file says them."""
        if isinstance(value, Map):
            sizes = np.array([dimension(value.node, axis) for axis in range(value.rank)], object)
            if value.channels is not None and value.rank > 1:
                sizes[1] = value.channels
        else:
            sizes = np.array(np.shape(value), object)
        return sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))]

    def name_of(self, *choices):
        """What a layer is called: the first of these names that is free."""
        for name in (choice.strip("/").replace("/", ".") for choice in choices):
            if name and name != IMAGE and name not in self.nodes:
                return name
        raise InputError(f"the name {choices[-1]!r} twice")


def _declared(value):
    """The shape that a file declares for a value, with None for a free size."""
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim
    )
