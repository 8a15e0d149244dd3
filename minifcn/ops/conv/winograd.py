"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3).

A 3-tap filter over 6 values gives 4 results, for which the definition takes 12 products. Seen as a product of
polynomials, the convolution of the 6 values with the 3 taps takes 6 multiplications: one at each of the points
0, 1, −1, 2, −2 and infinity. The transforms to the points and back use only additions and small constants:

    one line   y = Aᵀ [ (G w) ⊙ (Bᵀ d) ]                d 6 values, w 3 taps, y 4 results
    a tile     y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A         d 6×6, w 3×3, y 4×4: 36 products for 144

Here ⊙ sums over channels too, so that each of the 36 points is a matrix product of its own, (tiles, C) · (C, K). With
a tile written as a vector of 36, the two-sided transform is one matrix, Bᵀ ⊗ Bᵀ, so it is a matrix product as well.

The backward passes are the transposes of these three steps. Whatever w multiplied collects its share of dy:

    dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G

and dx is the forward with the kernel mirrored. (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2016,
section 4. Winograd: Arithmetic Complexity of Computations, 1980.)

Rounding errors scale with the greatest value in a tile: each point is a sum over the whole tile, whose large parts cancel on
the way back. A result is off by up to 10 · eps · max|x| · Σ|w|, with the maximum over its tile of 6×6 pixels, whether or not
the kernel reaches that pixel: beside a value of 1e6, float32 results of about 1 are off by several. An infinity or a NaN
can spoil all 16 results of every tile that sees it, up to 64. im2col has neither problem.

T is a number of tiles; at the 36 points x is (36, T, C), w (36, C, K), y (36, T, K). A part is some rows of tiles of some
images. With NumPy, each thread works on a part while its values are in cache, and transforms are matrix products. With
kernels, parts come one after the other, and threads share each transform and product; on a GPU a part fills the workspace.
With few channels, on a CPU whose registers hold 16 values, one kernel does all three steps for 24 tiles at a time.
"""

import numpy as np

from ...backend import (
    Source,
    array_module,
    constant,
    cut,
    has_kernels,
    has_wide_registers,
    launch,
    run_tiles,
    runs,
    threads,
    tuning,
)
from ..activation import LIMITS, activate, bias_or_zeros
from ..maps import Band, channels_last, new_array, new_maps, to_nhwc

SOURCE = Source.beside(__file__)
TAPS_SOURCE = Source(SOURCE.path.with_name("winograd_taps.cu"), gpu_only=True)
RESULTS, VALUES = 4, 6  # a side of a tile of y, and of what it sees of x
POINTS = VALUES**2
SPARE = 16  # values
TILES = 24  # as in winograd.cu
POINT_ONE = VALUES + 1  # the point (1, 1): what is added there is added to every result of the tile

B_T = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
G = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
A_T = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def applies(window):
    """Whether a window is a plain 3×3: stride 1, no dilation, one group."""
    return (window.kernel, window.stride, window.dilation, window.groups) == ((3, 3), (1, 1), (1, 1), 1)


def forward(x, w, window, bias=None, activation="none", cached=None):
    """y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A in every tile; `cached` keeps the kernels at the points, unless they are large.   -> (N, K, Ho, Wo)"""
    kernels = None if cached is None else cached.get("winograd")
    if kernels is None:
        kernels = _transform_kernels(w)
        if cached is not None and kernels.nbytes <= tuning.KEPT_KERNELS:
            cached["winograd"] = kernels
    (top, _), (left, _) = window.pad
    return _correlate(x, kernels, (top, left), window.output_size, bias, activation)


def input_gradient(dy, w, window):
    """dx: the forward of dy with the kernels mirrored, from K channels to C, with a pad of 2 − pad.   -> (N, C, H, W)"""
    (top, _), (left, _) = window.pad
    return _correlate(dy, _transform_kernels(w, mirrored=True), (2 - top, 2 - left), window.input_size)


def weight_gradient(x, dy, window):
    """dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G.   -> (K, C, 3, 3)

    The sums are as large as the kernels at 36 points, so few large products are added up, each over as many tiles as the
    workspace holds. On a CPU the threads first share the tiles, then the points.
    """
    xp = array_module(x)
    c, k = x.shape[1], dy.shape[1]
    (top, _), (left, _) = window.pad
    x, dy = _readable(x), _readable(dy)
    if _stays_in_cache(x, k, c, window.output_size):
        return _kernels_gradient(_sum_of_tiles(x, dy, (top, left)))
    sums = xp.zeros((POINTS, k, c), x.dtype)
    if has_kernels(x):
        shares, steps, room = 1, 1, tuning.WORKSPACE // (c + 2 * k)  # cuBLAS gets a transposed copy of dy's values
    else:  # kernels share out a transform themselves
        shares, steps = 1 if runs(SOURCE, x) else threads(), 4 * threads()
        room = max(2 * tuning.TILE_BYTES, 4 * sums.nbytes) // (c + k)  # the sums are fetched for each part

    def add_part(images, rows):
        pieces, count = _split(images, rows, window.output_size, shares)
        of_x, of_dy = (_new_values(x, count, channels) for channels in (c, k))

        def transform(part, tiles):
            _to_points("values_at_points", x, part, (top, left), window.output_size, of_x, tiles)
            _to_points("gradient_at_points", dy, part, (0, 0), window.output_size, of_dy, tiles)

        def add_products(points):
            total = sums[points]
            total += xp.matmul(of_dy[points].transpose(0, 2, 1), of_x[points])

        run_tiles(x, transform, pieces)
        run_tiles(x, add_products, [(points,) for points in cut(POINTS, steps)])

    for part in parts_of(len(x), window.output_size, room // (x.itemsize * POINTS)):
        add_part(*part)
    return _kernels_gradient(sums)


def _correlate(x, kernels, pad, size, bias=None, activation="none"):
    """The convolution of x (N, C, H, W) with kernels (36, C, K) at the points, from `pad` (top, left) on.  -> (N, K, *size)"""
    xp, (_, c, k) = array_module(x), kernels.shape
    y = new_maps(x, k, size)
    y_last = channels_last(y)
    x = _readable(x)
    if _stays_in_cache(x, c, k, size):
        return _convolve(x, kernels, pad, y, bias_or_zeros(bias, x, k), activation)
    if runs(SOURCE, x):
        bias = bias_or_zeros(bias, x, k)
        room, least = (tuning.WORKSPACE, 0) if has_kernels(x) else (tuning.WINOGRAD_BYTES, tuning.WINOGRAD_TILES)
        parts = parts_of(len(x), size, max(room // ((c + k) * x.itemsize * POINTS), least))
    else:
        bound = tuning.TILE_BYTES // (max(c, k) * x.itemsize * POINTS)
        parts = parts_of(len(x), size, max(bound, tuning.WINOGRAD_TILES_A_THREAD), threads())

    def part(images, rows):
        count = (images.stop - images.start) * (rows.stop - rows.start) * tiles_across(size)
        values = _new_values(x, count, c)
        _to_points("values_at_points", x, (images, rows), pad, size, values, slice(0, count))
        results = _new_values(x, count, k)
        products = count * c * k * POINTS
        steps = 1 if has_kernels(x) or 2 * products < tuning.WORTH_A_THREAD else 4 * threads()
        some = [(points,) for points in cut(POINTS, steps)]
        run_tiles(x, lambda points: xp.matmul(values[points], kernels[points], out=results[points]), some)
        _write_results(results, y_last[images], rows, bias, activation)

    if runs(SOURCE, x):  # whose launches, and whose products, are shared out; else parts are
        for some in parts:
            part(*some)
    else:
        run_tiles(x, part, parts)
    return y


def _stays_in_cache(x, c, k, size):
    """Whether a kernel does all three steps, a few tiles at a time: for few channels, and enough tiles in a row."""
    if has_kernels(x) or not (runs(SOURCE, x) and x.dtype == np.float32 and has_wide_registers()):
        return False
    lanes, most = tuning.LANES, tuning.WINOGRAD_CHANNELS
    return c % lanes == k % (2 * lanes) == 0 and max(c, k) <= most and 2 * tiles_across(size) >= TILES


def _convolve(x, kernels, pad, y, bias, activation):
    """`_correlate` by one kernel.   x (N, H, W, C) -> y (N, K, Ho, Wo)"""
    y_last = channels_last(y)
    room, apart, where = _room_of_lines(x, y_last.shape, 4 * threads(), pad)  # a few more lines than threads
    launch(
        SOURCE,
        "convolve",
        (len(room[0]), 1, tuning.LANES),
        x,
        kernels,
        bias,
        *room,
        y_last,
        *LIMITS[activation],
        *apart,
        *where,
    )
    return y


def _sum_of_tiles(x, dy, pad):
    """Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) by one kernel.   x (N, H, W, C), dy (N, Ho, Wo, K) -> (36, K, C)"""
    room, apart, where = _room_of_lines(x, dy.shape, tuning.WINOGRAD_SHARES, pad)
    sums = array_module(x).zeros((len(room[0]), POINTS, dy.shape[3], x.shape[3]), x.dtype)
    launch(SOURCE, "add_kernel_gradients", (len(sums), 1, tuning.LANES), x, dy, *room, sums, *apart, *where)
    return sums.sum(axis=0)


def _room_of_lines(x, shape, lines, pad):
    """Share out rows of tiles among `lines`: (two arrays to work in, how far their points are apart, the sizes for the kernel).

    x (N, H, W, C); shape: (N, Ho, Wo, K) of the results."""
    (_, height, width, c), (n, rows, columns, k) = x.shape, shape
    all_rows = n * -(-rows // RESULTS)
    band = -(-all_rows // lines)
    apart = TILES * c + SPARE, TILES * k + SPARE
    room = [new_array(x, (-(-all_rows // band), POINTS * each)) for each in apart]
    return room, apart, (c, k, height, width, rows, columns, all_rows, band, *pad)


def _transform_kernels(w, mirrored=False):
    """G w Gᵀ.   w (K, C, 3, 3) -> (36, C, K), the order in which BLAS reads them fastest; mirrored: (36, K, C)"""
    xp, (k, c) = array_module(w), w.shape[:2]
    kernels = xp.empty((POINTS, k, c) if mirrored else (POINTS, c, k), w.dtype)
    if has_kernels(w):
        strides = (c, 9 * c, 9) if mirrored else (k, 9, 9 * c)
        launch(TAPS_SOURCE, "kernels_at_points", k * c, xp.ascontiguousarray(w), kernels, k * c, *strides, mirrored)
        return kernels
    w = w[:, :, ::-1, ::-1] if mirrored else w.transpose(1, 0, 2, 3)

    def some(part):
        taps = w[part].transpose(2, 3, 0, 1).reshape(9, -1)
        xp.matmul(_both_sides(w, "G"), taps, out=kernels[:, part].reshape(POINTS, -1))

    run_tiles(w, some, _shares(len(w), kernels))
    return kernels


def _kernels_gradient(sums):
    """dw = Gᵀ s G.   sums (36, K, C) -> (K, C, 3, 3)"""
    xp, (_, k, c) = array_module(sums), sums.shape
    dw = xp.empty((k, c, 3, 3), sums.dtype)
    if has_kernels(sums):
        launch(TAPS_SOURCE, "gradient_of_kernels", k * c, sums, dw, k * c)
        return dw

    def some(part):
        taps = _both_sides(sums, "G").T @ sums[:, part].reshape(POINTS, -1)
        dw[part] = taps.reshape(3, 3, -1, c).transpose(2, 3, 0, 1)

    run_tiles(sums, some, _shares(k, sums))
    return dw


def _shares(size, at_points):
    """[(part of range(size),)] for work on all values at the points: for every thread, and of about four times TILE_BYTES."""
    count = threads() if at_points.nbytes > tuning.BYTES_WORTH_A_THREAD else 1
    return [(part,) for part in cut(size, -(-at_points.nbytes // (4 * tuning.TILE_BYTES)) * count)]


def _readable(maps):
    """Maps (N, C, H, W) as they are read here: (N, H, W, C), contiguous for kernels."""
    return to_nhwc(maps) if runs(SOURCE, maps) else channels_last(maps)


def _new_values(like, tiles, channels):
    """An array (36, tiles, channels) for what lies at the points, uninitialised.

    For kernels on a CPU the points are a little further apart (see winograd.cu).
    """
    apart = tiles * channels
    if runs(SOURCE, like) and not has_kernels(like):
        apart += SPARE
    values = new_array(like, (POINTS, apart))
    return values[:, : tiles * channels].reshape(POINTS, tiles, channels)


def _to_points(name, x, part, pad, size, out, tiles):
    """What a part sees of x (N, H, W, C), at the points, in these tiles of `out` (36, T, C): its values Bᵀ d B, or a gradient's
    A d Aᵀ."""
    if runs(SOURCE, x):
        (images, rows), (top, left) = part, pad
        _, height, width, c = x.shape
        lines, across = (images.stop - images.start) * (rows.stop - rows.start), tiles_across(size)
        where = rows.stop - rows.start, across, top - RESULTS * rows.start, left
        apart = out.strides[0] // out.itemsize
        launch(
            SOURCE, name, (lines, across, c), x[images], _flat(out)[tiles.start * c :], apart, c, height, width, *where
        )
        return
    out = out[:, tiles]
    if name == "values_at_points":
        matrix, side = _both_sides(x, "B_T"), VALUES
    else:
        matrix, side = _both_sides(x, "A_T").T, RESULTS
    array_module(x).matmul(matrix, _tiles(x, part, side, pad, size), out=out.reshape(POINTS, -1))


def _write_results(values, y, rows, bias, activation):
    """Aᵀ m A, bias and activation, to some rows of tiles.   values (36, T, K), y (n, Ho, Wo, K)"""
    size, k = y.shape[1:3], y.shape[3]
    if runs(SOURCE, y):
        down, across, apart = rows.stop - rows.start, tiles_across(size), values.strides[0] // values.itemsize
        arrays = _flat(values), y, bias
        where = apart, k, *size, down, across, RESULTS * rows.start
        launch(SOURCE, "results_from_points", (len(y) * down, across, k), *arrays, *LIMITS[activation], *where)
        return
    if bias is not None:
        values[POINT_ONE] += bias
    values = array_module(y).matmul(_both_sides(y, "A_T"), values.reshape(POINTS, -1))
    _put_tiles(y, values, rows)
    activate(y[:, RESULTS * rows.start : RESULTS * rows.stop], activation)


def _flat(values):
    """The memory of an array that `_new_values` made, as one axis."""
    apart = values.strides[0] // values.itemsize
    return array_module(values).lib.stride_tricks.as_strided(values, (POINTS * apart,), (values.itemsize,))


def _tiles(x, part, side, pad, size):
    """The tiles that a part sees, 4 apart, of x (N, H, W, C), zero outside it.   -> (side², T · C), side: of a tile"""
    images, rows = part
    down, across = rows.stop - rows.start, tiles_across(size)
    reach = tuple(RESULTS * (count - 1) + side for count in (down, across))
    band = Band(RESULTS * rows.start - pad[0], -pad[1], reach, x.shape[1:3]).read(x[images])
    n, row, column, channel = band.strides
    seen = array_module(x).lib.stride_tricks.as_strided(
        band,
        (side, side, len(band), down, across, band.shape[3]),
        (row, column, n, RESULTS * row, RESULTS * column, channel),
    )
    return seen.reshape(side**2, -1)


def _put_tiles(y, tiles, rows):
    """Write tiles (16, T · K) to their rows of y (n, Ho, Wo, K), without what lies beyond its end."""
    n, height, width, k = y.shape
    tiles = tiles.reshape(RESULTS, RESULTS, n, -1, tiles_across((height, width)), k)
    for i in range(RESULTS):
        every_fourth = y[:, RESULTS * rows.start + i : RESULTS * rows.stop : RESULTS]
        for j in range(RESULTS):
            places = every_fourth[:, :, j::RESULTS]
            places[...] = tiles[i, j, :, : places.shape[1], : places.shape[2]]


def tiles_across(size):
    """The number of tiles in a row of results of `size` (height, width)."""
    return -(-size[1] // RESULTS)


def parts_of(n, size, bound, least=1):
    """Cut the results of n images into [(images, rows of tiles)] of up to `bound` tiles or one row of them; at least `least`
    parts, as far as that comes out even."""
    down, across = -(-size[0] // RESULTS), tiles_across(size)
    if down * across * 2 <= bound and n >= least:
        return [(images, slice(0, down)) for images in cut(n, max(least, -(-n // (bound // (down * across)))))]
    parts = -(-down // max(1, bound // across))
    if n * parts < 4 * least:  # few parts are shared out evenly
        parts = -(-n * parts // least) * least // n or 1
    return [(slice(i, i + 1), rows) for i in range(n) for rows in cut(down, parts)]


def _split(images, rows, size, shares):
    """Split a part into shares: [((images, rows), which of its tiles these are)], and how many tiles it has."""
    several = images.stop - images.start > 1
    whole, each = (images, rows.stop - rows.start) if several else (rows, 1)
    each *= tiles_across(size)
    pieces = []
    for part in cut(whole.stop - whole.start, shares):
        some = slice(whole.start + part.start, whole.start + part.stop)
        pieces.append(((some, rows) if several else (images, some), slice(part.start * each, part.stop * each)))
    return pieces, pieces[-1][1].stop


def _both_sides(x, name):
    """The matrix that multiplies a tile, written as a vector, by a matrix from the left and its transpose from the right."""
    return constant(x, _kron, name, x.dtype)


def _kron(name, dtype):
    matrix = {"A_T": A_T, "B_T": B_T, "G": G}[name]
    return np.kron(matrix, matrix).astype(dtype)
