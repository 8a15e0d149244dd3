"""Ways to compute the same convolution; each is a module with the same three functions.

    forward(x, w, window, bias=None) -> y       input_gradient(dy, w, window) -> dx       weight_gradient(x, dy, window) -> dw

x (N, C, H, W), w (K, C/groups, kh, kw), bias (K,), y and dy (N, K, Ho, Wo). A transposed convolution uses the same three
in other roles.
"""

from contextlib import contextmanager
from contextvars import ContextVar

from . import depthwise, gemm, im2col, naive, winograd

_ALGORITHMS = {"naive": naive, "im2col": im2col, "gemm": gemm, "depthwise": depthwise, "winograd": winograd}
_asked = ContextVar("conv_algorithm", default="auto")


@contextmanager
def conv_algorithm(name):
    """Within this context every convolution runs by the named algorithm: "auto", "naive", "im2col", "gemm" or "depthwise".

    "auto" chooses by shape; "gemm" serves plain 1×1 convolutions, "depthwise" those with one kernel a channel, and both
    leave all others to "auto".
    """
    if name not in ("auto", *_ALGORITHMS):
        raise ValueError(f"conv_algorithm: expected auto, {', '.join(_ALGORITHMS)}; got {name!r}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def choose(window, w_shape):
    """The module that computes convolutions over this window with kernels w (K, C/groups, kh, kw)."""
    name = _asked.get()
    if name in ("naive", "im2col") or name == "winograd" and winograd.applies(window):
        return _ALGORITHMS[name]
    if gemm.applies(window):
        return gemm
    if depthwise.applies(window, w_shape):
        return depthwise
    return winograd if winograd.applies(window) else im2col
