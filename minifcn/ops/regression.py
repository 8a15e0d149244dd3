"""Losses of numbers rather than classes, with a weight for each pixel: squared and absolute errors."""

from collections.abc import Callable

import numpy as np

from ..backend import Array, array_module
from ..errors import InputError
from .geometry import Cache, require_same_dtype, require_shape


def squared_error_forward(
    x: Array, target: Array, weight: Array, sums: Callable[[Array], Array] | None = None
) -> tuple[Array, Cache]:
    """loss = Σ w · (x − t)² / Σ w, summed over pixels and, in the numerator, over channels; 0 if nothing has weight.

    x, target (N, C, ...), weight (N, ...), finite and ≥ 0, of one float dtype -> (loss of shape (), cache).
    sums: if x is a part of the batch, a function that sums an array over all parts; the denominator Σ w is then the whole
    batch's, and the loss is this part's share of the batch's loss.
    Raises InputError for shapes and weights that do not fit, DtypeError for other dtypes.
    """
    share, difference = _shared("squared_error", x, target, weight, sums)
    return array_module(x).asarray((share * difference * difference).sum()), (share, difference)


def squared_error_backward(dloss: Array | float, cache: Cache) -> Array:
    """dx = dloss · 2 w (x − t) / Σ w.   dloss: a number or () -> (N, C, ...)"""
    share, difference = cache
    return (2 * dloss * share * difference).astype(difference.dtype, copy=False)


def absolute_error_forward(
    x: Array, target: Array, weight: Array, sums: Callable[[Array], Array] | None = None
) -> tuple[Array, Cache]:
    """loss = Σ w · |x − t| / Σ w, summed over pixels and, in the numerator, over channels; 0 if nothing has weight.

    Arguments, result and errors: as for `squared_error_forward`.
    """
    share, difference = _shared("absolute_error", x, target, weight, sums)
    return array_module(x).asarray((share * abs(difference)).sum()), (share, difference)


def absolute_error_backward(dloss: Array | float, cache: Cache) -> Array:
    """dx = dloss · w sign(x − t) / Σ w, 0 where x = t.   dloss: a number or () -> (N, C, ...)"""
    share, difference = cache
    return (dloss * share * array_module(share).sign(difference)).astype(difference.dtype, copy=False)


def _shared(op, x, target, weight, sums):
    """(each pixel's share of the total weight (N, 1, ...); x − target, 0 at pixels without weight, whatever their values)"""
    require_same_dtype(op, x, target, weight)
    xp = array_module(x)
    require_shape(op, "target", target, x.shape)
    require_shape(op, "weight", weight, x.shape[:1] + x.shape[2:])
    wrong = weight[~((weight >= 0) & (weight < np.inf))]
    if wrong.size:
        raise InputError(f"{op}: expected finite weights of at least 0, got {float(wrong[0])} at {wrong.size} pixels")
    total = xp.asarray(weight.sum())
    share = (weight / xp.maximum(sums(total) if sums else total, xp.finfo(x.dtype).tiny))[:, None]
    return share, xp.where(share > 0, x - target, xp.zeros_like(x))
