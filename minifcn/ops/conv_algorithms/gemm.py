"""A 1×1 convolution is a matrix product and nothing else: at each pixel, W (K, C) times the pixel's C values.

The images of a batch are products of their own: each thread does one whole, which needs less waiting for one another
than sharing every product does. A single image is left to BLAS and its threads.
"""

from math import prod

from ...backend import array_module, run_tiles


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
    return _product(w[:, :, 0, 0], x).reshape((x.shape[0], w.shape[0]) + window.output_size)


def input_gradient(dy, w, window):
    """dx = Wᵀ · dy at every pixel.   -> (N, C, H, W)"""
    return _product(w[:, :, 0, 0].T, dy).reshape((dy.shape[0], w.shape[1]) + window.input_size)


def weight_gradient(x, dy, window):
    """dW = Σ over images and pixels of dy · xᵀ.   -> (K, C, 1, 1)"""
    xp = array_module(x)
    x, dy = _flat(x), _flat(dy)
    dw = xp.empty((len(x), dy.shape[1], x.shape[1]), x.dtype)
    run_tiles(x, lambda n: xp.matmul(dy[n], x[n].T, out=dw[n]), _images(x))
    return dw.sum(axis=0)[:, :, None, None]


def _product(matrix, maps):
    """matrix (K, C) · maps (N, C, H, W), pixel by pixel -> (N, K, H·W)"""
    xp = array_module(maps)
    maps = _flat(maps)
    y = xp.empty((len(maps), len(matrix), maps.shape[2]), maps.dtype)
    run_tiles(maps, lambda n: xp.matmul(matrix, maps[n], out=y[n]), _images(maps))
    return y


def _flat(maps):
    """(N, C, H, W) -> (N, C, H·W)"""
    return maps.reshape(maps.shape[:2] + (prod(maps.shape[2:]),))


def _images(maps):
    return [(n,) for n in range(len(maps))]
