"""A folder of masks, one for each object: what is wrong with each, and whether they fit together."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from .. import images
from ..sets.nuclei import drawn_in, overlap, separate
from .files import FileReport, examine_header, failures
from .findings import KINDS, WARNING


def examine_objects(dataset, name):
    """-> FileReport of the folder, whose problems name the masks"""
    report = FileReport(dataset.folder / name, name, format="folders of masks")
    instances, names = None, [""]  # of the objects by number
    for mask in dataset.object_names(str(Path(name).parent)):
        short = Path(mask).name
        problems, drawn = _examine_object(dataset, mask)
        report.problems += [(kind, f"{short}{f': {detail}' if detail else ''}") for kind, detail in problems]
        if drawn is None:
            continue
        if instances is None:
            instances = np.zeros(drawn.shape, np.uint16)
        if drawn.shape != instances.shape:
            sizes = "{1}x{0}, others {3}x{2}".format(*drawn.shape, *instances.shape)
            report.add("size-mismatch", f"{short}: {sizes}")
        elif not drawn.any():
            report.add("empty-object", short)
        else:
            if shared := overlap(instances, drawn):
                report.add("overlapping-objects", f"{short} and {names[shared[0]]}: {shared[1]} pixels")
            instances[drawn & (instances == 0)] = len(names)
            names.append(short)
    if instances is None:
        report.add("empty-object", "no mask in the folder: an image without an object")
        return report
    report.size = report.stored = instances.shape[::-1]
    if all(KINDS[kind][0] == WARNING for kind, _ in report.problems):
        report.counts, report.readable_as = np.bincount(separate(instances).reshape(-1), minlength=256), "objects"
    return report


def _examine_object(dataset, name):
    """([(kind, detail)] of one object's mask, the object's pixels (H, W) bool or None)"""
    single, drawn = FileReport(dataset.folder / name, name), None
    with failures(single), open(single.path, "rb") as file, Image.open(file) as image:
        examine_header(single, image)
        images.check_kind(image, file)
        if image.format == "JPEG":
            single.add("lossy-mask")
        picture = images.marks_of(image, dataset.exif)
        try:
            drawn = drawn_in(picture)
        except InputError as error:
            single.add("several-values", str(error).partition("got ")[2].partition(";")[0])
    return single.problems, drawn
