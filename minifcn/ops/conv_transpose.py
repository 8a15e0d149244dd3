"""Transposed convolution: the adjoint of a convolution, so it has no arithmetic of its own.

Take the convolution that leads from maps of the size of y down to maps of the size of x. Its input gradient leads from
x up to y: that is the forward here. Going back, dx is that convolution's forward, and dw its weight gradient with the two maps exchanged.
"""

from ..errors import InputError
from . import conv_algorithms as algorithms
from .maps import channel_sums
from .window import Window, pads, pair, require_nchw, require_same_dtype, require_shape


def conv_transpose2d_forward(x, w, b=None, *, stride=1, pad=0, output_pad=0, dilation=1, groups=1):
    """Every x[n,c,i,j] stamps its kernel w[c] onto y at (i·stride − pad, j·stride − pad); the stamps add up.

    x (N, C, H, W), w (C, K/groups, kh, kw), b (K,) or None -> y (N, K, Ho, Wo), with
    Ho = (H − 1)·stride − top − bottom + dilation·(kh − 1) + 1 + output_pad.
    Arguments as in conv2d_forward; output_pad, smaller than the stride or the dilation, adds rows and columns at the end.
    Raises InputError for shapes that do not fit, TypeError for mixed dtypes.
    """
    op = "conv_transpose2d"
    require_same_dtype(op, x, w, b)
    if w.ndim != 4:
        raise InputError(f"{op}: expected w (C, K/groups, kh, kw), got shape {w.shape}")
    require_nchw(op, x, w.shape[0])
    if groups < 1 or w.shape[0] % groups:
        raise InputError(f"{op}: {w.shape[0]} input channels cannot be split into {groups} groups")
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
    y = algorithms.input_gradient(x, w, adjoint)
    if b is not None:
        require_shape(op, "a bias", b, (w.shape[1] * groups,))
        y += b[:, None, None]
    return y, (x, w, b is not None, adjoint)


def conv_transpose2d_backward(dy, cache, *, weights=True):
    """dy (N, K, Ho, Wo) -> (dx, dw, db), shaped as x, w and b; db is None without a bias.

    weights=False leaves out dw (None), for a kernel that is frozen.
    """
    x, w, has_bias, adjoint = cache
    require_shape("conv_transpose2d backward", "dy", dy, (x.shape[0], w.shape[1] * adjoint.groups) + adjoint.input_size)
    dx = algorithms.forward(dy, w, adjoint)
    dw = algorithms.weight_gradient(dy, x, adjoint) if weights else None
    db = channel_sums(dy) if has_bias else None
    return dx, dw, db
