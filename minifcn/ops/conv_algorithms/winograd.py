"""3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3).

A 3-tap filter over 6 values gives 4 results, for which the definition takes 12 products. Read the 6 values and the 3
taps as polynomials, and their convolution is a product of polynomials, which 6 multiplications do: one at each of the
points 0, 1, −1, 2, −2 and infinity. Going to the points and coming back are additions and small constants:

    one line   y = Aᵀ [ (G w) ⊙ (Bᵀ d) ]                d 6 values, w 3 taps, y 4 results
    a tile     y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A         d 6×6, w 3×3, y 4×4: 36 products for 144

Here ⊙ sums over channels too, so that each of the 36 points is a matrix product of its own, (tiles, C) · (C, K). A tile
taken as a vector of 36, the transform from both sides is one matrix, Bᵀ ⊗ Bᵀ: that is a matrix product as well.

The passes back are transposes of the same three steps. What w multiplied collects its share of dy:

    dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G

and dx is the forward with the kernel mirrored. (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2016,
section 4. Winograd: Arithmetic Complexity of Computations, 1980.)

Shapes: x (N, C, H, W), w (K, C, 3, 3), y (N, K, Ho, Wo). Inside, channels come last, T is a number of tiles, and the 36
points come first: (36, T, C) for x, (36, C, K) for w, (36, T, K) for y.
"""

import numpy as np

from ...backend import array_module, constant, cut, run_tiles, threads
from ..maps import BYTES_WORTH_A_THREAD, Band, channels_last, empty_maps

RESULTS, VALUES = 4, 6  # a side of a tile of y, and of what it sees of x
POINTS = VALUES**2
POINT_ONE = VALUES + 1  # the point (1, 1): what is added there is added to every result of the tile

B_T = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
G = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
A_T = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

TILE_BYTES = 2 << 20  # of a part's values at the 36 points: such a part stays in the cache that the cores share
LEAST_TILES = 128  # in a part: the products for fewer spend their time on fetching the kernels


def applies(window):
    """Whether a window is a plain 3×3: stride 1, no dilation, one group."""
    return (window.kernel, window.stride, window.dilation, window.groups) == ((3, 3), (1, 1), (1, 1), 1)


def forward(x, w, window, bias=None, then=None):
    """y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A in every tile.   -> (N, K, Ho, Wo)"""
    (top, _), (left, _) = window.pad
    return _correlate(x, _forward_kernels(w), (top, left), window.output_size, bias, then)


def input_gradient(dy, w, window):
    """dx: the forward of dy with the kernels mirrored, from K channels to C, the pad turned inside out.   -> (N, C, H, W)"""
    (top, _), (left, _) = window.pad
    kernels = _kernels_at_points(w[:, :, ::-1, ::-1])
    return _correlate(dy, kernels, (2 - top, 2 - left), window.input_size)


def weight_gradient(x, dy, window):
    """dw = Gᵀ [ Σ over tiles of (A dy Aᵀ) ⊙ (Bᵀ d B) ] G.   -> (K, C, 3, 3)

    The sums are as large as the kernels at 36 points, so few large products are added up, each of as many tiles as the
    workspace holds. The threads share the tiles first and the points then.
    """
    xp = array_module(x)
    n, c, k = len(x), x.shape[1], dy.shape[1]
    (top, _), (left, _) = window.pad
    x, dy = channels_last(x), channels_last(dy)
    sums = xp.zeros((POINTS, k, c), x.dtype)
    bound = max(2 * TILE_BYTES, sums.nbytes) // ((c + k) * x.itemsize * POINTS)
    for images, rows in parts_of(n, window.output_size, bound):
        pieces, count = _split(images, rows, window.output_size)
        at_points = [xp.empty((POINTS, count, m), x.dtype) for m in (c, k)]

        def transform(part, tiles, at_points=at_points):
            seen = _tiles(x, part, VALUES, (top, left), window.output_size)
            xp.matmul(_both_sides(x, "B_T"), seen, out=at_points[0][:, tiles].reshape(POINTS, -1))
            seen = _tiles(dy, part, RESULTS, (0, 0), window.output_size)
            xp.matmul(_both_sides(x, "A_T").T, seen, out=at_points[1][:, tiles].reshape(POINTS, -1))

        def add_products(points, at_points=at_points):
            of_x, of_dy = (a[points] for a in at_points)
            sums[points] += xp.matmul(of_dy.transpose(0, 2, 1), of_x)

        run_tiles(x, transform, pieces)
        run_tiles(x, add_products, [(points,) for points in cut(POINTS, 4 * threads())])
    dw = xp.empty((k, c, 3, 3), x.dtype)

    def come_back(part):
        taps = _both_sides(x, "G").T @ sums[:, part].reshape(POINTS, -1)
        dw[part] = taps.reshape(3, 3, -1, c).transpose(2, 3, 0, 1)

    run_tiles(x, come_back, [(part,) for part in cut(k, -(-sums.nbytes // TILE_BYTES))])
    return dw


def _correlate(x, kernels, pad, size, bias=None, then=None):
    """The convolution of x (N, C, H, W) with kernels (36, C, K) at the points, from `pad` (top, left) on.  -> (N, K, *size)"""
    xp = array_module(x)
    n, k = len(x), kernels.shape[2]
    y = empty_maps(xp, (n, k, *size), x.dtype)
    x, y_last = channels_last(x), channels_last(y)
    bound = TILE_BYTES // (max(kernels.shape[1:]) * x.itemsize * POINTS)

    def part(images, rows):
        # One name for what the values become, so that each step frees the memory that the next but one will use.
        values = _tiles(x, (images, rows), VALUES, pad, size)
        values = xp.matmul(_both_sides(x, "B_T"), values)
        values = xp.matmul(values.reshape(POINTS, -1, x.shape[3]), kernels)
        if bias is not None:
            values[POINT_ONE] += bias
        values = xp.matmul(_both_sides(x, "A_T"), values.reshape(POINTS, -1))
        _put_tiles(y_last[images], values, rows)
        if then is not None:
            then(y_last[images, RESULTS * rows.start : RESULTS * rows.stop])

    run_tiles(x, part, parts_of(n, size, max(bound, LEAST_TILES), threads()))
    return y


def _forward_kernels(w):
    """w (K, C, 3, 3) -> (36, C, K), the order in which BLAS reads them fastest."""
    return _kernels_at_points(w.transpose(1, 0, 2, 3))


def _kernels_at_points(w):
    """G w Gᵀ.   w (K, C, 3, 3) -> (36, K, C)"""
    xp = array_module(w)
    k, c = w.shape[:2]
    kernels = xp.empty((POINTS, k, c), w.dtype)

    def some(part):
        taps = w[part].transpose(2, 3, 0, 1).reshape(9, -1)
        xp.matmul(_both_sides(w, "G"), taps, out=kernels[:, part].reshape(POINTS, -1))

    count = threads() if w.nbytes > BYTES_WORTH_A_THREAD else 1
    run_tiles(w, some, [(part,) for part in cut(k, -(-w.nbytes // TILE_BYTES) * count)])
    return kernels


def _tiles(x, part, side, pad, size):
    """The tiles that a part of the results sees.   x (N, H, W, C), side: of a tile -> (side², T · C)

    Tiles begin 4 apart, `pad` rows and columns before the image, and go on beyond its end; what lies outside is zero.
    """
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
        lines = y[:, RESULTS * rows.start + i : RESULTS * rows.stop : RESULTS]
        for j in range(RESULTS):
            places = lines[:, :, j::RESULTS]
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


def _split(images, rows, size):
    """Split a part among the threads: [((images, rows), which of its tiles these are)], and how many tiles it has."""
    several = images.stop - images.start > 1
    whole, pieces, count = images if several else rows, [], 0
    for part in cut(whole.stop - whole.start, threads()):
        part = slice(whole.start + part.start, whole.start + part.stop)
        some, lines = (part, rows) if several else (images, part)
        tiles = (some.stop - some.start) * (lines.stop - lines.start) * tiles_across(size)
        pieces.append(((some, lines), slice(count, count + tiles)))
        count += tiles
    return pieces, count


def _both_sides(x, name):
    """The matrix that multiplies a tile, written as a vector, by a matrix from the left and its transpose from the right."""
    return constant(x, _kron, name, x.dtype)


def _kron(name, dtype):
    matrix = {"A_T": A_T, "B_T": B_T, "G": G}[name]
    return np.kron(matrix, matrix).astype(dtype)
