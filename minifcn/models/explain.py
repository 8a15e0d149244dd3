"""What a network would cost, worked out layer by layer without running it: shapes, parameters, multiply-adds, memory,
receptive field.

The network's own `forward` is walked, forks and joins included, with a `Sketch` in place of the image: an array's shape
without its numbers. So shapes, forks and joins cannot differ from the network's. Memory is counted as Python counts it:
an array counts from when it is made until nothing refers to it any more.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf

from .. import layers
from ..errors import InputError
from ..ops.window import pair
from .sketch import FLOAT, Memory, Sketch, sketch


def explain(network, size, batch=1):
    """What `network` would do to images of `size` (height, width), or an integer for both. -> Explanation

    Raises InputError, naming the layer, where the size does not fit.
    """
    height, width = pair("image size", size)
    if batch < 1:
        raise InputError(f"explain: expected a batch of at least 1 image, got {batch}")
    inference, training = Memory(), Memory()
    with _sketching(network, train=False) as rows:
        out = network.forward(Sketch((batch, 3, height, width), inference))
    with _sketching(network, train=True) as trained:
        network.forward(Sketch((batch, 3, height, width), training), train=True)
    for row, again in zip(rows, trained, strict=True):
        row.kept = again.kept
    parameters = network.parameters().values()
    return Explanation(
        rows,
        input_shape=(batch, 3, height, width),
        output_shape=out.shape,
        learned=sum(p.value.size for p in parameters if not p.frozen),
        frozen=sum(p.value.size for p in parameters if p.frozen),
        inference_bytes=inference.peak,
        training_bytes=sum(row.kept for row in rows),
    )


@dataclass
class Row:
    """One layer: its output, learned numbers, multiply-adds, bytes of the output, bytes newly kept for backward,
    receptive field."""

    name: str
    kind: str
    shape: tuple
    parameters: int
    multiply_adds: int
    output: int
    kept: int
    field: float


@dataclass
class Explanation:
    """The rows, and their totals: numbers learned and frozen; activations in bytes, at inference's fullest moment
    and kept for backward."""

    rows: list
    input_shape: tuple
    output_shape: tuple
    learned: int
    frozen: int
    inference_bytes: int
    training_bytes: int

    @property
    def multiply_adds(self):
        return sum(row.multiply_adds for row in self.rows)

    @property
    def receptive_field(self):
        """That of the last layer before anything is enlarged: the one papers quote. Infinite if the whole image is
        seen."""
        seen = 1
        for row in self.rows:
            if row.kind in ("Upsample", "LearnedUpsample", "ConvTranspose2d"):
                break
            seen = row.field
        return seen

    def __str__(self):
        titles = ("layer", "kind", "output", "parameters", "multiply-adds", "output MiB", "kept MiB", "field")
        table = [titles] + [
            (
                row.name,
                row.kind,
                " × ".join(map(str, row.shape)),
                f"{row.parameters:,}" if row.parameters else "",
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                f"{row.output / 2**20:.2f}",
                f"{row.kept / 2**20:.2f}" if row.kept else "",
                "all" if row.field == inf else str(row.field),
            )
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(titles))]
        left = 3  # columns of text; those of numbers are aligned on the right
        lines = [
            "  ".join(
                text.ljust(w) if i < left else text.rjust(w)
                for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in table
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        seen = "the whole image" if self.receptive_field == inf else f"{self.receptive_field} pixels"
        frozen = f", and {self.frozen:,} frozen (the lines of bilinear kernels)" if self.frozen else ""
        lines += [
            "",
            f"input {' × '.join(map(str, self.input_shape))}, output {' × '.join(map(str, self.output_shape))}",
            f"parameters: {self.learned:,} learned ({self.learned * FLOAT / 2**20:,.0f} MiB){frozen}",
            f"multiply-adds, forward: {self.multiply_adds / 1e9:,.2f} billion",
            f"activations: {self.inference_bytes / 2**20:,.1f} MiB at the fullest moment of inference, "
            f"{self.training_bytes / 2**20:,.1f} MiB kept for backward in training",
            f"receptive field: {seen}",
        ]
        return "\n".join(line.rstrip() for line in lines)


@contextmanager
def _sketching(network, train):
    """Within this context the network's leaves take Sketches, each writing its row into the list that is yielded."""
    rows = []
    leaves = network.layers_of(layers.Leaf)
    for leaf in leaves:
        # These hide the methods of the same names until they are deleted again.
        leaf.forward = partial(_forward, leaf, rows)
        leaf.forget = lambda: None  # the real maps of a training step in progress are left alone
    try:
        yield rows
    finally:
        for leaf in leaves:
            del leaf.forward
            del leaf.forget


def _forward(layer, rows, x, train=False, **followers):
    """followers: the layers that a convolution takes along in inference, over the same memory (`layers.run_chain`)."""
    try:
        y, multiply_adds, kept = sketch(layer, x, train)
    except ValueError as error:
        raise InputError(f"{layer.title}: {error}") from error
    newly = x.memory.keep(kept) if train else 0
    rows.append(_row(layer, y, multiply_adds, newly))
    rows.extend(_row(follower, y) for follower in followers.values())
    return y


def _row(layer, y, multiply_adds=0, newly=0):
    parameters = sum(p.value.size for p in layer.parameters().values() if not p.frozen)
    name, kind = layer.name or "", type(layer).__name__
    return Row(name, kind, y.shape, parameters, multiply_adds, y.nbytes, newly, y.field)
