"""Which algorithm computes a convolution: the one that was asked for, or the cheapest one that its shape allows.

Plain 1×1 and depthwise convolutions have an algorithm of their own. For a plain 3×3 convolution both im2col and Winograd's
algorithm apply, and the cost of a pass is estimated from the values copied or transformed before the products, the
products themselves, the values written after them, and the kernels. im2col's patches hold 9 values per pixel, which take
9 products for each output channel. Winograd's tiles hold 36 values for 16 pixels, a quarter of the products, but values and kernels cost
more. So im2col wins where channels are few (the values outweigh the products) and where pixels are few (the kernels do),
and Winograd wins in between, where a network spends its time. The cost of a dilated 3×3 is that of the d² ordinary
convolutions that it consists of, plus splitting and joining their maps.

The constants are nanoseconds of one core per value or multiply-add. They were fitted to the times of both algorithms on
26 shapes, of 1 to 512 channels and 4 to 256 pixels a side, on two cores with AVX2; those for Winograd's algorithm with kernels and
for columns on 14 shapes, with AVX-512. A core that is faster at everything chooses the same. `benchmarks/choices.py` compares the choices
with the fastest algorithm for every layer of the networks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import prod
from types import ModuleType
from typing import NamedTuple

from ...errors import InputError
from ..geometry import Window
from . import atrous, depthwise, im2col, pointwise, reference, winograd

_ALGORITHMS = {"naive": reference, "im2col": im2col, "gemm": pointwise, "depthwise": depthwise, "winograd": winograd}
_requested = ContextVar("conv_algorithm", default="auto")


class Costs(NamedTuple):
    """What a call, a value laid out or transformed, a product, a result and a weight cost."""

    call: float
    value: float
    product: float
    result: float
    weight: float


PATCHES = Costs(0, 0.9, 0.026, 1.2, 1.8)
COLUMNS = Costs(0, 0.3, 0.017, 0.6, 1.8)  # of an image that lies channel by channel
TILES = Costs(100_000, 3.3, 0.011, 2.5, 2.4)
TILES_BY_KERNELS = Costs(40_000, 1.0, 0.011, 0.9, 2.4)
APART = 1.0  # per value of the maps that a dilated convolution reads or writes
TILE_SUMS = 1.35  # times as much for a weight gradient, where the values at the points do not stay in a cache


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Within this context convolutions run by the named algorithm: "auto", "naive", "im2col", "winograd", "gemm", "depthwise".

    "auto" chooses by shape. "winograd" serves 3×3 convolutions of stride 1 and one group, "gemm" plain 1×1 ones and "depthwise" those with one
    kernel per channel; each of the three leaves all others to "auto". Raises InputError for another name.
    """
    if name not in ("auto", *_ALGORITHMS):
        raise InputError(f"conv_algorithm: expected auto, {', '.join(_ALGORITHMS)}; got {name!r}")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def choose(
    window: Window, w_shape: tuple, images: int, gradient: str | None = None, tf32: bool = False, *,
    kernels: bool = False, by_channel: bool = False,
) -> ModuleType:  # fmt: skip
    """The module that computes the convolution of a number of images over this window with kernels w (K, C/groups, kh, kw).

    gradient: "inputs" or "weights", for the backward passes. tf32: whether products are in TF32. There Winograd's algorithm is
    taken only on request: its error is ten times that of rounded factors, and the products that it saves cost little.
    kernels: whether its transforms are compiled for the CPU. by_channel: whether x's memory layout is the one for patches in columns.
    """
    name = _requested.get()
    if name in ("naive", "im2col"):
        return _ALGORITHMS[name]
    if pointwise.applies(window):
        return pointwise
    if depthwise.applies(window, w_shape):
        return depthwise
    algorithm = next((module for module in (winograd, atrous) if module.applies(window)), im2col)
    if name == "winograd" or algorithm is im2col:
        return algorithm
    outputs, inputs = w_shape[:2]
    shape = inputs, outputs, window.output_size
    if gradient == "inputs":
        shape = outputs, inputs, window.input_size
    factor = TILE_SUMS if gradient == "weights" else 1
    tiles, patches = TILES_BY_KERNELS if kernels else TILES, COLUMNS if by_channel else PATCHES
    cost = winograd_cost if algorithm is winograd else partial(atrous_cost, dilation=window.dilation)
    faster = factor * cost(images, *shape, costs=tiles) < im2col_cost(images, *shape, costs=patches)
    return algorithm if faster and not tf32 else im2col


def im2col_cost(images: int, inputs: int, outputs: int, size: tuple, costs: Costs = PATCHES) -> float:
    """Nanoseconds for `images` of results of `size` (height, width), from `inputs` to `outputs` channels."""
    pixels, weights = images * prod(size), 9 * inputs * outputs
    values, results = 9 * pixels * inputs, pixels * outputs
    return costs.value * values + costs.product * values * outputs + costs.result * results + costs.weight * weights


def winograd_cost(images: int, inputs: int, outputs: int, size: tuple, costs: Costs = TILES) -> float:
    """The same by Winograd's algorithm; what lies beyond the image in the last tiles is computed too."""
    tiles, weights = images * prod(-(-n // 4) for n in size), 36 * inputs * outputs
    values, results = 36 * tiles * inputs, 36 * tiles * outputs
    work = costs.value * values + costs.product * values * outputs + costs.result * results + costs.weight * weights
    return costs.call + work


def atrous_cost(images: int, inputs: int, outputs: int, size: tuple, dilation: tuple, costs: Costs = TILES) -> float:
    """The same for a dilated 3×3, split into ordinary convolutions of smaller maps."""
    parts = images * prod(dilation)
    part = tuple(-(-n // d) for n, d in zip(size, dilation, strict=True))
    return winograd_cost(parts, inputs, outputs, part, costs) + APART * parts * prod(part) * (inputs + outputs)
