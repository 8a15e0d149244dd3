"""Semantic segmentation: a class for every pixel."""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from .. import layers, ops
from ..backend import Array, to_device
from ..data.labels import VOID
from ..distributed import World
from ..errors import InputError
from ..layers.coordinates import IDENTITY
from ..layers.graph import IMAGE, Graph
from ..metrics import ConfusionMatrix
from ..ops.geometry import Cache


class SemanticSegmentation:
    """Softmax cross-entropy over the labelled pixels, and the soft Dice loss if asked for; judged by the mean IoU.

    reduction: "mean" divides the loss by the number of labelled pixels, each counted as its weight; "sum", as in the
    published solver, does not. class_weights: one number for each class, None for 1. dice: the factor of the Dice loss, in which
    all labelled pixels count alike; under "sum" that is also multiplied by the number that "mean" divides by. hardest: below 1,
    the mean over this share of the pixels, those with the greatest losses, replaces the mean over all; each part has its own.
    world: the processes that share a batch, if several do; dice and hardest then refer to the whole batch.
    grid: (stride, first), as `grid_of` gives it: only every stride-th pixel down and across counts as labelled, from the first on.
    """

    score_name = "mean_iou"  # the score of the metric by which networks are compared

    def __init__(
        self,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        dice: float = 0.0,
        hardest: float = 1.0,
        world: World | None = None,
        grid: tuple | None = None,
    ):
        self.reduction, self.dice, self.hardest, self.grid = reduction, dice, hardest, grid
        self.world = world or World()
        self.class_weights = None if class_weights is None else np.array(class_weights, np.float64)

    def loss(self, logits: Array, targets: np.ndarray | tuple) -> tuple[Array, float, Cache]:
        """The loss of a batch, or of a part of it.   logits (N, C, h, w) -> (total, weight, cache)

        targets, on the host: labels (N, H, W), or (labels, weights of the pixels (N, H, W)). Where the logits have fewer
        pixels, as without padding, they are those in the middle; the sizes must differ by an even number, else InputError.
        The batch's loss is Σ total / Σ weight over its parts, and Σ total where nothing has weight: reduction "sum", or
        no labelled pixel. Each part has its own Dice loss, weighted like the part's pixels: parts give the mean of theirs, not
        the whole batch's, unless they belong to several processes. total is a float64 of shape () on the logits' device.
        """
        maps = targets if isinstance(targets, tuple) else (targets, None)
        labels, of_pixels = (None if array is None else _middle(array, logits) for array in maps)
        if self.grid:
            labels = shrunk(labels, *self.grid)
        of_classes, on_device = self.class_weights, to_device(labels)
        given = {
            "weight": None if of_classes is None else to_device(of_classes.astype(logits.dtype)),
            "pixel_weight": None if of_pixels is None else to_device(of_pixels.astype(logits.dtype)),
        }
        if self.hardest < 1:
            given["join"] = self.world.join
            loss, cache = ops.hardest_cross_entropy_forward(logits, on_device, hardest=self.hardest, **given)
        else:
            loss, cache = ops.softmax_cross_entropy_forward(logits, on_device, **given, reduction=self.reduction)
        known = labels != VOID
        counts = np.ones(known.sum()) if of_classes is None else of_classes[labels[known]]
        if of_pixels is not None:
            counts *= of_pixels[known]
        pixels = float(counts.sum())
        weight = pixels if self.reduction == "mean" else 0.0
        of_all = self.of_whole_batch(pixels) if self.dice or self.hardest < 1 else pixels
        share_of_all = self.hardest < 1 and self.reduction == "mean"
        counted = (of_all if share_of_all else weight) or 1  # what the loss of this part was divided by
        # In float64 the product is exact, and total / weight is the mean to the last bit.
        total = loss.astype("float64") * counted
        overlap = None
        if self.dice:
            loss, overlap = ops.dice_forward(logits, on_device, sums=self.world.sum)
            total = total + self.dice * pixels * loss.astype("float64")
        return total, weight, (cache, counted, overlap, self.dice * of_all)

    def of_whole_batch(self, amount: float) -> float:
        """The sum of a number over the processes that share a batch."""
        return float(self.world.sum(np.array(amount, np.float64)))

    def loss_backward(self, scale: float, cache: Cache) -> Array:
        """The gradient of scale · total; scale is 1 / Σ weight of the whole batch.   -> dlogits (N, C, h, w)"""
        cache, weight, overlap, of_dice = cache
        dlogits = ops.softmax_cross_entropy_backward(scale * weight, cache)
        if overlap is not None:
            dlogits += ops.dice_backward(scale * of_dice, overlap)
        return dlogits

    def predict(self, logits: Array) -> Array:
        """The likeliest class of every pixel.   (N, C, H, W) -> (N, H, W) integers"""
        return logits.argmax(axis=1)

    def metric(self, num_classes: int) -> ConfusionMatrix:
        """A new metric, to count labels and predictions in."""
        return ConfusionMatrix(num_classes)


def shrunk(labels: np.ndarray, stride: int, first: int) -> np.ndarray:
    """Labels (N, H, W) at every stride-th pixel down and across, from `first` on; all others void. -> (N, H, W)"""
    kept, on_grid = np.full_like(labels, VOID), (slice(None), *[slice(first, None, stride)] * 2)
    kept[on_grid] = labels[on_grid]
    return kept


def grid_of(network: Graph) -> tuple[int, int]:
    """The pixels on which, or next to which, a network's scores lie before they are last enlarged: (stride, first), down and across.

    Over VGG16 a DeepLab's enlarged scores are at these pixels what they were before, so that a loss there is that of Chen et al.
    (ICLR 2015), who shrink the labels to the scores' size. Where maps divide the image into cells, the pixel below and right
    of each cell's middle counts, half a pixel from it. Raises InputError for a network whose scores are not enlarged.
    """
    (name,), place = network.outputs, IDENTITY
    while isinstance(network[name], layers.CropLike):
        name = network.nodes[name].inputs[0]
    if not isinstance(network[name], layers.Upsample | layers.LearnedUpsample | layers.ResizeLike):
        raise InputError("shrink-labels: a network that scores every pixel itself has no smaller scores; leave it out")
    name = network.nodes[name].inputs[0]
    while name != IMAGE:
        layer, inputs = network.nodes[name]
        if isinstance(layer, layers.ResizeLike):  # lies where the map that gives its size does
            name = inputs[1]
        else:
            name, place = inputs[0], layer.coordinates().then(place)
    stride = int(1 / place.a)
    return stride, floor(Fraction(1, 2) - place.b / place.a) % stride


def _middle(maps, logits):
    """The middle of maps (N, H, W), as large as logits (N, C, h, w)."""
    size, found = logits.shape[2:], maps.shape[1:]
    margins = [have - want for have, want in zip(found, size, strict=False)]
    if any(margin < 0 or margin % 2 for margin in margins):
        raise InputError(
            f"loss: logits of {size} pixels need labels of that size, or larger by an even number of pixels; got {found}"
        )
    return maps[:, *(slice(margin // 2, have - margin // 2) for margin, have in zip(margins, found, strict=False))]


SEGMENTATION = SemanticSegmentation()
