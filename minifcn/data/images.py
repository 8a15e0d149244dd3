"""Image files in and out. Inside the library an image is (H, W, C) uint8, with C = 3 for RGB and for grey; labels are (H, W) uint8."""

import logging
import os
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError, one_line
from ..files import START, stand_in
from . import bands
from .files import File, open_binary
from .labels import voc_palette

log = logging.getLogger("minifcn.data")
MAX_PIXELS = 1 << 26  # 8192 × 8192
PNG, NOTE = b"\x89PNG\r\n\x1a\n", b"minifcn\0"  # the signature of a PNG, and the keyword of our text in one
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif", ".tif", ".tiff", ".ppm", ".pgm"),
)
_TOO_LARGE = "at most {} are read at once; shrink it, or save it as a TIFF of tiles, which minifcn predict --tile 512 reads in parts"
ORIENTATION = 0x0112  # the EXIF tag
WHITE_OF_12_BITS = 4095
TURNS = {  # what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The factor by which Pillow multiplies grey samples of 2 and 4 bits from PNGs and TIFFs.
_BITS_OF_GREY = {"L;2": 85, "L;4": 17}


def read_image(source: File, exif: bool = True) -> np.ndarray:
    """A photograph as (H, W, 3) uint8 RGB, or the bands of a TIFF as (H, W, C) uint8; turned upright if its EXIF data says so.

    source: a path, or an open binary file with a name, which is closed. exif: False leaves the pixels as they are stored.
    Raises InputError, naming the file, if it is missing (MissingFileError), cannot be decoded whole or has more than MAX_PIXELS.
    """
    return _read(source, partial(upright, exif=exif), open_photo)


def open_photo(file: BinaryIO) -> Image.Image | bands.Bands:
    """An image file opened, its pixels not read yet: by Pillow, but a TIFF of bands as Bands. Raises what Pillow raises, and as Bands does."""
    found = bands.tags_of(file)
    return bands.Bands(file, *found) if found else Image.open(file)


def upright(image: Image.Image | bands.Bands, exif: bool = True, white: int | None = None) -> np.ndarray:
    """An opened image as `read_image` gives it: (H, W, C) uint8. white: the value of 16 bits that becomes 255, in grey and in bands;
    `white_of` the image unless given. Raises InputError for values of unknown range."""
    if isinstance(image, bands.Bands):
        turn = orientation(image) if exif else None
        pixels = image.pixels() if image.bits == 8 else _of_8_bits(image.pixels(), white)
        return through_pillow(pixels, lambda band: band.transpose(TURNS[turn])) if turn else pixels
    photo = _turned(image, exif)
    if photo.mode == "F" or (photo.mode == "I" and photo.format != "PPM"):
        raise InputError(f"a picture of mode {photo.mode}, whose range of values is unknown; save it with 8 or 16 bits")
    if photo.mode[0] == "I":  # Pillow would cut 16-bit grey values off at 255 instead of scaling them
        photo = Image.fromarray(_of_8_bits(np.asarray(photo), white))
    return np.asarray(photo.convert("RGB"))


def _of_8_bits(values, white=None):
    """Values of 16 bits -> uint8 of the same shape, so that `white` becomes 255."""
    white = white or white_of(values)
    table = (np.arange(65536, dtype=np.uint32) * 255 + white // 2) // white
    return table.astype(np.uint8)[values]


def white_of(values: np.ndarray) -> int:
    """The white level of an image of 16 bits: 4095 if no value is above it, as from a 12-bit camera; else 65535."""
    return WHITE_OF_12_BITS if values.max() <= WHITE_OF_12_BITS else 65535


def through_pillow(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """An image (H, W, C) uint8, changed by a function of Pillow images: RGB at once, other bands each by itself."""
    if image.shape[2] == 3:
        return np.asarray(change(Image.fromarray(image)))
    return np.stack([np.asarray(change(Image.fromarray(band))) for band in np.moveaxis(image, 2, 0)], axis=2)


def in_colours(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) uint8 as people can look at it, (H, W, 3): the first three bands as red, green and blue, of two the first as grey."""
    return image[:, :, :3] if image.shape[2] > 2 else np.repeat(image[:, :, :1], 3, axis=2)


def _turned(image, exif):
    """An opened image with its pixels loaded, turned as its EXIF data say, or as they are stored."""
    format = image.format
    before = orientation(image) if format == "TIFF" else None  # Pillow turns a TIFF while it loads it
    image.load()  # some formats have their EXIF data behind the pixels
    turn = orientation(image) if exif else {6: 8, 8: 6}.get(before, before)
    if turn:
        image = image.transpose(TURNS[turn])
        image.format = format
    return image


def orientation(image: Image.Image | bands.Bands) -> int | None:
    """The EXIF orientation of an opened image, 2 … 8; None if it is upright or its EXIF data are damaged."""
    try:
        found = image.getexif().get(ORIENTATION)
        return found if found in TURNS else None
    except Exception:  # of any type; the pixels may be sound all the same
        return None


def marks_of(image: Image.Image, exif: bool = True) -> np.ndarray:
    """The values of a mask (H, W, 3) in an opened Pillow image: as `upright` gives it, but 16-bit grey samples as stored, uint16,
    because scaling them to 8 bits would turn a value of 1 into 0."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.repeat(numbers_of(image, exif, highest=65535)[:, :, None], 3, axis=2)
    return upright(image, exif)


def colours_of(image: Image.Image, exif: bool = True) -> np.ndarray:
    """The colours (H, W, 3) uint8 in an opened Pillow image. Raises InputError for 16-bit grey samples that do not fit 8 bits."""
    marks = marks_of(image, exif)
    if marks.dtype == np.uint8:
        return marks
    colours, rest = np.divmod(marks, 257)
    if rest.any():
        raise InputError(
            f"expected colours of 8 bits a channel, got grey samples of 16 bits, such as {marks[rest > 0][0]}; if they are "
            'class numbers, set mask_kind = "ids"'
        )
    return colours.astype(np.uint8)


def read_colours(source: File, exif: bool = True) -> np.ndarray:
    """A mask in colours, (H, W, 3) uint8. source, exif, errors: as for `read_image`; InputError also as `colours_of` raises it."""
    return _read(source, partial(colours_of, exif=exif))


def read_marks(source: File, exif: bool = True) -> np.ndarray:
    """A mask of any values, (H, W, 3), as `marks_of` gives it. source, exif, errors: as for `read_image`."""
    return _read(source, partial(marks_of, exif=exif))


def kind_of(source: File) -> tuple[int, bool]:
    """(the number of channels: of a TIFF's bands, else 1 if grey, else 3; `is_deep`) of an image. source, errors: as for `read_image`."""

    def decode(image):
        if isinstance(image, bands.Bands):
            return image.count, is_deep(image)
        grey = image.mode in ("1", "L", "LA", "La") or image.mode[0] in "IF"
        return 1 if grey else 3, is_deep(image)

    return _read(source, decode, open_photo)


def is_deep(image: Image.Image | bands.Bands) -> bool:
    """Whether an opened image has more than 8 bits a channel, of which 8 are used."""
    if isinstance(image, bands.Bands):
        return image.bits > 8
    return image.mode[0] in "IF" or any(";16" in str(piece[3]) for piece in getattr(image, "tile", []))


def count_pictures(image: Image.Image | bands.Bands) -> int:
    """The number of pages or frames in an opened file, of which the first is read; 1 if the later ones are damaged.

    A phone's panorama or depth photograph (MPO) counts as one: its other frames are what it was made from.
    """
    try:
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # of any type
        return 1


def read_mask(source: File, exif: bool = True, highest: int = 255) -> np.ndarray:
    """A label image (H, W) uint8 from a palette or grey picture: the stored numbers, not their colours.

    source, exif, errors: as for `read_image`; InputError also for an image in colours, where the numbers are lost. highest: as for
    `numbers_of`.
    """
    return _read(source, partial(numbers_of, exif=exif, highest=highest))


def numbers_of(image: Image.Image, exif: bool = True, highest: int = 255) -> np.ndarray:
    """The class numbers (H, W) uint8 in an opened Pillow image: those of a palette, or grey samples of 1 to 32 bits as stored, 0 for
    black: those of a TIFF whose 0 is white are turned round.

    highest: the largest that is allowed, at most 65535; above 255 the result is uint16. Raises InputError for an image in colours
    and for numbers beyond it.
    """
    if image.mode not in ("P", "L", "LA", "1", "I") and not image.mode.startswith("I;16"):
        raise InputError(
            f"expected a palette PNG or a grey one, whose values are class numbers, got a {image.mode} image: the numbers are "
            'lost; for masks in colours write a dataset.toml with mask_kind = "colours" (see `minifcn data doctor --help`)'
        )
    tile = getattr(image, "tile", None)  # how the file stores its pixels
    numbers = np.array(_turned(image, exif))
    numbers = numbers[:, :, 0] if image.mode == "LA" else numbers
    if numbers.min() < 0 or numbers.max() > highest:
        raise InputError(
            f"expected {'class ' * (highest < 256)}numbers 0..{highest}, got {numbers.min()}..{numbers.max()}"
        )
    stored = tile[0][3] if tile else None
    raw = stored[0] if isinstance(stored, tuple) else stored
    factor = _BITS_OF_GREY.get(str(raw)[:3], 1)  # "L;2R" has the order of bits turned round, "L;2I" black and white
    return numbers.astype(np.uint8 if highest < 256 else np.uint16) // factor


def write_mask(
    path: str | Path | BinaryIO, labels: np.ndarray, palette: np.ndarray | None = None, note: str | None = None
) -> None:
    """Write labels (H, W) uint8 as a palette PNG. palette: its colours (256, 3) uint8, VOC's unless given.

    path: may be an open binary file instead. note: a Latin-1 text to store in the file, for `note_of`.
    """
    image, texts = Image.fromarray(labels), PngInfo()
    image.putpalette((voc_palette() if palette is None else palette).tobytes())
    if note is not None:
        texts.add_text(NOTE[:-1].decode(), note)
    image.save(path, "PNG", pnginfo=texts)


def note_of(path: str | Path) -> str | None:
    """The note stored in a mask; None for a mask without one and for any other file."""
    with open(path, "rb") as file:
        if file.read(len(PNG)) != PNG:
            return None
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"tEXt" and (text := file.read(length)).startswith(NOTE):
                return text.removeprefix(NOTE).decode("latin-1")
            file.seek(4 if kind == b"tEXt" else length + 4, os.SEEK_CUR)  # a checksum is behind each
    return None


def image_files(path: str | Path) -> list[Path]:
    """The image files that a path stands for: itself, or those in that folder, by name. Raises InputError if there are none."""
    path = Path(path)
    if not os.path.isdir(path):  # nor where it cannot be reached, which reading it will say
        return [path]
    shown = [p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()]
    found = sorted(p for p in shown if p.suffix.lower() in SUFFIXES)
    if found and (others := {p.suffix.lower() or p.name for p in shown} - set(SUFFIXES)):
        log.warning("%s: passed over files that are no images: %s", path, ", ".join(sorted(others)))
    if not found:
        raise InputError(f"{path}: expected images ({', '.join(SUFFIXES)}) in this folder, found none")
    return found


def check_size(image: Image.Image | bands.Bands) -> None:
    """Raise Pillow's DecompressionBombError for an opened image of more than MAX_PIXELS, or for one of more bands than RGB of more values
    than such an RGB image: decoding takes about ten bytes a pixel, and a file of a hundred bytes may claim any number of them.
    """
    width, height = image.size
    if isinstance(image, bands.Bands):
        if width * height * max(image.count, 3) > 3 * MAX_PIXELS:
            raise Image.DecompressionBombError(
                f"{width}x{height} pixels of {image.count} bands; of so many bands at most {3 * MAX_PIXELS // max(image.count, 3)} pixels "
                "are read, and only at once; cut it into smaller files"
            )
        return
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"{width}x{height} is {width * height} pixels; {_TOO_LARGE.format(MAX_PIXELS)}"
        )


def check_kind(image: Image.Image | bands.Bands, file: BinaryIO) -> None:
    """Raise InputError for the one kind of picture that Pillow misreads: a BMP of 8 bits whose two colours are black and white."""
    if image.format == "BMP" and image.mode == "1":
        file.seek(28)
        if file.read(1) != b"\x01":
            raise InputError("a BMP of 8 bits in black and white, which is not read rightly; save it as PNG")


def reason_of(error: Exception, file: BinaryIO) -> str:
    """Why Pillow cannot read the image in an open file, in one line; in our own words where they say more."""
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        if reason := stand_in(file.read(START)):
            return reason
        return "of no known format, or a TIFF of a kind that is not read, such as a mask of several bands"
    if "MAX_TEXT_CHUNK" in str(error):
        return "its text or colour profile takes more than 1 MiB; save it without (exiftool -all= FILE)"
    if "decompression bomb" in str(error):  # Pillow's own words, as it opens the file
        return f"{re.search('[0-9]+', str(error))[0]} pixels; {_TOO_LARGE.format(MAX_PIXELS)}"
    return one_line(error)


def _read(source, decode, opened=Image.open):
    with open_binary(source) as file:
        try:
            image = opened(file)
            check_size(image)
            check_kind(image, file)
            return decode(image)
        except InputError as error:
            raise InputError(f"{file.name}: {error}") from error
        except Exception as error:  # a broken file can make Pillow raise anything
            raise InputError(f"{file.name}: not a readable image: {reason_of(error, file)}") from error
