"""Image files in and out. Everything inside the library is RGB uint8 (H, W, 3) and labels uint8 (H, W)."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from .files import opened
from .labels import voc_palette

MOST_PIXELS = 1 << 26  # 8192 × 8192
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(source):
    """A photograph as (H, W, 3) uint8 RGB, turned upright if its EXIF data says so.

    source: a path, or a pair (binary file, its name for messages); the file is closed. Raises FileNotFoundError, or
    ValueError for a file that cannot be decoded whole or has more than MOST_PIXELS; both name the file.
    """
    with _open(source) as (image, name):
        return _decoded(name, lambda: upright(image))


def upright(image):
    """An opened Pillow image as `read_image` gives it: (H, W, 3) uint8 RGB."""
    return np.asarray(_rgb(ImageOps.exif_transpose(image)))


def read_mask(source):
    """A label image (H, W) uint8 from a palette or grey PNG: the stored numbers, not their colours.

    source: a path, or a pair (binary file, its name for messages); the file is closed. Raises FileNotFoundError, or
    ValueError for an image in colours, where the numbers are lost, one that cannot be decoded, or of more than MOST_PIXELS.
    """
    with _open(source) as (image, name):
        if image.mode not in ("P", "L"):
            raise InputError(
                f"{name}: expected a palette PNG whose values are class numbers, got a {image.mode} image: the numbers are lost"
            )
        return _decoded(name, lambda: np.array(image))


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


def too_large(size):
    """What is wrong with an image of `size` (width, height), or None. Decoding takes about ten bytes a pixel, and a file of a
    hundred bytes may claim any number of them.
    """
    width, height = size
    if width * height > MOST_PIXELS:
        return f"{width}x{height}, which is {width * height} pixels; at most {MOST_PIXELS} are read"
    return None


def _rgb(image):
    if image.mode.startswith("I;16"):  # Pillow would cut 16-bit grey values off at 255 instead of scaling them
        grey = np.asarray(image).astype(np.uint32)
        grey *= 255
        grey += 32895  # grey / 257, rounded, in whole numbers
        grey >>= 16
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


@contextmanager
def _open(source):
    """Open and then use an image; yields (image, name)."""
    file, name = opened(source)
    with file:
        with _refusing(name):
            image = Image.open(file)
            if reason := too_large(image.size):
                raise InputError(reason)
        yield image, name


def _decoded(name, decode):
    with _refusing(name):
        return decode()


@contextmanager
def _refusing(name):
    """Turn what a broken file makes Pillow stumble over, which may be any exception, into one InputError in one line."""
    try:
        yield
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a readable image: of no known format") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{name}: not a readable image: {reason}") from error
