"""Work cut into independent tiles, which the threads of a CPU share; a GPU takes it as a whole."""

from collections.abc import Callable
from itertools import pairwise

from . import tuning
from .registry import Array, array_module, device_of, has_kernels
from .threads import sum_parts, threads


def run_tiles(array: Array, task: Callable, tiles: list) -> None:
    """Call task(*tile) for every tile on the device that `array` lives on: in threads on a CPU, in order on a GPU.

    Tasks must write to disjoint places, because no order is promised.
    """
    device_of(array).run_tiles(task, tiles)


def run_blocks(task: Callable, *arrays: Array) -> None:
    """Call task(*blocks) for corresponding blocks of arrays of one shape, spread as `run_tiles` does.

    For elementwise work. The blocks follow the order in which the first array lies in memory; their shape is unspecified.
    """
    if arrays[0].nbytes <= tuning.BLOCK_BYTES or has_kernels(arrays[0]):
        task(*arrays)
        return
    order = sorted(range(arrays[0].ndim), key=lambda axis: -arrays[0].strides[axis])
    arrays = tuple(a.transpose(order) for a in arrays)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = tuple(a.reshape(-1) for a in arrays)
    count = max(1, -(-arrays[0].nbytes // tuning.BLOCK_BYTES))
    axis = next((axis for axis, size in enumerate(arrays[0].shape) if size > 1), 0)  # the first that can be cut
    before = (slice(None),) * axis
    tiles = [tuple(a[(*before, part)] for a in arrays) for part in cut(arrays[0].shape[axis], count)]
    run_tiles(arrays[0], task, tiles)


def cut(size: int, count: int) -> list[slice]:
    """range(size) as at most `count` slices of nearly equal length, none of them empty unless size is 0."""
    step = max(1, -(-size // count))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)] or [slice(0, 0)]


def matmul(
    a: Array, b: Array, out: Array | None = None, bias: Array | None = None, then: Callable | None = None
) -> Array:
    """a @ b + bias, by blocks of rows or columns in parallel.   a (M, D), b (D, N), bias (N,) or None -> (M, N)

    It replaces BLAS's own threads, which are held to one (`cpu`). out: where to write it.
    then: finishes each block of the result, given with its part of the bias, in place, while it is still in a cache.
    """
    xp = array_module(a)
    rows, columns = len(a), b.shape[1]
    out = xp.empty((rows, columns), a.dtype) if out is None else out

    def block(place):
        xp.matmul(a[place[0]], b[:, place[1]], out=out[place])
        some_bias = None if bias is None else bias[place[1]]
        if then is not None:
            then(out[place], some_bias)
        elif bias is not None:
            out[place] += some_bias

    operations = 2 * rows * columns * a.shape[1]
    if has_kernels(a) or operations < tuning.WORTH_A_THREAD:
        count = 1
    elif rows >= columns:
        # BLAS sums in the same order for any number of rows (unless it is one, or the product is small), but not of columns.
        least = max(1, tuning.WORTH_A_THREAD // tuning.SHARES)
        count = max(1, min(threads(), rows // 2, operations // least))
        count = min(rows, count * -(-out.nbytes // (count * tuning.PIECE_BYTES)))
    else:
        count = sum_parts()
    everything = slice(None)
    if rows >= columns:  # blocks of equal length: a last one that is shorter might be small
        edges = [rows * i // count for i in range(count + 1)]
        tiles = [((slice(*ends), everything),) for ends in pairwise(edges)]
    else:
        tiles = [((everything, part),) for part in cut(columns, count)]
    run_tiles(out, block, tiles)
    return out
