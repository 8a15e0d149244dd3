"""2-D convolution (cross-correlation, as deep learning calls it) and its adjoint, the transposed convolution.

The adjoint has no arithmetic of its own. Take the convolution that leads from maps of the size of y down to maps of the
size of x: its input gradient leads from x up to y, and that is the transposed convolution's forward. Going back, dx is that
convolution's forward, and dw its weight gradient with the two maps exchanged.
"""

from ...backend import Array, array_module, has_kernels, multiplies_in_tf32, runs
from ...errors import InputError
from ..activation import require_activation
from ..geometry import (
    Cache,
    Pair,
    Window,
    pads,
    pair,
    require_gradient,
    require_nchw,
    require_same_dtype,
    require_shape,
    window,
)
from ..maps import channel_sums
from . import columns, winograd
from .choice import choose


def conv2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str = "none",
    cached: dict | None = None,
) -> tuple[Array, Cache]:
    """y[n,k,i,j] = b[k] + Σ_cuv w[k,c,u,v] · x[n, c, i·stride + u·dilation − pad, j·stride + v·dilation − pad].

    x (N, C, H, W), w (K, C/groups, kh, kw), b (K,) or None -> y (N, K, Ho, Wo), with
    Ho = ⌊(H + top + bottom − dilation·(kh − 1) − 1) / stride⌋ + 1.
    stride, dilation: integer or (height, width). pad: integer, pair, or ((top, bottom), (left, right)).
    All float32 or all float64. Raises InputError for shapes that do not fit, DtypeError for mixed dtypes.

    For inference: activation "relu" or "relu6" is applied to each part of y while it is in a cache; backward does not
    account for it. cached: a dict from a caller who promises that w does not change; the algorithm keeps what it derives from
    w there.

    3×3 convolutions of stride 1 and one group are computed by Winograd's algorithm where that is faster. Its rounding errors scale with the
    greatest value in a tile of 6×6 pixels, not with the values that a result is computed from (`conv/winograd.py`).
    """
    op = "conv2d"
    require_activation(op, activation)
    _require_kernels(op, x, w, b, groups)
    where = window(op, w.shape[2:], stride, pad, dilation, groups, x.shape[2:])
    return _forward(x, w, where, b, activation, cached), (x, w, b is not None, where)


def conv2d_backward(
    dy: Array, cache: Cache, *, inputs: bool = True, weights: bool = True
) -> tuple[Array, Array, Array]:
    """dy (N, K, Ho, Wo) -> (dx, dw, db), shaped as x, w and b; db is None without a bias.

    inputs=False leaves out dx (None), for an image whose gradient nobody needs; weights=False leaves out dw
    (None), for a kernel that is frozen.
    """
    x, w, has_bias, where = cache
    require_gradient("conv2d", dy, (x.shape[0], w.shape[0]) + where.output_size, x.dtype)
    dx = _input_gradient(dy, w, where) if inputs else None
    dw = _weight_gradient(x, dy, where) if weights else None
    db = channel_sums(dy) if has_bias else None
    return dx, dw, db


def conv_transpose2d_forward(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Pair = 1,
    pad: Pair = 0,
    output_pad: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[Array, Cache]:
    """Every x[n,c,i,j] stamps its kernel w[c] onto y at (i·stride − pad, j·stride − pad); the stamps add up.

    x (N, C, H, W), w (C, K/groups, kh, kw), b (K,) or None -> y (N, K, Ho, Wo), with
    Ho = (H − 1)·stride − top − bottom + dilation·(kh − 1) + 1 + output_pad.
    Arguments as in conv2d_forward; output_pad, smaller than the stride or the dilation, adds rows and columns at the end.
    Raises InputError for shapes that do not fit, DtypeError for mixed dtypes.
    """
    op = "conv_transpose2d"
    _require_kernels(op, x, w, b, groups, transposed=True)
    kernel, stride, dilation = w.shape[2:], pair("stride", stride), pair("dilation", dilation)
    pad, output_pad = pads(pad), pair("output_pad", output_pad, least=0)
    if any(o >= max(s, d) for o, s, d in zip(output_pad, stride, dilation, strict=True)):
        raise InputError(f"{op}: output_pad {output_pad} must be smaller than stride {stride} or dilation {dilation}")
    size = tuple(
        (n - 1) * s - sum(p) + d * (k - 1) + 1 + o
        for n, s, p, d, k, o in zip(x.shape[2:], stride, pad, dilation, kernel, output_pad, strict=True)
    )
    if min(size) < 1:
        raise InputError(f"{op}: pad {pad} leaves nothing of an input of {x.shape[2:]}")
    adjoint = Window(kernel, stride, pad, dilation, groups, input_size=size, output_size=x.shape[2:])
    y = _input_gradient(x, w, adjoint)
    if b is not None:
        y += b[:, None, None]
    return y, (x, w, b is not None, adjoint)


def conv_transpose2d_backward(dy: Array, cache: Cache, *, weights: bool = True) -> tuple[Array, Array, Array]:
    """dy (N, K, Ho, Wo) -> (dx, dw, db), shaped as x, w and b; db is None without a bias.

    weights=False leaves out dw (None), for a kernel that is frozen.
    """
    x, w, has_bias, adjoint = cache
    require_gradient("conv_transpose2d", dy, (x.shape[0], w.shape[1] * adjoint.groups) + adjoint.input_size, x.dtype)
    dx = _forward(dy, w, adjoint)
    dw = _weight_gradient(dy, x, adjoint) if weights else None
    db = channel_sums(dy) if has_bias else None
    return dx, dw, db


def _require_kernels(op, x, w, b, groups, transposed=False):
    """Raise InputError or DtypeError unless the kernels w and the bias b fit x."""
    require_same_dtype(op, x, w, b)
    if w.ndim != 4:
        axes = "(C, K/groups, kh, kw)" if transposed else "(K, C/groups, kh, kw)"
        raise InputError(f"{op}: expected w {axes}, got shape {w.shape}")
    if groups < 1 or w.shape[0] % groups:
        side = "input" if transposed else "output"
        raise InputError(f"{op}: {w.shape[0]} {side} channels cannot be split into {groups} groups")
    channels = w.shape[1] * groups, w.shape[0]
    inputs, outputs = reversed(channels) if transposed else channels
    require_nchw(op, x, inputs)
    if b is not None:
        require_shape(op, "a bias", b, (outputs,))


def _forward(x, w, where, bias=None, activation="none", cached=None):
    return _chosen(where, w.shape, x).forward(x, w, where, bias, activation, cached)


def _input_gradient(dy, w, where):
    return _chosen(where, w.shape, dy, "inputs").input_gradient(dy, w, where)


def _weight_gradient(x, dy, where):
    """dw, contiguous like w: an optimiser reads both side by side, several times."""
    w_shape = (dy.shape[1], x.shape[1] // where.groups, *where.kernel)
    return array_module(x).ascontiguousarray(_chosen(where, w_shape, x, "weights").weight_gradient(x, dy, where))


def _chosen(where, w_shape, maps, gradient=None):
    """The algorithm for the maps that a pass reads, x or dy."""
    by_channel = gradient != "inputs" and columns.applies(maps, where)
    kernels = runs(winograd.SOURCE, maps) and not has_kernels(maps)
    tf32 = multiplies_in_tf32(maps)
    return choose(where, w_shape, len(maps), gradient, tf32, kernels=kernels, by_channel=by_channel)
