"""Per-pixel losses with an ignored label: softmax cross-entropy, sigmoid cross-entropy, soft Dice."""

from collections.abc import Callable
from math import prod

import numpy as np

from ..backend import Array, Source, array_module, launch, run_tiles, runs, threads, tuning
from ..errors import DtypeError, InputError
from .geometry import Cache, require_same_dtype, require_shape
from .maps import row_tiles

SOURCE = Source.beside(__file__)


def softmax_cross_entropy_forward(
    logits: Array,
    labels: Array,
    *,
    ignore: int = 255,
    weight: Array | None = None,
    pixel_weight: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, Cache]:
    """loss = −w[label] · log softmax(logits)[label] for each pixel whose label is not `ignore`.

    logits (N, C, ...) float, labels (N, ...) integers in 0 … C−1 or `ignore`, weight (C,) or None for ones; pixel_weight
    (N, ...), finite and ≥ 0, multiplies the weight of each pixel's class. Both in the logits' dtype.
    reduction: "mean" divides the sum by the total weight of the counted pixels (0 if all are ignored), "sum" (the published
    solvers' choice) does not; both give an array of shape (). "none" gives one loss per pixel, (N, ...), 0 where ignored.
    Raises InputError for shapes that do not fit and for labels outside the classes, DtypeError for non-integer labels.
    """
    op = "softmax_cross_entropy"
    require_same_dtype(op, logits, weight, pixel_weight)
    xp = array_module(logits)
    require_shape(op, "labels", labels, logits.shape[:1] + logits.shape[2:])
    index, counted = _index(op, labels, logits.shape[1], ignore)
    _require_settings(op, logits, weight, pixel_weight, reduction)
    weights = xp.ones(index.shape, logits.dtype) if weight is None else weight[index]
    if pixel_weight is not None:
        weights *= pixel_weight
    share = xp.where(counted, weights, xp.zeros_like(weights))
    if reduction == "mean":
        share /= xp.maximum(share.sum(), xp.finfo(logits.dtype).tiny)
    loss, probabilities = _pixel_losses(logits, index, share)
    if reduction != "none":
        loss = xp.asarray(loss.sum())
    return loss, (probabilities, index, share)


@np.errstate(under="ignore")
def softmax_cross_entropy_backward(dloss: Array | float, cache: Cache) -> Array:
    """dlogits = dloss · share · (softmax − one-hot label).   dloss: a number, () or (N, ...) -> (N, C, ...)"""
    probabilities, index, share = cache
    xp = array_module(probabilities)
    if getattr(dloss, "ndim", 0):
        require_shape("softmax_cross_entropy backward", "dloss", dloss, share.shape)
    share = (share * dloss).astype(probabilities.dtype, copy=False)  # if dloss is a NumPy float64
    dlogits = xp.empty_like(probabilities)
    if runs(SOURCE, probabilities):
        lines, *sizes = _lines(probabilities)
        arrays = probabilities, _whole(index, share), xp.ascontiguousarray(share), dlogits
        launch(SOURCE, "softmax_cross_entropy_gradient", (lines, sizes[0], sizes[2]), *arrays, *sizes)
        return dlogits
    classes = _classes(probabilities)

    def tile(pixels, values):
        one_hot = (index[pixels][:, None] == classes).astype(probabilities.dtype)
        xp.subtract(probabilities[values], one_hot, out=one_hot)
        of_pixel = share[pixels][:, None]
        dlogits[values] = xp.where(
            of_pixel == 0, xp.zeros_like(of_pixel), one_hot * of_pixel
        )  # also if a score is no number

    run_tiles(probabilities, tile, _tiles(probabilities))
    return dlogits


def hardest_cross_entropy_forward(
    logits: Array,
    labels: Array,
    *,
    hardest: float = 0.2,
    ignore: int = 255,
    weight: Array | None = None,
    pixel_weight: Array | None = None,
    join: Callable[[Array], tuple[Array, int]] | None = None,
) -> tuple[Array, Cache]:
    """The mean softmax cross-entropy of the hardest pixels: the share of the labelled ones that have the greatest losses.

    hardest: the share, above 0 and up to 1; the number of pixels is rounded up, and among equal losses the first pixels count.
    The sum is divided by that number, whatever the weights. join: if logits are a part of the batch, a function that gives an
    array concatenated over all parts and the start of this part; the share is then one of the whole batch's pixels, and the
    loss is what this part's pixels add to it. The other arguments are as for `softmax_cross_entropy_forward`; only pixels that
    count get a gradient. -> (loss of shape (), cache)
    """
    if not 0 < hardest <= 1:
        raise InputError(f"hardest_cross_entropy: expected a share above 0 and up to 1, got {hardest}")
    xp, given = array_module(logits), {"ignore": ignore, "weight": weight, "pixel_weight": pixel_weight}
    losses, (probabilities, index, share) = softmax_cross_entropy_forward(logits, labels, reduction="none", **given)
    order, first = xp.where(labels == ignore, -1, losses).reshape(-1), 0  # a loss is never below 0
    if join:
        order, first = join(order)
    count = int(np.ceil(hardest * int((order >= 0).sum())))
    kept = xp.zeros(order.shape, logits.dtype)
    if count:
        least = xp.partition(order, order.size - count)[order.size - count]
        above, equal = order > least, order == least
        kept[above | (equal & (xp.cumsum(equal) <= count - above.sum()))] = 1 / count
    kept = kept[first : first + share.size].reshape(share.shape)
    return xp.asarray((losses * kept).sum()), (probabilities, index, share * kept)


def hardest_cross_entropy_backward(dloss: Array | float, cache: Cache) -> Array:
    """dlogits = dloss · w (softmax − one-hot label) / (number that count), 0 elsewhere.   dloss: a number or () -> (N, C, ...)"""
    return softmax_cross_entropy_backward(dloss, cache)


@np.errstate(under="ignore")
def sigmoid_cross_entropy_forward(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    pixel_weight: Array | None = None,
    ignore: int = 255,
    reduction: str = "mean",
) -> tuple[Array, Cache]:
    """loss = −w · t · log σ(x) − (1 − t) · log(1 − σ(x)) for each logit x and its target t: one binary decision per channel.

    logits (N, K, ...) float; targets of the same shape: integers 0, 1 or `ignore`, or floats from 0 to 1 in the logits'
    dtype, none of them ignored. weight (K,) is w, the weight of a channel's positives; pixel_weight (N, ...), finite and
    ≥ 0, is the weight of a pixel in all channels; both in the logits' dtype, None for ones.
    reduction: "mean" divides the sum by the total pixel weight of the counted targets (0 if all are ignored; w does not
    enter, as in PyTorch), "sum" does not; "none" gives (N, K, ...), 0 where ignored.
    Raises InputError for shapes that do not fit and for other targets, DtypeError for other dtypes.
    """
    op = "sigmoid_cross_entropy"
    require_same_dtype(op, logits, weight, pixel_weight)
    xp = array_module(logits)
    require_shape(op, "targets", targets, logits.shape)
    if targets.dtype.kind == "f":
        require_same_dtype(op, logits, targets)
        outside = targets[~((targets >= 0) & (targets <= 1))]
        if outside.size:
            raise InputError(f"{op}: expected targets from 0 to 1, got {float(outside[0])} at {outside.size} of them")
        share = xp.ones_like(logits)
    else:
        targets, counted = _index(op, targets, 2, ignore)
        logits = xp.where(counted, logits, 0)
        share = counted.astype(logits.dtype)
    _require_settings(op, logits, weight, pixel_weight, reduction)
    if pixel_weight is not None:
        share *= pixel_weight[:, None]
    if reduction == "mean":
        share /= xp.maximum(share.sum(), xp.finfo(logits.dtype).tiny)
    targets = targets.astype(logits.dtype)
    positive, negative = share * targets, share * (1 - targets)
    if weight is not None:
        positive *= weight.reshape((-1,) + (1,) * (logits.ndim - 2))
    # −log σ(x) = max(−x, 0) + log(1 + e^−|x|), which cannot overflow; −log(1 − σ(x)) is the same for −x.
    rest = xp.log1p(xp.exp(-abs(logits)))
    loss = positive * (xp.maximum(-logits, 0) + rest) + negative * (xp.maximum(logits, 0) + rest)
    if reduction != "none":
        loss = xp.asarray(loss.sum())
    return loss, (logits, positive, negative)


@np.errstate(under="ignore")
def sigmoid_cross_entropy_backward(dloss: Array | float, cache: Cache) -> Array:
    """dlogits = dloss · (negative · σ(x) − positive · (1 − σ(x))).   dloss: a number, () or (N, K, ...) -> (N, K, ...)"""
    logits, positive, negative = cache
    xp = array_module(logits)
    if getattr(dloss, "ndim", 0):
        require_shape("sigmoid_cross_entropy backward", "dloss", dloss, logits.shape)
    sigmoid = (1 + xp.tanh(logits / 2)) / 2
    return (dloss * (negative * sigmoid - positive * (1 - sigmoid))).astype(logits.dtype, copy=False)


@np.errstate(under="ignore")
def dice_forward(
    logits: Array,
    labels: Array,
    *,
    ignore: int = 255,
    smooth: float = 0.0,
    reduction: str = "mean",
    sums: Callable[[Array], Array] | None = None,
) -> tuple[Array, Cache]:
    """The soft Dice loss of each class, 1 − (2 Σ p q + smooth) / (Σ p + Σ q + smooth), over the batch's pixels whose label is not `ignore`.

    p = softmax(logits) of the class, q = 1 where it is the label, else 0. logits (N, C, ...) float, labels (N, ...) integers
    in 0 … C−1 or `ignore`. reduction: "mean" and "sum" are over the classes in labels, shape () (0 if all are ignored);
    "none" gives (C,). smooth ≥ 0 steadies classes with few pixels. sums: if logits are a part of the batch, a function that
    sums an array over all parts; the loss is then the whole batch's.
    A class that is not in labels overlaps with nothing, whatever is predicted: its loss is 1, without a gradient, and "mean"
    and "sum" leave it out. Pixels wrongly predicted as that class reduce the overlap of the classes in labels.
    The denominator is without squares, as in Sudre et al. 2017, https://arxiv.org/abs/1707.03237; Milletari et al. 2016
    (V-Net), https://arxiv.org/abs/1606.04797, have Σ p² + Σ q².
    Raises InputError for shapes that do not fit and for labels outside the classes, DtypeError for non-integer labels.
    """
    op = "dice"
    require_same_dtype(op, logits)
    xp = array_module(logits)
    require_shape(op, "labels", labels, logits.shape[:1] + logits.shape[2:])
    _require_settings(op, logits, None, None, reduction)
    if not smooth >= 0:
        raise InputError(f"{op}: expected smooth of at least 0, got {smooth}")
    smooth = float(smooth)  # a NumPy float would turn float32 into float64
    index, counted = _index(op, labels, logits.shape[1], ignore)
    logits = xp.where(counted[:, None], logits, 0)
    _, probabilities = _pixel_losses(logits, index, counted.astype(logits.dtype))
    probabilities *= counted[:, None]
    is_label = counted[:, None] & (index[:, None] == _classes(logits))
    pixels = (0, *range(2, logits.ndim))
    area = is_label.sum(axis=pixels).astype(logits.dtype)
    both, predicted = (probabilities * is_label).sum(axis=pixels), probabilities.sum(axis=pixels)
    if sums:
        area, both, predicted = sums(xp.stack([area, both, predicted]))
    total = xp.maximum(predicted + area + smooth, xp.finfo(logits.dtype).tiny)
    present = (area > 0).astype(logits.dtype)
    overlap = present * (2 * both + smooth) / total
    share = present / xp.maximum(present.sum(), 1) if reduction == "mean" else present
    loss = 1 - overlap if reduction == "none" else xp.asarray((share * (1 - overlap)).sum())
    return loss, (probabilities, is_label, overlap, share / total)


@np.errstate(under="ignore")
def dice_backward(dloss: Array | float, cache: Cache) -> Array:
    """dp = dloss · share · (overlap − 2 q) / total; dlogits = p · (dp − Σ p dp), the sum over the classes.

    dloss: a number, () or (C,) -> (N, C, ...)
    """
    probabilities, is_label, overlap, scale = cache
    if getattr(dloss, "ndim", 0):
        require_shape("dice backward", "dloss", dloss, scale.shape)
    scale = (dloss * scale).astype(probabilities.dtype, copy=False)
    where_label, elsewhere = (
        of_class.reshape((-1,) + (1,) * (is_label.ndim - 2)) for of_class in (scale * (overlap - 2), scale * overlap)
    )
    dp = array_module(probabilities).where(is_label, where_label, elsewhere)
    dp -= (probabilities * dp).sum(axis=1, keepdims=True)
    dp *= probabilities
    return dp


def _classes(logits):
    """The class numbers, shaped to lie along the class axis of logits (N, C, ...)."""
    return array_module(logits).arange(logits.shape[1]).reshape((-1,) + (1,) * (logits.ndim - 2))


def _index(op, labels, classes, ignore):
    """(labels as int64, 0 where ignored, and where they are not ignored). Raises InputError for labels outside the classes.

    The ignored label is replaced before any gather: an index of 255 would wrap around silently on a GPU.
    """
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"{op}: expected integer labels, got {labels.dtype}")
    counted = labels != ignore
    outside = counted & ((labels < 0) | (labels >= classes))
    if outside.any():
        values = sorted({int(v) for v in labels[outside]})
        raise InputError(
            f"{op}: expected labels 0..{classes - 1} or {ignore}, got {values[:5]} at {int(outside.sum())} pixels"
        )
    return array_module(labels).where(counted, labels, 0).astype("int64"), counted


def _require_settings(op, logits, weight, pixel_weight, reduction):
    """Raise InputError for weights that do not fit logits (N, C, ...), and for an unknown reduction."""
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"{op}: expected reduction mean, sum or none; got {reduction!r}")
    if weight is not None:
        require_shape(op, "class weights", weight, logits.shape[1:2])
        _require_weights(op, weight, "class")
    if pixel_weight is not None:
        require_shape(op, "pixel weights", pixel_weight, logits.shape[:1] + logits.shape[2:])
        _require_weights(op, pixel_weight, "pixel")


def _require_weights(op, weights, of):
    """Raise InputError unless all weights are finite and at least 0."""
    wrong = weights[~((weights >= 0) & (weights < np.inf))]
    if wrong.size:
        raise InputError(
            f"{op}: expected finite {of} weights of at least 0, got {float(wrong[0])}, one of {wrong.size}"
        )


@np.errstate(under="ignore")  # the exponential of an improbable class underflows to 0
def _pixel_losses(logits, index, share):
    """The loss of each pixel (N, ...), 0 where its share is 0, and the probabilities (N, C, ...)."""
    xp = array_module(logits)
    probabilities = xp.empty(logits.shape, logits.dtype)
    loss = xp.empty(index.shape, logits.dtype)
    if runs(SOURCE, logits):
        lines, *sizes = _lines(logits)
        arrays = xp.ascontiguousarray(logits), _whole(index, share), xp.ascontiguousarray(share), probabilities, loss
        launch(SOURCE, "softmax_cross_entropy", (lines, 1, sizes[2]), *arrays, *sizes)
        return loss, probabilities

    def tile(pixels, values):
        some = logits[values]
        shifted = some - some.max(axis=1, keepdims=True)
        p = xp.exp(shifted)
        total = p.sum(axis=1, keepdims=True)
        xp.divide(p, total, out=probabilities[values])
        log_likelihood = xp.take_along_axis(shifted, index[pixels][:, None], axis=1)[:, 0] - xp.log(total[:, 0])
        loss[pixels] = xp.where(share[pixels] != 0, -log_likelihood * share[pixels], xp.zeros_like(log_likelihood))

    run_tiles(logits, tile, _tiles(logits))
    return loss, probabilities


def _lines(logits):
    """(rows of all images, classes, rows of an image, pixels of a row) of logits (N, C, ...)."""
    n, classes, *rest = logits.shape
    height = rest[0] if len(rest) > 1 else 1
    return n * height, classes, height, prod(rest[1:]) if len(rest) > 1 else prod(rest)


def _whole(index, like):
    """Labels as a kernel reads them, in integers of the size of the floats in `like`."""
    return array_module(index).ascontiguousarray(index.astype(f"int{8 * like.itemsize}", copy=False))


def _tiles(logits):
    """Parts whose logits stay in a core's cache: [(which pixels of (N, ...), which values of (N, C, ...))]."""
    everything = slice(None)
    if logits.ndim == 2 or logits.size == 0:
        return [(everything, everything)]
    n, _, height = logits.shape[:3]
    tiles = row_tiles(n, height, logits.nbytes // (n * height), tuning.BLOCK_BYTES, threads())
    return [((images, rows), (images, everything, rows)) for images, rows in tiles]
