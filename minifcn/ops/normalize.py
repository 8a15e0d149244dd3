"""Local response normalisation and batch normalisation."""

from typing import NamedTuple

from ..backend import array_module
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

    normalized: object
    gamma: object
    inverse_std: object
    train: bool
    running_mean: object
    running_var: object


def batch_norm_forward(x, gamma, beta, running_mean, running_var, *, eps=1e-5, momentum=0.1, train=False):
    """y = γ · (x − mean) / √(var + eps) + β, by channel.   x, y (N, C, H, W); gamma, beta, running_mean, running_var (C,)

    With `train` mean and variance are the batch's, else the running ones. The cache's running_mean and running_var are
    (1 − momentum)·old + momentum·batch (the variance unbiased); the arguments are left as they are. Ioffe, Szegedy, 2015.
    """
    op = "batch_norm"
    require_same_dtype(op, x, gamma, beta, running_mean, running_var)
    require_nchw(op, x)
    for array in (gamma, beta, running_mean, running_var):
        require_shape(op, "one value per channel", array, x.shape[1:2])
    mean = x.mean(axis=(0, 2, 3)) if train else running_mean
    normalized = x - _wide(mean)
    var = running_var
    if train:
        count = x.size // x.shape[1]
        var = (normalized * normalized).mean(axis=(0, 2, 3))
        unbiased = var * (count / max(count - 1, 1))
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * unbiased
    inverse_std = 1 / array_module(x).sqrt(var + eps)
    normalized *= _wide(inverse_std)
    y = _wide(gamma) * normalized
    y += _wide(beta)
    return y, BatchNormCache(normalized, gamma, inverse_std, train, running_mean, running_var)


def batch_norm_backward(dy, cache):
    """dy (N, C, H, W) -> (dx, dgamma, dbeta).

    With z the normalised x and g = γ·dy:  dx = (g − mean(g) − z · mean(g·z)) / std where the batch made its own
    statistics, and g / std where the running ones were used as constants.
    """
    z = cache.normalized
    require_shape("batch_norm backward", "dy", dy, z.shape)
    dgamma, dbeta = (dy * z).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))
    scale = _wide(cache.gamma * cache.inverse_std)
    if not cache.train:
        return dy * scale, dgamma, dbeta
    count = z.size // z.shape[1]
    return scale * (dy - _wide(dbeta) / count - z * _wide(dgamma) / count), dgamma, dbeta


def _wide(v):
    """(C,) -> (C, 1, 1), so that it meets (N, C, H, W) by channel."""
    return v[:, None, None]
