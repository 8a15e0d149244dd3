"""The doctor of data sets: reads everything once and tells, as data, what is wrong and what is there. It prints nothing,
and writes nothing."""

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .doctor_files import examine_image, examine_mask
from .doctor_findings import Findings
from .doctor_survey import Survey, disjoint, survey
from .labels import VOID


@dataclass
class Diagnosis:
    """What the doctor found. survey: what the data set says it has; None where its description could not be used.
    files: {id: (File of the image or None, File of the mask or None)}. pixels: (256,) over all readable masks.
    shown: {split: (256,) masks that show each label}. samples: {class number: the id that shows most of it}."""

    findings: Findings
    survey: Survey = None
    files: dict = field(default_factory=dict)
    pixels: np.ndarray = None
    shown: dict = field(default_factory=dict)
    samples: dict = field(default_factory=dict)

    @property
    def void_share(self):
        """Void pixels among all, 0 … 1; 0 where no mask could be read."""
        return float(self.pixels[VOID] / max(self.pixels.sum(), 1))

    def forms(self, which):
        """{what the files are, such as "JPEG RGB": how many}; which: 0 for images, 1 for masks."""
        return Counter(pair[which].form for pair in self.files.values() if pair[which])


def examine(root, watch=lambda results, total: results):
    """Read a whole data set, in VOC's layout, in Cityscapes', or own data. -> Diagnosis

    watch(results, total): wraps the results as they come, for a progress bar.
    Raises FileNotFoundError or ValueError for what is no data set; whatever is wrong inside one is a finding.
    """
    findings = Findings()
    found = survey(root, findings)
    if found is None:
        return Diagnosis(findings)
    diagnosis = Diagnosis(findings, found, pixels=np.zeros(256, np.int64))
    Image.init()  # every format that Pillow knows, before threads ask for them
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # Pillow and NumPy let other threads run while they work
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd EXIF data and the like
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            results = pool.map(lambda id: _examine_pair(found, id), found.ids)
            for id, pair in zip(found.ids, watch(results, len(found.ids)), strict=True):
                diagnosis.files[id] = pair
                _note(diagnosis, pair)
        finally:
            pool.shutdown(cancel_futures=True)
    _count(diagnosis)
    _check_contents(diagnosis)
    _check_classes(diagnosis)
    return diagnosis


def _examine_pair(found, id):
    """(File of the image, File of the mask); None for one that is not there."""
    image = examine_image(found.images[id]) if id in found.images else None
    mask = examine_mask(found.masks[id], found) if id in found.masks else None
    if image and mask and image.size and mask.size and image.size != mask.size:
        told = "image {}x{}, mask {}x{}".format(*image.size, *mask.size)
        if mask.size == image.stored:
            told += ": the mask fits the image before EXIF turns it"
        mask.faults.append(("size-mismatch", told))
    return image, mask


def _note(diagnosis, pair):
    for file in filter(None, pair):
        for kind, detail in file.faults:
            diagnosis.findings.add(kind, diagnosis.survey.name(file.path), detail)


def _count(diagnosis):
    """Pixels of each label, the masks that show it, and the mask that shows most of it."""
    found, most = diagnosis.survey, {}
    splits = _sets(found)
    diagnosis.shown = {split: np.zeros(256, np.int64) for split in found.splits}
    for id, (image, mask) in diagnosis.files.items():
        if mask is None or mask.counts is None:
            continue
        diagnosis.pixels += mask.counts
        for split, ids in splits.items():
            if id in ids:
                diagnosis.shown[split] += mask.counts > 0
        if image and image.size == mask.size:
            share = mask.counts / max(mask.counts.sum(), 1)
            for label in np.flatnonzero(share[: len(found.classes)]):
                if share[label] > most.get(label, 0):
                    most[label], diagnosis.samples[int(label)] = share[label], id


def _sets(found):
    return {split: set(ids) for split, ids in found.splits.items()}


def _check_contents(diagnosis):
    """The same picture under several ids."""
    found, alike = diagnosis.survey, {}
    for id, (image, _) in diagnosis.files.items():
        if image and image.digest:
            alike.setdefault(image.digest, []).append(id)
    splits = _sets(found)
    for ids in (ids for ids in alike.values() if len(ids) > 1):
        names = [found.name(found.images[id]) for id in ids]
        told = f"and {', '.join(names[1:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        between = [(a, b) for a, b in disjoint(splits) if _meet(ids, splits[a], splits[b])]
        for a, b in between:
            diagnosis.findings.add("overlap-by-content", names[0], f"{told}: {a} and {b}")
        if not between:
            diagnosis.findings.add("duplicate-content", names[0], told)


def _meet(ids, a, b):
    """Whether two different ones of these ids lie in the sets a and b."""
    here, there = a.intersection(ids), b.intersection(ids)
    return bool(here and there) and len(here | there) > 1


def _check_classes(diagnosis):
    """Classes never seen, and masks whose only class is called void."""
    found = diagnosis.survey
    for number, name in enumerate(found.classes):
        absent = [
            split for split in ("train", "val") if split in diagnosis.shown and not diagnosis.shown[split][number]
        ]
        if diagnosis.pixels.any() and not diagnosis.pixels[number]:
            diagnosis.findings.add("unseen-class", name, "nowhere")
        elif absent and diagnosis.pixels.any():
            diagnosis.findings.add("unseen-class", name, f"not in {' nor in '.join(absent)}")
    if found.coloured or found.kind == "Cityscapes":
        return
    if diagnosis.pixels[VOID] and diagnosis.pixels[0] and not diagnosis.pixels[1:VOID].any() and len(found.classes) > 1:
        for _, mask in diagnosis.files.values():
            if mask is not None and mask.counts is not None and mask.counts[VOID]:
                diagnosis.findings.add("black-and-white", found.name(mask.path), f"{mask.counts[VOID]} pixels of 255")
