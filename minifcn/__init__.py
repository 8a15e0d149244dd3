"""minifcn: fully convolutional networks with every forward and backward pass written out by hand."""

__version__ = "0.1.0"

from . import backend

__all__ = ["backend", "__version__"]
