"""im2col for windows that hang over the edge of small maps, as 7×7 windows do on 4×4 maps: one kernel row at a time.

Most rows of such a window see nothing but padding. So a patch covers what one kernel row sees, and all output rows share it;
each kernel row multiplies only the rows of x that it does see.
"""

from dataclasses import replace

from ...backend import array_module, cut, has_kernels, run_tiles, tuning
from ..activation import finishing
from ..maps import Band, channels_last, new_maps, windows


def applies(x, window):
    """Whether at most two thirds of the rows that windows read lie inside maps x (N, C, H, W), and an image's patches fit a tile."""
    if window.stride != (1, 1) or window.groups > 1 or has_kernels(x):
        return False
    if x[0].nbytes // x.shape[3] * window.output_size[1] * window.kernel[1] > tuning.TILE_BYTES:
        return False
    seen = sum(to.stop - to.start for _, to, _ in _kernel_rows(window))
    return 3 * seen <= 2 * window.kernel[0] * window.output_size[0]


def forward(x, w, window, bias, activation):
    """y = Σ over the kernel's rows of patches · Wᵀ.   -> (N, K, Ho, Wo)"""
    xp, k, (height, width) = array_module(x), len(w), window.output_size
    kernels = xp.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(window.kernel[0], -1, k)
    y, finish = new_maps(x, k, window.output_size), finishing(activation)

    def part(images):
        patches = _patches(channels_last(x[images]), window)
        sums = xp.zeros((height, patches.shape[1], k), x.dtype)
        for u, to, of in _kernel_rows(window):
            pixels = sums[to].reshape(-1, k)
            pixels += patches[of].reshape(-1, patches.shape[2]) @ kernels[u]
        finish(sums.reshape(-1, k), bias)
        channels_last(y)[images] = sums.reshape(height, -1, width, k).transpose(1, 0, 2, 3)

    run_tiles(x, part, _parts(x, window, 2))
    return y


def weight_gradient(x, dy, window):
    """dW of each of the kernel's rows = Σ dyᵀ · patches.   -> (K, C, kh, kw)"""
    xp, k, (height, width) = array_module(x), dy.shape[1], window.kernel
    dw = xp.zeros((height, k, width * x.shape[1]), x.dtype)
    for (images,) in _parts(x, window, 1):
        patches = _patches(channels_last(x[images]), window)
        upstream = channels_last(dy[images]).transpose(1, 0, 2, 3).reshape(dy.shape[2], -1, k)

        def add_row(u, to, of, patches=patches, upstream=upstream):
            total = dw[u]
            total += upstream[to].reshape(-1, k).T @ patches[of].reshape(-1, patches.shape[2])

        run_tiles(x, add_row, list(_kernel_rows(window)))
    return dw.reshape(height, k, width, -1).transpose(1, 3, 0, 2)


def _patches(x, window):
    """What a row of the kernel sees, row by row of x (n, H, W, C).   -> (H, n · Wo, kw · C)"""
    height, columns = x.shape[1], window.output_size[1]
    line = replace(window, kernel=(1, window.kernel[1]), pad=((0, 0), window.pad[1]), output_size=(height, columns))
    seen = windows(Band.of(line, slice(0, height)).read(x), line, height)
    return seen.transpose(1, 0, 2, 3, 4, 5).reshape(height, len(x) * columns, -1)


def _kernel_rows(window):
    """Yield (row of the kernel, the output rows for which it sees rows of x, those rows of x)."""
    for u in range(window.kernel[0]):
        shift = u * window.dilation[0] - window.pad[0][0]
        first, end = max(0, -shift), min(window.output_size[0], window.input_size[0] - shift)
        if first < end:
            yield u, slice(first, end), slice(first + shift, end + shift)


def _parts(x, window, least):
    """[(some of the images x,)], whose patches take about TILE_BYTES."""
    image_bytes = x.nbytes // len(x) * window.kernel[1]
    return [(some,) for some in cut(len(x), max(least, len(x) * image_bytes // tuning.TILE_BYTES))]
