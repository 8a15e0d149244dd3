"""Local response normalisation and batch normalisation."""

from typing import NamedTuple

from ..backend import BLOCK_BYTES, array_module, run_tiles
from .window import require_nchw, require_same_dtype, require_shape


def lrn_forward(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """y_c = x_c / s_c^β,  s_c = k + α/size · Σ x², summed over the `size` channels around c.   x, y (N, C, H, W)

    α is divided by the size, as Caffe and PyTorch do (Krizhevsky et al., 2012, section 3.3, do not, and take k = 2).
    Raises ValueError unless size is at least 1.
    """
    require_same_dtype("lrn", x)
    require_nchw("lrn", x)
    if size < 1:
        raise ValueError(f"lrn: expected a size of at least 1, got {size}")
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
    y = xp.empty_like(x)
    mean, var = (running_mean.copy(), running_var.copy()) if not train else (xp.empty_like(beta), xp.empty_like(beta))
    inverse_std = xp.empty_like(beta)

    def channels(some):
        centred = x[:, some]
        if train:
            mean[some] = centred.mean(axis=(0, 2, 3))
        centred = centred - _wide(mean[some])
        if train:
            var[some] = _dot(centred, centred) / (x.size // x.shape[1])
        inverse_std[some] = 1 / xp.sqrt(var[some] + eps)
        centred *= _wide(gamma[some] * inverse_std[some])
        xp.add(centred, _wide(beta[some]), out=y[:, some])

    run_tiles(x, channels, _channel_tiles(x))
    if train:
        count = x.size // x.shape[1]
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * (var * (count / max(count - 1, 1)))
    return y, BatchNormCache(x, gamma, mean, inverse_std, train, running_mean, running_var)


def batch_norm_backward(dy, cache):
    """dy (N, C, H, W) -> (dx, dgamma, dbeta).

    With z the normalised x and g = γ·dy:  dx = (g − mean(g) − z · mean(g·z)) / std where the batch made its own
    statistics, and g / std where the running ones were used as constants.
    """
    x = cache.x
    require_shape("batch_norm backward", "dy", dy, x.shape)
    xp = array_module(dy)
    dx, dgamma, dbeta = xp.empty_like(dy), xp.empty_like(cache.gamma), xp.empty_like(cache.gamma)
    count = x.size // x.shape[1]

    def channels(some):
        d, std = dy[:, some], cache.inverse_std[some]
        centred = x[:, some] - _wide(cache.mean[some])
        dgamma[some] = _dot(d, centred) * std
        dbeta[some] = d.sum(axis=(0, 2, 3))
        scale = _wide(cache.gamma[some] * std)
        if not cache.train:
            xp.multiply(d, scale, out=dx[:, some])
            return
        centred *= _wide(dgamma[some] * std) / count
        centred += _wide(dbeta[some]) / count
        xp.multiply(d - centred, scale, out=dx[:, some])

    run_tiles(dy, channels, _channel_tiles(x))
    return dx, dgamma, dbeta


def _channel_tiles(x):
    """Cut the channels into tiles that stay in a core's cache through the steps above, each channel being a matter of its own."""
    step = max(1, BLOCK_BYTES // (x.nbytes // x.shape[1]))
    return [(slice(c, c + step),) for c in range(0, x.shape[1], step)]


def _dot(a, b):
    """Σ a·b by channel, row by row and then over the rows: one long float32 sum would lose digits.   (N, C, H, W) -> (C,)"""
    return array_module(a).einsum("nchw,nchw->nch", a, b).sum(axis=(0, 2))


def _wide(v):
    """(C,) -> (C, 1, 1), so that it meets (N, C, H, W) by channel."""
    return v[:, None, None]
