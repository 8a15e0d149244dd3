"""Depthwise convolution: one kernel per channel, so there is no sum over channels for a large matrix product to do.

What remains is the definition itself, applied to whole image rows at a time. With the channels last, a tap sees the same row
shifted by some pixels; it is multiplied by the tap's weights for all channels, repeated for every pixel. The taps are summed
over one piece of a row at a time, so that the sum stays in a core's first-level cache.

A stride of s leaves gaps between the pixels that a tap sees. Every s-th column, taken by itself, forms an image without
gaps, and every s-th tap sees that image. So there is one such sum for each of the s phases.

Kernels, where they run, sum the taps of several neighbouring results at once.
"""

from itertools import product
from math import gcd, prod

from ...backend import Source, array_module, einsum_into, launch, run_tiles, runs, threads, tuning
from ..activation import LIMITS, activate, bias_or_zeros
from ..geometry import Window, conv_params
from ..maps import Band, channels_last, new_maps, row_tiles, sum_of_tiles, to_nhwc

SOURCE = Source.beside(__file__)


def applies(window, w_shape):
    """Whether every channel has one kernel of its own."""
    return w_shape[1] == 1 and w_shape[0] == window.groups > 1


def forward(x, w, window, bias=None, activation="none", cached=None):
    """y = Σ over taps of w[tap] · (x shifted by the tap).   -> (N, C, Ho, Wo)"""
    xp = array_module(x)
    y = new_maps(x, x.shape[1], window.output_size)
    x_last, y_last = channels_last(x), channels_last(y)
    width, channels = y_last.shape[2:]
    if runs(SOURCE, x):
        arrays = to_nhwc(x), _by_tap(w), y_last, bias_or_zeros(bias, x, channels)
        grid = len(x) * y_last.shape[1], width, channels
        launch(SOURCE, "depthwise", grid, *arrays, *LIMITS[activation], *conv_params(window, channels))
        return y
    together = _pixels_together(width, channels)
    weights = w[:, 0].transpose(1, 2, 0)[:, :, None].repeat(together, axis=2).reshape(*window.kernel, -1)
    if bias is not None:
        bias = bias[None].repeat(together, axis=0).reshape(-1)

    def tile(images, rows):
        result = y_last[images, rows]
        pieces = result.reshape(*result.shape[:2], -1, together * channels)
        for phase, (columns, seen) in enumerate(_phases(x_last[images], window, rows)):
            seen = seen.reshape(*seen.shape[:4], *pieces.shape[2:])
            if phase == 0:
                einsum_into(pieces, "nruvpl,uvl->nrpl", seen, weights[:, columns])
            else:
                pieces += xp.einsum("nruvpl,uvl->nrpl", seen, weights[:, columns])
        if bias is not None:
            pieces += bias
        activate(pieces, activation)

    run_tiles(x, tile, _tiles(x, window))
    return y


def input_gradient(dy, w, window):
    """dx: each tap's share w[tap] · dy goes back to where that tap read.   -> (N, C, H, W)

    At stride 1 that is the forward of dy with the kernel mirrored. At a stride of s, each set of every s-th taps reads its
    own pixels, and there dx is such a forward with these taps alone.
    """
    if runs(SOURCE, dy):
        dx = new_maps(dy, dy.shape[1], window.input_size)
        arrays = to_nhwc(dy), _by_tap(w), channels_last(dx)
        grid = len(dy) * window.input_size[0], window.input_size[1], len(w)
        launch(SOURCE, "depthwise_input_gradient", grid, *arrays, *conv_params(window, len(w)))
        return dx
    if window.stride == (1, 1):
        return forward(dy, w[:, :, ::-1, ::-1], window.mirrored())
    dx = new_maps(dy, dy.shape[1], window.input_size, zeros=True)
    for down, across in product(_phases_back(window, axis=0), _phases_back(window, axis=1)):
        (rows, columns), places, kernel, pad, dilation, size = zip(down, across, strict=True)
        back = Window(kernel, (1, 1), pad, dilation, window.groups, window.output_size, size)
        if min(size) > 0:
            dx[:, :, *places] = forward(dy, w[:, :, rows, columns][:, :, ::-1, ::-1], back)
    return dx


def weight_gradient(x, dy, window):
    """dw[tap] = Σ of dy · (x shifted by the tap), over images and pixels.   -> (C, 1, kh, kw)"""
    xp = array_module(x)
    if runs(SOURCE, x):
        n, channels, rows, _ = dy.shape
        sums = xp.empty((n * rows, *window.kernel, channels), x.dtype)
        arrays = to_nhwc(x), to_nhwc(dy), sums
        grid = n * rows, prod(window.kernel), channels
        launch(SOURCE, "depthwise_weight_gradient", grid, *arrays, *conv_params(window, channels))
        return sums.sum(axis=0).transpose(2, 0, 1)[:, None]
    x_last, dy_last = channels_last(x), channels_last(dy)
    width, channels = dy_last.shape[2:]

    def tile(out, images, rows):
        upstream = dy_last[images, rows]
        upstream = upstream.reshape(*upstream.shape[:2], -1)
        for columns, seen in _phases(x_last[images], window, rows):
            einsum_into(out[:, columns], "nruvl,nrl->uvl", seen, upstream)

    sums = sum_of_tiles(x, (*window.kernel, width * channels), tile, _tiles(x, window))
    dw = sums.reshape(*window.kernel, width, channels).sum(axis=2)
    return dw.transpose(2, 0, 1)[:, None]


def _by_tap(w):
    """w (C, 1, kh, kw) -> (kh, kw, C), contiguous"""
    return array_module(w).ascontiguousarray(w[:, 0].transpose(1, 2, 0))


def _pixels_together(width, channels):
    """The number of pixels in a piece of at least DEPTHWISE_PIECE values, such that whole pieces fill a row of `width` pixels."""
    enough = min(-(-tuning.DEPTHWISE_PIECE // channels), width)
    return next(pixels for pixels in range(enough, width + 1) if width % pixels == 0)


def _phases(x, window, rows):
    """Yield (which taps of a row, what they see of x (n, H, W, C) for output rows `rows`: (n, rows, kh, taps, Wo · C))."""
    band = Band.of(window, rows).read(x)
    (stride_down, stride), (gap_down, gap) = window.stride, window.dilation
    xp, channels = array_module(x), x.shape[3]
    for columns, first, step in _every_tap(window, axis=1):
        phase = xp.ascontiguousarray(band[:, :, first * gap % stride :: stride]).reshape(*band.shape[:2], -1)
        image, row, value = phase.strides
        kernel = window.kernel[0], len(range(window.kernel[1])[columns])
        shape = (len(x), rows.stop - rows.start, *kernel, window.output_size[1] * channels)
        strides = image, stride_down * row, gap_down * row, step * gap // stride * channels * value, value
        begin = first * gap // stride * channels
        yield columns, xp.lib.stride_tricks.as_strided(phase[:, :, begin:], shape, strides)


def _phases_back(window, axis):
    """Yield (which taps, which positions of dx they read, kernel, pad, dilation, size of the backward pass) along an axis.

    Tap first + a·step reads, for output o, position  o·s + (first + a·step)·gap − pad  =  (o + a·dilation)·s + begin,  where
    dilation = step·gap / s: so position q·s + begin collects  Σ over a of w[first + a·step] · dy[q − a·dilation].
    """
    stride, gap, (before, _) = window.stride[axis], window.dilation[axis], window.pad[axis]
    for some, first, step in _every_tap(window, axis):
        taps, dilation, begin = len(range(window.kernel[axis])[some]), step * gap // stride, first * gap - before
        reach = (taps - 1) * dilation
        q_first = max(0, -(begin // stride))
        q_end = min(window.output_size[axis] + reach, -((begin - window.input_size[axis]) // stride))
        places = slice(q_first * stride + begin, max(q_end - 1, q_first) * stride + begin + 1, stride)
        yield some, places, taps, (reach - q_first, 0), dilation, q_end - q_first


def _every_tap(window, axis):
    """Yield (slice of taps, its first, its step) for each set of taps along an axis that see the same phase of the image."""
    step = window.stride[axis] // gcd(window.stride[axis], window.dilation[axis])
    for first in range(min(step, window.kernel[axis])):
        yield slice(first, None, step), first, step


def _tiles(x, window):
    """The tiles of the output maps that see about TILE_BYTES of x (N, C, H, W)."""
    n, channels, _, width = x.shape
    row_bytes = window.stride[0] * width * channels * x.itemsize
    return row_tiles(n, window.output_size[0], row_bytes, tuning.TILE_BYTES, threads())
