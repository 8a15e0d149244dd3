"""2-D convolution (cross-correlation, as deep learning calls it)."""

from ..backend import run_tiles, threads
from ..errors import InputError
from . import conv_algorithms as algorithms
from .maps import channel_sums
from .pointwise import Clip
from .window import require_nchw, require_same_dtype, require_shape, window

A_PASS_EACH = range(1 << 22, 1 << 28)  # products of the definition


def conv2d_forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, activation="none", cached=None):
    """y[n,k,i,j] = b[k] + Σ_cuv w[k,c,u,v] · x[n, c, i·stride + u·dilation − pad, j·stride + v·dilation − pad].

    x (N, C, H, W), w (K, C/groups, kh, kw), b (K,) or None -> y (N, K, Ho, Wo), with
    Ho = ⌊(H + top + bottom − dilation·(kh − 1) − 1) / stride⌋ + 1.
    stride, dilation: integer or (height, width). pad: integer, pair, or ((top, bottom), (left, right)).
    All float32 or all float64. Raises InputError for shapes that do not fit, TypeError for mixed dtypes.
    then: for inference, what follows value by value: a function that changes an array in place. It is called once for
    each part of y, while the part is still in a cache; backward knows nothing of it.
    """
    op = "conv2d"
    require_same_dtype(op, x, w, b)
    if w.ndim != 4:
        raise InputError(f"{op}: expected w (K, C/groups, kh, kw), got shape {w.shape}")
    if groups < 1 or w.shape[0] % groups:
        raise InputError(f"{op}: {w.shape[0]} output channels cannot be split into {groups} groups")
    require_nchw(op, x, w.shape[1] * groups)
    if b is not None:
        require_shape(op, "a bias", b, w.shape[:1])
    geometry = window(op, w.shape[2:], stride, pad, dilation, groups, x.shape[2:])
    then = {"none": None, "relu": Clip(0, float("inf")), "relu6": Clip(0, 6)}[activation]
    return algorithms.forward(x, w, geometry, b, then), (x, w, b is not None, geometry)


def conv2d_backward(dy, cache, *, inputs=True, weights=True):
    """dy (N, K, Ho, Wo) -> (dx, dw, db), shaped as x, w and b; db is None without a bias.

    inputs=False leaves out dx (None), for an image that nobody asks how to change; weights=False leaves out dw
    (None), for a kernel that is frozen.
    """
    x, w, has_bias, geometry = cache
    require_shape("conv2d backward", "dy", dy, (x.shape[0], w.shape[0]) + geometry.output_size)
    dx = dw = None

    def input_pass():
        nonlocal dx
        dx = algorithms.input_gradient(dy, w, geometry)

    def weight_pass():
        nonlocal dw
        dw = algorithms.weight_gradient(x, dy, geometry)

    passes = [(input_pass,)] * inputs + [(weight_pass,)] * weights
    if len(passes) == threads() == 2 and dy.size * w[0].size in A_PASS_EACH:
        # Two threads that share a small pass spend much of it on waiting for each other; a pass each, they do not.
        run_tiles(dy, lambda run: run(), passes)
    else:
        for (run,) in passes:
            run()
    db = channel_sums(dy) if has_bias else None
    return dx, dw, db
