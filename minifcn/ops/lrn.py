"""Local response normalisation, across channels."""

from ..backend import Array
from ..errors import InputError
from .geometry import Cache, require_gradient, require_maps


def lrn_forward(
    x: Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Cache]:
    """y_c = x_c / s_c^β,  s_c = k + α/size · Σ x², summed over the `size` channels around c.   x, y (N, C, H, W)

    α is divided by the size, as Caffe and PyTorch do (Krizhevsky et al., 2012, section 3.3, do not, and take k = 2).
    Raises InputError unless size is a whole number of at least 1.
    """
    require_maps("lrn", x)
    if size < 1 or size % 1:
        raise InputError(f"lrn: expected a whole size of at least 1, got {size}")
    size, alpha, beta, k = (
        int(size),
        float(alpha),
        float(beta),
        float(k),
    )  # NumPy numbers would turn float32 into float64
    s = k + alpha / size * _sum_channels(x * x, size // 2, (size - 1) // 2)
    return x * s**-beta, (x, s, size, alpha, beta)


def lrn_backward(dy: Array, cache: Cache) -> Array:
    """dx_c = dy_c / s_c^β − 2αβ/size · x_c · Σ dy·x / s^(β+1), summed over the channels in whose window c lies."""
    x, s, size, alpha, beta = cache
    require_gradient("lrn", dy, x.shape, x.dtype)
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
