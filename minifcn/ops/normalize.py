"""Local response normalisation and batch normalisation."""

from typing import NamedTuple

from ..backend import array_module, has_kernels, run_tiles, threads
from ..errors import InputError
from .kernels import normalize as kernels
from .maps import channels_last, empty_maps, row_tiles
from .window import require_nchw, require_same_dtype, require_shape

TILE_BYTES = 2 << 20  # of maps: in smaller tiles threads wait for each other too often


def lrn_forward(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """y_c = x_c / s_c^β,  s_c = k + α/size · Σ x², summed over the `size` channels around c.   x, y (N, C, H, W)

    α is divided by the size, as Caffe and PyTorch do (Krizhevsky et al., 2012, section 3.3, do not, and take k = 2).
    Raises InputError unless size is at least 1.
    """
    require_same_dtype("lrn", x)
    require_nchw("lrn", x)
    if size < 1:
        raise InputError(f"lrn: expected a size of at least 1, got {size}")
    s = k + alpha / size * _sum_channels(x * x, size // 2, (size - 1) // 2)
    return x * s**-beta, (x, s, size, alpha, beta)


def lrn_backward(dy, cache):
    """dx_c = dy_c / s_c^β − 2αβ/size · x_c · Σ dy·x / s^(β+1), summed over the channels in whose window c lies."""
    x, s, size, alpha, beta = cache
    require_shape("lrn backward", "dy", dy, x.shape)
    shared = _sum_channels(dy * x * s ** (-beta - 1), (size - 1) // 2, size // 2)
    return dy * s**-beta - 2 * alpha * beta / size * x * shared


def _sum_channels(x, before, after):
    """Σ of x over the channels c − before … c + after, those that exist.   (N, C, H, W) -> the same shape"""
    total = x.copy()
    for shift in range(1, before + 1):
        total[:, shift:] += x[:, :-shift]
    for shift in range(1, after + 1):
        total[:, :-shift] += x[:, shift:]
    return total


class BatchNormCache(NamedTuple):
    """What backward needs, and the running statistics that this batch leads to (shape (C,); unchanged without `train`)."""

    x: object
    gamma: object
    mean: object
    inverse_std: object
    train: bool
    running_mean: object
    running_var: object


def batch_norm_forward(x, gamma, beta, running_mean, running_var, *, eps=1e-5, momentum=0.1, train=False):
    """y = γ · (x − mean) / √(var + eps) + β, by channel.   x, y (N, C, H, W); gamma, beta, running_mean, running_var (C,)

    With `train` mean and variance are the batch's, else the running ones ("frozen" when done while training). The cache's
    running_mean and running_var are (1 − momentum)·old + momentum·batch (the variance unbiased); the arguments are left
    as they are. Ioffe, Szegedy, 2015.
    """
    op = "batch_norm"
    require_same_dtype(op, x, gamma, beta, running_mean, running_var)
    require_nchw(op, x)
    for array in (gamma, beta, running_mean, running_var):
        require_shape(op, "one value per channel", array, x.shape[1:2])
    xp = array_module(x)
    if train:
        mean, var = _statistics(x)
        count = x.size // x.shape[1]
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * (count / max(count - 1, 1)))
    else:
        mean, var = running_mean.copy(), running_var.copy()
    inverse_std = 1 / xp.sqrt(var + eps)
    cache = BatchNormCache(x, gamma, mean, inverse_std, train, running_mean, running_var)
    scale = gamma * inverse_std
    offset = beta - mean * scale
    if has_kernels(x):
        return kernels.scale_and_shift(x, scale, offset), cache
    y = empty_maps(xp, x.shape, x.dtype)
    factor, offset = _line(scale, x), _line(offset, x)

    def tile(x, y):
        xp.multiply(x, factor, out=y)
        y += offset

    _run_lines(tile, x, y)
    return y, cache


def batch_norm_backward(dy, cache, *, out=None):
    """dy (N, C, H, W) -> (dx, dgamma, dbeta).

    With z the normalised x and g = γ·dy:  dx = (g − mean(g) − z · mean(g·z)) / std where the batch made its own
    statistics, and g / std where the running ones were used as constants. out: an array that dx may be written over, such
    as dy: that saves fetching the memory for dx. It is used if its channels lie together; kernels do without.
    """
    x = cache.x
    require_shape("batch_norm backward", "dy", dy, x.shape)
    if has_kernels(dy):
        return _by_kernels(dy, cache)
    xp = array_module(dy)
    fits = out is not None and channels_last(out).flags.c_contiguous
    dx = out if fits else empty_maps(xp, dy.shape, dy.dtype)
    centre, scale = _line(cache.mean, x), _line(cache.gamma * cache.inverse_std, x)

    def sums(x, dy, *dx):
        found = xp.stack([xp.einsum("rl,rl->l", dy, x - centre), dy.sum(axis=0)])
        if dx:  # with constant statistics that is all of dx
            xp.multiply(dy, scale, out=dx[0])
        return found

    parts = _run_lines(sums, x, dy, *([] if cache.train else [dx]))
    dgamma, dbeta = sum(part.reshape(2, -1, x.shape[1]).sum(axis=1) for part in parts)
    dgamma *= cache.inverse_std
    if not cache.train:
        return dx, dgamma, dbeta
    count = x.size // x.shape[1]
    slope = -dgamma * cache.inverse_std / count
    along, constant = _line(slope, x), _line(-slope * cache.mean - dbeta / count, x)

    def tile(x, dy, dx):
        change = x * along
        change += constant
        xp.add(dy, change, out=dx)
        dx *= scale

    _run_lines(tile, x, dy, dx)
    return dx, dgamma, dbeta


def _by_kernels(dy, cache):
    """batch_norm_backward on a device that runs kernels."""
    x, scale, count = cache.x, cache.gamma * cache.inverse_std, cache.x.size // cache.x.shape[1]
    products, dbeta = kernels.sums_of_gradients(x, dy, cache.mean)
    dgamma = products * cache.inverse_std
    if cache.train:
        slope = dgamma * cache.inverse_std / count
        dx = kernels.normalized_gradient(x, dy, cache.mean, scale, dbeta / count, slope)
    else:
        dx = kernels.scale_and_shift(dy, scale, 0 * scale)
    return dx, dgamma, dbeta


def _statistics(x):
    """The mean and the variance of each channel.   x (N, C, H, W) -> (C,), (C,)

    Each tile finds its own while it is in the cache, and then tiles are put together: a variance is the mean of the
    variances in the tiles plus the variance of their means. (Chan, Golub, LeVeque, 1979.) No long float32 sum is needed.
    """
    if has_kernels(x):
        return kernels.statistics(x)
    xp, channels = array_module(x), x.shape[1]

    def tile(x):
        pixels = x.size // channels
        mean = x.sum(axis=0).reshape(-1, channels).sum(axis=0) / pixels
        centred = x - xp.tile(mean, x.shape[1] // channels)
        return pixels, mean, xp.einsum("rl,rl->l", centred, centred).reshape(-1, channels).sum(axis=0)

    parts = _run_lines(tile, x)
    count = x.size // channels
    mean = sum(mean * (pixels / count) for pixels, mean, _ in parts)
    var = sum(squares + pixels * (own - mean) ** 2 for pixels, own, squares in parts) / count
    return mean, var


def _run_lines(task, *maps):
    """Call task on corresponding tiles of maps (N, C, H, W), each as lines (rows, W · C); return all results, in order.

    A line is a row of an image, the channels of a pixel together: long enough to be worked through at full speed.
    """
    maps = [channels_last(m) for m in maps]
    n, height, width, channels = maps[0].shape
    tiles = row_tiles(n, height, width * channels * maps[0].itemsize, TILE_BYTES, threads())
    results = [None] * len(tiles)

    def tile(number, images, rows):
        results[number] = task(*(m[images, rows].reshape(-1, width * channels) for m in maps))

    run_tiles(maps[0], tile, [(number, *part) for number, part in enumerate(tiles)])
    return results


def _line(values, x):
    """One value for each channel (C,) as a line: repeated for each pixel of a row, (W · C,)."""
    return values[None].repeat(x.shape[3], axis=0).reshape(-1)
