"""A 1×1 convolution is a matrix product and nothing else: at each pixel, W (K, C) times the pixel's C values."""

from math import prod

from ...backend import array_module


def applies(window):
    """Whether a window is a plain 1×1: stride 1, no padding, one group."""
    return (
        window.kernel == (1, 1)
        and window.stride == (1, 1)
        and window.pad == ((0, 0), (0, 0))
        and window.groups == 1
        and window.input_size == window.output_size
    )


def forward(x, w, window):
    """y = W · x at every pixel.   x (N, C, H, W), w (K, C, 1, 1) -> (N, K, H, W)"""
    y = array_module(x).matmul(w[:, :, 0, 0], _flat(x))
    return y.reshape((x.shape[0], w.shape[0]) + window.output_size)


def input_gradient(dy, w, window):
    """dx = Wᵀ · dy at every pixel.   -> (N, C, H, W)"""
    dx = array_module(dy).matmul(w[:, :, 0, 0].T, _flat(dy))
    return dx.reshape((dy.shape[0], w.shape[1]) + window.input_size)


def weight_gradient(x, dy, window):
    """dW = Σ over images and pixels of dy · xᵀ.   -> (K, C, 1, 1)"""
    dw = array_module(x).matmul(_flat(dy), _flat(x).transpose(0, 2, 1)).sum(axis=0)
    return dw[:, :, None, None]


def _flat(maps):
    """(N, C, H, W) -> (N, C, H·W)"""
    return maps.reshape(maps.shape[:2] + (prod(maps.shape[2:]),))
