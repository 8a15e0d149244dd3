"""The fully connected conditional random field: labels that follow the outlines in the image.

    E(x) = Σ_i −log P_i(x_i) + Σ_{i<j} [x_i ≠ x_j] (w₁ k₁(f_i, f_j) + w₂ k₂(g_i, g_j)),   k(f_i, f_j) = exp(−|f_i − f_j|² / 2)

P: a network's probabilities. f: a pixel's position over σ_xy and colour over σ_rgb, so that near pixels of similar colour favour one
label (bilateral). g: its position alone, over a σ_xy of its own, which removes specks (spatial). Each mean-field iteration:

    Q_i(l) ← softmax over l of  log P_i(l) + Σ_m w_m Σ_j n_i k_m(i, j) n_j Q_j(l),   n_i = (Σ_j k_m(i, j))^−½

With the Potts term [x_i ≠ x_j], lowering all other labels is the same as raising one's own. n makes the sums independent of
how many pixels are alike; a pixel counts among its own neighbours. Krähenbühl and Koltun, NIPS 2011, and the C++ that they
published with it.
`reference` is the one to read first; `dense_crf` differs in how it sums over j: by a permutohedral lattice. The spatial kernel is
separable and would not need one, but that C++ uses one, and results are compared with it.
"""

from collections.abc import Sequence

import numpy as np

from ..backend import Array, array_module, to_device_of
from ..errors import InputError
from ..preprocessing import require_image
from .permutohedral import Lattice

BILATERAL = (4.0, 49.0, 5.0)  # DeepLab-LargeFOV's, found on VOC
SPATIAL = (3.0, 3.0)
_MOST = 1e6  # of a parameter, so that float32 holds the sums
LEAST = 1e-20  # of a probability, so that its logarithm exists


def reference(
    probabilities: np.ndarray, image: np.ndarray, *, iterations: int = 10, bilateral: Sequence[float] = BILATERAL,
    spatial: Sequence[float] = SPATIAL,
) -> np.ndarray:  # fmt: skip
    """`dense_crf` by sums over all pairs of pixels: N² numbers, so images of up to about 48×48. Arguments: as there, unchecked."""
    unary = np.log(np.maximum(probabilities, LEAST)).reshape(len(probabilities), -1).astype(np.float64)
    pairs = np.zeros((unary.shape[1],) * 2)
    for weight, features in _kernels(image, bilateral, spatial):
        squares = ((features[:, None] - features) ** 2).sum(axis=2)
        kernel = np.exp(-squares / 2)
        n = kernel.sum(axis=1) ** -0.5
        pairs += weight * n[:, None] * kernel * n
    q = probabilities.reshape(unary.shape)
    for _ in range(iterations):
        scores = unary + q @ pairs
        exponentials = np.exp(scores - scores.max(axis=0))
        q = exponentials / exponentials.sum(axis=0)
    return q.reshape(probabilities.shape)


def dense_crf(
    probabilities: Array, image: np.ndarray, *, iterations: int = 10, bilateral: Sequence[float] = BILATERAL,
    spatial: Sequence[float] = SPATIAL,
) -> Array:  # fmt: skip
    """The marginals Q after mean-field iterations.   probabilities (K, H, W) float, image (H, W, 3) uint8 RGB -> (K, H, W) float32

    bilateral: (w₁, σ_xy in pixels, σ_rgb in grey levels of 0 to 255), spatial: (w₂, σ_xy in pixels). The
    result is on the device of the probabilities. Raises InputError for a parameter that is not above 0, and for an image of
    another size than the probabilities'.
    """
    check_settings(iterations, bilateral, spatial)
    _check(probabilities, image)
    xp, count = array_module(probabilities), len(probabilities)
    # One row per pixel, so that the values of all labels for a vertex lie together.
    unary = xp.ascontiguousarray(probabilities.reshape(count, -1).T).astype("float32")
    unary = xp.log(xp.maximum(unary, np.float32(LEAST)))
    lattices = []
    for weight, features in _kernels(image, bilateral, spatial):
        lattice = Lattice(to_device_of(unary, features))
        sums = lattice.filter(xp.ones((len(unary), 1), "float32"))
        lattice.scale(xp.sqrt(np.float32(weight) / sums))
        lattices.append(lattice)
    q = _softmax(xp, unary.copy())
    for _ in range(iterations):
        scores = unary.copy()
        for lattice in lattices:
            scores += lattice.filter(q)
        q = _softmax(xp, scores)
    return xp.ascontiguousarray(q.T).reshape(probabilities.shape)


def _kernels(image, bilateral, spatial):
    """[(weight, features (H·W, d) float64 in standard deviations)] of the two kernels."""
    places = np.indices(image.shape[:2])[::-1].reshape(2, -1).T  # across, down
    colours = image.reshape(-1, 3) / bilateral[2]
    yield bilateral[0], np.concatenate([places / bilateral[1], colours], axis=1)
    yield spatial[0], places / spatial[1]


def _softmax(xp, scores):
    """Over the labels of each pixel.   scores (N, K), which are written over -> (N, K)"""
    scores -= scores.max(axis=1, keepdims=True)
    xp.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def check_settings(
    iterations: int = 10, bilateral: Sequence[float] = BILATERAL, spatial: Sequence[float] = SPATIAL
) -> None:
    """Raise InputError for settings that `dense_crf` does not take, which can be told before there is an image."""
    for name, given, meaning in (
        ("iterations", (iterations,), "a whole number"),
        ("bilateral", bilateral, "(weight, pixels, grey levels)"),
        ("spatial", spatial, "(weight, pixels)"),
    ):
        fits = np.shape(given) == (meaning.count(",") + 1,) and all(0 < number < _MOST for number in given)
        if not fits or not isinstance(iterations, int | np.integer):
            shown = ", ".join(map(str, given)) if np.iterable(given) else given
            raise InputError(f"dense_crf: {name}: expected {meaning}, above 0 and below {_MOST:,.0f}, got {shown}")


def _check(probabilities, image):
    require_image(image)
    if probabilities.ndim != 3 or not len(probabilities) or probabilities.shape[1:] != image.shape[:2]:
        raise InputError(
            f"dense_crf: expected probabilities (K, H, W) of the image's size {image.shape[:2]}, got {probabilities.shape}; "
            "resize one of the two"
        )
    if probabilities.dtype.kind != "f" or not ((probabilities >= 0) & (probabilities <= 1.001)).all():
        raise InputError("dense_crf: expected probabilities from 0 to 1, as floats; take the softmax of scores first")
