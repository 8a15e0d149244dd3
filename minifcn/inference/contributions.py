"""A segmenter's logits as an exact sum: what each score layer contributes to the score of every pixel.

After its score layers an FCN only enlarges, crops and adds, which is linear. So the logits are a sum over the score
layers, each enlarged by itself:

    logits = up₈(S₈) + up₁₆(S₁₆) + up₃₂(S₃₂) + the same of their biases        (FCN-8s; S: scores without bias)

and since rows and columns are enlarged independently, up(S) = R · S · Cᵀ: one matrix for the rows and one for the columns, with
a few weights in each of their rows. These matrices say exactly what the layers do, because they are read off the layers, by
giving each row and each column of cells a channel of its own.
"""

from typing import NamedTuple

import numpy as np

from .. import layers
from ..backend import to_device, to_host
from ..layers.general import Resize, Slice
from ..models import Graph

# Layers that move, weigh or add maps, all channels alike, and rows and columns independently.
SEPARABLE = (layers.Upsample, Resize, Slice, layers.Scale, layers.Add, layers.Dropout)
CHANNELS = 16  # rows or columns of cells that are enlarged at a time
TOLERANCE = 2e-6  # of the largest part, a term: what float32 rounds
LEARNED = "its upsampling has learned weights, which mix classes"


class Branch(NamedTuple):
    """What one score layer contributes. name: the layer's; source: that of the map it reads. scores (K, h, w) without the bias (K,);
    rows (H, h) and columns (W, w): the matrices that enlarge them."""

    name: str
    source: str
    scores: np.ndarray
    bias: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def part(self) -> np.ndarray:
        """What the scores contribute to the logits, without the bias.   -> (K, H, W)"""
        return self.rows @ self.scores @ self.columns.T

    def bias_part(self) -> np.ndarray:
        """What the bias contributes: smaller than the bias only where an enlarged map fades out.   -> (K, H, W)"""
        return self.bias[:, None, None] * np.outer(self.rows.sum(axis=1), self.columns.sum(axis=1))


def tail(network: Graph, output: str) -> tuple[list[tuple[str, tuple]], str | None]:
    """The score layers whose enlarged maps add up to an output: [(score layer, the nodes from it to the output)].

    -> (them, None), or ([], a phrase that says why the output is no such sum).
    """
    found: list[tuple[str, tuple]] = []
    open_ends: list[tuple[str, tuple]] = [(output, ())]
    while open_ends:
        name, path = open_ends.pop()
        if name not in network.nodes:
            return [], "the output is the image itself"
        layer, inputs = network.nodes[name]
        if type(layer) is layers.Conv2d:
            found.append((name, path))
        elif isinstance(layer, layers.LearnedUpsample):
            return [], LEARNED
        elif isinstance(layer, SEPARABLE):
            read = [source for position, source in enumerate(inputs) if position not in layer.size_only]
            open_ends += [(source, (name, *path)) for source in reversed(read)]
        else:
            return [], f"{name} ({type(layer).__name__}) is not linear"
    return found, None


def branches(network: Graph, output: str, values: dict, shapes: dict) -> tuple[list[Branch], str | None]:
    """The Branches of an output, in the order of their layers, and why there are none.

    values: of the score layers, {name: (1, K, h, w)}. shapes: those of `network.shapes`. -> as `tail`
    """
    ends, why = tail(network, output)
    found = []
    for name, path in ends:
        layer, (source, *_) = network.nodes[name]
        scores = to_host(values[name])[0]
        bias = np.zeros(len(scores), scores.dtype) if layer.bias is None else to_host(layer.bias.value)
        rows, columns = _matrices(network, name, path, shapes, scores.dtype)
        found.append(Branch(name, source, scores - bias[:, None, None], bias, rows, columns))
    return found, why


def check_sum(found: list[Branch], logits: np.ndarray) -> float:
    """The largest difference between the parts' sum and the logits (K, H, W). Raises AssertionError where it is more than rounding."""
    difference = largest = 0.0
    for k, wanted in enumerate(logits):  # all of many classes at once would take long, and much memory
        own = [branch._replace(scores=branch.scores[k : k + 1], bias=branch.bias[k : k + 1]) for branch in found]
        parts = [part for branch in own for part in (branch.part(), branch.bias_part())]
        difference = max(difference, float(np.abs(sum(parts) - wanted).max()))
        largest = max(largest, *(float(np.abs(part).max()) for part in parts))
    assert difference <= TOLERANCE * len(parts) * max(largest, 1), (
        f"the parts of the branches add up to {difference:.2g} beside the logits; the largest is {largest:.2g}"
    )
    return difference


def _matrices(network, name, path, shapes, dtype):
    """The matrices R (H, h) and C (W, w) by which a path enlarges maps (h, w): R · maps · Cᵀ."""
    sides = shapes[name][2:]

    def enlarged(axis, cells):
        """Maps of zeros with ones in a row or column of cells, each in a channel of its own, enlarged.   -> (channels, H, W)"""
        maps = np.zeros((1, len(cells), *sides), dtype)
        for channel, cell in enumerate(cells):
            maps[0, channel].swapaxes(0, axis)[cell] = 1
        return to_host(_follow(network, name, path, shapes, to_device(maps)))[0]

    (whole,) = enlarged(0, [slice(None)])  # of ones: the sums of R's lines ⊗ those of C's
    y, x = np.unravel_index(np.abs(whole).argmax(), whole.shape)
    groups = [[range(n)[start : start + CHANNELS] for start in range(0, n, CHANNELS)] for n in sides]
    rows = np.concatenate([enlarged(0, group)[:, :, x] for group in groups[0]])
    columns = np.concatenate([enlarged(1, group)[:, y] for group in groups[1]])
    return rows.T, columns.T / whole[y, x]


def _follow(network, name, path, shapes, maps):
    """Maps of a score layer's size through the layers of a path, alone: joins add nothing to them."""
    for node in path:
        layer, inputs = network.nodes[node]
        if not isinstance(layer, layers.Add):
            size_only = [i for position, i in enumerate(inputs) if position in layer.size_only]
            lent = [to_device(np.empty((1, 1, *shapes[i][2:]), np.float32)) for i in size_only]
            maps = layer.run(maps, *lent, train=False)[0]
    return maps


def channels_of(
    rows: np.ndarray, columns: np.ndarray, maps: np.ndarray, most: int
) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """The channels of the map (C, h, w) that a 1×1 score layer reads, enlarged by a Branch's matrices like its scores: channel c
    contributes weight[k, c] times that to class k.

    most: the most numbers allowed. -> (step, (channels (C, H', W'), the factor of the bias (H', W'))), from every `step`-th row of
    both matrices
    """
    step = 1
    while (len(maps) + 1) * -(-len(rows) // step) * -(-len(columns) // step) > most:
        step += 1
    rows, columns = (matrix[::step] for matrix in (rows, columns))
    return step, (rows @ maps @ columns.T, np.outer(rows.sum(axis=1), columns.sum(axis=1)))
