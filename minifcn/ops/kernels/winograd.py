"""Winograd's F(4×4, 3×3) by kernels: `conv_algorithms/winograd.py` derives it, here it is three launches and a product.

The 36 products, one at each point, are one batched call of cuBLAS; bias and ReLU are done on the way back.
Shapes as there: (36, T, C) for x, (36, C, K) for w, (36, T, K) for y. T is as large as the workspace allows.
"""

from ...backend import Source, array_module, launch
from ..conv_algorithms.winograd import POINTS, RESULTS, parts_of, tiles_across
from ..maps import channels_last, empty_maps
from . import WORKSPACE, bias_or_zeros, limits, packed

SOURCE = Source.beside(__file__)


def forward(x, w, window, bias=None, then=None):
    """y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A in every tile.   -> (N, K, Ho, Wo)"""
    k, c = w.shape[:2]
    xp = array_module(w)
    kernels = xp.empty((POINTS, c, k), w.dtype)
    launch(SOURCE, "kernels_at_points", c * k, xp.ascontiguousarray(w), kernels, k, 9, 9 * c, False)
    (top, _), (left, _) = window.pad
    return _correlate(x, kernels, (top, left), window.output_size, bias, then)


def input_gradient(dy, w, window):
    """dx: the forward of dy with the kernels mirrored, from K channels to C, the pad turned inside out.   -> (N, C, H, W)"""
    k, c = w.shape[:2]
    xp = array_module(w)
    kernels = xp.empty((POINTS, k, c), w.dtype)
    launch(SOURCE, "kernels_at_points", k * c, xp.ascontiguousarray(w), kernels, c, 9 * c, 9, True)
    (top, _), (left, _) = window.pad
    return _correlate(dy, kernels, (2 - top, 2 - left), window.input_size)


def weight_gradient(x, dy, window):
    """dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G.   -> (K, C, 3, 3)"""
    xp = array_module(x)
    x, dy = packed(x), packed(dy)
    c, k = x.shape[3], dy.shape[3]
    (top, _), (left, _) = window.pad
    sums = xp.zeros((POINTS, k, c), x.dtype)

    def add(images, rows):
        of_x = _values_at_points(x[images], rows, (top, left), window.output_size)
        of_dy = xp.empty((POINTS, of_x.shape[1], k), dy.dtype)
        where = rows.stop - rows.start, tiles_across(window.output_size), RESULTS * rows.start
        launch(SOURCE, "gradient_at_points", of_dy[0].size, dy[images], of_dy, k, *dy.shape[1:3], *where)
        xp.add(sums, xp.matmul(of_dy.transpose(0, 2, 1), of_x), out=sums)

    # K counts twice: cuBLAS gets a transposed copy of of_dy.
    for images, rows in _parts(len(x), window.output_size, c + 2 * k, x.itemsize):
        add(images, rows)
    dw = xp.empty((k, c, 3, 3), x.dtype)
    launch(SOURCE, "gradient_of_kernels", k * c, sums, dw)
    return dw


def _correlate(x, kernels, pad, size, bias=None, then=None):
    """The convolution of x (N, C, H, W) with kernels (36, C, K) at the points, from `pad` (top, left) on.  -> (N, K, *size)"""
    xp, (_, c, k) = array_module(x), kernels.shape
    y = empty_maps(xp, (len(x), k, *size), x.dtype)
    x, y_last = packed(x), channels_last(y)
    (low, high), rest = limits(then)
    bias = bias_or_zeros(bias, x, k)

    def part(images, rows):
        results = xp.matmul(_values_at_points(x[images], rows, pad, size), kernels)
        where = rows.stop - rows.start, tiles_across(size), RESULTS * rows.start
        arrays = results, y_last[images], bias
        launch(SOURCE, "results_from_points", results[0].size, *arrays, low, high, k, *size, *where)

    for images, rows in _parts(len(x), size, c + k, x.itemsize):
        part(images, rows)
    if rest is not None:
        rest(y)
    return y


def _values_at_points(x, rows, pad, size):
    """Bᵀ d B of the tiles in some rows of them.   x (n, H, W, C) -> (36, T, C)"""
    n, height, width, c = x.shape
    down, (top, left) = rows.stop - rows.start, pad
    points = array_module(x).empty((POINTS, n * down * tiles_across(size), c), x.dtype)
    where = down, tiles_across(size), top - RESULTS * rows.start, left
    launch(SOURCE, "values_at_points", points[0].size, x, points, c, height, width, *where)
    return points


def _parts(n, size, channels, itemsize):
    """The parts [(images, rows of tiles)] whose values at the points, of so many channels in all, fit into the workspace."""
    return parts_of(n, size, max(1, WORKSPACE // (POINTS * channels * itemsize)))
