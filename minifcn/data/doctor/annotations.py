"""Instances from polygons and runs in JSON, from numbers in a second picture, or from boxes: do they fit image and mask?"""

import numpy as np

from ...errors import InputError, MissingFileError
from ..labels import AMBIGUOUS
from ..sets.coco_json import draw, region_of
from ..sets.nuclei import overlap
from .files import FileReport, read_labels
from .findings import KINDS, WARNING

_BEYOND = 1  # pixel by which a box or a corner may leave the image
_TOLD = {"three corners": "open-polygon", "a box only": "box-only"}  # what the reader says -> kind


def examine_annotations(dataset, id):
    """The objects of an image in COCO's JSON. -> FileReport, whose problems name the annotations"""
    name, entry = dataset.mask_name(id), dataset.entry(id)
    report = FileReport(dataset.folder / name, f"{name}, {entry.file_name}", format="annotations in JSON")
    report.size = report.stored = entry.size[::-1]
    regions, numbers, instances = [], [0], np.zeros(entry.size, np.uint16)
    for annotation in entry.annotations:
        number = repr(annotation.get("id"))[:20]
        if outside := _outside(annotation, entry.size):
            report.add("outside-image", f"annotation {number}: {outside}")
        try:
            region = region_of(annotation, entry.size, dataset.labels)
        except InputError as error:
            kind = next((kind for words, kind in _TOLD.items() if words in str(error)), "wrong-object")
            report.add(kind, f"annotation {number}{f': {error}' if kind == 'wrong-object' else ''}")
            continue
        regions.append(region)
        if not region.places.size:
            report.add("empty-object", f"annotation {number}")
        elif not region.crowd:
            drawn = np.zeros(entry.size, bool)
            drawn.reshape(-1)[region.places] = True
            if shared := overlap(instances, drawn):
                report.add("object-over-another", f"annotations {numbers[shared[0]]} and {number}: {shared[1]} pixels")
            instances[drawn & (instances == 0)] = len(numbers)
            numbers.append(number)
    if all(KINDS[kind][0] == WARNING or kind == "outside-image" for kind, _ in report.problems):
        report.counts = np.bincount(draw(regions, entry.size)[0].reshape(-1), minlength=256)
        report.readable_as = "objects"
    return report


def _outside(annotation, size):
    """As text, the first corner of an annotation's box or polygons outside an image of this size (height, width); or None."""
    box, outline = annotation.get("bbox"), annotation.get("segmentation")
    corners = [(box[0], box[1]), (box[0] + box[2], box[1] + box[3])] if _is_numbers(box) and len(box) == 4 else []
    for polygon in outline if isinstance(outline, list) else ():
        corners += zip(polygon[::2], polygon[1::2], strict=False) if _is_numbers(polygon) else ()
    for x, y in corners:
        if not (-_BEYOND <= x <= size[1] + _BEYOND and -_BEYOND <= y <= size[0] + _BEYOND):
            return f"x {x:g}, y {y:g} in an image of {size[1]}x{size[0]}"
    return None


def _is_numbers(values):
    return isinstance(values, list) and all(type(value) in (int, float) and abs(value) < 1e9 for value in values)


def examine_told_apart(dataset, id, report):
    """Check the instances beside a class mask in VOC's or Cityscapes' layout, if there are any. report: the mask's, to which problems
    are added. dataset: one made by `with_instances`."""
    if report.readable_as != ("colours" if dataset.coloured else "numbers") or any(
        KINDS[kind][0] != WARNING for kind, _ in report.problems
    ):
        return
    label = read_labels(report, dataset)
    try:
        instances, boxes = dataset.read_instances(id, label), dataset.boxes(id)
    except MissingFileError:
        return
    except InputError as error:
        report.add("objects-differ", str(error).removeprefix(str(dataset.folder)).lstrip("/"))
        return
    if boxes is None:
        _examine_numbers(dataset, label, instances, report)
    for number, box in enumerate(boxes or (), 1):
        short = f"box {number}, {dataset.classes[box.label]}"
        if (
            min(box.x, box.y) < -_BEYOND
            or (np.array([box.x + box.width, box.y + box.height]) > np.add(report.size, _BEYOND)).any()
        ):
            report.add("outside-image", f"{short}: x {box.x:g}, y {box.y:g}, {box.width:g}x{box.height:g}")
        elif not (label[box.part()] == box.label).any():
            report.add("empty-object", short)


def _examine_numbers(dataset, label, instances, report):
    known = (instances > 0) & (instances != AMBIGUOUS)
    for number in range(1, int(instances[known].max(initial=0)) + 1):
        counts = np.bincount(label[instances == number], minlength=256)
        classes = np.flatnonzero(counts)
        if not classes.size:
            report.add("empty-object", f"object {number}")
        elif classes.size > 1:
            found = ", ".join(f"{counts[c]} of {dataset.classes[c]}" for c in classes)
            report.add("objects-differ", f"object {number} has several classes: pixels {found}")
