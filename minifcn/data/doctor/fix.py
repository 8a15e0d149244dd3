"""Writes the usable part of a data set as a new one beside it: your own data, with palette masks. Originals are only read."""

import json
import shutil
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ...files import check_empty
from ..images import TURNS, kind_of, orientation, read_image, write_mask
from ..labels import VOID
from ..sets.description import FILE_NAME
from .files import read_labels
from .findings import KINDS, UNUSABLE
from .inventory import disjoint, in_list

_COPIED = ("JPEG RGB", "JPEG L", "PNG RGB", "PNG L")  # what is read as it is; anything else is written anew


def write_fixed(diagnosis, target):
    """Write what is usable of a data set that `examine` has read: upright images, in 8 bits of grey or RGB, palette masks of class numbers, lists.

    target: a folder, absent or empty. Lists lose what cannot be used, what they name twice, and (those to train and
    to validate on) what also stands in a later list, to validate or test on. Nothing is guessed: a label that is no class is not repaired.
    Raises InputError for a folder that is not empty and where nothing is usable; nothing is written then.
    -> ({split: the ids of the new list}, [(an id that was left out, why)])
    """
    target, dataset = Path(target), diagnosis.dataset
    check_empty(target)
    if dataset is not None and dataset.objects:
        raise InputError(
            f"{target}: nothing was written; a copy would lose which object is which: correct the masks by hand"
        )
    for kind in ("description", "classes-file", "black-and-white"):
        if kind in diagnosis.findings:
            raise InputError(f"{target}: nothing was written; correct this by hand first: {KINDS[kind][1]}")
    reasons = {id: _reason_unusable(*pair) for id, pair in diagnosis.files.items()}
    double = set(diagnosis.findings.names("two-files"))
    for id, pair in diagnosis.files.items():
        if double & {report.name for report in pair if report}:
            reasons[id] = KINDS["two-files"][1]
    lists = _usable_lists(diagnosis, {id for id, reason in reasons.items() if reason is None})
    if not lists:
        raise InputError(f"{target}: nothing was written: no image can be used together with its mask and a list")
    names = _names_for(dict.fromkeys(id for ids in lists.values() for id in ids))
    for id, name in names.items():
        _write_image(diagnosis.files[id][0], target / "images", name, dataset.exif)
        _write_mask(dataset, *diagnosis.files[id], target / "masks" / f"{name}.png")
    lists = {split: [names[id] for id in ids] for split, ids in lists.items()}
    for split, ids in lists.items():
        (target / f"{split}.txt").write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")
    # Last, so that an interrupted copy is no data set.
    (target / FILE_NAME).write_text(_description(dataset, lists), encoding="utf-8")
    unlisted = "in no list, or also in one to validate or test on"
    return lists, [(id, reason or unlisted) for id, reason in reasons.items() if id not in names]


def _reason_unusable(image, mask):
    """Why a pair of FileReports cannot be used, as the meaning of a finding; None if it can."""
    if image is None or mask is None:
        return KINDS["missing-mask" if image else "missing-image"][1]
    for kind, _ in image.problems + mask.problems:
        level, meaning = KINDS[kind]
        if level == UNUSABLE and not (kind == "size-mismatch" and _fits_stored(image, mask)):
            return meaning
    return None if mask.readable_as else KINDS["mask-mode"][1]


def _fits_stored(image, mask):
    """Whether the mask was drawn on the image as it is stored, so that it has to be turned with it."""
    return mask.size != image.size and mask.size == image.stored


def _names_for(ids):
    """{id: a name that a list can hold, for each id another}: the id itself if it can, else `in_list` of it, with a number if taken."""
    names = {id: id for id in ids if id == in_list(id)}
    taken = set(names)
    for id in (id for id in ids if id not in names):
        numbered = (f"{in_list(id)}_{number}" for number in count(2))
        names[id] = next(name for name in chain([in_list(id)], numbered) if name not in taken)
        taken.add(names[id])
    return names


def _usable_lists(diagnosis, usable):
    """{split: usable ids}, each without what stands in a later one, by id or by content; no empty ones."""
    if not any(diagnosis.lists.values()):
        return {"train": sorted(usable)} if usable else {}
    digest = {id: image.digest for id, (image, _) in diagnosis.files.items() if image}
    lists = {split: [id for id in ids if id in usable] for split, ids in diagnosis.lists.items()}
    for a, b in disjoint(lists):
        in_b = {digest[id] for id in lists[b]}
        lists[a] = [id for id in lists[a] if digest[id] not in in_b]
    return {split: ids for split, ids in lists.items() if ids}


def _write_image(image, folder, id, exif):
    """Copy an image that is read as it is, and a TIFF of bands, which no PNG holds; write any other, as the reader decodes it, as a
    lossless PNG."""
    bands = image.bands != 3
    copied = bands or (not image.problems and image.format in _COPIED)
    target = folder / f"{id}{'.tif' if bands else '.jpg' if copied and image.format.startswith('JPEG') else '.png'}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if copied:
        shutil.copyfile(image.path, target)
    else:
        pixels = read_image(image.path, exif)
        Image.fromarray(pixels[:, :, 0] if kind_of(image.path)[0] == 1 else pixels).save(target)


def _write_mask(dataset, image, mask, target):
    labels = read_labels(mask, dataset)
    if _fits_stored(image, mask):
        with Image.open(image.path) as photo:
            labels = np.array(Image.fromarray(labels).transpose(TURNS[orientation(photo)]))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_mask(target, labels, dataset.palette)


def _description(dataset, lists):
    """The dataset.toml of what was written."""
    void = dataset.palette[VOID].tolist()
    lines = [
        f"# {dataset.layout}, repaired",
        'mask_kind = "ids"',
        *([] if void in dataset.palette[: dataset.num_classes].tolist() else [f"void = {void}"]),
        f"void_numbers = [{VOID}]",
        f"exif = {str(dataset.exif).lower()}",
        "",
        "[splits]",
    ]
    lines += [f"{_quoted(split)} = {_quoted(f'{split}.txt')}" for split in lists]
    for name, colour in zip(dataset.classes, dataset.palette.tolist(), strict=False):
        lines += ["", "[[classes]]", f"name = {_quoted(name)}", f"colour = {colour}"]
    return "\n".join(lines) + "\n"


def _quoted(text):
    """A TOML string: JSON's escapes are TOML's, but for one character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
