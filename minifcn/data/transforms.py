"""What happens to a photograph and its labels between the file and the network.

Each transform takes image (H, W, 3) uint8 and label (H, W) uint8 and returns both. Photographs are resized smoothly;
labels only ever by nearest neighbour, because halfway between class 3 and class 5 there is no class 4.
"""

import numpy as np
from PIL import Image

from .labels import VOID


def resize(image, label, size):
    """Both to size (height, width): the photograph smoothly, the labels by nearest neighbour."""
    if size == image.shape[:2]:
        return image, label
    photo = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    labels = Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(photo), np.asarray(labels)


def shrink(image: np.ndarray, label: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize so that the longer side is at most `longest` pixels; smaller images stay as they are."""
    return _times(min(1, longest / max(label.shape)), image, label)


def random_flip(image, label, rng):
    """Mirror left and right, every other time."""
    if rng.random() < 0.5:
        return image[:, ::-1], label[:, ::-1]
    return image, label


def random_scale(image, label, rng, low, high):
    """Resize by a factor between `low` and `high`, the same in both directions."""
    return _times(rng.uniform(low, high), image, label)


def _times(factor, image, label):
    height, width = image.shape[:2]
    return resize(image, label, (max(1, round(height * factor)), max(1, round(width * factor))))


def random_crop(image, label, rng, size, fill):
    """A part of `size` (height, width) from a random place; where the image is smaller, `fill` (3,) and void go around it."""
    out, out_label = np.full(size + (3,), fill, np.uint8), np.full(size, VOID, np.uint8)
    source, target = [], []
    for have, want in zip(image.shape[:2], size, strict=True):
        shift = int(rng.integers(0, abs(have - want) + 1))
        shifted, whole = slice(shift, shift + min(have, want)), slice(0, min(have, want))
        source.append(shifted if have > want else whole)
        target.append(whole if have > want else shifted)
    out[tuple(target)] = image[tuple(source)]
    out_label[tuple(target)] = label[tuple(source)]
    return out, out_label


def jitter_colour(image, label, rng, strength):
    """Multiply contrast and each channel, and shift brightness, by up to `strength` (0.2: a fifth)."""
    contrast = 1 + rng.uniform(-strength, strength)
    channels = 1 + rng.uniform(-strength, strength, 3)
    shift = 255 * rng.uniform(-strength, strength) / 2
    changed = (image.astype(np.float32) - 127.5) * contrast * channels + 127.5 + shift
    return changed.clip(0, 255).astype(np.uint8), label
