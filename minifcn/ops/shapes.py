"""Operations that only move maps: crop and zero padding, each the other's adjoint, and concatenation."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ..backend import Array, array_module
from ..errors import InputError
from .geometry import Cache, Pair, pads, pair, require_nchw, require_same_dtype, require_shape
from .maps import new_maps


def crop_forward(x: Array, offset: Pair, size: Pair) -> tuple[Array, Cache]:
    """y = the `size` part of x that begins at `offset`.   x (N, C, H, W) -> y (N, C, height, width), a view of x.

    offset, size: integer or (height, width). Raises InputError if the part does not lie inside x.
    """
    require_nchw("crop", x)
    (top, left), (height, width) = pair("crop offset", offset, least=0), pair("crop size", size)
    if top + height > x.shape[2] or left + width > x.shape[3]:
        raise InputError(f"crop: {(height, width)} at offset {(top, left)} does not lie inside a map of {x.shape[2:]}")
    return x[:, :, top : top + height, left : left + width], (x.shape, (height, width), top, left)


def crop_backward(dy: Array, cache: Cache) -> Array:
    """dx = dy in its place, zero around it; dy itself where nothing was cropped."""
    shape, (height, width), top, left = cache
    require_shape("crop backward", "dy", dy, (*shape[:2], height, width))
    if dy.shape == shape:
        return dy
    dx = array_module(dy).zeros(shape, dy.dtype)
    dx[:, :, top : top + height, left : left + width] = dy
    return dx


def pad_forward(x: Array, pad: Pair, *, value: float = 0.0) -> tuple[Array, Cache]:
    """y = x with zeros, or another value, around it.   x (N, C, H, W) -> y (N, C, top + H + bottom, left + W + right)

    pad: integer, (height, width), or ((top, bottom), (left, right)). Where it is 0, y is x.
    """
    require_nchw("pad", x)
    (top, bottom), (left, right) = pads(pad)
    n, c, height, width = x.shape
    if not any((top, bottom, left, right)):
        return x, (x.shape, x.shape, 0, 0)
    y = array_module(x).zeros((n, c, top + height + bottom, left + width + right), x.dtype)
    if value:
        y.fill(value)
    y[:, :, top : top + height, left : left + width] = x
    return y, (x.shape, y.shape, top, left)


def pad_backward(dy: Array, cache: Cache) -> Array:
    """dx = the part of dy where x was placed, a view of dy."""
    shape, padded, top, left = cache
    require_shape("pad backward", "dy", dy, padded)
    return dy[:, :, top : top + shape[2], left : left + shape[3]]


def concat_forward(xs: Sequence[Array], *, axis: int = 1) -> tuple[Array, Cache]:
    """y = the channels of all maps, one after the other.   xs: maps (N, C_i, H, W) -> y (N, Σ C_i, H, W)

    axis: the axis along which they are joined, counted from 0, for arrays with any number of axes.
    Raises InputError for no maps, and for maps whose other axes differ; DtypeError for mixed dtypes.
    """
    if not xs:
        raise InputError("concat: expected at least one map, got none")
    require_same_dtype("concat", *xs)
    if axis not in range(xs[0].ndim):
        raise InputError(f"concat: expected an axis of 0..{xs[0].ndim - 1}, got {axis}")
    before, after = xs[0].shape[:axis], xs[0].shape[axis + 1 :]
    for x in xs:
        require_shape("concat", "maps", x, (*before, *x.shape[axis : axis + 1], *after))
    ends = list(accumulate(x.shape[axis] for x in xs))
    if axis == 1 and len(after) == 2:
        y = new_maps(xs[0], ends[-1], after)
    else:
        y = array_module(xs[0]).empty((*before, ends[-1], *after), xs[0].dtype)
    whole = (slice(None),) * axis
    for x, end in zip(xs, ends, strict=True):
        y[(*whole, slice(end - x.shape[axis], end))] = x
    return y, (whole, ends, y.shape)


def concat_backward(dy: Array, cache: Cache) -> tuple:
    """dy (N, Σ C_i, H, W) -> a tuple with the part of each map, views of dy."""
    whole, ends, shape = cache
    require_shape("concat backward", "dy", dy, shape)
    return tuple(dy[(*whole, slice(first, end))] for first, end in pairwise([0, *ends]))
