"""Convolution as a matrix product by kernels: one launch gathers patches, or adds them back, and cuBLAS multiplies.

As `conv_algorithms/im2col.py` explains it; here too patches come and go within a workspace, and their values come tap by tap,
neighbouring channels to neighbouring threads, unless there are more kernels than patches.
"""

from math import prod

from ...backend import Source, array_module, cut, launch
from ..conv_algorithms.im2col import comes_by_tap, kernel_matrices, mirrored
from ..maps import channels_last, empty_maps, row_tiles, zero_maps
from . import WORKSPACE, geometry, packed
from .pointwise import finish

SOURCE = Source.beside(__file__)


def forward(x, w, window, bias=None, then=None):
    """y = patches(x) · Wᵀ.   -> (N, K, Ho, Wo)"""
    xp, k = array_module(x), len(w)
    y = empty_maps(xp, (len(x), k, *window.output_size), x.dtype)
    x_last, y_last = packed(x), channels_last(y)
    by_tap = comes_by_tap(k, len(x), window)
    kernels = kernel_matrices(w, window.groups, by_tap)
    for images, rows in _tiles(len(x), w.shape[1], window, x.itemsize):
        pixels = y_last[images, rows].reshape(-1, k)
        for group, mine in enumerate(cut(k, window.groups)):
            patches = _patches(x_last[images], group, window, rows, by_tap)
            xp.matmul(patches, kernels[group].T, out=pixels[:, mine])
            del patches  # before the next are made
    finish(y, bias, then)
    return y


def input_gradient(dy, w, window):
    """dx: every row of dy · W is added back to the pixels it would have been taken from.   -> (N, C, H, W)

    At stride 1, and where the kernels are small, dx is the forward with mirrored kernels.
    """
    xp, per_group = array_module(dy), w.shape[1]
    by_tap = comes_by_tap(len(w), len(dy), window)
    if window.stride == (1, 1) and by_tap:
        return forward(dy, mirrored(w, window.groups), window.mirrored())
    dx = zero_maps(xp, (len(dy), per_group * window.groups, *window.input_size), dy.dtype)
    dy_last, dx_last = packed(dy), channels_last(dx)
    kernels = kernel_matrices(w, window.groups, by_tap)
    for images, rows in _tiles(len(dy), per_group, window, dy.itemsize):
        pixels, some = dy_last[images, rows].reshape(-1, len(w)), dx_last[images]
        for group, mine in enumerate(cut(len(w), window.groups)):
            patches = xp.matmul(pixels[:, mine], kernels[group])
            numbers = _numbers(some, group, window, rows, by_tap)
            launch(SOURCE, "add_patches", some.size // window.groups, patches, some, *numbers)
            del patches  # before the next are made
    return dx


def weight_gradient(x, dy, window):
    """dW = dyᵀ · patches(x), summed over tiles.   -> (K, C/groups, kh, kw)"""
    xp = array_module(x)
    k, per_group = dy.shape[1], x.shape[1] // window.groups
    dw = xp.zeros((k, per_group * prod(window.kernel)), x.dtype)
    x_last, dy_last = packed(x), packed(dy)
    by_tap = comes_by_tap(k, len(x), window)
    for images, rows in _tiles(len(x), per_group, window, x.itemsize):
        pixels = dy_last[images, rows].reshape(-1, k)
        for group, mine in enumerate(cut(k, window.groups)):
            dw[mine] += xp.matmul(pixels[:, mine].T, _patches(x_last[images], group, window, rows, by_tap))
    if by_tap:
        return dw.reshape(k, *window.kernel, per_group).transpose(0, 3, 1, 2)
    return dw.reshape(k, per_group, *window.kernel)


def _patches(x, group, window, rows, by_tap):
    """The patches that output rows `rows` see of a group's channels.   x (n, H, W, C) -> (P, D)"""
    pixels = len(x) * (rows.stop - rows.start) * window.output_size[1]
    per_group = x.shape[3] // window.groups
    patches = array_module(x).empty((pixels, per_group * prod(window.kernel)), x.dtype)
    launch(SOURCE, "gather_patches", patches.size, x, patches, *_numbers(x, group, window, rows, by_tap))
    return patches


def _numbers(maps, group, window, rows, by_tap):
    """What both kernels want to know about maps (n, H, W, C) and the window over them."""
    _, height, width, channels = maps.shape
    per_group = channels // window.groups
    size = rows.stop - rows.start, window.output_size[1]
    steps = (per_group, 1) if by_tap else (1, prod(window.kernel))
    return (height, width, channels, group * per_group, per_group, *steps, *geometry(window, rows.start), *size)


def _tiles(n, per_group, window, itemsize):
    """The tiles [(images, rows)] whose patches fit into the workspace."""
    row_bytes = per_group * prod(window.kernel) * window.output_size[1] * itemsize
    return row_tiles(n, window.output_size[0], row_bytes, max(WORKSPACE, row_bytes), 1)
