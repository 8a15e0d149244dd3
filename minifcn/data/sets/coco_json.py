"""What a file of COCO's JSON says: categories, images, and the objects in each as polygons or runs.

Its form: https://cocodataset.org/#format-data
"""

import json
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .. import polygons, rle
from ..images import MAX_PIXELS
from ..labels import AMBIGUOUS, VOID

FAR = 1 << 24  # pixels; corners beyond this are refused
_PARTS = {"images": "id, file_name, height and width", "categories": "id and name", "annotations": "image_id"}


class Entry(NamedTuple):
    """An image of the file: its name there, (height, width), and its annotations as they are in the file."""

    file_name: str
    size: tuple
    annotations: list


class Annotations(NamedTuple):
    """labels: {category id: label from 1}, by id; classes: their names, background first; entries: the images', in the file's
    order; strays: annotations of images that the file does not list."""

    labels: dict
    classes: tuple
    entries: list
    strays: list


class Region(NamedTuple):
    """An object: the (n,) indices of its pixels in the flattened image, its label, and whether it is a crowd of several."""

    places: np.ndarray
    label: int
    crowd: bool


def read_json(file: Any) -> Any:
    """The content of a JSON file. Raises InputError, naming it, if it is not JSON."""
    with file:
        try:
            return json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file.name}: expected JSON in UTF-8, got: {error}") from error


def read_annotations(file: Any) -> Annotations:
    """The Annotations in a binary file; their objects are not checked yet. Raises InputError, naming it, for another form."""
    content = read_json(file)
    for part, keys in _PARTS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{file.name}: expected COCO's JSON with a list {part!r} of entries with {keys}, got none")
    named, images = {}, {}
    for entry in content["categories"]:
        number, name = entry.get("id"), entry.get("name")
        if type(number) is not int or number in named or not _is_name(name):
            raise InputError(
                f"{file.name}: expected categories with an id of their own and a name, got {str(entry)[:80]}"
            )
        named[number] = name.strip()
    if not 0 < len(named) < VOID:
        raise InputError(f"{file.name}: expected 1 to {VOID - 1} categories, got {len(named)}")
    for entry in content["images"]:
        number, name, *size = (entry.get(key) for key in ("id", "file_name", "height", "width"))
        if type(number) not in (int, str) or number in images or not _is_name(name):
            raise InputError(
                f"{file.name}: expected images with an id of their own and a file_name, got {str(entry)[:80]}"
            )
        if not all(type(side) is int and side > 0 for side in size) or size[0] * size[1] > MAX_PIXELS:
            raise InputError(f"{file.name}: expected height and width of {name!r}, got {str(size)[:80]}")
        images[number] = Entry(name, tuple(size), [])
    strays = []
    for entry in content["annotations"]:
        number = entry.get("image_id")
        home = images.get(number) if type(number) in (int, str) else None
        (strays if home is None else home.annotations).append(entry)
    if strays and len(strays) == len(content["annotations"]):  # as where one program writes 3, another "3"
        theirs, ours = strays[0].get("image_id"), next(iter(images), None)
        raise InputError(
            f"{file.name}: expected annotations whose image_id is the id of an image, such as {ours!r}; got {repr(theirs)[:40]} and no other"
        )
    numbers = sorted(named)
    labels = {number: label for label, number in enumerate(numbers, 1)}
    return Annotations(labels, ("background", *(named[number] for number in numbers)), list(images.values()), strays)


def _is_name(name):
    return isinstance(name, str) and name.isprintable() and bool(name.strip(" ./\\"))


def region_of(annotation: dict, size: tuple, labels: dict) -> Region:
    """The Region of an annotation in an image of this size (height, width). Raises InputError, without a file's name, for
    missing or wrong polygons or runs, and for a category that is not in `labels`."""
    category, outline = annotation.get("category_id"), annotation.get("segmentation")
    if type(category) is not int or category not in labels:
        raise InputError(f"expected the id of a category, got {repr(category)[:40]}")
    if (crowd := annotation.get("iscrowd")) not in (None, 0, 1):
        raise InputError(f"expected iscrowd as 0 or 1, got {repr(crowd)[:40]}")
    if isinstance(outline, dict):
        mask = _from_runs(outline, size)
    elif isinstance(outline, list) and outline:
        mask = np.zeros(size, bool)
        for corners in outline:
            mask |= polygons.mask_of(corners_of(corners), size)
    else:
        raise InputError(
            "expected polygons or runs, got a box only; draw the objects, or train on boxes with another program"
        )
    return Region(np.flatnonzero(mask), labels[category], bool(crowd))


def corners_of(polygon: object) -> np.ndarray:
    """The corners (n, 2) float64 of [x, y, x, y, …]. Raises InputError for what is no polygon."""
    if not isinstance(polygon, list) or not all(type(number) in (int, float) for number in polygon):
        raise InputError(f"expected polygons [[x, y, x, y, …], …], got {repr(polygon)[:60]}")
    if len(polygon) % 2 or len(polygon) < 6:
        raise InputError(f"expected polygons of three corners or more, x and y of each, got {len(polygon)} numbers")
    if not all(-FAR <= number <= FAR for number in polygon):
        raise InputError("expected corners in the image, got one without end")
    return np.array(polygon, np.float64).reshape(-1, 2)


def _from_runs(outline, size):
    if outline.get("size") != list(size):
        raise InputError(
            f"expected runs of the image's size {list(size)} (height, width), got {repr(outline.get('size'))[:40]}"
        )
    counts = outline.get("counts")
    counts = rle.counts_in(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list):
        raise InputError(f"expected runs as a list or compressed, got {repr(counts)[:40]}")
    return rle.mask_from(counts, size)


def draw(regions: list[Region], size: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Objects as maps: labels (H, W) uint8, 0 for none; instances (H, W) uint16, numbered like the regions, from 1.

    Where objects overlap, the smallest is on top; of equal ones, the last. Crowds, which are AMBIGUOUS, are below all others.
    """
    label, instances = np.zeros(size[0] * size[1], np.uint8), np.zeros(size[0] * size[1], np.uint16)
    for i in sorted(range(len(regions)), key=lambda i: (not regions[i].crowd, -len(regions[i].places))):
        label[regions[i].places] = regions[i].label
        instances[regions[i].places] = AMBIGUOUS if regions[i].crowd else i + 1
    return label.reshape(size), instances.reshape(size)
