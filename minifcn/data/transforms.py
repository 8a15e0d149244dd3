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


def shrink(image, label, longest):
    """Resize so that the longer side is at most `longest` pixels; smaller images stay as they are."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image, label
    return resize(image, label, (max(1, round(height * factor)), max(1, round(width * factor))))


def random_flip(image, label, rng):
    """Mirror left and right, every other time."""
    if rng.random() < 0.5:
        return image[:, ::-1], label[:, ::-1]
    return image, label


def random_scale(image, label, rng, low, high):
    """Resize by a factor between `low` and `high`, the same in both directions."""
    factor = rng.uniform(low, high)
    height, width = image.shape[:2]
    return resize(image, label, (max(1, round(height * factor)), max(1, round(width * factor))))


def random_crop(image, label, rng, size, fill):
    """A part of `size` (height, width) from a random place; where the image is smaller, `fill` (3,) and void go around it."""
    out = np.empty(size + (3,), np.uint8)
    out[...] = fill
    out_label = np.full(size, VOID, np.uint8)
    source, target = [], []
    for have, want in zip(image.shape[:2], size, strict=True):
        shift = int(rng.integers(0, abs(have - want) + 1))
        length = min(have, want)
        source.append(slice(shift, shift + length) if have > want else slice(0, length))
        target.append(slice(0, length) if have > want else slice(shift, shift + length))
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
