"""Batch normalisation."""

from collections.abc import Callable
from typing import NamedTuple

from ..backend import Array, Source, array_module, launch, run_tiles, runs, threads, tuning
from ..errors import InputError
from .activation import LIMITS, PASSED, activate, require_activation
from .geometry import require_gradient, require_maps, require_shape
from .maps import channels_last, new_maps, row_tiles, to_nhwc

SOURCE = Source.beside(__file__)


class BatchNormCache(NamedTuple):
    """What backward needs, and the running statistics after this batch (shape (C,); unchanged without `train`)."""

    x: Array
    scale: Array  # y = x · scale + offset
    offset: Array
    mean: Array
    inverse_std: Array
    train: bool
    running_mean: Array
    running_var: Array
    y: Array | None = None  # the results, if this activation clipped them: they show what it let through
    activation: str = "none"
    pixels: float = 0  # values per channel in the whole batch, of which x may be a part
    sums: Callable | None = None  # sums over all parts


def batch_norm_forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
    train: bool = False,
    activation: str = "none",
    sums: Callable[[Array], Array] | None = None,
) -> tuple[Array, BatchNormCache]:
    """y = γ · (x − mean) / √(var + eps) + β, by channel.   x, y (N, C, H, W); gamma, beta, running_mean, running_var (C,)

    With `train`, mean and variance are the batch's, otherwise the running ones ("frozen" if used while training). The cache's
    running_mean and running_var are (1 − momentum)·old + momentum·batch (the variance unbiased); the arguments stay
    unchanged. sums: if other processes hold the rest of the batch, a function that sums an array over all of them; mean and
    variance are then the whole batch's, in both passes, and the gradients of gamma and beta this part's.
    Raises InputError in training on a single value per channel. Ioffe, Szegedy, 2015.
    """
    op = "batch_norm"
    require_activation(op, activation)
    require_maps(op, x, gamma, beta, running_mean, running_var)
    for array in (gamma, beta, running_mean, running_var):
        require_shape(op, "one value per channel", array, x.shape[1:2])
    eps, momentum = float(eps), float(momentum)  # NumPy floats would turn float32 into float64
    xp, count = array_module(x), x.size // x.shape[1]
    if train:
        mean, var = _statistics(x)
        if sums:
            count, mean, var = _of_all_parts(count, mean, var, running_mean, sums)
        if count == 1:
            raise InputError(
                f"{op}: one value per channel cannot train, in {x.shape}; take a larger batch or crop, or frozen statistics"
            )
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * (count / (count - 1)))
    else:
        mean, var = running_mean.copy(), running_var.copy()
    inverse_std = 1 / xp.sqrt(var + eps)
    scale = gamma * inverse_std
    offset = beta - mean * scale
    y = _scale_and_shift(x, scale, offset, activation)
    clipped = None if activation == "none" else y
    running = running_mean, running_var
    return y, BatchNormCache(x, scale, offset, mean, inverse_std, train, *running, clipped, activation, count, sums)


def batch_norm_backward(dy: Array, cache: BatchNormCache, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """dy (N, C, H, W) -> (dx, dgamma, dbeta).

    With z the normalised x and g = γ·dy:  dx = (g − mean(g) − z · mean(g·z)) / std with the batch's own
    statistics, and g / std with the running ones, which are constants. The means are over the whole batch, dgamma and dbeta
    sums over this part of it. out: an array that dx may overwrite, such as dy, which saves new memory for dx. It is used if
    it is contiguous with channels last.
    """
    x = cache.x
    require_gradient("batch_norm", dy, x.shape, x.dtype)
    if out is not None and not channels_last(out).flags.c_contiguous:
        out = None
    if runs(SOURCE, dy):
        return _backward_by_kernels(dy, cache, out)
    xp = array_module(dy)
    dx = new_maps(dy, dy.shape[1], dy.shape[2:]) if out is None else out
    centre, scale = _repeat(cache.mean, x), _repeat(cache.scale, x)

    def came_through(dy, y):
        """The part of dy that the activation lets through; y: its results, if there is one."""
        return dy * PASSED[cache.activation](*y) if y else dy

    def sums(x, dy, dx, *y):
        dy = came_through(dy, y)
        found = xp.stack([xp.einsum("rl,rl->l", dy, x - centre), dy.sum(axis=0)])
        if not cache.train:  # with constant statistics that is all of dx
            xp.multiply(dy, scale, out=dx)
        return found

    clipped = () if cache.y is None else (cache.y,)
    parts = _run_rows(sums, x, dy, dx, *clipped)
    dgamma, dbeta = sum(part.reshape(2, -1, x.shape[1]).sum(axis=1) for part in parts)
    dgamma *= cache.inverse_std
    if not cache.train:
        return dx, dgamma, dbeta
    (of_gamma, of_beta), count = _of_whole_batch(dgamma, dbeta, cache), cache.pixels
    slope = -of_gamma * cache.inverse_std / count
    along, constant = _repeat(slope, x), _repeat(-slope * cache.mean - of_beta / count, x)

    def tile(x, dy, dx, *y):
        change = x * along
        change += constant
        xp.add(came_through(dy, y), change, out=dx)
        dx *= scale

    _run_rows(tile, x, dy, dx, *clipped)
    return dx, dgamma, dbeta


def _scale_and_shift(x, scale, offset, activation):
    """y = x · scale + offset, by channel, and the activation.   x, y (N, C, H, W), scale, offset (C,)"""
    xp = array_module(x)
    y = new_maps(x, x.shape[1], x.shape[2:])
    if runs(SOURCE, x):
        grid = y.size // y.shape[1], 1, y.shape[1]
        arrays = to_nhwc(x), channels_last(y), scale, offset
        launch(SOURCE, "scale_and_shift", grid, *arrays, *LIMITS[activation], x.shape[1])
        return y
    scale, offset = _repeat(scale, x), _repeat(offset, x)

    def tile(x, y):
        xp.multiply(x, scale, out=y)
        y += offset
        activate(y, activation)

    _run_rows(tile, x, y)
    return y


def _backward_by_kernels(dy, cache, out):
    xp, x, dy_last = array_module(dy), to_nhwc(cache.x), to_nhwc(dy)
    n, height, width, channels = x.shape
    clipping = *LIMITS[cache.activation], cache.y is not None
    dx = new_maps(dy, channels, (height, width)) if out is None else out
    sums, products = (xp.empty((n * height, channels), x.dtype) for _ in range(2))
    arrays = x, dy_last, channels_last(dx), cache.mean, cache.scale, cache.offset
    sizes = not cache.train, width, channels
    launch(SOURCE, "gradients_of_rows", (n * height, 1, channels), *arrays, sums, products, *clipping, *sizes)
    dgamma, dbeta = products.sum(axis=0) * cache.inverse_std, sums.sum(axis=0)
    if cache.train:
        (of_gamma, of_beta), count = _of_whole_batch(dgamma, dbeta, cache), cache.pixels
        changes = of_beta / count, of_gamma * cache.inverse_std / count
        launch(SOURCE, "normalized_gradient", (n * height * width, 1, channels), *arrays, *changes, *clipping, channels)
    return dx, dgamma, dbeta


def _statistics(x):
    """The mean and the variance of each channel.   x (N, C, H, W) -> (C,), (C,)

    Each tile (with kernels, each row) computes its own, and then they are combined: the variance is the mean of the tiles'
    variances plus the variance of their means. (Chan, Golub, LeVeque, 1979.) This needs no long float32 sum.
    """
    xp, (n, channels, height, width) = array_module(x), x.shape
    if runs(SOURCE, x):
        means, squares = (xp.empty((n * height, channels), x.dtype) for _ in range(2))
        launch(SOURCE, "moments_of_rows", (n * height, 1, channels), to_nhwc(x), means, squares, width, channels)
        mean = means.mean(axis=0)
        between = means - mean
        return mean, (squares.sum(axis=0) / width + (between * between).sum(axis=0)) / (n * height)

    def tile(x):
        pixels = x.size // channels
        mean = x.sum(axis=0).reshape(-1, channels).sum(axis=0) / pixels
        centred = x - xp.tile(mean, x.shape[1] // channels)
        return pixels, mean, xp.einsum("rl,rl->l", centred, centred).reshape(-1, channels).sum(axis=0)

    parts = _run_rows(tile, x)
    count = x.size // channels
    mean = sum(mean * (pixels / count) for pixels, mean, _ in parts)
    var = sum(squares + pixels * (own - mean) ** 2 for pixels, own, squares in parts) / count
    return mean, var


def _of_all_parts(count, mean, var, near, sums):
    """(count, mean, var) of a whole batch from those of its parts, (C,) each; near (C,): close to the mean, equal in all parts.

    One float64 sum of counts, distances from `near` and their squares: so close to the mean, the squares keep the digits that
    a variance needs.
    """
    xp, channels = array_module(mean), len(mean)
    distance = (mean - near).astype("float64")
    own = xp.concatenate([xp.full(1, count, "float64"), count * distance, count * (var + distance * distance)])
    whole = sums(own)
    count, distance, squares = float(whole[0]), whole[1 : channels + 1] / whole[0], whole[channels + 1 :] / whole[0]
    var_of_all = xp.maximum(squares - distance * distance, 0)
    return count, near + distance.astype(mean.dtype), var_of_all.astype(var.dtype)


def _of_whole_batch(dgamma, dbeta, cache):
    """The gradients of γ and β, (C,) each, added up over all parts of the batch."""
    return cache.sums(array_module(dgamma).stack([dgamma, dbeta])) if cache.sums else (dgamma, dbeta)


def _run_rows(task, *maps):
    """Call task on corresponding tiles of maps (N, C, H, W), each as (rows, W · C); return all results, in order.

    An image row with all its channels is long enough to be processed at full speed.
    """
    maps = [channels_last(m) for m in maps]
    n, height, width, channels = maps[0].shape
    tiles = row_tiles(n, height, width * channels * maps[0].itemsize, tuning.TILE_BYTES, threads())
    results = [None] * len(tiles)

    def tile(number, images, rows):
        results[number] = task(*(m[images, rows].reshape(-1, width * channels) for m in maps))

    run_tiles(maps[0], tile, [(number, *part) for number, part in enumerate(tiles)])
    return results


def _repeat(values, x):
    """One value for each channel (C,), repeated for each pixel of a row of x: (W · C,)."""
    return values[None].repeat(x.shape[3], axis=0).reshape(-1)
