"""One image or mask file: its format, and what is wrong with it."""

from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from .. import images
from ..labels import VOID, describe_colours, match_colours

ORIENTATION = 0x0112  # the EXIF tag
_STORED = {2: "mirrored", 3: "upside down", 4: "mirrored", **dict.fromkeys((5, 6, 7, 8), "on its side")}
MIN_BETWEEN = 3  # so many different intermediate values in a mask are the trace of a smooth resize
DARK = 40  # a grey value below this looks black


@dataclass
class FileReport:
    """What was found out about one file. size: (width, height) upright, None if it cannot be read; stored: as in the file.
    format: such as "JPEG RGB", with Pillow's mode. problems: [(kind, detail)]. digest: of the pixels. counts: (256,) pixels of each label, None
    where there are none. readable_as: where a mask's labels can be read from, "numbers" or "colours"; None if nowhere."""

    path: Path
    size: tuple = None
    stored: tuple = None
    format: str = "unreadable"
    mode: str = ""
    problems: list = field(default_factory=list)
    digest: bytes = None
    counts: np.ndarray = None
    readable_as: str = None

    def add(self, kind, detail=""):
        self.problems.append((kind, detail))


def examine_image(path):
    """A photograph: can it be decoded whole, and what does the reader change without a word? -> FileReport"""
    report, pixels = _decode(path, _decode_photo)
    if pixels is not None:
        report.size = pixels.shape[1::-1]
        report.digest = blake2b(pixels.tobytes() + str(pixels.shape).encode(), digest_size=16).digest()
        if pixels.min() == pixels.max():
            report.add("blank-image", f"all {int(pixels.min())}")
    return report


def examine_mask(path, inventory):
    """A mask: what are its values, and are they labels? -> FileReport"""
    report, decoded = _decode(path, lambda report, image: _decode_mask(report, image, inventory.coloured))
    if decoded is not None:
        pixels, palette = decoded
        if inventory.coloured:
            _examine_colours(report, pixels, inventory)
        elif report.mode in ("P", "L"):
            _examine_numbers(report, pixels, palette, inventory)
        else:
            _examine_wrong_mode(report, pixels, inventory)
    return report


def read_labels(report, inventory):
    """The labels (H, W) uint8 of a mask, as its report says that they can be read; void where there is none."""
    if report.readable_as == "colours":
        labels, known = match_colours(
            images.read_image(report.path), inventory.palette, len(inventory.classes), void=True
        )
    else:
        with Image.open(report.path) as image:
            numbers = np.array(image).astype(np.uint8)
        labels, known = inventory.table[numbers], inventory.allowed[numbers]
    return np.where(known, labels, VOID).astype(np.uint8)


def _decode(path, decode):
    """-> (FileReport, what `decode(report, image)` makes of an opened image; None if that fails, and the report says why)"""
    report = FileReport(Path(path))
    try:
        if not report.path.stat().st_size:
            report.add("empty-file")
            return report, None
        with Image.open(report.path) as image:
            if message := images.too_large(image.size):
                report.add("bomb", message)
                return report, None
            report.size = report.stored = image.size
            return report, decode(report, image)
    except Image.DecompressionBombError as error:
        report.add("bomb", str(error).split(",")[0])
    except Exception as error:  # a broken file can make Pillow raise anything
        message = images.reason_of(error).replace(f" {str(path)!r}", "")
        cut = report.stored and ("truncated" in message.lower() or "broken data stream" in message.lower())
        report.add("truncated" if cut else "unreadable", message)
    report.size = None
    return report, None


def _decode_header(report, image):
    """The format, before pixels are decoded. A phone's panorama or depth photograph (MPO) is a JPEG followed by others."""
    format = "JPEG" if image.format == "MPO" else image.format
    report.format, report.mode = f"{format} {image.mode}", image.mode
    if Image.registered_extensions().get(report.path.suffix.lower()) != format:
        report.add("wrong-ending", f"a {format}")
    if format == image.format and getattr(image, "n_frames", 1) > 1:
        report.add("animated", f"{image.n_frames} frames")


def _decode_photo(report, image):
    """-> pixels (H, W, 3) uint8; notes what the reader changes"""
    _decode_header(report, image)
    if image.mode in ("CMYK", "YCCK", "LAB"):
        report.add("cmyk", image.mode)
    if image.mode[0] in "IF" or any(";16" in str(piece[3]) for piece in image.tile):
        report.add("16-bit", report.format)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        report.add("alpha", report.format)
    if turned := _STORED.get(image.getexif().get(ORIENTATION)):
        report.add("exif-rotated", f"stored {turned}")
    return images.upright(image)


def _decode_mask(report, image, coloured):
    """-> (pixels (H, W) of numbers or (H, W, 3) of colours, palette (n, 3) or None)"""
    _decode_header(report, image)
    if image.format == "JPEG":
        report.add("lossy-mask")
    numbers = not coloured and len(image.getbands()) == 1
    pixels = np.array(image) if numbers else images.upright(image)
    return pixels, np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode == "P" else None


def _examine_numbers(report, numbers, palette, inventory):
    """numbers (H, W) uint8: the values of a palette or grey image."""
    counts = np.bincount(numbers.reshape(-1), minlength=256)
    report.readable_as = "numbers"
    between = values_in_between(numbers, counts)
    outside = [v for v in np.flatnonzero(counts) if not inventory.allowed[v]]
    used = [int(v) for v in np.flatnonzero(counts) if v != VOID]
    if between:  # they would count for classes that are not there
        report.add("in-between", _list(between))
    else:
        report.counts = np.bincount(inventory.table, weights=counts, minlength=256).astype(np.int64)
        if outside:
            report.add("label-outside", ", ".join(f"{v} ({counts[v]} pixels)" for v in outside[:5]))
        if not used:
            report.add("void-only")
    if palette is not None and inventory.layout != "Cityscapes":
        _examine_palette(report, palette, used, inventory)
    elif palette is None and any(used) and max(used) < DARK and not outside and not between:
        report.add("looks-black", f"grey values {_list(used)}")


def _examine_palette(report, palette, used, inventory):
    """Are the colours behind the numbers those of the classes, and can they be seen?"""
    known = {tuple(inventory.palette[v]): v for v in (*range(len(inventory.classes)), VOID)}
    used = [v for v in used if v < len(palette) and inventory.allowed[v]]
    class_of = {v: known.get(tuple(palette[v])) for v in used}
    wrong = [v for v in used if v != class_of[v]]
    if any(used) and all(palette[v].max() < DARK for v in used):
        report.add("looks-black", f"a black palette; numbers {_list(used)}")
    elif wrong and None not in class_of.values() and len(set(class_of.values())) == len(used):
        report.add(
            "renumbered-palette", ", ".join(f"{v} is {inventory.class_name(class_of[v])}'s colour" for v in wrong)
        )
        report.readable_as = "colours"
    elif wrong:
        report.add("other-palette")


def _examine_colours(report, pixels, inventory):
    """pixels (H, W, 3): a mask whose colours stand for classes."""
    labels, known = match_colours(pixels, inventory.palette, len(inventory.classes), inventory.void)
    report.size = known.shape[::-1]
    report.counts = np.bincount(labels[known], minlength=256)
    report.readable_as = "colours"
    if known.any() and (labels[known] == VOID).all():
        report.add("void-only")
    if known.all():
        return
    colours, where, counts = np.unique(pixels[~known], axis=0, return_inverse=True, return_counts=True)
    numbers = np.zeros(known.shape, np.int64)  # 0: a class's colour
    numbers[~known] = where.reshape(-1) + 1
    low, high = _neighbourhood_range(numbers)
    smooth = len(colours) >= MIN_BETWEEN and not low[low == high].any()  # no 3×3 square of one foreign colour
    report.add("in-between" if smooth else "colour-outside", describe_colours(colours, counts))


def _examine_wrong_mode(report, pixels, inventory):
    """A mask that is neither palette nor grey of 8 bits: what does it hold, and can labels be read from that?"""
    if pixels.ndim == 2:
        values = np.unique(pixels)
        detail = f"{report.mode} with the values {_list(values)}"
        if np.isin(values, np.flatnonzero(inventory.allowed)).all():
            report.readable_as = "numbers"
    else:
        colours = np.unique(pixels.reshape(-1, 3), axis=0)
        labels, known = match_colours(colours, inventory.palette, len(inventory.classes), void=True)
        detail = f"{report.mode} with {len(colours)} colours, {int(known.sum())} of them classes'"
        if report.mode in ("RGB", "RGBA") and known.all() and inventory.layout != "Cityscapes":
            report.readable_as = "colours"
            names = ", ".join(inventory.class_name(v) for v in sorted(labels))
            detail = f"{report.mode} in the classes' colours: {names}"
    report.add("mask-mode", f"{detail}{'; --fix can write it' if report.readable_as else ''}")


def values_in_between(numbers, counts):
    """The values that look like a smooth resize: rare, nowhere three pixels thick, always between their neighbours' values.

    numbers (H, W) uint8, counts (256,). -> the values, or none if there are fewer than three of them.
    Real masks have none: a thin arm may be one such value, but not three.
    """
    values = np.flatnonzero((counts > 0) & (counts < numbers.size / 8))
    if len(values) < MIN_BETWEEN or min(numbers.shape) < 3:
        return []
    low, high = _neighbourhood_range(numbers)
    inner = numbers[1:-1, 1:-1]
    between = np.bincount(inner[(low < inner) & (inner < high)], minlength=256)
    thick = np.bincount(inner[low == high], minlength=256)
    total = np.bincount(inner.reshape(-1), minlength=256)
    found = [int(v) for v in values if total[v] and not thick[v] and between[v] >= 0.9 * total[v]]
    return found if len(found) >= MIN_BETWEEN else []


def _neighbourhood_range(numbers):
    """The least and the greatest value in each pixel's 3×3 neighbourhood, without the outermost pixels."""

    def reduce(minimum):
        rows = minimum(minimum(numbers[:-2], numbers[1:-1]), numbers[2:])
        return minimum(minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])

    return reduce(np.minimum), reduce(np.maximum)


def _list(values):
    values = [int(v) for v in values]
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
