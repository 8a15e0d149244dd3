"""Writes objects: as pictures in VOC's and Cityscapes' formats, as COCO results, and as tables.

A prediction is (labels (H, W), objects (H, W), classes (n,), scores (n,)), as in `metrics.overlaps`.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import json_text, make_folder, write_text
from ..metrics.overlaps import check_prediction
from . import rle
from .images import write_mask
from .labels import AMBIGUOUS, VOID
from .sets.cityscapes import INSTANCE_IDS, LABEL_IDS, PER_CLASS

COLUMNS = ("object", "class", "score", "x", "y", "width", "height", "area")


def write_voc_objects(path: str | Path, instances: np.ndarray, label: np.ndarray | None = None) -> None:
    """Write a picture for VOC's SegmentationObject: a palette PNG of object numbers, 255 where the object is unknown or label is void.

    instances (H, W): the number of each pixel's object, 0 for none; label (H, W) uint8. Raises InputError for numbers beyond 254.
    """
    numbers = np.where(instances == AMBIGUOUS, VOID, instances)
    if (highest := int(instances[instances != AMBIGUOUS].max(initial=0))) >= VOID:
        raise InputError(f"{path}: expected at most {VOID - 1} objects, which such a picture can hold, got {highest}")
    if label is not None:
        numbers = np.where(label == VOID, VOID, numbers)
    write_mask(path, numbers.astype(np.uint8))


def coco_results(
    image_id: int | str, prediction: tuple, categories: dict | Sequence | None = None
) -> list[dict[str, Any]]:
    """The objects of an image as entries of a COCO results file: compressed runs and scores.

    categories: the category id of each class, such as {label: id for id, label in dataset.labels.items()}; None for class numbers as ids.
    Boxes are left out: with them, pycocotools would take the objects for boxes.
    """
    _, objects, classes, scores = check_prediction(prediction, VOID)
    return [
        {
            "image_id": image_id,
            "category_id": int(kind if categories is None else categories[kind]),
            "segmentation": {"size": list(objects.shape), "counts": rle.text_of(rle.counts_of(objects == number))},
            "score": float(score),
        }
        for number, (kind, score) in enumerate(zip(classes.tolist(), scores, strict=True), 1)
    ]


def write_cityscapes_objects(root: str | Path, id: str, prediction: tuple) -> None:
    """Write an image's objects, of Cityscapes' 19 classes, in the format of its evaluation and in that of its annotations.

    <id>_pred.txt has a line for each object: the file of its mask (255 on 0), its label id and its score. <id>_instanceIds.png has,
    as in gtFine, label id · 1000 plus the object's number within its class, from 0; elsewhere the label id alone, 0 for void.
    Source: evalInstanceLevelSemanticLabeling.py of cityscapesScripts. Raises InputError for more than 1000 objects of a class.
    """
    labels, objects, classes, scores = check_prediction(prediction, len(LABEL_IDS))
    lines, ids = [], np.append(LABEL_IDS, 0).astype(np.uint16)[np.minimum(labels, len(LABEL_IDS))]
    seen, folder = np.zeros(len(LABEL_IDS), int), make_folder(root)
    for number, (kind, score) in enumerate(zip(classes, scores, strict=True), 1):
        if seen[kind] == PER_CLASS:
            raise InputError(f"{folder / id}: expected at most {PER_CLASS} objects of a class")
        there = objects == number
        name = f"{id}_pred_{number}.png"
        Image.fromarray(np.uint8(255) * there).save(folder / name)
        ids[there] = LABEL_IDS[kind] * PER_CLASS + seen[kind]
        lines.append(f"{name} {LABEL_IDS[kind]} {score:.6f}\n")
        seen[kind] += 1
    Image.fromarray(ids).save(folder / f"{id}{INSTANCE_IDS}")
    write_text(folder / f"{id}_pred.txt", "".join(lines))


def object_table(prediction: tuple, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each object: its number, the name of its class, score, box in pixels from 0 (x, y, width, height) and area in pixels."""
    _, objects, classes, scores = check_prediction(prediction, len(names))
    rows, columns = np.nonzero(objects)
    numbers, count = objects[rows, columns], len(classes) + 1
    areas = np.bincount(numbers, minlength=count)
    sides = []
    for places, length in zip((columns, rows), objects.shape[::-1], strict=True):
        first, last = np.full(count, length), np.full(count, -1)
        np.minimum.at(first, numbers, places)
        np.maximum.at(last, numbers, places)
        sides.append((np.where(areas > 0, first, 0), np.where(areas > 0, last - first + 1, 0)))
    (x, width), (y, height) = sides
    return [
        dict(
            zip(
                COLUMNS,
                (i, names[kind], float(score), *map(int, (x[i], y[i], width[i], height[i], areas[i]))),
                strict=True,
            )
        )
        for i, (kind, score) in enumerate(zip(classes, scores, strict=True), 1)
    ]


def write_table(path: str | Path, rows: dict[str, list[dict]]) -> None:
    """Write the tables of several images, {name: rows}: as JSON if path ends in .json, else as CSV with a column "image"."""
    if Path(path).suffix.lower() == ".json":
        write_text(path, json_text(rows, indent=1) + "\n")
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, ("image", *COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({"image": name} | row for name, of_image in rows.items() for row in of_image)
    write_text(path, text.getvalue())
