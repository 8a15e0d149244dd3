"""How parameters start. Everything is drawn and computed on the host, as float32 arrays."""

import numpy as np


def he_normal(shape: tuple, rng: np.random.Generator, fan_in: int | None = None) -> np.ndarray:
    """Normal values of variance 2 / fan-in: keeps the size of activations through ReLU layers. He et al., 2015, eq. 10.

    shape: (K, C/groups, kh, kw) or (K, D); the fan-in is what one output sums over, unless given. rng: numpy.random.Generator.
    """
    fan_in = fan_in or int(np.prod(shape[1:]))
    w = np.empty(shape, np.float32)
    # Row by row: VGG16's fc6 as a whole would be 800 MB of float64, more than the network ever needs.
    for row in w:
        row[...] = rng.standard_normal(row.shape) * np.sqrt(2.0 / fan_in)
    return w


def zeros(shape: tuple) -> np.ndarray:
    """Zeros: for biases, and for score layers, so that training starts from equal scores (Long et al., 2015, section 4)."""
    return np.zeros(shape, np.float32)


def bilinear_1d(size: int) -> np.ndarray:
    """The bilinear kernel along one axis:  1 − |i − c|/f  with f = ⌊(size + 1)/2⌋, c = f − 1 for an odd size, else f − ½."""
    f = (size + 1) // 2
    c = f - 1 if size % 2 else f - 0.5
    return (1 - np.abs(np.arange(size) - c) / f).astype(np.float32)


def bilinear(channels: int, size: int) -> np.ndarray:
    """The transposed-convolution kernel that interpolates bilinearly, each channel by itself.

    -> (channels, channels, size, size): kernel_1d ⊗ kernel_1d on the diagonal, zero between different channels.
    """
    kernel_1d = bilinear_1d(size)
    w = np.zeros((channels, channels, size, size), np.float32)
    w[range(channels), range(channels)] = np.outer(kernel_1d, kernel_1d)
    return w
