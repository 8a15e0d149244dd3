"""Operations that only move a map within its frame: crop and zero padding, each the other's adjoint."""

from ..backend import array_module
from ..errors import InputError
from .geometry import pads, pair, require_nchw, require_shape


def crop_forward(x, offset, size):
    """y = the `size` part of x that begins at `offset`.   x (N, C, H, W) -> y (N, C, height, width), a view of x.

    offset, size: integer or (height, width). Raises InputError if the part does not lie inside x.
    """
    require_nchw("crop", x)
    (top, left), (height, width) = pair("crop offset", offset, least=0), pair("crop size", size)
    if top + height > x.shape[2] or left + width > x.shape[3]:
        raise InputError(f"crop: {(height, width)} at offset {(top, left)} does not lie inside a map of {x.shape[2:]}")
    return x[:, :, top : top + height, left : left + width], (x.shape, top, left)


def crop_backward(dy, cache):
    """dx = dy in its place, zero around it; dy itself where nothing was cropped."""
    shape, top, left = cache
    if dy.shape[:2] != shape[:2]:
        raise InputError(f"crop backward: expected dy with {shape[:2]} maps, got shape {dy.shape}")
    if dy.shape == shape:
        return dy
    dx = array_module(dy).zeros(shape, dy.dtype)
    dx[:, :, top : top + dy.shape[2], left : left + dy.shape[3]] = dy
    return dx


def pad_forward(x, pad):
    """y = x with zeros around it.   x (N, C, H, W) -> y (N, C, top + H + bottom, left + W + right)

    pad: integer, (height, width), or ((top, bottom), (left, right)). Where it is 0, y is x.
    """
    require_nchw("pad", x)
    (top, bottom), (left, right) = pads(pad)
    n, c, height, width = x.shape
    if not any((top, bottom, left, right)):
        return x, (x.shape, x.shape, 0, 0)
    y = array_module(x).zeros((n, c, top + height + bottom, left + width + right), x.dtype)
    y[:, :, top : top + height, left : left + width] = x
    return y, (x.shape, y.shape, top, left)


def pad_backward(dy, cache):
    """dx = the part of dy where x was placed, a view of dy."""
    shape, padded, top, left = cache
    require_shape("pad backward", "dy", dy, padded)
    return dy[:, :, top : top + shape[2], left : left + shape[3]]
