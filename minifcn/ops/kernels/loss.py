"""Softmax cross-entropy by kernels: a thread goes through the classes of one pixel."""

from math import prod

from ...backend import Source, array_module, launch

SOURCE = Source.beside(__file__)


def softmax_cross_entropy_forward(logits, index, share):
    """(loss of each pixel (N, ...), probabilities (N, C, ...)); where the share is 0, so is the loss."""
    xp = array_module(logits)
    logits, index, share = map(xp.ascontiguousarray, (logits, index, share))
    probabilities, loss = xp.empty(logits.shape, logits.dtype), xp.empty(index.shape, logits.dtype)
    sizes = logits.shape[1], prod(index.shape[1:])
    launch(SOURCE, "softmax_cross_entropy", loss.size, logits, index, share, probabilities, loss, *sizes)
    return loss, probabilities


def softmax_cross_entropy_backward(probabilities, index, share):
    """dlogits = share · (softmax − one-hot label).   -> (N, C, ...)"""
    xp = array_module(probabilities)
    index, share = map(xp.ascontiguousarray, (index, share))
    dlogits = xp.empty(probabilities.shape, probabilities.dtype)
    sizes = probabilities.shape[1], prod(index.shape[1:])
    launch(SOURCE, "softmax_cross_entropy_gradient", dlogits.size, probabilities, index, share, dlogits, *sizes)
    return dlogits
