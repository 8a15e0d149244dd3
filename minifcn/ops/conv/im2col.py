"""Convolution as a matrix product: lay every patch out as a row, then multiply by the kernels as columns.

The rows repeat each pixel kh·kw times, so they never all exist at once: they are made and dropped tile by tile, a tile being
some output rows of some images, and the workspace stays bounded for any image size. (Chellapilla, Puri, Simard: High
Performance Convolutional Neural Networks for Document Processing, 2006. There patches are columns, hence the name.)
On a device with kernels, one launch gathers patches or adds them back, and tiles are as large as the workspace.

A tile of P pixels is a matrix for each group: patches (groups, P, D), kernels (groups, K/groups, D), D = kh · kw · C/groups.
The D values of a patch are ordered tap by tap, as they lie in memory, and the kernels are copied into that order. With more
kernels than patches it is the other way round: patches are ordered channel by channel, as in w.
"""

from itertools import product
from math import prod

from ...backend import Source, array_module, cut, has_kernels, launch, matmul, run_tiles, sum_parts, tuning
from ..activation import add_bias_and_activate, finishing
from ..geometry import window_params
from ..maps import Band, channels_last, new_maps, row_tiles, sum_of_tiles, taps, to_nhwc, windows
from . import columns, overhanging

SOURCE = Source.beside(__file__, gpu_only=True)


def forward(x, w, window, bias=None, activation="none", cached=None):
    """y = patches(x) · Wᵀ.   -> (N, K, Ho, Wo)"""
    k, by_tap = len(w), _by_tap(len(w), len(x), window)
    if by_tap and overhanging.applies(x, window):
        return overhanging.forward(x, w, window, bias, activation)
    y = new_maps(x, k, window.output_size)
    if columns.applies(x, window):
        return columns.forward(x, w, window, _tiles(x, window, w.nbytes), y, bias, activation)
    kernels = _kernel_matrices(w, window.groups, by_tap)
    x_last, y_last, in_one_launch = _readable(x), channels_last(y), has_kernels(x)

    def tile(images, rows):
        patches = _patches(x_last[images], window, rows, by_tap)
        pixels = y_last[images, rows].reshape(-1, k)
        for group, mine in enumerate(cut(k, window.groups)):
            operands = patches[group], kernels[group].T, pixels[:, mine]
            if in_one_launch:
                matmul(*operands)
            else:
                some_bias = None if bias is None else bias[mine]
                matmul(*operands, some_bias, finishing(activation))

    run_tiles(x, tile, _tiles(x, window, w.nbytes))
    if in_one_launch:
        add_bias_and_activate(y, bias, activation)
    return y


def input_gradient(dy, w, window):
    """dx: every row of dy · W is added back to the pixels it would have been taken from.   -> (N, C, H, W)"""
    k, per_group = w.shape[:2]
    by_tap = _by_tap(k, len(dy), window)
    if window.stride == (1, 1) and by_tap:  # it costs less to read patches than to add them
        return forward(dy, _mirrored(w, window.groups), window.mirrored())
    dx = new_maps(dy, per_group * window.groups, window.input_size, zeros=True)
    dy_last, dx_last = _readable(dy), channels_last(dx)

    def part(images, group, channels):
        # Neighbouring row tiles overlap in dx, so a thread owns whole maps and walks down them.
        mine, first = cut(k, window.groups)[group], group * per_group + channels.start
        kernels = _kernel_matrices(w[mine, channels], 1, by_tap)[0]
        upstream, gradient = dy_last[images, :, :, mine], dx_last[images]
        for some, rows in _tiles(dx[images, : channels.stop - channels.start], window, w.nbytes):
            patches = matmul(upstream[some, rows].reshape(-1, len(kernels)), kernels)
            _add_patches(gradient[some], first, patches, window, rows, by_tap)
            del patches  # before the next are made

    count = 1 if has_kernels(dy) else sum_parts()
    all_images = cut(len(dy), count)
    all_channels = cut(per_group, count if len(dy) == window.groups == 1 else 1)
    run_tiles(dy, part, list(product(all_images, range(window.groups), all_channels)))
    return dx


def weight_gradient(x, dy, window):
    """dW = dyᵀ · patches(x), summed over tiles.   -> (K, C/groups, kh, kw)"""
    k, per_group = dy.shape[1], x.shape[1] // window.groups
    by_tap = _by_tap(k, len(x), window)
    if by_tap and overhanging.applies(x, window):
        return overhanging.weight_gradient(x, dy, window)
    x_last, dy_last = _readable(x), _readable(dy)
    shape = (k, per_group * prod(window.kernel))
    kernel_bytes = prod(shape) * x.itemsize
    tiles = _tiles(x, window, kernel_bytes)
    shares = 1 if kernel_bytes > tuning.TILE_BYTES or has_kernels(x) else None
    if columns.applies(x, window):
        return columns.weight_gradient(x, dy, window, tiles, shares)

    def tile(out, images, rows):
        patches = _patches(x_last[images], window, rows, by_tap)
        pixels = dy_last[images, rows].reshape(-1, k)
        for group, mine in enumerate(cut(k, window.groups)):
            matmul(pixels[:, mine].T, patches[group], out[mine])

    dw = sum_of_tiles(x, shape, tile, tiles, shares)
    if by_tap:
        return dw.reshape(k, *window.kernel, per_group).transpose(0, 3, 1, 2)
    return dw.reshape(k, per_group, *window.kernel)


def _by_tap(kernels, images, window):
    """Whether patches come tap by tap; else channel by channel."""
    return kernels < images * prod(window.output_size)


def _kernel_matrices(w, groups, by_tap):
    """w (K, C/groups, kh, kw) -> (groups, K/groups, D)"""
    return (w.transpose(0, 2, 3, 1) if by_tap else w).reshape(groups, len(w) // groups, -1)


def _mirrored(w, groups):
    """The kernels from dy to dx: w (K, C/groups, kh, kw) -> (C, K/groups, kh, kw), rotated by 180 degrees."""
    w = w.reshape(groups, -1, *w.shape[1:])[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4)
    return w.reshape(-1, *w.shape[2:])


def _readable(maps):
    """Maps (N, C, H, W) as they are read here: (N, H, W, C), contiguous for kernels."""
    return to_nhwc(maps) if has_kernels(maps) else channels_last(maps)


def _patches(x, window, rows, by_tap):
    """The patches that output rows `rows` see.   x (n, H, W, C) -> (groups, P, D)"""
    per_group = x.shape[3] // window.groups
    if has_kernels(x):
        count = len(x) * (rows.stop - rows.start) * window.output_size[1]
        patches = array_module(x).empty((window.groups, count, per_group * prod(window.kernel)), x.dtype)
        for group, some in enumerate(patches):
            params = _params(x, group * per_group, per_group, window, rows, by_tap)
            launch(SOURCE, "gather_patches", some.size, x, some, *params)
        return patches
    seen = windows(Band.of(window, rows).read(x), window, rows.stop - rows.start)
    seen = seen.reshape(*seen.shape[:5], window.groups, per_group)
    seen = seen.transpose((5, 0, 1, 2, 3, 4, 6) if by_tap else (5, 0, 1, 2, 6, 3, 4))
    return seen.reshape(window.groups, -1, per_group * prod(window.kernel))


def _add_patches(dx, first, patches, window, rows, by_tap):
    """The adjoint of `_patches`, of the channels from `first` on: add each value of patches (P, D) to the pixel of
    dx (n, H, W, C) it would be taken from."""
    channels = patches.shape[1] // prod(window.kernel)
    if has_kernels(dx):
        count = dx[..., 0].size * channels
        launch(SOURCE, "add_patches", count, patches, dx, *_params(dx, first, channels, window, rows, by_tap))
        return
    where = Band.of(window, rows)
    band = array_module(dx).zeros((len(dx), *where.size, channels), dx.dtype)
    seen = windows(band, window, rows.stop - rows.start)
    if by_tap:
        patches = patches.reshape(seen.shape)
    else:
        patches = patches.reshape(*seen.shape[:3], -1, *window.kernel).transpose(0, 1, 2, 4, 5, 3)
    for u, v in taps(window):
        seen[:, :, :, u, v] += patches[:, :, :, u, v]
    dx[:, where.rows, where.columns, first : first + channels] += where.inside(band)


def _params(maps, first, channels, window, rows, by_tap):
    """The arguments of both kernels: maps (n, H, W, C), some of their channels, and the window over them."""
    _, height, width, all_channels = maps.shape
    steps = (channels, 1) if by_tap else (1, prod(window.kernel))
    size = rows.stop - rows.start, window.output_size[1]
    return (height, width, all_channels, first, channels, *steps, *window_params(window, rows.start), *size)


def _tiles(x, window, kernel_bytes):
    """The tiles of x (or dx): about TILE_BYTES of patches each, or, for kernels larger than that, as much as they take up."""
    n, channels = x.shape[:2]
    row_bytes = channels * prod(window.kernel) * window.output_size[1] * x.itemsize
    if has_kernels(x):
        return row_tiles(n, window.output_size[0], row_bytes, max(tuning.WORKSPACE, row_bytes), 1)
    least = (
        sum_parts() if kernel_bytes <= tuning.TILE_BYTES else 1
    )  # threads share the products by large kernels instead
    return row_tiles(n, window.output_size[0], row_bytes, max(tuning.TILE_BYTES, kernel_bytes), least)
