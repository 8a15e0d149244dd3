"""Depthwise convolution: one kernel a channel, so there is no sum over channels that a large matrix product could do.

What is left is the definition itself, whole rows of an image at a time: with the channels last, what a tap sees of a row
is the row again, some pixels further on, and it is multiplied by the tap's weights for all channels, repeated for every
pixel. The taps are added up while the rows are in a core's cache.

Shapes: x (N, C, H, W), w (C, 1, kh, kw), y (N, C, Ho, Wo). Inside, channels come last, and the weights of a tap are a
line (Wo · C) or, where a stride leaves gaps between the pixels, (C,).
"""

from ...backend import array_module, cut, run_tiles, threads
from ..maps import Band, channels_last, empty_maps, row_tiles, taps, windows, zero_maps

TILE_BYTES = 1 << 18  # of results: with what they are made of, a core's own cache holds them


def applies(window, w_shape):
    """Whether every channel has one kernel of its own."""
    return w_shape[1] == 1 and w_shape[0] == window.groups > 1


def forward(x, w, window, bias=None):
    """y = Σ over taps of w[tap] · (x, a tap further on).   -> (N, C, Ho, Wo)"""
    xp = array_module(x)
    y = empty_maps(xp, (*x.shape[:2], *window.output_size), x.dtype)
    weights = _weights(w, window)
    x_last, y_last = channels_last(x), channels_last(y)

    def tile(images, rows):
        result = y_last[images, rows]
        xp.einsum("nruv...,uv...->nr...", _seen(x_last[images], window, rows), weights, out=_lines(result, window))
        if bias is not None:
            result += bias

    run_tiles(x, tile, _tiles(y, window))
    return y


def input_gradient(dy, w, window):
    """dx: each tap's share w[tap] · dy goes to where that tap looked.   -> (N, C, H, W)

    At stride 1 that is the forward of dy with the kernel mirrored, which adds up in a core's cache.
    """
    if window.stride == (1, 1):
        return forward(dy, w[:, :, ::-1, ::-1], window.mirrored())
    xp = array_module(dy)
    dx = zero_maps(xp, (*dy.shape[:2], *window.input_size), dy.dtype)
    weights = w[:, 0].transpose(1, 2, 0)
    dy_last, dx_last = channels_last(dy), channels_last(dx)

    def part(images, channels):
        # Neighbouring tiles overlap in dx, so a thread owns whole maps and walks down them.
        for some, rows in _tiles(dx[images, channels], window):
            where = Band.of(window, rows)
            dy_some, dx_some = dy_last[images][some, rows, :, channels], dx_last[images][some, :, :, channels]
            band = xp.zeros((len(dx_some), *where.size, dx_some.shape[3]), dx.dtype)
            seen = windows(band, window, rows.stop - rows.start)
            for u, v in taps(window):
                seen[:, :, :, u, v] += dy_some * weights[u, v, channels]
            dx_some[:, where.rows, where.columns] += where.inside(band)

    if len(dy) > 1:
        run_tiles(dy, part, [(images, slice(None)) for images in cut(len(dy), threads())])
    else:
        run_tiles(dy, part, [(slice(None), channels) for channels in cut(dy.shape[1], threads())])
    return dx


def weight_gradient(x, dy, window):
    """dw[tap] = Σ of dy · (x, a tap further on), over images and pixels.   -> (C, 1, kh, kw)"""
    xp = array_module(x)
    x_last, dy_last = channels_last(x), channels_last(dy)
    tiles = _tiles(dy, window)
    shares = min(threads(), len(tiles))
    sums = xp.zeros((shares, *window.kernel, window.output_size[1], dy.shape[1]), x.dtype)

    def share(worker):
        # Fixed shares, added up in a fixed order, so that the same batch gives the same bits in every run.
        for images, rows in tiles[worker::shares]:
            seen, upstream = _seen(x_last[images], window, rows), _lines(dy_last[images, rows], window)
            sums[worker] += xp.einsum("nruv...,nr...->uv...", seen, upstream).reshape(sums.shape[1:])

    run_tiles(x, share, [(worker,) for worker in range(shares)])
    return sums.sum(axis=(0, 3)).transpose(2, 0, 1)[:, None]


def _seen(x, window, rows):
    """What each tap sees of x (n, H, W, C) for output rows `rows`: (n, rows, kh, kw) lines."""
    band = Band.of(window, rows).read(x)
    return _lines(windows(band, window, rows.stop - rows.start).transpose(0, 1, 3, 4, 2, 5), window)


def _lines(rows, window):
    """Rows (…, Wo, C) as lines (…, Wo · C), where their pixels are neighbours in the image."""
    return rows.reshape(*rows.shape[:-2], -1) if window.stride[1] == 1 else rows


def _weights(w, window):
    """w (C, 1, kh, kw) by tap: a line for a whole row of pixels (kh, kw, Wo · C), or (kh, kw, 1, C) to be repeated."""
    weights = w[:, 0].transpose(1, 2, 0)[:, :, None]
    return _lines(array_module(w).tile(weights, (1, 1, window.output_size[1], 1)), window) if window.stride[1] == 1 else weights


def _tiles(maps, window):
    """The tiles of the output (or of what gives rise to it), of about TILE_BYTES."""
    row_bytes = maps.shape[1] * window.output_size[1] * maps.itemsize
    return row_tiles(len(maps), window.output_size[0], row_bytes, TILE_BYTES, threads())
