"""Ways to compute the same convolution; each is a module with the same three functions.

    forward(x, w, window, bias=None, then=None) -> y
    input_gradient(dy, w, window) -> dx
    weight_gradient(x, dy, window) -> dw

x (N, C, H, W), w (K, C/groups, kh, kw), bias (K,), y and dy (N, K, Ho, Wo); then: as in conv2d_forward. A transposed convolution uses the same three
in other roles.
"""

from contextlib import contextmanager
from contextvars import ContextVar

from ...backend import array_module, has_kernels, multiplies_in_tf32
from ...errors import InputError
from . import cost, depthwise, gemm, im2col, naive, winograd

# After the modules whose work they do: they count tiles as these do.
from ..kernels import depthwise as depthwise_kernels  # isort: skip
from ..kernels import gemm as gemm_kernels  # isort: skip
from ..kernels import im2col as im2col_kernels  # isort: skip
from ..kernels import winograd as winograd_kernels  # isort: skip

_ALGORITHMS = {"naive": naive, "im2col": im2col, "gemm": gemm, "depthwise": depthwise, "winograd": winograd}
_BY_KERNELS = {depthwise: depthwise_kernels, gemm: gemm_kernels, im2col: im2col_kernels, winograd: winograd_kernels}
_asked = ContextVar("conv_algorithm", default="auto")


@contextmanager
def conv_algorithm(name):
    """Within this context every convolution runs by the named algorithm: "auto", "naive", "im2col", "winograd" or "gemm".

    "auto" chooses by shape. "winograd" serves plain 3×3 convolutions, "gemm" plain 1×1 ones and "depthwise" those with one
    kernel a channel; each of the three leaves all others to "auto".
    """
    if name not in ("auto", *_ALGORITHMS):
        raise InputError(f"conv_algorithm: expected auto, {', '.join(_ALGORITHMS)}; got {name!r}")
    token = _asked.set(name)
    try:
        yield
    finally:
        _asked.reset(token)


def forward(x, w, window, bias=None, then=None):
    """y by the algorithm that was asked for, or else by the one that costs least."""
    return _where(x, choose(window, w.shape, len(x))).forward(x, w, window, bias, then)


def input_gradient(dy, w, window):
    """dx, likewise."""
    return _where(dy, choose(window, w.shape, len(dy), "inputs")).input_gradient(dy, w, window)


def weight_gradient(x, dy, window):
    """dw, likewise. It lies in memory as w does: whoever changes w by it reads both side by side, several times."""
    w_shape = (dy.shape[1], x.shape[1] // window.groups, *window.kernel)
    dw = _where(x, choose(window, w_shape, len(x), "weights")).weight_gradient(x, dy, window)
    return array_module(x).ascontiguousarray(dw)


def _where(maps, module):
    """The module itself, or the one that does the same by kernels, where the maps are on a device that runs them.

    In TF32, unless somebody asks for it, Winograd's way is not taken: it makes ten times the error of rounded factors, and the
    products that it saves cost little there.
    """
    if not has_kernels(maps):
        return module
    if module is winograd and multiplies_in_tf32(maps) and _asked.get() != "winograd":
        module = im2col
    return _BY_KERNELS.get(module, module)


def choose(window, w_shape, images, gradient=None):
    """The module that computes convolutions of so many images over this window with kernels w (K, C/groups, kh, kw).

    gradient: "inputs" or "weights", for the passes back.
    """
    name = _asked.get()
    if name in ("naive", "im2col"):
        return _ALGORITHMS[name]
    if gemm.applies(window):
        return gemm
    if depthwise.applies(window, w_shape):
        return depthwise
    if not winograd.applies(window):
        return im2col
    outputs, inputs = w_shape[:2]
    shape = inputs, outputs, window.output_size
    if gradient == "inputs":  # the way back
        shape = outputs, inputs, window.input_size
    factor = cost.TILE_SUMS if gradient == "weights" else 1
    faster = factor * cost.winograd(images, *shape) < cost.im2col(images, *shape)
    return winograd if faster or name == "winograd" else im2col
