"""What happens to a photograph and its labels between the file and the network.

Each transform takes image (H, W, C) uint8 and label (H, W) of integers and returns both. Photographs are resized smoothly;
labels only ever by nearest neighbour, because halfway between class 3 and class 5 there is no class 4.
"""

import math

import numpy as np
from PIL import Image

from .images import through_pillow
from .labels import AMBIGUOUS, VOID


def resize(image, label, size):
    """Both to size (height, width): the photograph smoothly, the labels by nearest neighbour."""
    if size == image.shape[:2]:
        return image, label
    photo = through_pillow(image, lambda one: one.resize(size[::-1], Image.Resampling.BILINEAR))
    labels = Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST)
    return photo, np.asarray(labels)


def shrink(image: np.ndarray, label: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize so that the longer side is at most `longest` pixels; smaller images stay as they are."""
    return _times(min(1, longest / max(label.shape)), image, label)


def random_flip(image, label, rng):
    """Mirror left and right, with probability 1/2."""
    if rng.random() < 0.5:
        return image[:, ::-1], label[:, ::-1]
    return image, label


def random_turn(image, label, rng):
    """Rotate by a multiple of 90 degrees and mirror, all eight ways equally likely: for images without a fixed up direction."""
    quarters = int(rng.integers(4))
    return random_flip(np.rot90(image, quarters), np.rot90(label, quarters), rng)


def random_scale(image, label, rng, low, high):
    """Resize by a factor between `low` and `high`, the same in both directions."""
    return _times(rng.uniform(low, high), image, label)


def _times(factor, image, label):
    return resize(image, label, scaled(image.shape[:2], factor))


def scaled(size, factor):
    """A size (height, width) times a factor, in whole pixels."""
    height, width = size
    return max(1, round(height * factor)), max(1, round(width * factor))


def warp(image, label, rng, *, rotate=0.0, shift=0.0, elastic=0.0, copies=True):
    """Rotate around the centre, shift and bend, in one field of displacements; pixels from outside the image are mirrored in.

    rotate: at most so many degrees. shift: at most so many pixels, down and across. elastic: σ, in pixels, of Gaussian
    displacements on a 3×3 grid, bicubic in between. The photograph is sampled bilinearly, labels by nearest neighbour.
    copies: False makes mirrored copies of objects AMBIGUOUS in a label joined with instances (`targets.join`): an object's centre
    is not that of its copy.
    Source: Ronneberger et al., MICCAI 2015, section 3.1, https://arxiv.org/abs/1505.04597
    """
    if not (rotate or shift or elastic):
        return image, label
    height, width = label.shape
    angle, (down, across), bends = draw_warp(rng, rotate, shift, elastic)
    bends = [np.asarray(Image.fromarray(bend).resize((width, height), Image.Resampling.BICUBIC)) for bend in bends]
    middle, cos, sin = ((height - 1) / 2, (width - 1) / 2), math.cos(angle), math.sin(angle)
    y, x = (np.arange(n, dtype=np.float32) - m for n, m in zip((height, width), middle, strict=True))
    rows = bends[0] + (cos * y + (middle[0] + down))[:, None] + sin * x
    columns = bends[1] - (sin * y - (middle[1] + across))[:, None] + cos * x
    places = _mirrored(np.rint(rows), height), _mirrored(np.rint(columns), width)
    found = label[places]
    if not copies:
        outside = (places[0] != np.rint(rows)) | (places[1] != np.rint(columns))
        found = np.where(outside & (found > 255), (found & 255) | AMBIGUOUS << 8, found)
    return _bilinear(image, rows, columns), found


def draw_warp(rng, rotate, shift, elastic):
    """The random draws of `warp`: an angle in radians, pixels down and across, and displacements (2, 3, 3) float32."""
    angle = math.radians(rng.uniform(-rotate, rotate))
    moved = rng.uniform(-shift, shift, 2).tolist()
    return angle, moved, (elastic * rng.standard_normal((2, 3, 3))).astype(np.float32)


def _bilinear(image, rows, columns):
    """The image (H, W, C) sampled between its pixels; places may lie outside.   rows, columns (h, w) float32"""
    height, width = image.shape[:2]
    pixels, top, left = image.reshape(height * width, -1), np.floor(rows), np.floor(columns)
    lower, right = (rows - top)[..., None], (columns - left)[..., None]  # the weights of the pixels there
    west, east = _mirrored(left, width), _mirrored(left + 1, width)
    lines = []
    for row in (top, top + 1):
        start = _mirrored(row, height) * width
        lines.append(pixels.take(start + west, axis=0) * (1 - right) + pixels.take(start + east, axis=0) * right)
    return np.rint(lines[0] * (1 - lower) + lines[1] * lower).astype(np.uint8)


def mirror(image, label, context):
    """Pad by `context` pixels on each side: the photograph by its mirror image, the labels by void."""
    rows, columns = (_mirrored(np.arange(-context, length + context), length) for length in label.shape)
    return image[np.ix_(rows, columns)], np.pad(label, context, constant_values=VOID)


def _mirrored(places, length):
    """Places in a row of `length` pixels; those outside are mirrored at its ends, without repeating them, as often as it takes."""
    places = np.abs(places).astype(np.intp) % max(1, 2 * length - 2)
    return np.minimum(places, 2 * length - 2 - places)


def random_crop(image, label, rng, size, fill):
    """A random crop of `size` (height, width); a smaller image is padded with `fill` (C,), its labels with void."""
    out, out_label = np.full(size + image.shape[2:], fill, np.uint8), np.full(size, VOID, label.dtype)
    source, target = [], []
    for have, want, shift in zip(image.shape[:2], size, draw_crop(image.shape[:2], rng, size), strict=True):
        shifted, whole = slice(shift, shift + min(have, want)), slice(0, min(have, want))
        source.append(shifted if have > want else whole)
        target.append(whole if have > want else shifted)
    out[tuple(target)] = image[tuple(source)]
    out_label[tuple(target)] = label[tuple(source)]
    return out, out_label


def draw_crop(have, rng, size):
    """The random draws of `random_crop` for an image of size `have`: a shift down and one across, in pixels."""
    return [int(rng.integers(0, abs(had - want) + 1)) for had, want in zip(have, size, strict=True)]


def jitter_colour(image, label, rng, strength):
    """Multiply contrast and each channel, and shift brightness, by up to `strength` (0.2: a fifth)."""
    contrast, channels, shift = draw_colour(rng, strength, image.shape[2])
    changed = (image.astype(np.float32) - 127.5) * contrast * channels + 127.5 + shift
    return changed.clip(0, 255).astype(np.uint8), label


def draw_colour(rng, strength, count=3):
    """The random draws of `jitter_colour`: a factor of contrast, one for each of `count` channels, and a shift of brightness."""
    contrast = 1 + rng.uniform(-strength, strength)
    channels = 1 + rng.uniform(-strength, strength, count)
    return contrast, channels, 255 * rng.uniform(-strength, strength) / 2
