"""Separable enlargement by kernels: first along the rows of a map, then along its columns."""

from ...backend import Source, array_module, launch

SOURCE = Source.beside(__file__)


def upsample_forward(x, line, size, stride, before):
    """y (N, C, *size).   x (N, C, H, W), line (k,), before (top, left): how much of the enlarged map is cut off"""
    y = array_module(x).ascontiguousarray(x)
    for axis in (3, 2):
        y = _along("enlarge", y, line, axis, size[axis - 2], stride, before[axis - 2])
    return y


def upsample_backward(dy, line, size, stride, before):
    """dx (N, C, *size), the size of x.   dy (N, C, Ho, Wo)"""
    dx = array_module(dy).ascontiguousarray(dy)
    for axis in (2, 3):
        dx = _along("enlarge_gradient", dx, line, axis, size[axis - 2], stride, before[axis - 2])
    return dx


def _along(kernel, maps, line, axis, length, stride, before):
    """Run a kernel along an axis of maps (N, C, H, W), which then has that length."""
    xp = array_module(maps)
    made = xp.empty((*maps.shape[:axis], length, *maps.shape[axis + 1 :]), maps.dtype)
    inner = maps.shape[3] if axis == 2 else 1
    numbers = maps.shape[axis], length, inner, line.size, stride, before
    launch(SOURCE, kernel, made.size, maps, xp.ascontiguousarray(line), made, *numbers)
    return made
