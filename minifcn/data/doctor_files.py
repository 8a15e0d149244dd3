"""One image or mask file under the doctor's eyes: what it is, and what is wrong with it."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from . import images
from .labels import VOID, match_colours, told_colours

TURNED = {
    2: "mirrored",
    3: "upside down",
    4: "mirrored",
    5: "on its side",
    6: "on its side",
    7: "on its side",
    8: "on its side",
}
_ORIENTATION = 0x0112
THIN = 3  # so many different values in between make a mask one that was resized smoothly
DARK = 40  # a grey value below this looks black


@dataclass
class File:
    """What was found out about one file. size: (width, height) upright, None if it cannot be read; stored: as in the file.
    faults: [(kind, detail)]. digest: of the pixels. counts: (256,) pixels of each label, None where there are none.
    readable_as: how a mask's labels can be had, "numbers" or "colours"; None if they cannot."""

    path: Path
    size: tuple = None
    stored: tuple = None
    form: str = "unreadable"
    faults: list = field(default_factory=list)
    digest: bytes = None
    counts: np.ndarray = None
    readable_as: str = None


def examine_image(path):
    """A photograph: can it be decoded whole, and what does the reader silently change? -> File"""
    file = File(Path(path))
    with _opened(file) as image:
        if image is None:
            return file
        pixels = _decoded(file, lambda: _examine_photo(file, image))
    if pixels is not None:
        file.size = pixels.shape[1::-1]
        file.digest = blake2b(pixels.tobytes() + str(pixels.shape).encode(), digest_size=16).digest()
        if pixels.min() == pixels.max():
            file.faults.append(("blank-image", f"all {int(pixels.min())}"))
    return file


def _examine_photo(file, image):
    """What the reader changes in silence. -> its pixels (H, W, 3) uint8"""
    if image.mode in ("CMYK", "YCCK", "LAB"):
        file.faults.append(("cmyk", image.mode))
    if image.mode[0] in "IF" or any(";16" in str(piece[3]) for piece in image.tile):
        file.faults.append(("16-bit", file.form))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        file.faults.append(("alpha", file.form))
    turned = TURNED.get(image.getexif().get(_ORIENTATION))
    if turned:
        file.faults.append(("exif-rotated", f"stored {turned}"))
    return images.upright(image)


def examine_mask(path, survey):
    """A mask: what are its values, and are they labels? -> File"""
    file = File(Path(path))
    with _opened(file) as image:
        if image is None:
            return file
        if image.format == "JPEG":
            file.faults.append(("lossy-mask", ""))
        if survey.coloured:
            pixels = _decoded(file, lambda: images.upright(image))
            if pixels is not None:
                _examine_colours(file, pixels, survey)
        elif image.mode in ("P", "L"):
            numbers = _decoded(file, lambda: np.array(image))
            if numbers is not None:
                _examine_numbers(file, numbers, image, survey)
        else:
            _decoded(file, lambda: _examine_wrong_mode(file, image, survey))
    return file


@contextmanager
def _opened(file):
    """Pillow's image with its head read, or None after noting in `file` why there is none."""
    image = None
    try:
        if file.path.stat().st_size:
            image = Image.open(file.path)
            if reason := images.too_large(image.size):
                image.close()
                image = None
                file.faults.append(("bomb", reason))
        else:
            file.faults.append(("empty-file", ""))
    except Image.DecompressionBombError as error:
        file.faults.append(("bomb", str(error).split(",")[0]))
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them
        file.faults.append(("unreadable", _told(error).replace(f" {str(file.path)!r}", "")))
    if image is None:
        yield None
        return
    with image:
        file.size = file.stored = image.size
        yield image if _decoded(file, lambda: _read_head(file, image)) else None


def _read_head(file, image):
    """What kind of file it is, before its pixels are decoded. -> True"""
    # A phone's panorama or depth photograph (MPO) is a JPEG with others behind it.
    form = "JPEG" if image.format == "MPO" else image.format
    file.form = f"{form} {image.mode}"
    if Image.registered_extensions().get(file.path.suffix.lower()) != form:
        file.faults.append(("wrong-ending", f"a {form}"))
    if form == image.format and getattr(image, "n_frames", 1) > 1:
        file.faults.append(("animated", f"{image.n_frames} frames"))
    return True


def _told(error):
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _decoded(file, decode):
    """What `decode` gives, or None after noting in `file` why it cannot."""
    try:
        return decode()
    except Exception as error:  # as above
        told = _told(error)
        cut = "truncated" in told.lower() or "broken data stream" in told.lower()
        file.faults.append(("truncated" if cut else "unreadable", told))
        file.size = None
        return None


def _examine_numbers(file, numbers, image, survey):
    """numbers (H, W) uint8: the values of a palette or grey image."""
    counts = np.bincount(numbers.reshape(-1), minlength=256)
    file.readable_as = "numbers"
    between = in_between(numbers, counts)
    if between:
        file.faults.append(("in-between", f"{_some(between)}"))
    else:  # values in between would count for classes that are not there
        file.counts = np.bincount(survey.table, weights=counts, minlength=256).astype(np.int64)
    outside = [v for v in np.flatnonzero(counts) if not survey.allowed[v]]
    if outside and not between:
        file.faults.append(("label-outside", ", ".join(f"{v} ({counts[v]} pixels)" for v in outside[:5])))
    used = [v for v in np.flatnonzero(counts) if v != VOID]
    if not used and not between:
        file.faults.append(("void-only", ""))
    if image.mode == "P" and survey.kind != "Cityscapes":
        _examine_palette(file, np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3), used, survey)
    elif image.mode == "L" and any(used) and max(used) < DARK and not outside and not between:
        file.faults.append(("looks-black", f"grey values {_some(used)}"))


def _examine_palette(file, palette, used, survey):
    """Are the colours behind the numbers those of the classes, and can they be seen?"""
    known = {tuple(survey.palette[v]): v for v in (*range(len(survey.classes)), VOID)}
    used = [int(v) for v in used if v < len(palette) and survey.allowed[v]]
    meant = {v: known.get(tuple(palette[v])) for v in used}
    wrong = [v for v in used if v != meant[v]]
    if any(used) and all(palette[v].max() < DARK for v in used):
        file.faults.append(("looks-black", f"a black palette; numbers {_some(used)}"))
    elif wrong and None not in meant.values() and len(set(meant.values())) == len(used):
        changed = ", ".join(f"{v} is {_class(survey, meant[v])}'s colour" for v in wrong)
        file.faults.append(("renumbered-palette", changed))
        file.readable_as = "colours"
    elif wrong:
        file.faults.append(("other-palette", ""))


def _examine_colours(file, pixels, survey):
    """pixels (H, W, 3): a mask whose colours stand for classes."""
    labels, known = match_colours(pixels, survey.palette, len(survey.classes), survey.void)
    file.size = known.shape[::-1]
    file.counts = np.bincount(labels[known], minlength=256)
    file.readable_as = "colours"
    if known.any() and (labels[known] == VOID).all():
        file.faults.append(("void-only", ""))
    if known.all():
        return
    colours, where, counts = np.unique(pixels[~known], axis=0, return_inverse=True, return_counts=True)
    numbers = np.zeros(known.shape, np.int64)  # 0: a class's colour
    numbers[~known] = where.reshape(-1) + 1
    told = told_colours(colours, counts)
    low, high = _extremes(numbers)
    smooth = len(colours) >= THIN and not low[low == high].any()  # no square of 3×3 pixels of one foreign colour
    file.faults.append(("in-between" if smooth else "colour-outside", told))


def _examine_wrong_mode(file, image, survey):
    """A mask that is neither palette nor grey of 8 bits: what does it hold, and can the labels be told from that?"""
    if len(image.getbands()) == 1:
        values = np.unique(np.array(image))
        told = f"{image.mode} with the values {_some(values)}"
        if np.isin(values, np.flatnonzero(survey.allowed)).all():
            file.readable_as = "numbers"
    else:
        colours = np.unique(images.upright(image).reshape(-1, 3), axis=0)
        labels, known = match_colours(colours, survey.palette, len(survey.classes), void=True)
        told = f"{image.mode} with {len(colours)} colours, {int(known.sum())} of them classes'"
        if image.mode in ("RGB", "RGBA") and known.all() and survey.kind != "Cityscapes":
            file.readable_as = "colours"
            told = f"{image.mode} in the classes' colours: {', '.join(_class(survey, v) for v in sorted(labels))}"
    file.faults.append(("mask-mode", f"{told}{'; --fix can write it' if file.readable_as else ''}"))


def _class(survey, label):
    return "void" if label == VOID else survey.classes[label]


def in_between(numbers, counts):
    """The values that look like a smooth resize: rare, nowhere three pixels thick, always between their neighbours' values.

    numbers (H, W) uint8, counts (256,). -> the values, or none if there are fewer than three of them.
    Real masks have none: a thin arm may be one such value, but not three.
    """
    values = np.flatnonzero((counts > 0) & (counts < numbers.size / 8))
    if len(values) < THIN or min(numbers.shape) < 3:
        return []
    low, high = _extremes(numbers)
    inner = numbers[1:-1, 1:-1]
    strictly = np.bincount(inner[(low < inner) & (inner < high)], minlength=256)
    thick = np.bincount(inner[low == high], minlength=256)
    all_inner = np.bincount(inner.reshape(-1), minlength=256)
    found = [int(v) for v in values if all_inner[v] and not thick[v] and strictly[v] >= 0.9 * all_inner[v]]
    return found if len(found) >= THIN else []


def _extremes(numbers):
    """The least and the greatest value in each pixel's 3×3 neighbourhood, without the outermost pixels."""
    rows_low = np.minimum(np.minimum(numbers[:-2], numbers[1:-1]), numbers[2:])
    rows_high = np.maximum(np.maximum(numbers[:-2], numbers[1:-1]), numbers[2:])
    low = np.minimum(np.minimum(rows_low[:, :-2], rows_low[:, 1:-1]), rows_low[:, 2:])
    high = np.maximum(np.maximum(rows_high[:, :-2], rows_high[:, 1:-1]), rows_high[:, 2:])
    return low, high


def _some(values):
    values = [int(v) for v in values]
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
