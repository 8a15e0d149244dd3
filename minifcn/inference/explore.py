"""One photograph in one network, seen from all sides: its maps, what each cell sees, and what each score is made of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import layers
from ..backend import to_device, to_host
from ..errors import InputError
from ..layers.graph import IMAGE
from ..models import Graph
from ..models.fields import Field, fields
from .contributions import Branch, branches, check_sum
from .maps import Pictures, Seen, seen, that_fit

UNSEEN = (layers.Dropout, layers.PadToMultiple, layers.ExactSize)  # layers that leave maps as they are, or pad them
CHOSEN = 8  # channels shown with what they look for, unless others are asked for


class Node(NamedTuple):
    """A node as it is drawn. inputs: the drawn nodes that it reads, directly or through others."""

    name: str
    layer: Any
    inputs: tuple
    shape: tuple
    field: Field
    pictures: Pictures


class Exploration(NamedTuple):
    """seen: what the network was given. nodes: {name: Node}. output: the name of the logits'
    node; logits (K, h, w), of the photograph alone. branches: what they are the sum of; difference: by how much that is off at
    most; why: the reason if there are no branches. read: the map (C, h, w) that a single 1×1 score layer reads, and its weights
    (K, C); None for several."""

    seen: Seen
    nodes: dict
    output: str
    logits: np.ndarray
    branches: list[Branch]
    difference: float
    why: str | None
    read: tuple[np.ndarray, np.ndarray] | None

    @property
    def labels(self) -> np.ndarray:
        """(h, w) uint8: the class of every pixel."""
        return self.logits.argmax(axis=0).astype(np.uint8)


def explore(network: Graph, image: np.ndarray, most: int) -> Exploration:
    """All about an image (H, W, 3) uint8 in a network, with the maps' pictures in at most `most` bytes. Raises InputError where
    they do not fit, and for maps that are not finite, naming their layer.

    The sum of the branches is compared with the logits (`contributions.check_sum`).
    """
    prepared, given = network.prepare(), seen(network, image)
    shapes, of_node = network.shapes(given.x.shape), fields(prepared, given.x.shape)
    output = "semantic" if "semantic" in network.outputs else network.outputs[0]
    drawn = {
        name: node for name, node in prepared.nodes.items() if name in of_node and not isinstance(node.layer, UNSEEN)
    }
    found = prepared.features(to_device(given.x), [*drawn])
    values = {name: to_host(maps)[0] for name, maps in found.items()}
    for name, maps in values.items():
        if not np.isfinite(maps).all():
            raise InputError(
                f"{name}: expected finite numbers in its maps, got NaN or infinite ones; use weights of a run that did not diverge"
            )
    parts, why = branches(network, output, found, shapes)
    logits, difference = values[output][:, *given.inside], check_sum(parts, values[output]) if parts else 0.0
    made = that_fit(values, most)

    def shown(name):
        """(the drawn node whose maps this name stands for,), or () for the image."""
        while name not in drawn and name != IMAGE:
            name = prepared.nodes[name].inputs[0]
        return () if name == IMAGE else (name,)

    nodes = {}
    for name, (layer, inputs) in drawn.items():
        read = tuple(dict.fromkeys(source for i in inputs for source in shown(i)))
        nodes[name] = Node(name, layer, read, shapes[name], of_node[name], made[name])
    parts = [part._replace(source=(*shown(part.source), part.name)[0]) for part in parts]
    read = None
    if len(parts) == 1 and network[parts[0].name].kernel == (1, 1):
        read = values[parts[0].source], to_host(network[parts[0].name].weight.value)[:, :, 0, 0]
    return Exploration(given, nodes, output, logits, parts, difference, why, read)


def chosen(found: Exploration, most: int = CHOSEN) -> list[tuple[str, int]]:
    """The channels (node, channel) to show with what they look for, at most `most`.

    First, in the coarsest score layer, the two most frequent classes other than class 0; then, in every map that a score layer
    reads (without branches: in the last map of each size), the two channels whose values vary most.
    """
    counts = np.bincount(found.labels.reshape(-1))
    classes = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k] and k > 0][:2]
    if found.branches:
        channels = [(found.branches[0].name, k) for k in classes]
        sources = [branch.source for branch in found.branches]
    else:
        channels, sources = [], [*{node.shape[2:]: name for name, node in found.nodes.items()}.values()]
    ranked = {name: np.argsort(-found.nodes[name].pictures.spread()) for name in sources}
    channels += [(name, int(order[i])) for i in range(2) for name, order in ranked.items() if i < len(order)]
    return list(dict.fromkeys(channels))[:most]


def channels_of_text(texts: Sequence[str], found: Exploration) -> list[tuple[str, int]]:
    """ "pool3:12" as a channel. Raises InputError for a node or a channel that is not there."""
    return [_channel(text, found.nodes) for text in texts]


def _channel(text, nodes):
    name, _, number = text.rpartition(":")
    if name not in nodes:
        raise InputError(
            f"channels: expected NODE:CHANNEL with a node of the network, such as {[*nodes][-1]}:0; got {text!r}"
        )
    count = nodes[name].shape[1]
    if not number.isdecimal() or int(number) >= count:
        raise InputError(f"channels: {name} has channels 0 to {count - 1}, got {number!r}")
    return name, int(number)
