"""The doctor of data sets: reads everything once and reports, as data, what is wrong and what is there."""

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..labels import VOID
from .files import examine_image, examine_mask
from .findings import Findings
from .inventory import Inventory, collect


@dataclass
class Diagnosis:
    """What the doctor found. inventory: what the data set has; None where its description could not be used.
    files: {id: (FileReport of the image or None, FileReport of the mask or None)}. pixels: (256,) over all readable masks.
    mask_counts: {split: (256,) masks that show each label}. samples: {class number: the id that shows most of it}."""

    findings: Findings
    inventory: Inventory = None
    files: dict = field(default_factory=dict)
    pixels: np.ndarray = None
    mask_counts: dict = field(default_factory=dict)
    samples: dict = field(default_factory=dict)

    def formats(self, which):
        """{a format such as "JPEG RGB": how many files}; which: 0 for images, 1 for masks."""
        return Counter(pair[which].format for pair in self.files.values() if pair[which])


def examine(root, progress=lambda results, total: results):
    """Read a whole data set, in VOC's layout, in Cityscapes', or your own. -> Diagnosis

    progress(results, total): wraps the results as they come, for a progress bar.
    Raises InputError for what is no data set; whatever is wrong inside one is a finding.
    """
    findings = Findings()
    inventory = collect(root, findings)
    if inventory is None:
        return Diagnosis(findings)
    diagnosis = Diagnosis(findings, inventory, pixels=np.zeros(256, np.int64))
    Image.init()  # every format that Pillow knows, before threads ask for them
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # Pillow and NumPy release the interpreter's lock
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd EXIF data and the like
        try:
            results = pool.map(lambda id: _examine_pair(inventory, id), inventory.ids)
            for id, pair in zip(inventory.ids, progress(results, len(inventory.ids)), strict=True):
                diagnosis.files[id] = pair
        finally:
            pool.shutdown(cancel_futures=True)
    for report in (report for pair in diagnosis.files.values() for report in pair if report):
        for kind, detail in report.problems:
            findings.add(kind, inventory.name(report.path), detail)
    _count_labels(diagnosis)
    _check_contents(diagnosis)
    _check_classes(diagnosis)
    return diagnosis


def _examine_pair(inventory, id):
    """(FileReport of the image, FileReport of the mask); None for a file that is not there."""
    image = examine_image(inventory.images[id]) if id in inventory.images else None
    mask = examine_mask(inventory.masks[id], inventory) if id in inventory.masks else None
    if image and mask and image.size and mask.size and image.size != mask.size:
        detail = "image {}x{}, mask {}x{}".format(*image.size, *mask.size)
        if mask.size == image.stored:
            detail += ": the mask fits the image before EXIF turns it"
        mask.add("size-mismatch", detail)
    return image, mask


def _count_labels(diagnosis):
    """Pixels of each label, the masks that show it, and the mask that shows most of it."""
    inventory, largest = diagnosis.inventory, {}
    splits = {split: set(ids) for split, ids in inventory.splits.items()}
    diagnosis.mask_counts = {split: np.zeros(256, np.int64) for split in splits}
    for id, (image, mask) in diagnosis.files.items():
        if mask is None or mask.counts is None:
            continue
        diagnosis.pixels += mask.counts
        for split, ids in splits.items():
            if id in ids:
                diagnosis.mask_counts[split] += mask.counts > 0
        if image and image.size == mask.size:
            share = mask.counts / max(mask.counts.sum(), 1)
            for label in np.flatnonzero(share[: len(inventory.classes)]):
                if share[label] > largest.get(label, 0):
                    largest[label], diagnosis.samples[int(label)] = share[label], id


def _check_contents(diagnosis):
    """The same picture under several ids."""
    inventory, ids_of = diagnosis.inventory, {}
    splits = {split: set(ids) for split, ids in inventory.splits.items()}
    for id, (image, _) in diagnosis.files.items():
        if image and image.digest:
            ids_of.setdefault(image.digest, []).append(id)
    for ids in (ids for ids in ids_of.values() if len(ids) > 1):
        names = [inventory.name(inventory.images[id]) for id in ids]
        detail = f"and {', '.join(names[1:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        overlaps = 0
        for a, b in inventory.disjoint_splits():
            in_a, in_b = splits[a].intersection(ids), splits[b].intersection(ids)
            if in_a and in_b and len(in_a | in_b) > 1:
                overlaps += 1
                diagnosis.findings.add("overlap-by-content", names[0], f"{detail}: {a} and {b}")
        if not overlaps:
            diagnosis.findings.add("duplicate-content", names[0], detail)


def _check_classes(diagnosis):
    """Classes never seen, and masks whose only class is called void."""
    inventory, pixels, counts = diagnosis.inventory, diagnosis.pixels, diagnosis.mask_counts
    for number, name in enumerate(inventory.classes if pixels.any() else ()):
        absent = [split for split in ("train", "val") if split in counts and not counts[split][number]]
        if not pixels[number]:
            diagnosis.findings.add("unseen-class", name, "nowhere")
        elif absent:
            diagnosis.findings.add("unseen-class", name, f"not in {' nor in '.join(absent)}")
    if inventory.coloured or inventory.layout == "Cityscapes" or len(inventory.classes) == 1:
        return
    if pixels[VOID] and pixels[0] and not pixels[1:VOID].any():
        for mask in (mask for _, mask in diagnosis.files.values() if mask and mask.counts is not None):
            if mask.counts[VOID]:
                diagnosis.findings.add(
                    "black-and-white", inventory.name(mask.path), f"{mask.counts[VOID]} pixels of 255"
                )
