"""What can be mended in a data set, written as a new one beside it: own data, with palette masks. Originals are only read."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .description import NAME
from .doctor_findings import KINDS
from .doctor_survey import disjoint
from .images import read_image, write_mask
from .labels import VOID, from_colours

_COPIED = ("JPEG RGB", "JPEG L", "PNG RGB", "PNG L")  # what is read as it is; anything else is written anew
_ORIENTATION = 0x0112


@dataclass
class Fixed:
    """written: pairs in the new folder. left_out: [(id, why)]. lists: {name: how many ids}."""

    written: int
    left_out: list
    lists: dict


def write_fixed(diagnosis, target):
    """Write what is usable of a data set that `examine` has read: upright RGB images, palette masks of class numbers, lists.

    target: a folder, absent or empty. Lists lose what cannot be used, what they name twice, and (those to train on)
    what also stands in a list to validate or test on. Nothing is guessed: a label that is no class is not mended.
    Raises InputError for a folder that holds something and where nothing is usable; nothing is written then.
    """
    target, found = Path(target), diagnosis.survey
    check_target(target)
    for kind in ("description", "classes-file", "black-and-white"):
        if diagnosis.findings.names(kind):
            raise InputError(f"{target}: nothing was written; first to be put right by hand: {KINDS[kind].meaning}")
    reasons = {id: why_not(*pair) for id, pair in diagnosis.files.items()}
    usable = [id for id, why in reasons.items() if why is None]
    lists = {split: ids for split, ids in _lists(diagnosis, usable).items() if ids}
    if not lists:
        raise InputError(f"{target}: nothing was written: no image can be used together with its mask and a list")
    kept = list(dict.fromkeys(id for ids in lists.values() for id in ids))
    for id in kept:
        _write_image(found.images[id], diagnosis.files[id][0], target / "images", id)
        _write_mask(found, diagnosis.files[id], target / "masks" / f"{id}.png")
    for split, ids in lists.items():
        (target / f"{split}.txt").write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")
    # Last, so that what was interrupted is no data set.
    (target / NAME).write_text(_description(found, lists), encoding="utf-8")
    left_out = [(id, why or "in no list, or also in one to validate or test on") for id, why in reasons.items()]
    chosen = set(kept)
    return Fixed(
        len(kept), [(id, why) for id, why in left_out if id not in chosen], {k: len(v) for k, v in lists.items()}
    )


def check_target(target):
    """Raise InputError unless this folder is absent or empty."""
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"{target}: expected an empty or absent folder to write to, found something; nothing was written"
        )


def why_not(image, mask):
    """Why a pair of Files cannot be used, as the meaning of a finding; None if it can."""
    if image is None or mask is None:
        return KINDS["missing-mask" if image else "missing-image"].meaning
    for kind, _ in image.faults + mask.faults:
        if KINDS[kind].unusable and not (kind == "size-mismatch" and fits_before_turning(image, mask)):
            return KINDS[kind].meaning
    return None if mask.readable_as else KINDS["mask-mode"].meaning


def fits_before_turning(image, mask):
    """Whether the mask was drawn on the image as it is stored, so that it has to be turned with it."""
    return mask.size != image.size and mask.size == image.stored


def _lists(diagnosis, usable):
    """{split: usable ids}, those to train on without what stands in the others, by id or by content."""
    usable, splits = set(usable), diagnosis.survey.splits
    if not any(splits.values()):
        return {"train": sorted(usable)}
    digest = {id: image.digest for id, (image, _) in diagnosis.files.items() if image}
    out = {split: [id for id in ids if id in usable] for split, ids in splits.items()}
    for a, b in disjoint(splits):
        there = {digest[id] for id in out[b]}
        out[a] = [id for id in out[a] if digest[id] not in there]
    return out


def _write_image(source, file, folder, id):
    """A copy of an image that is read as it is; a PNG, which loses nothing, of what the reader makes of any other."""
    plain = not file.faults and file.form in _COPIED
    target = folder / f"{id}{'.jpg' if plain and file.form.startswith('JPEG') else '.png'}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if plain:
        shutil.copyfile(source, target)
    else:
        Image.fromarray(read_image(source)).save(target)


def _write_mask(found, pair, target):
    image, mask = pair
    if mask.readable_as == "colours":
        labels = from_colours(read_image(mask.path), found.palette, len(found.classes), True, mask.path)
    else:
        with Image.open(mask.path) as numbers:
            labels = found.table[np.array(numbers).astype(np.uint8)]
    if fits_before_turning(image, mask):
        drawn = Image.fromarray(labels)
        with Image.open(image.path) as photo:
            drawn.getexif()[_ORIENTATION] = photo.getexif()[_ORIENTATION]
        labels = np.array(ImageOps.exif_transpose(drawn))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_mask(target, labels, found.palette)


def _description(found, lists):
    """The dataset.toml of what was written."""
    lines = [f"# {found.kind}, mended", 'mask_kind = "ids"', f"void = {found.palette[VOID].tolist()}", "", "[splits]"]
    lines += [f"{_quoted(split)} = {_quoted(f'{split}.txt')}" for split in lists]
    for name, colour in zip(found.classes, found.palette.tolist(), strict=False):
        lines += ["", "[[classes]]", f"name = {_quoted(name)}", f"colour = {colour}"]
    return "\n".join(lines) + "\n"


def _quoted(text):
    """A TOML string: JSON's escapes are TOML's, but for one character that TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
