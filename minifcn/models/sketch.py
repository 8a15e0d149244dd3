"""An array's shape without its numbers, and what every kind of layer makes of it.

Multiply-adds are those of the definition, whatever algorithm runs: of a transposed convolution, frozen or learned, one
for each tap of each stamp; of pools, normalisation and sums, none.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import singledispatch
from math import ceil, inf, prod

from .. import layers
from ..errors import InputError
from ..ops.pool import pool_window
from ..ops.window import pads, pair, window

FLOAT = 4  # bytes of a float32


@dataclass
class Memory:
    """Bytes of the arrays that exist at this moment, and the most there ever were."""

    live: int = 0
    peak: int = 0
    kept: dict = field(default_factory=dict)  # what caches refer to, by identity

    def keep(self, sketches):
        """Note what a cache refers to. -> the bytes that nothing kept before"""
        new = {id(s.owner): s.owner for s in sketches if id(s.owner) not in self.kept}
        self.kept |= new
        return sum(s.nbytes for s in new.values())


class Sketch:
    """An array's shape without its numbers, and how the image is seen from it.

    field: the side of the part of the image that one value depends on. step: image pixels between neighbours.
    view_of: another Sketch whose memory this one shares.
    """

    def __init__(self, shape, memory, field=1, step=Fraction(1), view_of=None):
        self.shape, self.memory, self.field, self.step = tuple(shape), memory, field, step
        self.view_of = view_of
        if view_of is None:
            memory.live += self.nbytes
            memory.peak = max(memory.peak, memory.live)

    def __del__(self):
        if self.view_of is None:
            self.memory.live -= self.nbytes

    @property
    def owner(self):
        """The Sketch whose memory this is."""
        return self if self.view_of is None else self.view_of.owner

    @property
    def nbytes(self):
        return prod(self.shape) * FLOAT

    def like(self, shape=None, **changes):
        """Another array, made from this one."""
        seen = {"field": self.field, "step": self.step} | changes
        return Sketch(shape or self.shape, self.memory, **seen)

    def __add__(self, other):
        if self.shape != other.shape:
            raise InputError(f"sum: expected two maps of one shape, got {self.shape} and {other.shape}")
        return self.like(field=max(self.field, other.field))

    def __mul__(self, number):
        return self.like()

    def __len__(self):
        return self.shape[0]


@singledispatch
def sketch(layer, x, train):
    """What a layer makes of a Sketch. -> (y, multiply-adds, the Sketches that its cache refers to)"""
    raise TypeError(f"explain: a {type(layer).__name__} is not described")


def _slid(x, channels, where):
    """The output of a window (`ops.window.Window`) that slides over x."""
    (extent, _), (stride, _) = where.extent, where.stride
    return x.like(
        (len(x), channels) + where.output_size, field=x.field + (extent - 1) * _whole(x.step), step=x.step * stride
    )


def _whole(step):
    return int(step) if step.denominator == 1 else step


@sketch.register
def _(layer: layers.Conv2d, x, train):
    outputs, per_group, *kernel = layer.weight.value.shape
    settings = {**layer.settings, "pad": layer.pad_for(x.shape[2:])}
    if x.shape[1] != per_group * settings["groups"]:
        raise InputError(f"conv2d: expected {per_group * settings['groups']} input channels, got {x.shape[1]}")
    where = window(
        "conv2d", kernel, settings["stride"], settings["pad"], settings["dilation"], settings["groups"], x.shape[2:]
    )
    y = _slid(x, outputs, where)
    return y, prod(y.shape) * per_group * prod(kernel), [x]


@sketch.register
def _(layer: layers.ConvTranspose2d, x, train):
    inputs, per_group, *kernel = layer.weight.value.shape
    settings = layer.settings
    y = _enlarged(x, per_group * settings.get("groups", 1), kernel, settings)
    return y, prod(x.shape) * per_group * prod(kernel), [x]


@sketch.register
def _(layer: layers.Upsample, x, train):
    k = layer.line.value.size
    y = _enlarged(x, x.shape[1], (k, k), layer.settings)
    shares = [x.like((after, before)) for after, before in zip(y.shape[2:], x.shape[2:], strict=True)]
    return y, prod(x.shape) * k * k, shares


def _enlarged(x, channels, kernel, settings):
    stride, pad, dilation, more = (
        pair("stride", settings["stride"]),
        pads(settings["pad"]),
        pair("dilation", settings.get("dilation", 1)),
        pair("output_pad", settings.get("output_pad", 0), least=0),
    )
    size = tuple(
        (n - 1) * s - sum(p) + d * (k - 1) + 1 + o
        for n, s, p, d, k, o in zip(x.shape[2:], stride, pad, dilation, kernel, more, strict=True)
    )
    seen = ceil(Fraction(kernel[0], stride[0])) - 1  # neighbours that a value is made of, beside the first
    return x.like((len(x), channels) + size, field=x.field + seen * _whole(x.step), step=x.step / stride[0])


@sketch.register
def _(layer: layers.Linear, x, train):
    outputs, inputs = layer.weight.value.shape
    if x.shape[1:] != (inputs,):
        raise InputError(f"linear: expected {inputs} values an image, got {x.shape[1:]}")
    return x.like((len(x), outputs)), len(x) * outputs * inputs, [x]


@sketch.register
def _(layer: layers.MaxPool2d, x, train):
    where = pool_window("max_pool2d", x.shape[2:], layer.kernel, **layer.settings)
    y = _slid(x, x.shape[1], where)
    return y, 0, [x, y]


@sketch.register
def _(layer: layers.AvgPool2d, x, train):
    settings = {key: layer.settings[key] for key in ("stride", "pad", "ceil_mode")}
    return _slid(x, x.shape[1], pool_window("avg_pool2d", x.shape[2:], layer.kernel, dilation=1, **settings)), 0, []


@sketch.register
def _(layer: layers.AdaptiveAvgPool2d, x, train):
    return x.like(x.shape[:2] + pair("size", layer.size), field=inf), 0, []


@sketch.register
def _(layer: layers.GlobalAvgPool, x, train):
    return x.like(x.shape[:2], field=inf), 0, []


@sketch.register
def _(layer: layers.Flatten, x, train):
    flat = (len(x), prod(x.shape[1:]))
    if x.shape[1] == 1 or x.shape[2:] == (1, 1):
        return Sketch(flat, x.memory, inf, x.step, view_of=x), 0, []
    return x.like(flat, field=inf), 0, []  # a copy, as the channels lie together in memory


@sketch.register(layers.ReLU)
@sketch.register(layers.ReLU6)
def _(layer, x, train):
    y = Sketch(x.shape, x.memory, x.field, x.step, view_of=x) if layer.in_place else x.like()
    return y, 0, [y]


@sketch.register
def _(layer: layers.BatchNorm2d, x, train):
    return x.like(), 0, [x]


@sketch.register
def _(layer: layers.LRN, x, train):
    return x.like(), 0, [x, x.like()]


@sketch.register
def _(layer: layers.Dropout, x, train):
    if not train or layer.p == 0:
        return x, 0, []
    return x.like(), 0, [x.like()]


@sketch.register
def _(layer: layers.PadToMultiple, x, train):
    size = tuple(n + sum(both) for n, both in zip(x.shape[2:], layer.pad_for(x.shape[2:]), strict=True))
    if size == x.shape[2:]:
        return x, 0, []
    return x.like(x.shape[:2] + size), 0, []


@sketch.register
def _(layer: layers.Crop, x, train):
    top, left = pair("offset", layer.offset, least=0)
    if top + layer.size[0] > x.shape[2] or left + layer.size[1] > x.shape[3]:
        raise InputError(f"crop: {layer.size} at offset {(top, left)} does not lie inside a map of {x.shape[2:]}")
    return Sketch(x.shape[:2] + tuple(layer.size), x.memory, x.field, x.step, view_of=x), 0, []
