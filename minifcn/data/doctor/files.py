"""One image or mask file: its format, and what is wrong with it."""

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError, one_line
from ...files import START, stand_in
from ...metrics.boundary import around
from .. import images
from ..labels import VOID, describe, match_colours

_STORED = {2: "mirrored", 3: "upside down", 4: "mirrored", **dict.fromkeys((5, 6, 7, 8), "on its side")}
MIN_BETWEEN = 3  # this many different intermediate values in a mask are the trace of a smooth resize
DARK = 40  # a grey value below this looks black


@dataclass
class FileReport:
    """What was found out about one file. name: relative to the data set's folder. size: (width, height) upright; stored: as in
    the file; None if it cannot be read. format: such as "JPEG RGB", with Pillow's mode. problems: [(kind, detail)].
    digest: of the pixels. bands: of an image, C of (H, W, C). counts: (256,) pixels of each label, None where there are none. readable_as: where a mask's labels
    can be read from, "numbers", "colours" or "objects"; None if nowhere. id: of a mask's image."""

    path: Path
    name: str
    size: tuple = None
    stored: tuple = None
    format: str = "unreadable"
    problems: list = field(default_factory=list)
    digest: bytes = None
    bands: int = None
    counts: np.ndarray = None
    readable_as: str = None
    id: str = None

    def add(self, kind, detail=""):
        self.problems.append((kind, detail))

    def has(self, kind):
        return any(found == kind for found, _ in self.problems)


def examine_image(dataset, name):
    """A photograph: can it be decoded whole, and what does the reader change without a word? -> FileReport"""
    report = FileReport(dataset.folder / name, name)
    with failures(report), open(report.path, "rb") as file:  # given a path, Pillow shears turned TIFFs
        image = images.open_photo(file)
        examine_header(report, image)
        images.check_kind(image, file)
        if image.mode in ("CMYK", "YCCK", "LAB"):
            report.add("cmyk", image.mode)
        if images.is_deep(image):
            report.add("16-bit", report.format)
        _examine_turn(report, image, dataset)
        pixels = images.upright(image, dataset.exif)
        band = image.getbands()[-1]
        if "transparency" in image.info or (band in "Aa" and image.getchannel(band).getextrema()[0] < 255):
            report.add("alpha", report.format)
    if report.stored:
        report.size, report.bands = pixels.shape[1::-1], pixels.shape[2]
        report.digest = blake2b(pixels.tobytes() + str(pixels.shape).encode(), digest_size=16).digest()
        if pixels.min() == pixels.max():
            report.add("blank-image", f"all {int(pixels.min())}")
    return report


def examine_mask(dataset, name):
    """A mask: what are its values, and are they labels? -> FileReport"""
    report = FileReport(dataset.folder / name, name)
    with (
        failures(report),
        open(report.path, "rb") as file,
        Image.open(file) as image,
    ):  # given a path, Pillow shears turned TIFFs
        examine_header(report, image)
        images.check_kind(image, file)
        if image.format == "JPEG":
            report.add("lossy-mask")
        _examine_turn(report, image, dataset)
        try:
            numbers = None if dataset.coloured else images.numbers_of(image, dataset.exif)
        except InputError as error:
            numbers, wrong = None, str(error).partition("got ")[2].partition(":")[0]
        pixels, mode = numbers, image.mode
        if numbers is None:
            pixels = (images.colours_of if dataset.coloured else images.upright)(image, dataset.exif)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if mode == "P" else None
    if report.stored and dataset.coloured:
        _examine_colours(report, pixels, dataset)
    elif report.stored and numbers is not None:
        report.size = numbers.shape[::-1]
        _examine_numbers(report, numbers, palette, mode, dataset)
    elif report.stored:
        _examine_wrong_mode(report, wrong, mode, pixels, dataset)
    return report


def _examine_turn(report, image, dataset):
    if dataset.exif and (turned := _STORED.get(images.orientation(image))):
        report.add("exif-rotated", f"stored {turned}")


def read_labels(report, dataset):
    """The labels (H, W) uint8 of a mask, read as its report says; void where there is none."""
    if report.readable_as == "objects":
        return dataset.read(report.id).label
    if report.readable_as == "colours":
        labels, known = match_colours(images.read_colours(report.path, dataset.exif), *dataset.colours())
        if report.has("renumbered-palette"):  # whose own colour for void may be any
            known &= dataset.table[_stored_numbers(report, dataset)] != VOID
    else:
        numbers = _stored_numbers(report, dataset)
        labels, known = dataset.table[numbers], dataset.allowed[numbers]
    return np.where(known, labels, VOID).astype(np.uint8)


def _stored_numbers(report, dataset):
    with open(report.path, "rb") as file, Image.open(file) as image:
        return images.numbers_of(image, dataset.exif)


def examine_header(report, image):
    """Size and format, before pixels are decoded. An MPO is a JPEG followed by others."""
    images.check_size(image)
    format = "JPEG" if image.format == "MPO" else image.format
    tags = getattr(image, "tag_v2", None)  # of a TIFF, whose size Pillow turns as it opens it
    report.size, report.stored = image.size, (tags[256], tags[257]) if tags else image.size
    report.format = f"{format} {image.mode}"
    if Image.registered_extensions().get(report.path.suffix.lower()) != format:
        report.add("wrong-ending", f"a {format}")
    if (count := images.count_pictures(image)) > 1:
        report.add("animated", f"{count} frames")


@contextmanager
def failures(report):
    """Around the reading of a file: puts into its report why it cannot be read."""
    try:
        yield
        return
    except Image.DecompressionBombError as error:
        report.add("bomb", images.reason_of(error, None))
    except Exception as error:  # a broken file can make Pillow raise anything
        message, start = one_line(error), b""
        with suppress(OSError), open(report.path, "rb") as file:
            start = file.read(START)
        if report.stored and ("truncated" in message.lower() or "broken data stream" in message.lower()):
            report.add("truncated", message)
        elif not start and report.path.exists():
            report.add("empty-file")
        else:
            kind = "not-fetched" if start and stand_in(start) else "unreadable"
            report.add(kind, images.reason_of(error, BytesIO(start)).replace(f" {str(report.path)!r}", ""))
    report.size = report.stored = None


def _examine_numbers(report, numbers, palette, mode, dataset):
    """numbers (H, W) uint8: the values of a palette or grey image, of this mode in Pillow."""
    counts = np.bincount(numbers.reshape(-1), minlength=256)
    report.readable_as = "numbers"
    between = values_in_between(numbers, counts)
    outside = np.flatnonzero(counts * ~dataset.allowed)
    used = [int(v) for v in np.flatnonzero(counts) if v != VOID]
    if between:  # they would count for classes that are not there
        report.add("in-between", _list(between))
    else:
        report.counts = np.bincount(dataset.table, weights=counts, minlength=256).astype(np.int64)
        if outside.size:
            report.add("label-outside", describe(outside, counts[outside]))
        if not used:
            report.add("void-only")
    if palette is not None and dataset.shown:
        _examine_palette(report, palette, used, dataset)
    elif palette is None and mode != "1" and any(used) and max(used) < DARK and not outside.size and not between:
        report.add("looks-black", f"grey values {_list(used)}")


def _examine_palette(report, palette, used, dataset):
    """Are the colours behind the numbers those of the classes, and can they be seen?"""
    known = {tuple(dataset.palette[v]): v for v in (VOID, *range(dataset.num_classes))}
    used = [v for v in used if v < len(palette) and dataset.allowed[v]]
    class_of = {v: known.get(tuple(palette[v])) for v in used}
    wrong = [v for v in used if dataset.table[v] != class_of[v]]
    if any(used) and all(palette[v].max() < DARK for v in used):
        report.add("looks-black", f"a black palette; numbers {_list(used)}")
    elif wrong and None not in class_of.values() and len(set(class_of.values())) == len(used):
        report.add(
            "renumbered-palette", ", ".join(f"{v} is {_class_name(dataset, class_of[v])}'s colour" for v in wrong)
        )
        report.readable_as = "colours"
    elif wrong:
        report.add("other-palette")


def _examine_colours(report, pixels, dataset):
    """pixels (H, W, 3): a mask whose colours stand for classes."""
    labels, known = match_colours(pixels, *dataset.colours())
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
    report.add("in-between" if smooth else "colour-outside", describe(colours, counts))


def _examine_wrong_mode(report, wrong, mode, pixels, dataset):
    """A mask that holds no class numbers: what does it hold, and can labels be read from that?   pixels (H, W, 3)"""
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    labels, known = match_colours(colours, *dataset.colours())
    detail = f"{wrong} with {len(colours)} colours, {int(known.sum())} of them classes'"
    if mode in ("RGB", "RGBA") and known.all() and dataset.shown:
        report.readable_as = "colours"
        names = ", ".join(_class_name(dataset, v) for v in sorted(labels))
        detail = f"{mode} in the classes' colours: {names}"
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
    return tuple(around(extreme, numbers)[1:-1, 1:-1] for extreme in (np.minimum, np.maximum))


def _class_name(dataset, label):
    return "void" if label == VOID else dataset.classes[label]


def _list(values):
    values = [int(v) for v in values]
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
