"""Three ways to compute the same convolution; each is a module with the same three functions.

    forward(x, w, window) -> y          input_gradient(dy, w, window) -> dx          weight_gradient(x, dy, window) -> dw

x (N, C, H, W), w (K, C/groups, kh, kw), y and dy (N, K, Ho, Wo). A transposed convolution uses the same three in other roles.
"""

from contextlib import contextmanager
from contextvars import ContextVar

from . import gemm, im2col, naive

_ALGORITHMS = {"naive": naive, "im2col": im2col, "gemm": gemm}
_asked = ContextVar("conv_algorithm", default="auto")


@contextmanager
def conv_algorithm(name):
    """Within this context every convolution runs by the named algorithm: "auto", "naive", "im2col" or "gemm".

    "auto" chooses by shape; "gemm" serves plain 1×1 convolutions and leaves all others to "auto".
    """
    if name not in ("auto", *_ALGORITHMS):
        raise ValueError(f"conv_algorithm: expected auto, {', '.join(_ALGORITHMS)}; got {name!r}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def choose(window):
    """The module that computes convolutions over this window."""
    name = _asked.get()
    if name in ("auto", "gemm"):
        return gemm if gemm.applies(window) else im2col
    return _ALGORITHMS[name]
