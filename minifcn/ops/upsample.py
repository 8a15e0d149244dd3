"""Upsampling by a fixed, separable kernel: what a frozen bilinear transposed convolution computes, as two matrix products."""

import numpy as np

from ..backend import Array, Source, array_module, constant, cut, has_kernels, launch, run_tiles, threads, tuning
from ..errors import InputError
from .geometry import Cache, Pair, pads, require_gradient, require_maps

SOURCE = Source.beside(__file__, gpu_only=True)


def upsample_forward(x: Array, kernel_1d: Array, *, stride: int, pad: Pair = 0) -> tuple[Array, Cache]:
    """y = A x Bᵀ, map by map: the transposed convolution whose kernel is kernel_1d ⊗ kernel_1d in every channel.

    x (N, C, H, W), kernel_1d (k,) -> y (N, C, Ho, Wo), Ho = (H − 1)·stride + k − top − bottom. Column i of A (Ho, H) holds
    the kernel from row i·stride − top on: where input row i stamps it. B is the same for columns. stride: integer; pad:
    integer, pair, or ((top, bottom), (left, right)). Raises InputError for shapes that do not fit.
    """
    require_maps("upsample", x, kernel_1d)
    if stride not in range(1, 1 << 16):
        raise InputError(f"upsample: expected a whole stride of at least 1, got {stride!r}")
    if kernel_1d.ndim != 1 or not kernel_1d.size:
        raise InputError(f"upsample: expected a kernel of one axis, got shape {kernel_1d.shape}")
    both = pads(pad)
    size = tuple((n - 1) * stride + kernel_1d.size - sum(p) for n, p in zip(x.shape[2:], both, strict=True))
    if min(size) < 1:
        raise InputError(
            f"upsample: a kernel {kernel_1d.shape}, stride {stride} and pad {pad} leave nothing of {x.shape[2:]}"
        )
    if has_kernels(x):
        y, before = x, (both[0][0], both[1][0])
        for axis in (3, 2):
            y = _along("upsample", y, kernel_1d, axis, size[axis - 2], stride, before[axis - 2])
        return y, (size, x.dtype, (kernel_1d, x.shape[2:], stride, before))
    sizes = zip(x.shape[2:], size, both, strict=True)
    a, b = (_matrix(kernel_1d, n, length, stride, before) for n, length, (before, _) in sizes)
    return _both_sides(a, x, b), (size, x.dtype, (a, b))


def upsample_backward(dy: Array, cache: Cache) -> Array:
    """dx = Aᵀ dy B.   dy (N, C, Ho, Wo) -> dx (N, C, H, W). The kernel is fixed and gets no gradient."""
    size, dtype, rest = cache
    require_gradient("upsample", dy, dy.shape[:2] + size, dtype)
    if has_kernels(dy):
        kernel_1d, size, stride, before = rest
        for axis in (2, 3):
            dy = _along("upsample_gradient", dy, kernel_1d, axis, size[axis - 2], stride, before[axis - 2])
        return dy
    (a, filled_a), (b, filled_b) = rest
    return _both_sides((a.T, filled_a.T), dy, (b.T, filled_b.T))


def _along(name, maps, kernel_1d, axis, length, stride, before):
    """Run one of our kernels along an axis of maps (N, C, H, W), which gets this length after `before` is cut off its start."""
    xp = array_module(maps)
    result = xp.empty((*maps.shape[:axis], length, *maps.shape[axis + 1 :]), maps.dtype)
    inner = maps.shape[3] if axis == 2 else 1
    arrays = xp.ascontiguousarray(maps), xp.ascontiguousarray(kernel_1d), result
    launch(SOURCE, name, result.size, *arrays, maps.shape[axis], length, inner, kernel_1d.size, stride, before)
    return result


def _both_sides(a, maps, b):
    """A (P, H) · maps (N, C, H, W) · Bᵀ (W, Q), map by map. -> (N, C, P, Q);  a, b: as `_matrix` gives them"""
    xp = array_module(maps)
    n, c, height, _ = maps.shape
    maps = xp.ascontiguousarray(maps).reshape(n * c, height, -1)
    y = xp.empty((n * c, len(a[0]), len(b[0])), maps.dtype)
    from_left, from_right = _blocks(*a), _blocks(*b)

    def some_maps(some):
        wide = xp.empty((some.stop - some.start, height, y.shape[2]), maps.dtype)
        for rows, columns, block in from_right:
            xp.matmul(maps[some, :, columns], block.T, out=wide[:, :, rows])
        for rows, columns, block in from_left:
            xp.matmul(block, wide[:, columns], out=y[some, rows])

    count = threads() if y.nbytes + maps.nbytes >= tuning.BYTES_WORTH_A_THREAD else 1
    run_tiles(maps, some_maps, [(some,) for some in cut(len(maps), count)])
    return y.reshape(n, c, *y.shape[1:])


def _blocks(matrix, filled, side=64):
    """The nonzero blocks of a matrix, of at most `side` rows each: [(rows, columns, block)], covering all rows in order.

    A stamp is small, so these matrices are zero except near the diagonal. filled: where they are not.
    """
    blocks = []
    for rows in cut(len(filled), -(-max(filled.shape) // side)):
        (columns,) = np.nonzero(filled[rows].any(axis=0))
        some = slice(columns[0], columns[-1] + 1) if columns.size else slice(0, 0)
        blocks.append((rows, some, matrix[rows, some]))
    return blocks


def _matrix(kernel_1d, size, length, stride, before):
    """The matrix (length, size) whose column i is the kernel, shifted down by i·stride − before; and, on the host, where its taps lie."""
    xp, geometry = array_module(kernel_1d), (kernel_1d.size, size, length, stride, before)
    with_zero = xp.concatenate([kernel_1d, xp.zeros(1, kernel_1d.dtype)])
    return with_zero[constant(kernel_1d, _taps, *geometry)], _taps(*geometry) < kernel_1d.size


def _taps(taps, size, length, stride, before):
    """Which tap lies at each position of that matrix; `taps` where there is none."""
    tap = np.arange(length)[:, None] + before - stride * np.arange(size)
    return np.where((tap >= 0) & (tap < taps), tap, taps)
