"""ONNX's operators that move, resize and join maps: for each, a function that makes a layer of a node.

Source: https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

import numpy as np

from ... import layers
from ...errors import InputError
from ...layers.sizes import Rounded, Size, dimension
from ...ops.resize import NEAREST, POSITIONS
from .lists import slices
from .nodes import LARGEST, same


def _concat(node):
    maps = [node.map(position, node.map().rank) for position in range(len(node.inputs))]
    (axis,) = node.axes([node.take("axis", 1)], node.map().rank)
    channels = [m.channels for m in maps]
    if axis != 1 and len(set(channels) - {None}) > 1:
        raise InputError(f"maps of {channels} channels along axis {axis}; known: as many")
    found = (None if None in channels else sum(channels)) if axis == 1 else channels[0]
    return layers.Concat(axis), maps, maps[0].rank, found


def _slice(node):
    x, starts, ends, steps = node.map(), node.sizes(1), node.sizes(2), node.integers(4)
    axes = node.axes(node.integers(3) or range(len(starts)), x.rank)
    steps = steps or [1] * len(starts)
    if not len(axes) == len(starts) == len(ends) == len(steps) or min(steps, default=1) < 1:
        raise InputError("starts, ends, axes and steps that do not fit; known: one for each axis, steps of 1 or more")
    parts, maps = node.lent(x, slices(x.rank, axes, starts, ends, steps))
    if node.network.own and len(parts) == 4 and isinstance(offset := parts[2].start, int):
        crop = layers.CropLike(max(offset, 0))
        if parts == crop.numbers:
            return crop, maps, 4, x.channels
    channels = x.channels
    if channels and x.rank > 1 and parts[1] != slice(None):
        bounds = (parts[1].start, parts[1].stop)
        channels = None if any(isinstance(n, Size) for n in bounds) else len(range(channels)[parts[1]])
        if channels == 0:
            raise InputError(f"no channel of {x.channels}")
    return layers.Slice(parts), maps, x.rank, channels


def _pad(node):
    x, pads, found, value = node.map(rank=4), node.sizes(1), node.integers(3), node.number(2, "value", 0)
    node.only("mode", "constant", "constant")
    axes = node.axes(range(4) if found is None else found, 4)
    if pads is None or len(pads) != 2 * len(axes) or not abs(value) < np.inf:
        raise InputError("pads that do not fit the axes, or an infinite value")
    both = [(0, 0)] * 4
    for position, axis in enumerate(axes):
        both[axis] = pads[position], pads[position + len(axes)]
    if both[:2] != [(0, 0)] * 2:
        raise InputError("a pad of images or channels; known: of height and width")
    pad, maps = node.lent(x, tuple(both[2:]))
    if any(isinstance(n, int) and not 0 <= n < LARGEST for pair in pad for n in pair):
        raise InputError(f"pads {pad}; known: 0 or more")
    layer = (not value and _to_multiple(pad)) or layers.Pad(pad, value)
    return layer, maps, 4, x.channels


def _to_multiple(pad):
    """The PadToMultiple layer with this pad; None if there is none."""
    front, behind = pad[0]
    for term in behind.terms if isinstance(behind, Size) and isinstance(front, int) else ():
        if isinstance(term, Rounded) and isinstance(term.divisor, int) and term.divisor > 0:
            layer = layers.PadToMultiple(term.divisor, front)
            if layer.pad_for((dimension(0, 2), dimension(0, 3))) == pad:
                return layer
    return None


def _resize(node):
    x, sizes = node.map(rank=4), node.sizes(3)
    mode, nearest = node.take("mode", "nearest"), node.take("nearest_mode", "round_prefer_floor")
    positions = node.take("coordinate_transformation_mode", "half_pixel")
    for attribute, known in {
        "antialias": 0,
        "exclude_outside": 0,
        "keep_aspect_ratio_policy": "stretch",
        "extrapolation_value": 0.0,
    }.items():
        node.only(attribute, known, known)
    node.attributes.pop("cubic_coeff_a", None)
    if mode not in ("nearest", "linear"):
        raise InputError(f"mode {mode!r}; known: nearest, linear")
    if positions not in POSITIONS or nearest not in NEAREST:
        raise InputError(f"{positions}, {nearest}; known: {', '.join((*POSITIONS, *NEAREST))}")
    settings = {"nearest": nearest if mode == "nearest" else None, "positions": positions}
    axes = node.axes(node.attributes.pop("axes", None) or range(4), 4)
    if sizes is None:
        found = node.given(2)
        fits = isinstance(found, np.ndarray) and found.shape == (len(axes),)
        if not fits or not ((found > 1e-6) & (found < 1e6)).all():
            raise InputError("expected sizes, or scales that are positive numbers")
        given = dict(zip(axes, found.tolist(), strict=True))
        if any(given.get(axis, 1) != 1 for axis in (0, 1)):
            raise InputError("a scale of images or channels")
        return same(layers.Resize(scale=(given.get(2, 1.0), given.get(3, 1.0)), **settings), x)
    if len(sizes) != len(axes) or not {2, 3} <= set(axes):
        raise InputError(f"{len(sizes)} sizes for axes {axes}")
    given = dict(zip(axes, sizes, strict=True))
    if not node.counts_images(given.get(0, dimension(x.node, 0))) or (
        given.get(1, x.channels) not in (x.channels, dimension(x.node, 1))
    ):
        raise InputError("a size of images or channels; known: of height and width")
    size, maps = node.lent(x, (given[2], given[3]))
    if any(isinstance(n, int) and not 0 < n < 1 << 16 for n in size):
        raise InputError(f"a size of {size}")
    layer = layers.Resize(size=size, **settings)
    if mode == "linear" and positions in ("half_pixel", "align_corners"):
        like = layers.ResizeLike(align_corners=positions == "align_corners")
        layer = like if like.numbers == size else layer
    return layer, maps, 4, x.channels


OPERATORS = {"Concat": _concat, "Slice": _slice, "Pad": _pad, "Resize": _resize}
