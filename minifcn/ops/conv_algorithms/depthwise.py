"""Depthwise convolution: one kernel a channel, so there is no sum over channels that a large matrix product could do.

The kernel's taps are taken apart. Along a row a tap is a shift to the side, along a column a shift down:

    y[i] = Σ_u  (Σ_v  w[u, v] · x shifted left by v)  shifted up by u

The inner sum is a small product for each channel, W (kh, kw) times kw shifted copies of the map; the outer one adds kh
shifted rows of what comes out. That touches memory kh + kw times instead of twice for each of the kh · kw taps, which
is what costs here. The backward passes walk the same two steps the other way.

Shapes: x (N, C, H, W), w (C, 1, kh, kw), y (N, C, Ho, Wo). Inside, N and C are one axis of maps (M, …), cut into tiles.
"""

from dataclasses import replace

from ...backend import array_module, run_tiles
from ..window import Band

TILE_BYTES = 2 << 20  # of the shifted copies: below this the threads wait for each other more than they work


def applies(window, w_shape):
    """Whether every channel has one kernel of its own."""
    return w_shape[1] == 1 and w_shape[0] == window.groups > 1


def forward(x, w, window):
    """y = the sum of shifted rows of W · (shifted copies of x), channel by channel.   -> (N, C, Ho, Wo)"""
    xp = array_module(x)
    y = xp.empty(x.shape[:2] + window.output_size, x.dtype)
    x_maps, y_maps, kernels = _maps(x), _maps(y), _kernels(w, x.shape[0])

    def tile(maps):
        shifted = _shift_columns(x_maps[maps], window)
        _add_rows(xp.matmul(kernels[maps], shifted), y_maps[maps], window)

    run_tiles(x, tile, _tiles(x_maps, window))
    return y


def input_gradient(dy, w, window):
    """dx: dy goes to each of the kh rows it came from, Wᵀ takes it to the kw columns, and those add up.   -> (N, C, H, W)

    At stride 1 that is the forward with the kernel mirrored, which moves less memory.
    """
    if window.stride == (1, 1) and (back := _mirrored(window)):
        return forward(dy, w[:, :, ::-1, ::-1], back)
    xp = array_module(dy)
    dx = xp.zeros(dy.shape[:2] + window.input_size, dy.dtype)
    dy_maps, dx_maps, transposed = _maps(dy), _maps(dx), _kernels(w, dy.shape[0]).transpose(0, 2, 1)

    def tile(maps):
        _add_columns(xp.matmul(transposed[maps], _shift_rows(dy_maps[maps], window)), dx_maps[maps], window)

    run_tiles(dy, tile, _tiles(dy_maps, window))
    return dx


def weight_gradient(x, dy, window):
    """dW[u, v] = Σ over the map of (dy shifted down by u) · (x shifted left by v), summed over images.   -> (C, 1, kh, kw)"""
    xp = array_module(x)
    n, c = x.shape[:2]
    x_maps, dy_maps = _maps(x), _maps(dy)
    dw = xp.empty((n * c,) + window.kernel, x.dtype)

    def tile(maps):
        shifted = _shift_columns(x_maps[maps], window)
        xp.matmul(_shift_rows(dy_maps[maps], window), shifted.transpose(0, 2, 1), out=dw[maps])

    run_tiles(x, tile, _tiles(x_maps, window))
    return dw.reshape((n, c, 1) + window.kernel).sum(axis=0)


def _mirrored(window):
    """The window that leads from dy back to dx at stride 1; None where a pad wider than the kernel leaves it none."""
    pad = tuple(tuple(extent - 1 - p for p in both) for extent, both in zip(window.extent, window.pad, strict=True))
    if min(min(both) for both in pad) < 0:
        return None
    return replace(window, pad=pad, input_size=window.output_size, output_size=window.input_size)


def _shift_columns(x, window):
    """kw copies of each map, the v-th one shifted left by v.   x (M, H, W) -> (M, kw, band height · Wo)"""
    band = _band(window).read(x)
    copies = array_module(x).empty((len(x), window.kernel[1], band.shape[1], window.output_size[1]), x.dtype)
    for v, columns in _taps(window, axis=1):
        copies[:, v] = band[:, :, columns]
    return copies.reshape(copies.shape[:2] + (-1,))


def _add_columns(dcopies, dx, window):
    """The adjoint of `_shift_columns`.   dcopies (M, kw, band height · Wo) is added up into dx (M, H, W)"""
    whole = _band(window)
    dcopies = dcopies.reshape(dcopies.shape[:2] + (whole.size[0], window.output_size[1]))
    band = array_module(dx).zeros(dx.shape[:1] + whole.size, dx.dtype)
    for v, columns in _taps(window, axis=1):
        band[:, :, columns] += dcopies[:, v]
    dx[:, whole.rows] = whole.inside(band)


def _add_rows(products, y, window):
    """Write to y (M, Ho, Wo) the sum of kh shifted rows of products (M, kh, band height · Wo)."""
    products = products.reshape(products.shape[:2] + (-1, window.output_size[1]))
    for u, rows in _taps(window, axis=0):
        if u == 0:
            y[...] = products[:, 0, rows]
        else:
            y += products[:, u, rows]


def _shift_rows(dy, window):
    """The adjoint of `_add_rows`.   dy (M, Ho, Wo) -> (M, kh, band height · Wo), zero where no output row looks"""
    shape = (len(dy), window.kernel[0], _band(window).size[0], window.output_size[1])
    products = array_module(dy).zeros(shape, dy.dtype)
    for u, rows in _taps(window, axis=0):
        products[:, u, rows] = dy
    return products.reshape(products.shape[:2] + (-1,))


def _band(window):
    """The padded image that the windows look at, whole."""
    return Band(window, slice(0, window.output_size[0]))


def _taps(window, axis):
    """Yield (tap, which positions of the padded image it sees) along the rows (axis 0) or the columns (axis 1)."""
    last = (window.output_size[axis] - 1) * window.stride[axis]
    for tap in range(window.kernel[axis]):
        first = tap * window.dilation[axis]
        yield tap, slice(first, first + last + 1, window.stride[axis])


def _maps(x):
    """(N, C, H, W) -> (N · C, H, W)"""
    return x.reshape((-1,) + x.shape[2:])


def _kernels(w, n):
    """The kernel of each map: w (C, 1, kh, kw) -> (N · C, kh, kw)"""
    return array_module(w).tile(w[:, 0], (n, 1, 1))


def _tiles(maps, window):
    """Cut the maps into tiles whose shifted copies fill about TILE_BYTES."""
    height, width = _band(window).size[0], window.output_size[1]
    step = max(1, TILE_BYTES // (window.kernel[1] * height * width * maps.itemsize))
    return [(slice(i, min(i + step, len(maps))),) for i in range(0, len(maps), step)]
