"""Convolution as a matrix product: lay every patch out as a column, then multiply by the kernels as rows.

The columns repeat each pixel kh·kw times, so they are never made whole: they come and go tile by tile, a tile being
some output rows of some images, and the workspace stays bounded whatever the image. (Chellapilla, Puri, Simard: High
Performance Convolutional Neural Networks for Document Processing, 2006.)

Shapes: x (N, C, H, W), w (K, C/groups, kh, kw), y (N, K, Ho, Wo). Inside, maps are split into (groups, maps/group), and
a tile of N' images is one matrix for each group: columns (groups, C/groups · kh · kw, N' · rows · Wo).
"""

from math import ceil, prod

from ...backend import WORKERS, array_module, run_tiles
from ..window import Band, tap_views

TILE_BYTES = 2 << 20  # about what one core's cache holds; larger kernels set the tile's size themselves


def forward(x, w, window):
    """y = W · columns(x).   -> (N, K, Ho, Wo)"""
    xp = array_module(x)
    kernels = w.reshape(window.groups, w.shape[0] // window.groups, -1)
    y = xp.empty((x.shape[0], w.shape[0]) + window.output_size, x.dtype)

    def tile(images, rows):
        product = xp.matmul(kernels, _columns(x[images], window, rows))
        _put_rows(y[images], product, rows)

    run_tiles(x, tile, _tiles(x.shape[0], x.shape[1], w, window))
    return y


def input_gradient(dy, w, window):
    """dx: every column of Wᵀ · dy is added back to the pixels it would have been taken from.   -> (N, C, H, W)"""
    xp = array_module(dy)
    n, groups, per_group = dy.shape[0], window.groups, w.shape[1]
    kernels = w.reshape((groups, w.shape[0] // groups) + w.shape[1:])
    dy = dy.reshape((n, groups, -1) + window.output_size)
    dx = xp.zeros((n, groups, per_group) + window.input_size, dy.dtype)

    def part(images, group, channels):
        # Neighbouring row tiles overlap in dx, so a thread owns whole maps and walks down them.
        mine = kernels[group, :, channels]
        transposed = mine.reshape(mine.shape[:2] + (-1,)).transpose(0, 2, 1)
        dy_mine, dx_mine = dy[images, group], dx[images, group, channels]
        for some, rows in _tiles(dy_mine.shape[0], mine.shape[0] * mine.shape[2], w, window):
            columns = xp.matmul(transposed, _take_rows(dy_mine[some], rows))
            _add_columns(dx_mine[some], columns, window, rows)

    run_tiles(dy, part, _parts(n, groups, per_group))
    return dx.reshape((n, groups * per_group) + window.input_size)


def weight_gradient(x, dy, window):
    """dW = dy · columns(x)ᵀ, summed over tiles.   -> (K, C/groups, kh, kw)"""
    xp = array_module(x)
    n, groups = x.shape[0], window.groups
    shape = (dy.shape[1], x.shape[1] // groups) + window.kernel
    dy = dy.reshape((n, groups, -1) + window.output_size)
    sums = xp.zeros((WORKERS, groups, shape[0] // groups, prod(shape[1:])), x.dtype)
    tiles = _tiles(n, x.shape[1], sums[0], window)

    def share(worker):
        # Fixed shares, added up in a fixed order, so that the same batch gives the same bits in every run.
        for images, rows in tiles[worker::WORKERS]:
            columns = _columns(x[images], window, rows)
            sums[worker] += xp.matmul(_take_rows(dy[images], rows), columns.transpose(0, 2, 1))

    run_tiles(x, share, [(worker,) for worker in range(min(WORKERS, len(tiles)))])
    return sums.sum(axis=0).reshape(shape)


def _columns(x, window, rows):
    """The patches that output rows `rows` see.   x (N', C, H, W) -> (groups, C/groups · kh · kw, N' · rows · Wo)"""
    n, c = x.shape[:2]
    count = rows.stop - rows.start
    band = Band(window, rows).read(x).transpose(1, 0, 2, 3)
    columns = array_module(x).empty((c,) + window.kernel + (n, count, window.output_size[1]), x.dtype)
    for (i, j), seen in tap_views(band, window, count):
        columns[:, i, j] = seen
    return columns.reshape(window.groups, -1, n * count * window.output_size[1])


def _add_columns(dx, columns, window, rows):
    """The adjoint of `_columns`: add each entry to the pixel of dx (N', groups, C/groups, H, W) it would be taken from."""
    count = rows.stop - rows.start
    n, maps = dx.shape[0], dx.shape[1:3]
    columns = columns.reshape(maps + window.kernel + (n, count, window.output_size[1]))
    where = Band(window, rows)
    band = array_module(dx).zeros(maps + (n,) + where.size, dx.dtype)
    for (i, j), seen in tap_views(band, window, count):
        seen += columns[:, :, i, j]
    dx[..., where.rows, :] += where.inside(band).transpose(2, 0, 1, 3, 4)


def _take_rows(dy, rows):
    """Some rows of dy (N', groups, K/groups, Ho, Wo) as a matrix per group: (groups, K/groups, N' · rows · Wo)"""
    return dy[:, :, :, rows].transpose(1, 2, 0, 3, 4).reshape(dy.shape[1:3] + (-1,))


def _put_rows(y, product, rows):
    """Write (groups, K/groups, N' · rows · Wo) to its rows of y (N', K, Ho, Wo)."""
    n, k, _, wo = y.shape
    y[:, :, rows] = product.reshape(k, n, -1, wo).transpose(1, 0, 2, 3)


def _tiles(n, channels, w, window):
    """Cut n images into [(images, rows)]: several small images, or some rows of one, within the workspace's bound."""
    ho, wo = window.output_size
    row_bytes = channels * prod(window.kernel) * wo * w.itemsize
    bound = max(TILE_BYTES, w.nbytes)
    if ho * row_bytes <= bound:
        step = max(1, min(bound // (ho * row_bytes), ceil(n / WORKERS)))
        return [(slice(i, min(i + step, n)), slice(0, ho)) for i in range(0, n, step)]
    step = max(1, bound // row_bytes)
    rows = [slice(r, min(r + step, ho)) for r in range(0, ho, step)]
    return [(slice(i, i + 1), r) for i in range(n) for r in rows]


def _parts(n, groups, per_group):
    """Cut maps into one part (images, groups, channels) for each worker, along the first axis that allows it."""
    whole = [slice(0, n), slice(0, groups), slice(0, per_group)]
    axis = next((axis for axis in range(3) if whole[axis].stop > 1), 0)
    size = whole[axis].stop
    step = ceil(size / min(WORKERS, size))
    return [tuple(whole[:axis] + [slice(i, min(i + step, size))] + whole[axis + 1 :]) for i in range(0, size, step)]
