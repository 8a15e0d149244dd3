"""A network as a table of nodes: forward is a loop over it, backward the same loop reversed.

    {"conv":  (Conv2d(3, 8, 3, rng, pad=1), ["image"]),
     "relu":  (ReLU(), ["conv"]),
     "skip":  (Conv2d(8, 8, 1, rng), ["relu"]),           # "relu" is read twice: a fork
     "fuse":  (Add(), ["relu", "skip"])}                  # two branches meet: a join

Nothing is recorded: the table is there before any image, and every layer in it has its backward written by hand. A value
read once hands its reader's gradient back; a value read twice gets the sum of what comes back. (Caffe's net.cpp and
split_layer do the same from a prototxt.)
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from functools import cached_property
from inspect import signature
from typing import Any, NamedTuple

from ..backend import Array, one_blas_thread
from ..errors import InputError
from .base import Layer, Leaf, Parameter
from .coordinates import IDENTITY, Affine
from .fused import FusedBatchNorm2d, FusedConv2d
from .parametric import BatchNorm2d, Conv2d
from .plain import ReLU, ReLU6

IMAGE = "image"  # what a network's forward is given


class Node(NamedTuple):
    """A layer, and the names of the nodes whose values it reads."""

    layer: Layer
    inputs: tuple


class Step(NamedTuple):
    """A node in its turn, and what may be done with the memory around it."""

    name: str
    layer: Layer
    inputs: tuple
    overwrite: bool  # y over x: nobody else reads x
    overwrite_gradient: bool  # dx over dy: nobody else holds dy
    release: tuple  # values that are not read after this step


class Graph(Layer):
    """Nodes {name: (layer, inputs)} in an order in which they can be computed; "image" is what forward is given.

    outputs: the names of the nodes whose values forward returns, by default the last node: an array for one, a dict by
    name for several. card: what the network says about itself. backbone_prefix: the prefix of its backbone's node names,
    None without a backbone. Parameters are named after nodes: "score_fr.weight". A Graph among the layers is replaced by
    its nodes: "features.conv1".
    Raises InputError for an input that no earlier node gives, and for one layer under two names.
    """

    card: Any  # a `minifcn.card.Card`, which stands above this file; None where it was made without
    prepared = False  # whether `prepare` made it
    image_shape: tuple | None = None  # of forward's input, if a file declared it, with None for a free size

    def __init__(
        self, nodes: dict, outputs: Iterable | None = None, *, card: Any = None, backbone_prefix: str | None = None
    ):
        self.nodes = inlined(nodes)
        self.outputs = tuple(outputs) if outputs else (list(self.nodes)[-1],)
        self.card, self.backbone_prefix = card, backbone_prefix
        known, names = {IMAGE}, {}
        for name, (layer, inputs) in self.nodes.items():
            if name in known or not inputs or not known.issuperset(inputs):
                raise InputError(f"graph: {name}: expected a new name and inputs out of earlier nodes, got {inputs}")
            if other := names.get(id(layer)):
                raise InputError(f"graph: {name} is the layer of {other}; a layer keeps one cache, so make two")
            known.add(name)
            names[id(layer)] = name
        if not known.issuperset(self.outputs):
            raise InputError(f"graph: expected outputs out of the nodes, got {self.outputs}")
        self.training = schedule(fused_norms(self.nodes, self.outputs), self.outputs)
        self.frozen: frozenset = frozenset()
        self.name_all()

    def children(self) -> dict:
        return {name: node.layer for name, node in self.nodes.items()}

    def __getitem__(self, name: str) -> Any:
        """The layer of a node."""
        return self.nodes[name].layer

    def _state(self):
        if self.prepared:
            raise InputError(
                "prepared for inference, which folds weights into each other; ask the network that it was made of"
            )
        return super()._state()

    def freeze(self, names: Iterable) -> None:
        """Let these nodes learn nothing from now on: training computes them as inference does, and no gradient goes through them.
        Nodes frozen before stay frozen."""
        self.frozen |= frozenset(self._require_nodes(names))
        nodes = fused(self.nodes, self.outputs, among=self.frozen)
        self.training = schedule(fused_norms(nodes, self.outputs, self.frozen), self.outputs)
        for name in self.frozen:
            for parameter in self[name].parameters().values():
                parameter.frozen = True

    @one_blas_thread
    def forward(self, x: Array, train: bool = False) -> Array:
        """x (N, C, H, W) -> the output, or a dict of the outputs by name. train=True keeps what backward needs."""
        found = self._run(x, self.training if train else self.inference, self.outputs, train)
        return found if len(found) > 1 else found[self.outputs[0]]

    @one_blas_thread
    def features(self, x: Array, names: Sequence[str]) -> dict[str, Array]:
        """The values of any nodes, by name, in inference.   x (N, C, H, W) -> {name: array}"""
        self._require_nodes(names)
        return self._run(x, schedule(fused(self.nodes, names), names), names, False)

    def _require_nodes(self, names):
        """The names; raises InputError for any that is not the name of a node."""
        names = [names] if isinstance(names, str) else list(names)
        if unknown := sorted({*names} - {*self.nodes}):
            raise InputError(
                f"graph: expected names of nodes, such as {next(iter(self.nodes))}; got {', '.join(unknown)}"
            )
        return names

    def _run(self, x, steps, outputs, train):
        values = {IMAGE: x}
        for step in steps:
            inputs = [values[name] for name in step.inputs]
            for name in step.release:
                del values[name]
            options = {"overwrite": True} if step.overwrite else {}
            learns = train and step.name not in self.frozen
            values[step.name] = step.layer.forward(*inputs, train=learns, **options)
        return {name: values[name] for name in outputs}

    @one_blas_thread
    def backward(self, dy: Array, inputs: bool = True, passed: Callable[[str], Any] | None = None) -> Array:
        """The gradient of the output (or a dict by name) -> that of the image, adding to every learned parameter's.

        inputs=False: the image's gradient is not needed (None); it is left out, as is what leads to frozen parameters only.
        passed: called with the name of each step of `training` once it is done, when its gradients in `completed_by` are complete.
        """
        gradients = dict(dy) if len(self.outputs) > 1 else {self.outputs[0]: dy}
        if unknown := gradients.keys() - set(self.outputs):
            raise InputError(f"graph: expected gradients of {self.outputs}, got one of {min(unknown)}")
        wanted = self._wanted(inputs)
        for step in reversed(self.training):
            dy = gradients.pop(step.name, None)
            below = not wanted.isdisjoint(step.inputs)
            if dy is None or step.name not in wanted:
                for leaf in step.layer.layers_of(Leaf):
                    leaf.forget()
            else:
                options = {"overwrite": True} if step.overwrite_gradient else {}
                if not below and takes(step.layer, "run_backward", "inputs"):
                    options["inputs"] = False
                found = step.layer.backward(dy, **options)
                for name, dx in zip(step.inputs, found if isinstance(found, tuple) else (found,), strict=True):
                    if dx is not None and name in wanted:
                        gradients[name] = gradients[name] + dx if name in gradients else dx
            if passed:
                passed(step.name)
        return gradients.get(IMAGE)

    def completed_by(self) -> dict[str, list[Parameter]]:
        """{step of `training`: the learned parameters whose gradients are complete once backward has passed it}, the last step first."""
        found, seen = {}, set()
        for step in self.training:  # backward reaches the first user of a shared parameter last
            own = {id(p): p for p in step.layer.parameters().values() if not p.frozen and id(p) not in seen}
            found[step.name] = list(own.values())
            seen |= own.keys()
        return dict(reversed(found.items()))

    def _wanted(self, image):
        """The names of the values whose gradients lead to the image, if that is asked for, or to a learned parameter."""
        wanted = {IMAGE} if image else set()
        for name, (layer, inputs) in self.nodes.items():
            if name in self.frozen:
                continue
            if not wanted.isdisjoint(inputs) or any(not p.frozen for p in layer.parameters().values()):
                wanted.add(name)
        return wanted

    @cached_property
    def inference(self) -> list[Step]:
        """The steps of an inference: convolutions are fused with the normalisation and the ReLU that follow them."""
        return schedule(fused(self.nodes, self.outputs), self.outputs)

    def prepare(self) -> "Graph":
        """The same network for inference only, with all that depends on weights alone computed. -> a new Graph, or this one if prepared

        Normalisations are folded, and the kernels that Winograd's algorithm transforms are cached. Weights that need no
        change are shared with this network: prepare again after training it further.
        """
        if self.prepared:
            return self
        nodes = {}
        for name, (layer, inputs) in fused(self.nodes, self.outputs, prepared=True).items():
            nodes[name] = (layer if isinstance(layer, FusedConv2d) else copy(layer), inputs)
        network = Graph(nodes, self.outputs, card=self.card, backbone_prefix=self.backbone_prefix)
        network.image_shape, network.prepared = self.image_shape, True
        return network

    def folded(self) -> "Graph":
        """The same network with its normalisations folded into the convolutions before them. -> a new Graph

        It is for inference, and can be trained further, without them. It shares no weights with this one.
        """
        table, places, readers, copied = {}, {}, readers_of(self.nodes), {}
        for name, (layer, inputs) in self.nodes.items():
            inputs = tuple(places.get(i, i) for i in inputs)
            conv, before = table.get(inputs[0], (None, ()))
            alone = name not in self.outputs and len(readers[self.nodes[name].inputs[0]]) == 1
            if type(layer) is BatchNorm2d and type(conv) is Conv2d and alone and inputs[0] not in self.outputs:
                w, b = layer.folded_into(conv.weight.value, conv.bias and conv.bias.value)
                weight, bias = conv.weight.with_value(w), (conv.bias or layer.beta).with_value(b)
                table[inputs[0]] = Node(Conv2d.of(weight, bias, **conv.settings), before)
                places[name] = inputs[0]
            else:
                table[name] = Node(deepcopy(layer, copied), inputs)
        card = self.card and replace(self.card, options={**self.card.options, "folded": True})
        network = Graph(table, self.outputs, card=card, backbone_prefix=self.backbone_prefix)
        network.image_shape = self.image_shape
        return network

    def shapes(self, shape: tuple) -> dict[str, tuple]:
        """{name: the shape of its value} for an image of shape (N, C, H, W). Raises InputError, naming the layer."""
        found = {IMAGE: tuple(shape)}
        for name, (layer, inputs) in self.nodes.items():
            with layer.named_in_errors():
                found[name] = tuple(layer.output_shape(*(found[i] for i in inputs)))
        return found

    def output_shape(self, shape: tuple) -> tuple:
        return self.shapes(shape)[self.outputs[0]]


class Sequential(Graph):
    """Layers one after the other, by name: Sequential(conv1=Conv2d(...), relu1=ReLU(), ...)."""

    def __init__(self, *, card: Any = None, **layers: Layer):
        super().__init__(in_a_row(layers), card=card)


def inlined(nodes: dict) -> dict:
    """Nodes with every Graph among their layers replaced by its own nodes, under its name and a dot."""
    table, names = {}, {IMAGE: IMAGE}
    for name, (layer, inputs) in nodes.items():
        inputs = tuple(names.get(i, i) for i in inputs)
        found, names[name] = {name: Node(layer, inputs)}, name
        if isinstance(layer, Graph):
            (image,), (output,) = inputs, layer.outputs
            found, names[name] = prefixed(layer.nodes, name, image), f"{name}.{output}"
        if twice := table.keys() & found.keys():
            raise InputError(f"graph: two nodes are called {min(twice)}")
        table |= found
    return table


def takes(layer: Layer, method: str, option: str) -> bool:
    """Whether a method of a layer has this option: a subclass that overrides the method may lack it."""
    return hasattr(layer, method) and option in signature(getattr(layer, method)).parameters


def in_a_row(layers: dict, start: str = IMAGE) -> dict:
    """{name: layer} as nodes each of which reads the one before it, the first `start`."""
    return {name: (layer, [before]) for (name, layer), before in zip(layers.items(), [start, *layers], strict=False)}


def prefixed(nodes: dict, prefix: str, image: str = IMAGE) -> dict:
    """Nodes whose names begin with "prefix.", and that read the node `image` as their image."""
    renamed = {IMAGE: image, **{name: f"{prefix}.{name}" for name in nodes}}
    return {renamed[name]: Node(layer, tuple(renamed[i] for i in inputs)) for name, (layer, inputs) in nodes.items()}


def coordinates(nodes: dict, name: str) -> Affine:
    """The affine map from the image to a node of a table, along first inputs. See `layers.coordinates`."""
    total = IDENTITY
    while name != IMAGE:
        layer, (name, *_) = nodes[name]
        total = layer.coordinates().then(total)
    return total


def readers_of(nodes: dict) -> dict[str, list]:
    """{name: the names of the nodes that read it, once per read}, for the image and every node."""
    readers = {name: [] for name in (IMAGE, *nodes)}
    for name, (_, inputs) in nodes.items():
        for i in inputs:
            readers[i].append(name)
    return readers


def schedule(nodes: dict, outputs: Sequence[str]) -> list[Step]:
    """The Steps that lead to the outputs: which nodes are needed, when a value can be freed, and what can be overwritten.

    A layer may write over its input where it is the only reader, the input is neither an output nor the caller's image,
    and the layer that made it neither caches it nor shares its memory. It may write over dy where the only reader of its
    output returned that gradient in memory of its own.
    """
    needed = set(outputs)
    for name, (_, inputs) in reversed(nodes.items()):
        if name in needed:
            needed.update(inputs)
    used = {name: node for name, node in nodes.items() if name in needed}
    readers = readers_of(used)

    def owns(name):
        return getattr(used[name].layer, "owns_results", False)

    def may_overwrite(x):
        if x == IMAGE or x in outputs or len(readers[x]) > 1:
            return False
        return owns(x) and not used[x].layer.caches_output

    def owns_gradient(name):
        return name not in outputs and len(readers[name]) == 1 and owns(readers[name][0])

    steps = []
    for name, (layer, inputs) in used.items():
        overwrite = takes(layer, "run", "overwrite") and may_overwrite(inputs[0])
        overwrite_gradient = takes(layer, "run_backward", "overwrite") and owns_gradient(name)
        release = tuple(i for i in dict.fromkeys(inputs) if readers[i][-1] == name and i not in outputs)
        steps.append(Step(name, layer, tuple(inputs), overwrite, overwrite_gradient, release))
    return steps


def followers(nodes: dict, outputs: Sequence[str], among: Collection) -> Callable:
    """A function (name, types) -> the only reader of a node, if it is `among` these nodes and of exactly one of these types,
    and the node is not an output; else None."""
    of_node = readers_of(nodes)

    def follower(name, kinds):
        readers = of_node[name]
        if name in outputs or len(readers) != 1:
            return None
        (reader,) = readers
        return reader if reader in among and type(nodes[reader].layer) in kinds else None

    return follower


def fused(nodes: dict, outputs: Sequence[str], prepared: bool = False, among: Collection | None = None) -> dict:
    """The nodes, with every convolution fused with the normalisation and the ReLU that are its only readers, as a FusedConv2d
    under the last one's name. By exact type: a subclass may compute something else. among: only of these nodes, if given."""
    table, taken, among = {}, set(), nodes if among is None else among
    follower = followers(nodes, outputs, among)
    for name, (layer, inputs) in nodes.items():
        if type(layer) is Conv2d and name in among:
            norm = follower(name, (BatchNorm2d,))
            relu = follower(norm or name, (ReLU, ReLU6))
            behind = [nodes[found].layer if found else None for found in (norm, relu)]
            table[relu or norm or name] = Node(FusedConv2d(layer, *behind, prepared=prepared), inputs)
            taken |= {norm, relu}
        elif name not in taken:
            table[name] = Node(layer, inputs)
    return table


def fused_norms(nodes: dict, outputs: Sequence[str], frozen: Collection = ()) -> dict:
    """The nodes, with every normalisation fused with the ReLU that is its only reader, as a FusedBatchNorm2d under the ReLU's name.

    Nodes that are frozen are left as they are.
    """
    table, taken, among = {}, set(), nodes.keys() - set(frozen)
    follower = followers(nodes, outputs, among)
    for name, (layer, inputs) in nodes.items():
        norm = type(layer) is BatchNorm2d and name in among
        if relu := follower(name, (ReLU, ReLU6)) if norm else None:
            table[relu] = Node(FusedBatchNorm2d(layer, nodes[relu].layer), inputs)
            taken.add(relu)
        elif name not in taken:
            table[name] = Node(layer, inputs)
    return table
