"""Objects from a segmentation network: connected components of what it is sure of, grown to the objects' edges.

Networks are trained to separate touching objects, by a class "border" for their rims or by weights on the background
between them. Both leave cores that do not touch. An object is a 4-connected core and the pixels around it that the rim
took.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..data import BORDER, Sample
from ..data.labels import AMBIGUOUS
from ..data.targets import scipy_ndimage
from ..errors import InputError
from ..metrics import AveragePrecision, InstanceScores
from ..models import Graph, numbered
from . import segment
from .panoptic import Objects, enlarged
from .shared_work import computed

# Chosen on the validation images of the 2018 Data Science Bowl, by the probabilities of the network "nuclei".
LEAST = 16  # pixels of an object; the smallest nucleus has 21
SURE = 0.7  # the probability of objects that a core exceeds
LIKELY = 0.75  # the score of an object: the mean probability in it
RIM = 3  # pixels: a core grows to those nearer than this, two along a row


def objects(network: Graph, image: np.ndarray, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """The objects in an image (H, W, C) uint8, by a network with background as class 0. more: as for `classed_objects`.

    -> as `objects_of`. For many images, give `network.prepare()`.
    """
    _, instances, _, scores = classed_objects(network, image, **more)
    return instances, scores


def classed_objects(
    network: Graph, image: np.ndarray, tile: int | None = None, *, longest: int | None = None,
    least: int = LEAST, **more: Any,
) -> Objects:  # fmt: skip
    """The Objects in an image, which do not touch, from one run of the network: those of `objects_of`, each of the class that is
    likeliest in it, and the likeliest class of every pixel. tile, longest, more: as for `predict`; least: as for `objects_of`."""
    classes = network.card.classes or numbered(network.card.num_classes)
    probabilities = segment.probabilities(network, segment.shrunk(image, longest), tile, **more)
    instances, scores = objects_of(probabilities, classes, least)
    inner = _inner(classes)
    likely = [np.bincount(instances.reshape(-1), probabilities[i].reshape(-1), len(scores) + 1)[1:] for i in inner]
    own, size = np.array(inner, np.uint8)[np.argmax(likely, axis=0)], image.shape[:2]
    return Objects(segment.likeliest(probabilities, size), enlarged(instances, size), own, scores)


def _inner(classes):
    """The numbers of the classes of objects."""
    return [i for i, name in enumerate(classes) if i and name != BORDER]


def objects_of(
    probabilities: np.ndarray, classes: Sequence[str], least: int = LEAST, sure: float = SURE
) -> tuple[np.ndarray, np.ndarray]:
    """The objects in the probabilities (K, H, W) of the classes, background first; "border" is the objects' rim.

    least: objects of fewer pixels are dropped, as are cores of less than a quarter of that, and objects with a score below
    `LIKELY`. sure: the probability that the object classes together must exceed in a core. -> instances (H, W) uint16, the
    number of the object from 1, or 0 for none; scores (n,) float64, the mean probability that a pixel is not background, over
    the object's pixels where that is above 0.5.

    Raises InputError for probabilities that are not of these classes, for classes without an object and for more than 65535
    objects; MissingFileError where SciPy is not installed.
    """
    ndimage = scipy_ndimage("objects")
    inner = _inner(classes)
    if probabilities.ndim != 3 or len(probabilities) != len(classes) or not inner:
        raise InputError(
            f"objects: expected probabilities (K, H, W) of background and of classes of objects, got an array "
            f"{probabilities.shape} and the classes {', '.join(classes)}"
        )
    foreground = 1 - probabilities[0]
    cores = _cores(ndimage, probabilities[inner].sum(axis=0) > sure, foreground > 0.5, least)
    found = _grown(ndimage, cores, foreground > 0.5) if cores.any() else cores
    for number, box in enumerate(ndimage.find_objects(found), 1):
        if box:
            part = found[box]
            part[ndimage.binary_fill_holes(part == number) & (part == 0)] = number
    likely = np.where(foreground > 0.5, foreground, 0)  # not of holes and gaps that were filled
    sums, counts = (np.bincount(found.reshape(-1), values.reshape(-1)) for values in (likely, likely > 0))
    scores = sums / counts.clip(1)
    kept = (np.bincount(found.reshape(-1)) >= least) & (scores >= LIKELY)
    kept[0] = False
    if kept.sum() > np.iinfo(np.uint16).max:
        raise InputError(f"objects: {kept.sum()} found, more than 65535; raise least, now {least} pixels")
    instances = (np.cumsum(kept) * kept).astype(np.uint16)[found]
    return instances, scores[kept]


def evaluate_objects(
    network: Graph, samples: Iterable[Sample], tile: int | None = None, *, matrices: Sequence = (),
    cached: Callable = computed, **more: Any,
) -> tuple[InstanceScores, AveragePrecision]:  # fmt: skip
    """The scores of a network's objects on samples with instances, each at its own size. tile, more: as for `classed_objects`.

    matrices: also count the class of every pixel, such as a ConfusionMatrix. cached: as for `evaluate`.

    Raises InputError, besides what `objects_of` raises, for a sample without instances.
    """
    network, bowl, precision = network.prepare(), InstanceScores(), AveragePrecision()
    for sample in samples:
        if sample.instances is None:
            raise InputError(f"{sample.id}: has no numbers of objects to compare with, only classes")
        labels, found, _, scores = cached(sample.id, classed_objects, network, sample.image, tile, **more)
        for matrix in matrices:
            matrix.update(sample.label, labels)
        true = np.where(sample.instances == AMBIGUOUS, 0, sample.instances)
        bowl.update(true, found)
        precision.update(true, found, scores)
    return bowl, precision


def _cores(ndimage, sure, foreground, least):
    """The numbered connected components of what is sure; a foreground component too small or thin to hold one counts as one."""
    cores, count = ndimage.label(sure)
    cores[(np.bincount(cores.reshape(-1)) < least / 4)[cores]] = 0
    parts, _ = ndimage.label(foreground)
    without = np.bincount(parts.reshape(-1), cores.reshape(-1)) == 0
    without[0] = False
    return np.where(without[parts], parts + count, cores)


def _grown(ndimage, cores, foreground):
    """Cores grown into the foreground around them, each pixel joining the nearest."""
    distance, nearest = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    nearest = cores[tuple(nearest)]
    found = np.where((distance < RIM) & foreground, nearest, 0)
    # Where two objects touch, a network may have been taught that the outermost pixels of both are background. They are those
    # that touch if both grow by one pixel, but for the ends of the line, which have fewer than three neighbours in objects.
    larger = np.where(distance < 2, nearest, 0)
    highest = ndimage.maximum_filter(larger, 3)
    lowest = ndimage.minimum_filter(np.where(larger, larger, highest.max()), 3)
    filled = np.where((found == 0) & (highest != lowest), larger, found)
    sides = ndimage.convolve((filled > 0).astype(np.uint8), ndimage.generate_binary_structure(2, 1), mode="constant")
    return np.where(sides >= 4, filled, found)
