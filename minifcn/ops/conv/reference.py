"""Convolution as its definition says, in loops: the version to read first, and the oracle of the others' tests.

    y[n, k, i, j] = Σ_c Σ_u Σ_v  w[k, c, u, v] · x[n, c, i·stride + u·dilation − pad, j·stride + v·dilation − pad]

where x counts as zero outside the image, and c runs over the channels of k's group.
Each backward walks the same products: whatever w[k,c,u,v] multiplied in the forward collects its share of dy.
"""

from itertools import product

from ...backend import array_module
from ..activation import activate


def forward(x, w, window, bias=None, activation="none", cached=None):
    """x (N, C, H, W), w (K, C/groups, kh, kw), bias (K,) or None -> y (N, K, Ho, Wo)"""
    y = array_module(x).zeros((x.shape[0], w.shape[0]) + window.output_size, x.dtype)
    if bias is not None:
        y += bias[:, None, None]
    for n, k, i, j, c, group_c, u, v, row, column in _products(x.shape[0], w.shape, window):
        y[n, k, i, j] += w[k, c, u, v] * x[n, group_c, row, column]
    activate(y, activation)
    return y


def input_gradient(dy, w, window):
    """dy (N, K, Ho, Wo), w (K, C/groups, kh, kw) -> dx (N, C, H, W)"""
    channels = w.shape[1] * window.groups
    dx = array_module(dy).zeros((dy.shape[0], channels) + window.input_size, dy.dtype)
    for n, k, i, j, c, group_c, u, v, row, column in _products(dy.shape[0], w.shape, window):
        dx[n, group_c, row, column] += w[k, c, u, v] * dy[n, k, i, j]
    return dx


def weight_gradient(x, dy, window):
    """x (N, C, H, W), dy (N, K, Ho, Wo) -> dw (K, C/groups, kh, kw)"""
    shape = (dy.shape[1], x.shape[1] // window.groups) + window.kernel
    dw = array_module(x).zeros(shape, x.dtype)
    for n, k, i, j, c, group_c, u, v, row, column in _products(x.shape[0], shape, window):
        dw[k, c, u, v] += x[n, group_c, row, column] * dy[n, k, i, j]
    return dw


def _products(images, kernel_shape, window):
    """Every multiplication of the definition, as indices; those that would fall outside the image are left out."""
    kernels, per_group, kh, kw = kernel_shape
    height, width = window.input_size
    for n, k, i, j, u, v in product(*map(range, (images, kernels, *window.output_size, kh, kw))):
        first = k // (kernels // window.groups) * per_group  # the first input channel of k's group
        row = i * window.stride[0] + u * window.dilation[0] - window.pad[0][0]
        column = j * window.stride[1] + v * window.dilation[1] - window.pad[1][0]
        if 0 <= row < height and 0 <= column < width:
            for c in range(per_group):
                yield n, k, i, j, c, first + c, u, v, row, column
