"""What follows a matrix product, in one launch."""

from ...backend import Source, launch
from ..maps import channels_last
from . import bias_or_zeros, limits

SOURCE = Source.beside(__file__)


def finish(y, bias, then):
    """Add a bias (C,) or None to maps y (N, C, H, W), channels last in memory, and do `then` to them, in place."""
    (low, high), rest = limits(then)
    if bias is not None or rest is not then:
        bias = bias_or_zeros(bias, y, y.shape[1])
        launch(SOURCE, "add_bias_and_clip", y.size, channels_last(y), bias, low, high, y.shape[1])
    if rest is not None:
        rest(y)
