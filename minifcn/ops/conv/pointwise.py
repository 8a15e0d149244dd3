"""A 1×1 convolution is a matrix product and nothing else: at each pixel, W (K, C) times the pixel's C values.

With every pixel a row of a matrix, the three passes are  Y = X Wᵀ,  dX = dY W  and  dW = dYᵀ X.
"""

from ...backend import array_module, cut, has_kernels, matmul, sum_parts, tuning
from ..activation import add_bias_and_activate, finishing
from ..maps import new_maps, pixels, sum_of_tiles


def applies(window):
    """Whether a window is a plain 1×1: stride 1, no padding, one group."""
    return (
        window.kernel == (1, 1)
        and window.stride == (1, 1)
        and window.pad == ((0, 0), (0, 0))
        and window.groups == 1
        and window.input_size == window.output_size
    )


def forward(x, w, window, bias=None, activation="none", cached=None):
    """Y = X Wᵀ.   x (N, C, H, W), w (K, C, 1, 1) -> (N, K, H, W)"""
    y = new_maps(x, len(w), window.output_size)
    if has_kernels(x):
        matmul(pixels(x), w[:, :, 0, 0].T, pixels(y))
        add_bias_and_activate(y, bias, activation)
    else:
        matmul(pixels(x), w[:, :, 0, 0].T, pixels(y), bias, finishing(activation))
    return y


def input_gradient(dy, w, window):
    """dX = dY W.   -> (N, C, H, W)"""
    dx = new_maps(dy, w.shape[1], window.input_size)
    matmul(pixels(dy), w[:, :, 0, 0], pixels(dx))
    return dx


def weight_gradient(x, dy, window):
    """dW = dYᵀ X.   -> (K, C, 1, 1)

    Where there are many more pixels than weights, each thread sums over pixels of its own.
    """
    xp = array_module(x)
    x, dy = pixels(x), pixels(dy)
    shape = (dy.shape[1], x.shape[1])
    if has_kernels(x) or shape[0] * shape[1] * sum_parts() > x.size + dy.size:
        return matmul(dy.T, x, xp.empty(shape, x.dtype))[:, :, None, None]

    def tile(out, part):
        xp.matmul(dy[part].T, x[part], out=out)

    worth_it = 2 * len(x) * shape[0] * shape[1] >= tuning.WORTH_A_THREAD
    parts = [(part,) for part in cut(len(x), sum_parts() if worth_it else 1)]
    return sum_of_tiles(x, shape, tile, parts)[:, :, None, None]
