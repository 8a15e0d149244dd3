"""The doctor of data sets: reads everything once and reports, as data, what is wrong and what is there."""

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError, MissingFileError
from ...preprocessing import bands_in_words
from ..labels import VOID
from ..sets.base import SegmentationDataset
from ..sets.coco import Coco
from .annotations import examine_annotations, examine_told_apart
from .files import examine_image, examine_mask
from .findings import Findings
from .inventory import disjoint, find_pairs, open_for_doctor, read_lists
from .objects import examine_objects


@dataclass
class Diagnosis:
    """What the doctor found. dataset: the SegmentationDataset, with no samples; None where its description could not be used.
    lists: {split: ids, each once}. files: {id: (FileReport of the image or None, FileReport of the mask or None)}.
    pixels: (256,) over all readable masks. mask_counts: {split: (256,) masks that show each label}. samples: {class number:
    the id that shows most of it}."""

    findings: Findings = field(default_factory=Findings)
    dataset: SegmentationDataset = None
    lists: dict = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    pixels: np.ndarray = None
    mask_counts: dict = field(default_factory=dict)
    samples: dict = field(default_factory=dict)


def examine(root, progress=lambda results, total: results, exif=True):
    """Read a whole data set, in any of the layouts. -> Diagnosis

    progress(results, total): wraps the results as they come, for a progress bar. exif: as for `open_dataset`.
    Raises InputError for what is no data set; whatever is wrong inside one is a finding.
    """
    diagnosis = Diagnosis()
    findings = diagnosis.findings
    dataset = diagnosis.dataset = open_for_doctor(root, findings, exif)
    if dataset is None:
        return diagnosis
    diagnosis.lists = read_lists(dataset, findings)
    pairs, objects = find_pairs(dataset, diagnosis.lists, findings), _told_apart(dataset, findings)
    Image.init()  # load all of Pillow's formats before threads need them
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # Pillow and NumPy release the interpreter's lock
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd EXIF data and the like
        try:
            results = pool.map(lambda id: _examine_pair(dataset, objects, id, *pairs[id]), pairs)
            diagnosis.files = dict(zip(pairs, progress(results, total=len(pairs)), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
    _check_bands([image for image, _ in diagnosis.files.values() if image and image.bands])
    for report in (report for pair in diagnosis.files.values() for report in pair if report):
        for kind, detail in report.problems:
            findings.add(kind, report.name, detail)
    _count_labels(diagnosis)
    _check_contents(diagnosis)
    _check_classes(diagnosis)
    return diagnosis


def _check_bands(images):
    """Images of another number of bands than most. images: their FileReports"""
    counts = Counter(image.bands for image in images)
    for image in images if len(counts) > 1 else ():
        if image.bands != (usual := counts.most_common(1)[0][0]):
            image.add("other-bands", f"{bands_in_words(image.bands)}, most have {bands_in_words(usual)}")


def _told_apart(dataset, findings):
    """The data set with instances, if it has them beside its class masks; else None."""
    for source, annotations in dataset.strays.items() if isinstance(dataset, Coco) else ():
        for annotation in annotations:
            findings.add(
                "stray-annotation",
                source,
                f"annotation {annotation.get('id')!r} of image {annotation.get('image_id')!r}",
            )
    try:
        return None if dataset.objects else dataset.with_instances()
    except MissingFileError:
        return None
    except InputError as error:
        name, _, reason = str(error).partition(": ")
        findings.add("objects-differ", Path(name).name, reason)
        return None


def _examine_pair(dataset, objects, id, image_name, mask_name):
    """(FileReport of the image, FileReport of the mask); None for a file that is not there. objects: as `_told_apart` gives them"""
    image = image_name and examine_image(dataset, image_name)
    mask = mask_name and _examine_labels(dataset, objects, id, mask_name)
    if image and mask and image.size and mask.size and image.size != mask.size:
        detail = "image {}x{}, mask {}x{}".format(*image.size, *mask.size)
        if mask.size == image.stored:
            detail += ": the mask fits the image before EXIF turns it"
        mask.add("size-mismatch", detail)
    return image, mask


def _examine_labels(dataset, objects, id, name):
    if isinstance(dataset, Coco):
        report = examine_annotations(dataset, id)
    else:
        report = (examine_objects if dataset.objects else examine_mask)(dataset, name)
    report.id = id
    if objects is not None:
        examine_told_apart(objects, id, report)
    return report


def _count_labels(diagnosis):
    """Pixels of each label, the masks that show it, and the mask that shows most of it."""
    files = diagnosis.files.items()
    counts = {id: mask.counts for id, (_, mask) in files if mask and mask.counts is not None}
    none, num_classes = np.zeros(256, np.int64), diagnosis.dataset.num_classes
    diagnosis.pixels = sum(counts.values(), none)
    for split, ids in diagnosis.lists.items():
        diagnosis.mask_counts[split] = sum((counts[id] > 0 for id in ids if id in counts), none)
    fitting = [id for id, (image, mask) in files if id in counts and image and image.size == mask.size]
    shares = np.array([counts[id][:num_classes] / max(counts[id].sum(), 1) for id in fitting])
    for label in np.flatnonzero(shares.any(axis=0)).tolist():
        diagnosis.samples[label] = fitting[shares[:, label].argmax()]


def _check_contents(diagnosis):
    """The same picture under several ids."""
    ids_of, splits = {}, {split: set(ids) for split, ids in diagnosis.lists.items()}
    for id, (image, _) in diagnosis.files.items():
        if image and image.digest:
            ids_of.setdefault(image.digest, []).append(id)
    for ids in (ids for ids in ids_of.values() if len(ids) > 1):
        names = [diagnosis.files[id][0].name for id in ids]
        detail = f"and {', '.join(names[1:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        in_list = {split: listed.intersection(ids) for split, listed in splits.items()}
        overlaps = [
            (a, b) for a, b in disjoint(in_list) if in_list[a] and in_list[b] and len(in_list[a] | in_list[b]) > 1
        ]
        for a, b in overlaps:
            diagnosis.findings.add("overlap-by-content", names[0], f"{detail}: {a} and {b}")
        if not overlaps:
            diagnosis.findings.add("duplicate-content", names[0], detail)


def _check_classes(diagnosis):
    """Classes never seen, and masks whose only class is called void."""
    dataset, pixels, counts = diagnosis.dataset, diagnosis.pixels, diagnosis.mask_counts
    for number, name in enumerate(dataset.classes if pixels.any() else ()):
        absent = [split for split in ("train", "val") if split in counts and not counts[split][number]]
        if not pixels[number]:
            diagnosis.findings.add("unseen-class", name, "nowhere")
        elif absent:
            diagnosis.findings.add("unseen-class", name, f"not in {' nor in '.join(absent)}")
    binary = pixels[VOID] and pixels[0] and not pixels[1:VOID].any()
    if binary and dataset.shown and not dataset.coloured and len(dataset.classes) > 1:
        for mask in (mask for _, mask in diagnosis.files.values() if mask and mask.counts is not None):
            if mask.counts[VOID]:
                diagnosis.findings.add("black-and-white", mask.name, f"{mask.counts[VOID]} pixels of 255")
