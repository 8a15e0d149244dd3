"""minifcn: fully convolutional networks with every forward and backward pass written out by hand."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import backend, data, errors, gradcheck, inference, layers, metrics, models, ops, weights

__version__ = "0.2.0"

__all__ = ["backend", "data", "errors", "gradcheck", "inference", "layers", "metrics", "models", "ops", "weights"]


def __getattr__(name):
    """A part of the library, loaded on first use, so that a program waits only for the parts that it uses."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)


def __dir__():
    return sorted({*globals(), *__all__})
