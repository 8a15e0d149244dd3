"""What a network would cost, worked out node by node without running it: shapes, parameters, multiply-adds, memory,
receptive field.

Each layer says what it does to shapes, and the network's own steps say when a value is made, overwritten and freed. So
the account cannot differ from the network's. Multiply-adds are those of the definition, whatever algorithm runs: a
transposed convolution, frozen or learned, has one for each tap of each stamp; pools, normalisation and sums have none.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import inf, prod

from .. import layers
from ..errors import InputError
from ..layers.graph import IMAGE, Graph
from ..ops.geometry import Pair, pair

FLOAT = 4  # bytes of a float32


def explain(network: Graph, size: Pair, batch: int = 1) -> "Explanation":
    """What `network` would do to images of `size` (height, width), or an integer for both. -> Explanation

    Raises InputError, naming the layer, where the size does not fit.
    """
    height, width = pair("image size", size)
    if batch < 1:
        raise InputError(f"explain: expected a batch of at least 1 image, got {batch}")
    if network.prepared:
        raise InputError(
            "explain: prepared for inference, which folds layers into each other; explain the network that it was made of"
        )
    declared = network.image_shape and network.image_shape[1]  # by another program's file
    channels = declared or (network.card.options.get("channels", 3) if network.card else 3)
    shapes = network.shapes((batch, channels, height, width))
    fields, cached = _receptive_fields(network, shapes), _cached_bytes(network, shapes)
    rows = []
    for name, (layer, inputs) in network.nodes.items():
        learned = sum(p.value.size for p in layer.parameters().values() if not p.frozen)
        cost = layer.multiply_adds(*(shapes[i] for i in inputs))
        field = fields[name][0]
        field = int(field) if field != inf and int(field) == field else field
        kind, output = type(layer).__name__, prod(shapes[name]) * FLOAT
        rows.append(Row(name, kind, shapes[name], learned, cost, output, cached.get(name, 0), field))
    parameters = network.parameters().values()
    return Explanation(
        rows,
        input_shape=shapes[IMAGE],
        output_shape=shapes[network.outputs[0]],
        learned=sum(p.value.size for p in parameters if not p.frozen),
        frozen=sum(p.value.size for p in parameters if p.frozen),
        inference_bytes=_peak_bytes(network, shapes),
        training_bytes=sum(cached.values()),
    )


@dataclass
class Row:
    """One layer: its output, learned numbers, multiply-adds, bytes of the output, bytes newly cached for backward,
    receptive field."""

    name: str
    kind: str
    shape: tuple
    parameters: int
    multiply_adds: int
    output: int
    cached: int
    field: float


@dataclass
class Explanation:
    """The rows, and their totals: numbers learned and frozen; activations in bytes, at inference's peak and cached for
    backward."""

    rows: list
    input_shape: tuple
    output_shape: tuple
    learned: int
    frozen: int
    inference_bytes: int
    training_bytes: int

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)

    @property
    def receptive_field(self) -> float:
        """The largest before any upsampling: the one papers quote. Infinite if the whole image is seen."""
        seen: float = 1
        for row in self.rows:
            if row.kind in ("Upsample", "LearnedUpsample", "ConvTranspose2d", "Resize", "ResizeLike"):
                break
            seen = max(seen, row.field)
        return seen

    def __str__(self) -> str:
        table: list = [("layer", "kind", "output", "parameters", "multiply-adds", "output MiB", "cached MiB", "field")]
        table += [
            (
                row.name,
                row.kind,
                " × ".join(map(str, row.shape)),
                f"{row.parameters:,}" if row.parameters else "",
                f"{row.multiply_adds:,}" if row.multiply_adds else "",
                f"{row.output / 2**20:.2f}",
                f"{row.cached / 2**20:.2f}" if row.cached else "",
                "all" if row.field == inf else str(row.field),
            )
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        table.insert(1, ["-" * width for width in widths])
        sides = "<<<>>>>>"  # text on the left, numbers on the right
        lines = [
            "  ".join(f"{text:{side}{w}}" for text, side, w in zip(line, sides, widths, strict=True)) for line in table
        ]
        seen = "the whole image" if self.receptive_field == inf else f"{self.receptive_field} pixels"
        frozen = f", and {self.frozen:,} frozen (1-D bilinear kernels)" if self.frozen else ""
        lines += [
            "",
            f"input {' × '.join(map(str, self.input_shape))}, output {' × '.join(map(str, self.output_shape))}",
            f"parameters: {self.learned:,} learned ({self.learned * FLOAT / 2**20:,.0f} MiB){frozen}",
            f"multiply-adds, forward: {self.multiply_adds / 1e9:,.2f} billion",
            f"activations: {self.inference_bytes / 2**20:,.1f} MiB at the peak of inference, "
            f"{self.training_bytes / 2**20:,.1f} MiB cached for backward in training",
            f"receptive field: {seen}",
        ]
        return "\n".join(line.rstrip() for line in lines)


def _receptive_fields(network, shapes):
    """{name: (the side of the part of the image that one value depends on, image pixels between neighbours)}, down the rows

    Where branches meet, the largest field and the smallest step count.
    """
    found = {IMAGE: (1, Fraction(1))}
    for name, (layer, inputs) in network.nodes.items():
        seen = [found[i] for position, i in enumerate(inputs) if position not in layer.size_only] or [found[IMAGE]]
        field, step = max(field for field, _ in seen), min(step for _, step in seen)
        if isinstance(layer, layers.Resize):  # the factor follows from the sizes
            field += 0 if layer.settings["nearest"] else step
            step *= Fraction(shapes[inputs[0]][2], shapes[name][2])
        found[name] = layer.receptive_field(field, step)
    return found


def _owners(steps, shapes, train):
    """{name: the name of the value in whose memory it lies}"""
    owner = {IMAGE: IMAGE}
    for step in steps:
        shares = step.overwrite or step.layer.is_view(shapes[step.inputs[0]], train)
        owner[step.name] = owner[step.inputs[0]] if shares else step.name
    return owner


def _cached_bytes(network, shapes):
    """{name: bytes that its layer's cache keeps alive in training, and that no earlier cache does}"""
    owner, held, found = _owners(network.training, shapes, True), set(), {}
    for step in network.training:
        x = step.inputs[0]
        values = [x] * step.layer.caches_input + [step.name] * step.layer.caches_output
        new = {owner[value] for value in values} - held
        held |= new
        found[step.name] = FLOAT * (sum(prod(shapes[v]) for v in new) + step.layer.extra_cached(shapes[x]))
    return found


def _peak_bytes(network, shapes):
    """The most bytes of values that exist at one moment of an inference, including the image."""
    steps = network.inference
    owner, readable = _owners(steps, shapes, False), {IMAGE}
    peak = 0
    for step in steps:
        readable.add(step.name)
        peak = max(peak, sum(prod(shapes[v]) for v in {owner[v] for v in readable}))
        readable -= set(step.release) - {IMAGE}
    return FLOAT * peak
