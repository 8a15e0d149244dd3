"""Dilated 3×3 convolutions: at stride 1, dilation d means d² ordinary convolutions of maps that lie interleaved in the image.

A window of dilation d that begins in row r sees rows r, r + d, r + 2d, which all have the same residue modulo d. So the rows
r, r + d, …, and likewise the columns, form maps of their own, over which an ordinary window slides. There are d · d of them,
treated here as separate images. Winograd's algorithm convolves them with a quarter of the products. (Chen et al., TPAMI 2018,
section 3.1, has this as the second of two ways.)

Maps whose size d does not divide get zeros at the end; what these contribute to y is discarded.
"""

from dataclasses import replace
from itertools import product

from ...backend import array_module, run_tiles
from ..maps import channels_last, new_maps
from . import winograd


def applies(window):
    """Whether a window is a dilated 3×3: stride 1, one group."""
    gaps = window.dilation != (1, 1)
    return gaps and (window.kernel, window.stride, window.groups) == ((3, 3), (1, 1), 1)


def forward(x, w, window, bias=None, activation="none", cached=None):
    """-> (N, K, Ho, Wo)"""
    shift, plain = interleaved(window)
    y = winograd.forward(_split(x, window.dilation, shift), w, plain, bias, activation, cached)
    return _joined(y, window.dilation, (0, 0), window.output_size)


def input_gradient(dy, w, window):
    """-> (N, C, H, W)"""
    shift, plain = interleaved(window)
    dx = winograd.input_gradient(_split(dy, window.dilation), w, plain)
    return _joined(dx, window.dilation, shift, window.input_size)


def weight_gradient(x, dy, window):
    """-> (K, C, 3, 3)"""
    shift, plain = interleaved(window)
    return winograd.weight_gradient(_split(x, window.dilation, shift), _split(dy, window.dilation), plain)


def interleaved(window):
    """(the rows and columns by which to shift the maps so that their pad is whole; the ordinary Window of each of the d²)"""
    axes = list(zip(window.pad, window.dilation, window.input_size, window.output_size, strict=True))
    shift = tuple(before % d for (before, _), d, _, _ in axes)
    inputs = tuple(-(-(have + s) // d) for s, (_, d, have, _) in zip(shift, axes, strict=True))
    outputs = tuple(-(-want // d) for _, d, _, want in axes)
    first = [before // d for (before, _), d, _, _ in axes]
    pad = tuple((b, want + 2 - b - have) for b, have, want in zip(first, inputs, outputs, strict=True))
    return shift, replace(window, dilation=(1, 1), pad=pad, input_size=inputs, output_size=outputs)


def _split(maps, dilation, shift=(0, 0)):
    """Maps (N, C, H, W), moved down and right by `shift`, as (N · d², C, ⌈H/d⌉, ⌈W/d⌉), their channels together."""
    size = tuple(-(-(n + s) // d) for n, s, d in zip(maps.shape[2:], shift, dilation, strict=True))
    whole = channels_last(maps)
    parts = array_module(maps).zeros((len(maps), *dilation, *size, maps.shape[1]), maps.dtype)

    def part(p, q, inside, there):
        parts[:, p, q][:, *there] = whole[:, *inside]

    run_tiles(maps, part, _places(maps.shape[2:], dilation, shift))
    return parts.reshape(-1, *parts.shape[3:]).transpose(0, 3, 1, 2)


def _joined(parts, dilation, shift, size):
    """The inverse of `_split`: (N · d², K, h, w) -> (N, K, *size), without what lies beyond that size."""
    count = dilation[0] * dilation[1]
    y = new_maps(parts[::count], parts.shape[1], size)
    whole, parts = channels_last(y), channels_last(parts).reshape(-1, *dilation, *parts.shape[2:], parts.shape[1])

    def part(p, q, inside, there):
        whole[:, *inside] = parts[:, p, q][:, *there]

    run_tiles(y, part, _places(size, dilation, shift))
    return y


def _places(size, dilation, shift):
    """For each of the d² maps (p, q, its (rows, columns) in the image, the same in the map itself)."""

    def along(n, d, s):
        for p in range(d):
            first, skipped = (p - s) % d, int(p < s)
            yield p, slice(first, None, d), slice(skipped, skipped + len(range(first, n, d)))

    both = (list(along(*axis)) for axis in zip(size, dilation, shift, strict=True))
    return [(p, q, (rows, columns), (down, across)) for (p, rows, down), (q, columns, across) in product(*both)]
