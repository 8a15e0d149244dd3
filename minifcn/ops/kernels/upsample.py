"""Separable enlargement by kernels: first along the rows of a map, then along its columns."""

from ...backend import Source, array_module, launch

SOURCE = Source.beside(__file__)


def upsample_forward(x, line, size, stride, before):
    """y (N, C, *size).   x (N, C, H, W), line (k,), before (top, left): how much of the enlarged map is cut off"""
    y = array_module(x).ascontiguousarray(x)
    for axis in (3, 2):
        y = _along("enlarge", y, line, axis, y.shape[axis], size[axis - 2], size[axis - 2], stride, before[axis - 2])
    return y


def upsample_backward(dy, line, size, stride, before):
    """dx (N, C, *size), the size of x.   dy (N, C, Ho, Wo)"""
    dx = array_module(dy).ascontiguousarray(dy)
    for axis in (2, 3):
        enlarged = dx.shape[axis]
        dx = _along(
            "enlarge_gradient", dx, line, axis, size[axis - 2], enlarged, size[axis - 2], stride, before[axis - 2]
        )
    return dx


def _along(kernel, maps, line, axis, size, enlarged, result, stride, before):
    """Run a kernel along an axis of maps (N, C, H, W); that axis of the results has length `result`."""
    shape = (*maps.shape[:axis], result, *maps.shape[axis + 1 :])
    xp = array_module(maps)
    made, line = xp.empty(shape, maps.dtype), xp.ascontiguousarray(line)
    inner = maps[0, 0, 0].size if axis == 2 else 1
    launch(SOURCE, kernel, made.size, maps, line, made, size, enlarged, inner, line.size, stride, before)
    return made
