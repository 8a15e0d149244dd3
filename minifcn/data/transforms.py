"""What happens to a photograph and its labels between the file and the network.

Each transform takes image (H, W, 3) uint8 and label (H, W) uint8 and returns both. Photographs are resized smoothly;
labels only ever by nearest neighbour, because halfway between class 3 and class 5 there is no class 4.
"""

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from .labels import VOID


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pixels; it belongs to the weights and is stored with them.

    order: "RGB" or "BGR". mean, scale: three numbers each, in that order; the network sees (pixel − mean) · scale, pixels 0 … 255.
    """

    order: str = "RGB"
    mean: tuple = (127.5, 127.5, 127.5)
    scale: tuple = (1 / 64, 1 / 64, 1 / 64)

    def apply(self, image):
        """image (H, W, 3) uint8 RGB -> (3, H, W) float32"""
        channels = image if self.order == "RGB" else image[:, :, ::-1]
        mean, scale = np.asarray(self.mean, np.float32), np.asarray(self.scale, np.float32)
        return np.ascontiguousarray(((channels - mean) * scale).transpose(2, 0, 1))

    def fill(self):
        """The RGB colour (3,) uint8 that comes out as zero, for padding photographs."""
        mean = self.mean if self.order == "RGB" else self.mean[::-1]
        return np.rint(mean).astype(np.uint8)

    def as_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values, source):
        """What `as_dict` gave, and None for None. Raises ValueError, naming `source`, for anything else."""
        if values is None:
            return None
        try:
            made = cls(values["order"], tuple(map(float, values["mean"])), tuple(map(float, values["scale"])))
            numbers = made.mean + made.scale
            if made.order in ("RGB", "BGR") and len(made.mean) == len(made.scale) == 3 and np.isfinite(numbers).all():
                return made
        except (TypeError, KeyError, ValueError):
            pass
        raise ValueError(f"{source}: expected a preprocessing (order, mean, scale), got {str(values)[:80]!r}")


# What the usual weights of other libraries were trained with.
CAFFE = Preprocessing("BGR", (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))
TORCHVISION = Preprocessing(
    "RGB", (255 * 0.485, 255 * 0.456, 255 * 0.406), (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
)
LITE0 = Preprocessing("RGB", (127.0, 127.0, 127.0), (1 / 128, 1 / 128, 1 / 128))


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
