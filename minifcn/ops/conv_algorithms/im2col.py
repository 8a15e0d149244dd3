"""Convolution as a matrix product: lay every patch out as a row, then multiply by the kernels as columns.

The rows repeat each pixel kh·kw times, so they are never made whole: they come and go tile by tile, a tile being
some output rows of some images, and the workspace stays bounded whatever the image. (Chellapilla, Puri, Simard: High
Performance Convolutional Neural Networks for Document Processing, 2006. There patches are columns, hence the name.)

Shapes: x (N, C, H, W), w (K, C/groups, kh, kw), y (N, K, Ho, Wo). Inside, channels come last, and a tile of P pixels is
a matrix for each group: patches (groups, P, D), kernels (groups, K/groups, D), D = kh · kw · C/groups.

The D values of a patch come tap by tap, as they lie in memory, and the kernels are copied into that order. Where there
are more kernels than patches it is the other way round, channel by channel as in w.

An image comes from outside channel by channel: then a tap of a whole row of patches is one long run of values, where
a patch's own would be runs of kw · C. So its patches stand in columns, a matrix (D, Wo) for each row of results.
"""

from math import prod

from ...backend import array_module, cut, matmul, run_tiles, threads
from ..maps import Band, channels_last, empty_maps, row_tiles, taps, windows, zero_maps

TILE_BYTES = 2 << 20  # of patches: about what one core's cache holds


def forward(x, w, window, bias=None, then=None):
    """y = patches(x) · Wᵀ.   -> (N, K, Ho, Wo)"""
    y = empty_maps(array_module(x), (len(x), len(w), *window.output_size), x.dtype)
    if _stands_in_columns(x, window):
        return _forward_in_columns(x, w, window, bias, then, y)
    by_tap = comes_by_tap(len(w), len(x), window)
    kernels = kernel_matrices(w, window.groups, by_tap)
    x_last, y_last = channels_last(x), channels_last(y)

    def tile(images, rows):
        patches = _patches(x_last[images], window, rows, by_tap)
        pixels = y_last[images, rows].reshape(-1, len(w))
        for group, mine in enumerate(_groups(len(w), window)):
            some_bias = None if bias is None else bias[mine]
            matmul(patches[group], kernels[group].T, pixels[:, mine], some_bias, then)

    run_tiles(x, tile, _tiles(x, window, w.nbytes))
    return y


def input_gradient(dy, w, window):
    """dx: every row of dy · W is added back to the pixels it would have been taken from.   -> (N, C, H, W)

    At stride 1 and where the kernels are small, it costs less to read than to add: dx is the forward with mirrored kernels.
    """
    per_group = w.shape[1]
    if window.stride == (1, 1) and comes_by_tap(len(w), len(dy), window):
        return forward(dy, mirrored(w, window.groups), window.mirrored())
    dx = zero_maps(array_module(dy), (len(dy), per_group * window.groups, *window.input_size), dy.dtype)
    dy_last, dx_last = channels_last(dy), channels_last(dx)
    by_tap = comes_by_tap(len(w), len(dy), window)

    def part(images, group, channels):
        # Neighbouring row tiles overlap in dx, so a thread owns whole maps and walks down them.
        mine, first = _groups(len(w), window)[group], group * per_group
        kernels = kernel_matrices(w[mine, channels], 1, by_tap)[0]
        dy_mine = dy_last[images, :, :, mine]
        dx_mine = dx_last[images, :, :, first + channels.start : first + channels.stop]
        for some, rows in _tiles(dx[images, : channels.stop - channels.start], window, w.nbytes):
            patches = matmul(dy_mine[some, rows].reshape(-1, len(kernels)), kernels)
            _add_patches(dx_mine[some], patches, window, rows, by_tap)

    run_tiles(dy, part, _parts(len(dy), window.groups, per_group))
    return dx


def weight_gradient(x, dy, window):
    """dW = dyᵀ · patches(x), summed over tiles.   -> (K, C/groups, kh, kw)"""
    xp = array_module(x)
    k, per_group = dy.shape[1], x.shape[1] // window.groups
    by_tap = comes_by_tap(k, len(x), window)
    x_last, dy_last = channels_last(x), channels_last(dy)
    shape = (k, per_group * prod(window.kernel))
    kernel_bytes = prod(shape) * x.itemsize
    tiles = _tiles(x, window, kernel_bytes)
    shares = 1 if kernel_bytes > TILE_BYTES else min(threads(), len(tiles))
    if _stands_in_columns(x, window):
        return _weight_gradient_in_columns(x, dy, window, tiles, shares)
    sums = xp.empty((shares, *shape), x.dtype)

    def share(worker):
        # Fixed shares, added up in a fixed order, so that the same batch gives the same bits in every run.
        for number, (images, rows) in enumerate(tiles[worker::shares]):
            patches = _patches(x_last[images], window, rows, by_tap)
            pixels = dy_last[images, rows].reshape(-1, k)
            for group, mine in enumerate(_groups(k, window)):
                if number == 0:
                    matmul(pixels[:, mine].T, patches[group], sums[worker, mine])
                else:
                    sums[worker, mine] += matmul(pixels[:, mine].T, patches[group])

    run_tiles(x, share, [(worker,) for worker in range(shares)])
    dw = sums[0] if shares == 1 else sums.sum(axis=0)
    if by_tap:
        return dw.reshape(k, *window.kernel, per_group).transpose(0, 3, 1, 2)
    return dw.reshape(k, per_group, *window.kernel)


def _stands_in_columns(x, window):
    """Whether maps x (N, C, H, W) lie so in memory that columns are copied in longer runs than rows."""
    longer = window.output_size[1] > x.shape[1] * window.kernel[1] * window.stride[1]
    return x.flags.c_contiguous and window.groups == 1 and longer


def _forward_in_columns(x, w, window, bias, then, y):
    """forward, into y (N, K, Ho, Wo)."""
    xp, y_last = array_module(x), channels_last(y)
    kernels = w.reshape(len(w), -1).T

    def tile(images, rows):
        columns, results = _columns(x[images], window, rows), y_last[images, rows]
        # BLAS multiplies small matrices as they lie, without copying them first: so row by row.
        xp.matmul(columns.transpose(0, 2, 1), kernels, out=results.reshape(-1, *results.shape[2:]))
        if bias is not None:
            results += bias
        if then is not None:
            then(results)

    run_tiles(x, tile, _tiles(x, window, w.nbytes))
    return y


def _weight_gradient_in_columns(x, dy, window, tiles, shares):
    """weight_gradient, by these tiles in so many shares."""
    xp, dy_last = array_module(x), channels_last(dy)
    k, width = dy.shape[1], window.output_size[1]
    sums = xp.zeros((shares, x.shape[1] * prod(window.kernel), k), x.dtype)

    def share(worker):
        for images, rows in tiles[worker::shares]:
            columns, upstream = _columns(x[images], window, rows), dy_last[images, rows].reshape(-1, width, k)
            sums[worker] += xp.matmul(columns, upstream).sum(axis=0)

    run_tiles(x, share, [(worker,) for worker in range(shares)])
    return sums.sum(axis=0).T.reshape(k, x.shape[1], *window.kernel)


def _columns(x, window, rows):
    """The patches that output rows `rows` see.   x (n, C, H, W) -> (n · rows, D, Wo)"""
    n, channels, height, width = x.shape
    band = Band.of(window, rows).read(x.reshape(n * channels, height, width, 1))
    seen = windows(band, window, rows.stop - rows.start)
    seen = seen.reshape(n, channels, *seen.shape[1:5]).transpose(0, 2, 1, 4, 5, 3)
    return seen.reshape(-1, channels * prod(window.kernel), window.output_size[1])


def comes_by_tap(kernels, images, window):
    """Whether patches come tap by tap; else channel by channel."""
    return kernels < images * prod(window.output_size)


def kernel_matrices(w, groups, by_tap):
    """w (K, C/groups, kh, kw) -> (groups, K/groups, D)"""
    return (w.transpose(0, 2, 3, 1) if by_tap else w).reshape(groups, len(w) // groups, -1)


def mirrored(w, groups):
    """The kernels from dy to dx: w (K, C/groups, kh, kw) -> (C, K/groups, kh, kw), turned by half a turn."""
    w = w.reshape(groups, -1, *w.shape[1:])[:, :, :, ::-1, ::-1].transpose(0, 2, 1, 3, 4)
    return w.reshape(-1, *w.shape[2:])


def _patches(x, window, rows, by_tap):
    """The patches that output rows `rows` see.   x (n, H, W, C) -> (groups, P, D)"""
    band = Band.of(window, rows).read(x)
    seen = windows(band, window, rows.stop - rows.start)
    seen = seen.reshape(*seen.shape[:5], window.groups, -1)
    seen = seen.transpose((5, 0, 1, 2, 3, 4, 6) if by_tap else (5, 0, 1, 2, 6, 3, 4))
    return seen.reshape(window.groups, -1, seen[0, 0, 0, 0].size)


def _add_patches(dx, patches, window, rows, by_tap):
    """The adjoint of `_patches`: add each value of patches (P, D) to the pixel of dx (n, H, W, C/groups) it would be taken from."""
    where = Band.of(window, rows)
    band = array_module(dx).zeros((len(dx), *where.size, dx.shape[3]), dx.dtype)
    seen = windows(band, window, rows.stop - rows.start)
    if by_tap:
        patches = patches.reshape(seen.shape)
    else:
        patches = patches.reshape(*seen.shape[:3], -1, *window.kernel).transpose(0, 1, 2, 4, 5, 3)
    for u, v in taps(window):
        seen[:, :, :, u, v] += patches[:, :, :, u, v]
    dx[:, where.rows, where.columns] += where.inside(band)


def _groups(kernels, window):
    """Which of the output channels each group has."""
    return cut(kernels, window.groups)


def _tiles(x, window, kernel_bytes):
    """The tiles of x (or dx): about TILE_BYTES of patches each, or, for kernels larger than that, as much as they take up."""
    n, channels = x.shape[:2]
    row_bytes = channels * prod(window.kernel) * window.output_size[1] * x.itemsize
    least = threads() if kernel_bytes <= TILE_BYTES else 1  # the threads share the products by large kernels instead
    return row_tiles(n, window.output_size[0], row_bytes, max(TILE_BYTES, kernel_bytes), least)


def _parts(n, groups, per_group):
    """Cut maps into one part (images, group, channels) for each thread, along the first axis that allows it."""
    images, channels = [slice(0, n)], [slice(0, per_group)]
    if n > 1:
        images = cut(n, threads())
    elif groups == 1:
        channels = cut(per_group, threads())
    return [(some, group, part) for some in images for group in range(groups) for part in channels]
