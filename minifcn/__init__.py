"""minifcn: fully convolutional networks with every forward and backward pass written out by hand."""

from . import backend, data, errors, gradcheck, inference, layers, metrics, models, ops, weights

__version__ = "0.2.0"

__all__ = ["backend", "data", "errors", "gradcheck", "inference", "layers", "metrics", "models", "ops", "weights"]
