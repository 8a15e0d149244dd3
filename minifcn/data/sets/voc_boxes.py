"""Instances of VOC images that have no picture of them: from masks and the boxes around the objects.

Every object of VOC has a box, and in most images no two boxes of a class share pixels of that class.
"""

from typing import Any, NamedTuple
from unicodedata import normalize
from xml.etree import ElementTree

import numpy as np

from ...errors import InputError, MissingFileError
from ..labels import AMBIGUOUS, VOID
from .coco_json import FAR, read_json
from .names import existing

XML, JSON = "Annotations", "boxes.json"
MARGIN = 2  # pixels by which a mask may leave its box
_LARGEST = 1 << 22  # bytes of an XML file
_JSON_FORM = "{id: [[class, [x, y, width, height], difficult, crowd], …]}"


class Box(NamedTuple):
    """A box in pixels from 0: columns x … x + width − 1, rows y … y + height − 1. label: its object's class; crowd: it is of several."""

    label: int
    x: float
    y: float
    width: float
    height: float
    crowd: bool = False

    def part(self) -> tuple[slice, slice]:
        """The rows and the columns of the box and of the MARGIN around it: one pixel more to the right and below."""
        starts = (max(0, round(start) - MARGIN) for start in (self.y, self.x))
        ends = (
            max(0, round(start + extent) + MARGIN + 1)
            for start, extent in ((self.y, self.height), (self.x, self.width))
        )
        rows, columns = map(slice, starts, ends)
        return rows, columns


class Boxes:
    """The boxes of a data set in VOC's layout: from boxes.json beside its folders if there is one, else from Annotations/<id>.xml.

    Raises InputError, naming the file, for a wrong boxes.json; `of` raises it for wrong boxes, and MissingFileError for missing ones.
    """

    def __init__(self, files: Any, classes: tuple):
        self.files, self._label = files, {name: label for label, name in enumerate(classes)}
        self._listed = None
        if files.is_file(JSON):
            self._listed = read_json(files.open(JSON))
            if not isinstance(self._listed, dict):
                raise InputError(f"{files.path / JSON}: expected {_JSON_FORM}, got {repr(self._listed)[:60]}")
            self._listed = {normalize("NFC", id): rows for id, rows in self._listed.items()}

    def name(self, id: str) -> str:
        """The file that has an id's boxes."""
        return existing(self.files, (XML, ".xml"), id) if self._listed is None else JSON

    def of(self, id: str) -> list[Box]:
        """The boxes of an id."""
        if self._listed is None:
            name = self.name(id)
            return [self._checked(name, *row) for row in self._in_xml(name)]
        rows = self._listed.get(id)
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise InputError(f"{self.files.path / JSON}: expected {_JSON_FORM}, got for {id!r}: {repr(rows)[:60]}")
        return [self._checked(JSON, name, box, crowd) for name, box, _, crowd in rows]

    def _in_xml(self, name):
        """[(class, [x, y, width, height], crowd)]; VOC counts pixels from 1."""
        if not self.files.is_file(name):
            raise MissingFileError(f"{self.files.path / name}: no such file; it has the boxes of the objects")
        with self.files.open(name) as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST or b"<!" in content.replace(b"<!--", b""):  # entities can fill any memory
            raise InputError(f"{self.files.path / name}: expected VOC's boxes without <!DOCTYPE, got {content[:40]!r}")
        try:
            rows = []
            for entry in ElementTree.fromstring(content).findall("object"):
                left, top, right, bottom = (
                    float(entry.findtext(f"bndbox/{s}")) for s in ("xmin", "ymin", "xmax", "ymax")
                )
                box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
                rows.append((entry.findtext("name").strip(), box, False))
            return rows
        except (ElementTree.ParseError, TypeError, AttributeError, ValueError, LookupError) as error:
            raise InputError(
                f"{self.files.path / name}: expected VOC's <object> with <name> and <bndbox>, got: {error}"
            ) from error

    def _checked(self, source, name, box, crowd):
        plain = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
        if not (isinstance(name, str) and name in self._label):
            raise InputError(f"{self.files.path / source}: expected a box of one of the classes, got {repr(name)[:40]}")
        if not plain or not all(-FAR <= side <= FAR for side in box) or min(box[2:]) <= 0:
            raise InputError(f"{self.files.path / source}: expected a box [x, y, width, height], got {repr(box)[:80]}")
        return Box(self._label[name], *box, bool(crowd))


def tell_apart(label: np.ndarray, boxes: list[Box]) -> tuple[np.ndarray, int]:
    """The objects in labels (H, W) uint8: a pixel belongs to an object if it lies in that object's box and no other box of its class.

    A box holds columns x − MARGIN … x + width + MARGIN, and rows likewise. Pixels of a class that are in several of its boxes, in
    none, or in a crowd's are AMBIGUOUS; background and void are 0.
    -> instances (H, W) uint16, numbered as the boxes from 1; how many pixels are in several boxes
    """
    instances = np.where((label > 0) & (label != VOID), np.uint16(AMBIGUOUS), np.uint16(0))
    inside = np.zeros(label.shape, np.uint16)
    for number, box in enumerate(boxes, 1):
        part = box.part()
        own = label[part] == box.label
        inside[part] += own
        if not box.crowd:
            instances[part][own] = number
    several = inside > 1
    instances[several] = AMBIGUOUS
    return instances, int(np.count_nonzero(several))
