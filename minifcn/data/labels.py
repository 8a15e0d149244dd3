"""Class names, colours and ids, and the checks that keep wrong label images out."""

from collections.abc import Iterable
from functools import cache

import numpy as np

from ..errors import InputError
from .files import File, open_binary, read_lines

VOID = 255  # the label of pixels that do not count: VOC's borders, and what augmentation leaves uncovered
AMBIGUOUS = 65535  # in instance maps: a pixel of some object, unknown which

BLACK_AND_WHITE = 'masks of 0 and 255 only, and 255 is void: in dataset.toml set mask_kind = "colours" with black and white, or write 1 for 255'
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@cache
def voc_palette() -> np.ndarray:
    """VOC's colour map, (256, 3) uint8: the class number's bits go to red, green and blue in turn, filling each from its top bit down."""
    palette, rest = np.zeros((256, 3), int), np.arange(256)
    for bit in range(7, -1, -1):
        for channel in range(3):
            palette[:, channel] |= (rest & 1) << bit
            rest >>= 1
    palette = palette.astype(np.uint8)
    palette.flags.writeable = False  # everybody shares it
    return palette


def colourise(labels: np.ndarray, palette: np.ndarray | None = None) -> np.ndarray:
    """Labels (H, W) -> their colours (H, W, 3) uint8; VOC's unless given, with void as 224, 224, 192 as in VOC's own files."""
    return (voc_palette() if palette is None else palette)[labels]


def palette_from(values: object, source: object) -> np.ndarray:
    """A palette (256, 3) uint8 from nested lists. Raises InputError, naming `source`, for anything else."""
    try:
        palette = np.array(values)
        if palette.shape == (256, 3) and palette.dtype.kind == "i" and palette.min() >= 0 and palette.max() <= 255:
            return palette.astype(np.uint8)
    except (ValueError, OverflowError):  # lists of unequal length, numbers beyond any type
        pass
    raise InputError(f"{source}: expected a palette of 256 colours of three numbers 0..255, got {str(values)[:60]!r}")


def match_colours(image: np.ndarray, colours: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The label whose colour each pixel has exactly.   image (H, W, 3), colours (K, 3), labels (K,), all uint8
    -> (labels (H, W) uint8, known (H, W) bool)

    Where known is False, the label means nothing.
    """
    listed, codes = (array.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for array in (colours, image))
    order = np.argsort(listed, kind="stable")
    listed, labels = listed[order], labels[order]
    place = np.searchsorted(listed, codes).clip(max=len(listed) - 1)
    return labels[place], listed[place] == codes


def balanced_weights(labels: Iterable[np.ndarray], num_classes: int) -> np.ndarray:
    """Class weights by median frequency balancing: the median of all classes' frequencies, divided by the class's own. -> (K,) float64

    labels: label maps (H, W). A class's frequency is its share of the labelled pixels in the images that show it; a class that
    no image shows gets 1. Source: Eigen and Fergus, ICCV 2015, section 4.3, https://arxiv.org/abs/1411.4734
    """
    pixels, of_images = np.zeros(num_classes), np.zeros(num_classes)
    for label in labels:
        counts = np.bincount(label.reshape(-1), minlength=256)[:num_classes]
        pixels += counts
        of_images += np.where(counts > 0, counts.sum(), 0)
    seen = pixels > 0
    frequencies = pixels[seen] / of_images[seen]
    weights = np.ones(num_classes)
    weights[seen] = np.median(frequencies) / frequencies if seen.any() else 1
    return weights


def describe(values: np.ndarray, counts: np.ndarray) -> str:
    """Labels (N,) or colours (N, 3) and how many pixels have each (N,) as text: the first three, and how many more."""
    text = ", ".join(f"{value.tolist()} ({n} pixels)" for value, n in zip(values[:3], counts[:3], strict=True))
    return text + (f" and {len(values) - 3} more" if len(values) > 3 else "")


def check_labels(numbers: np.ndarray, allowed: np.ndarray, source: object) -> None:
    """Raise InputError naming `source`, the numbers and how many pixels, unless all are allowed.   numbers (H, W), allowed (256,) bool"""
    outside = numbers[~np.isin(numbers, np.flatnonzero(allowed))]
    if outside.size:
        starts, ends = np.flatnonzero(np.diff(allowed, prepend=False, append=False)).reshape(-1, 2).T
        ranges = [f"{a}..{b - 1}" if b - a > 1 else f"{a}" for a, b in zip(starts, ends, strict=True)]
        found = describe(*np.unique(outside, return_counts=True))
        raise InputError(
            f"{source}: expected labels {' or '.join(filter(None, [', '.join(ranges[:-1]), ranges[-1]]))}, got {found}"
        )


def number_in(text: str, end: int) -> int | None:
    """The number below `end` that a text's digits stand for; None if they stand for none, or are so many that Python refuses them."""
    return number if text.isdecimal() and len(text) < 10 and (number := int(text)) < end else None


def class_numbers(text: str, classes: tuple) -> list[int]:
    """ "0,8,cat" -> [0, 8]: each class once, by its number or its name, whatever the case.

    Raises InputError for what is no class, naming those that come near.
    """
    expected = f"classes: expected numbers 0..{len(classes) - 1} or class names"
    numbers, names = [], [name.lower() for name in classes]
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        if part in names:
            numbers.append(names.index(part))
        elif (number := number_in(part, len(classes))) is not None:
            numbers.append(number)
        else:
            near = [i for i, name in enumerate(names) if part in name]
            near.sort(key=lambda i: part not in names[i].split())  # whole words first
            hint = ", ".join(f"{classes[i]} ({i})" for i in near[:8])
            raise InputError(f"{expected}{', such as ' if hint else ''}{hint}; got {part[:40]!r}")
    if not numbers:
        raise InputError(f"{expected}, got {text!r}")
    return list(dict.fromkeys(numbers))


def read_class_names(source: File) -> tuple:
    """The classes listed in a text file, one name a line, background first. Raises InputError if there are none.

    source: a path, or an open binary file with a name.
    """
    file = open_binary(source)
    names = tuple(read_lines(file))
    if not names or len(names) > VOID:
        raise InputError(f"{file.name}: expected 1 to {VOID} class names, one a line; got {len(names)}")
    return names
