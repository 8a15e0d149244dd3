"""Panoptic segmentation: a class for every pixel, and which object it belongs to."""

from collections.abc import Sequence
from typing import Self

import numpy as np

from .. import ops
from ..backend import Array, to_device
from ..data.centres import CentreTargets
from ..data.labels import AMBIGUOUS, VOID
from ..distributed import World
from ..metrics import COCOAveragePrecision, ConfusionMatrix, InstanceScores, PanopticQuality, RegionAveragePrecision
from ..ops.geometry import Cache
from .semantic import SemanticSegmentation

CENTRE, OFFSET = 200.0, 0.01  # what the losses are multiplied by, as published for images of 2049 × 1025 pixels


class PanopticScores(ConfusionMatrix):
    """Scores of the pixels' classes and of the objects: panoptic quality, AP^r, COCO's AP and the measure of the Data Science Bowl."""

    def __init__(self, num_classes: int, things: Sequence[int]):
        super().__init__(num_classes)
        self.things = tuple(things)
        self.quality, self.regions = PanopticQuality(num_classes, self.things), RegionAveragePrecision(num_classes)
        self.coco, self.bowl = COCOAveragePrecision(num_classes), InstanceScores()

    def update_objects(self, label: np.ndarray, instances: np.ndarray, found: tuple) -> None:
        """Count one image.   label (H, W), instances (H, W): as in an ObjectSample; found: labels, instances, classes, scores, as Objects"""
        self.update(label, found[0])
        self.quality.update(label, instances, found)
        self.regions.update(label, instances, found)
        self.coco.update(label, instances, found)
        self.bowl.update(np.where(instances == AMBIGUOUS, 0, instances), found[1])

    def merge(self, other: Self) -> None:
        """Append the images that another instance has counted."""
        super().merge(other)
        self.quality.merge(other.quality)
        self.regions.merge(other.regions)
        self.coco.merge(other.coco)
        self.bowl.merge(other.bowl)

    def scores(self) -> dict[str, float]:
        """All figures by name, as plain numbers; of COCO's those over objects of all sizes."""
        coco = self.coco.scores(self.things)
        of_objects = self.quality.scores() | self.regions.scores(self.things) | self.bowl.scores()
        return super().scores() | of_objects | {name: coco[name] for name in ("coco_ap", "coco_ap_50")}


class PanopticSegmentation(SemanticSegmentation):
    """The loss of the classes, 200 times the squared error of the centres, and offset_weight times the absolute error of the offsets, in pixels.

    reduction, class_weights, dice, hardest: of the classes' loss. frozen: leave that loss out, for a frozen semantic part.
    Source of the sum: Cheng et al., CVPR 2020, section 3.2, https://arxiv.org/abs/1911.10194
    """

    score_name = "pq"

    def __init__(
        self,
        reduction: str = "mean",
        class_weights: Sequence[float] | None = None,
        dice: float = 0.0,
        hardest: float = 1.0,
        *,
        offset_weight: float = OFFSET,
        frozen: bool = False,
        world: World | None = None,
    ):
        super().__init__(reduction, class_weights, dice, hardest, world)
        self.offset_weight, self.frozen = offset_weight, frozen

    def loss(self, outputs: dict, targets: CentreTargets) -> tuple[Array, float, Cache]:
        """The loss of a batch, or of a part of it.   outputs: the network's, by name; targets on the host -> (total, weight, cache)

        As in SemanticSegmentation. Each part has its own losses of centres and offsets, weighted like the part's pixels; the parts of
        several processes have shares of the whole batch's.
        """
        logits = outputs["semantic"]
        pixels = float((targets.labels != VOID).sum())
        total, weight, cache = (0.0, pixels, None) if self.frozen else super().loss(logits, targets.labels)
        pixels = self.of_whole_batch(weight or pixels)
        given = [to_device(array.astype(logits.dtype, copy=False)) for array in targets[1:]]
        centre, offset, known, inside = given
        squared, of_centre = ops.squared_error_forward(outputs["centre"], centre, known, self.world.sum)
        absolute, of_offset = ops.absolute_error_forward(outputs["offset"], offset, inside, self.world.sum)
        total = total + pixels * (CENTRE * squared.astype("float64") + self.offset_weight * absolute.astype("float64"))
        return total, weight, (cache, of_centre, of_offset, pixels)

    def loss_backward(self, scale: float, cache: Cache) -> dict:
        """The gradients of scale · total, by the names of the outputs; none of the classes where they are frozen."""
        cache, of_centre, of_offset, pixels = cache
        scale_of_offset = scale * pixels * self.offset_weight
        found = {"semantic": super().loss_backward(scale, cache)} if cache else {}
        found["centre"] = ops.squared_error_backward(scale * pixels * CENTRE, of_centre)
        found["offset"] = ops.absolute_error_backward(scale_of_offset, of_offset)
        return found

    def predict(self, outputs: dict) -> Array:
        """The likeliest class of every pixel.   outputs -> (N, H, W) integers"""
        return super().predict(outputs["semantic"])
