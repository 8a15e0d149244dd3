"""Image files in and out. Everything inside the library is RGB uint8 (H, W, 3) and labels uint8 (H, W)."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError, one_line
from .files import open_binary
from .labels import voc_palette

MAX_PIXELS = 1 << 26  # 8192 × 8192
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(source):
    """A photograph as (H, W, 3) uint8 RGB, turned upright if its EXIF data says so.

    source: a path, or an open binary file with a name, which is closed. Raises InputError, naming the file, if it is not
    there (MissingFileError), cannot be decoded whole or has more than MAX_PIXELS.
    """
    return _read(source, upright)


def upright(image):
    """An opened Pillow image as `read_image` gives it: (H, W, 3) uint8 RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would cut 16-bit grey values off at 255 instead of scaling them
        grey = np.asarray(image).astype(np.uint32)
        grey *= 255
        grey += 32895  # grey / 257, rounded, in whole numbers
        grey >>= 16
        image = Image.fromarray(grey.astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def read_mask(source):
    """A label image (H, W) uint8 from a palette or grey PNG: the stored numbers, not their colours.

    source, errors: as for `read_image`; InputError also for an image in colours, where the numbers are lost.
    """
    return _read(source, np.array, modes=("P", "L"))


def write_mask(path, labels, palette=None):
    """Write labels (H, W) uint8 as a palette PNG in the colours palette (256, 3) uint8, VOC's unless given."""
    image = Image.fromarray(labels)
    image.putpalette((voc_palette() if palette is None else palette).tobytes())
    image.save(path)


def image_files(path):
    """The image files that a path stands for: itself, or those in that folder, by name. Raises InputError if there are none."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{path}: expected images ({', '.join(SUFFIXES)}) in this folder, found none")
    return found


def check_size(image):
    """Raise Pillow's DecompressionBombError for an opened image of more than MAX_PIXELS: decoding takes about ten bytes a pixel,
    and a file of a hundred bytes may claim any number of them.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(
            f"{width}x{height} is {width * height} pixels; at most {MAX_PIXELS} are read"
        )


def _read(source, decode, modes=None):
    with open_binary(source) as file:
        try:
            image = Image.open(file)
            check_size(image)
            if not modes or image.mode in modes:
                return decode(image)
        except Exception as error:  # a broken file can make Pillow raise anything
            reason = "of no known format" if isinstance(error, UnidentifiedImageError) else one_line(error)
            raise InputError(f"{file.name}: not a readable image: {reason}") from error
        raise InputError(
            f"{file.name}: expected a palette PNG whose values are class numbers, got a {image.mode} image: "
            "the numbers are lost"
        )
