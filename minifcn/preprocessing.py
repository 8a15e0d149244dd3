"""The preprocessing that a network expects: it belongs to the weights, and is stored with them."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """The channel order and the range of values that a network expects.

    order: "RGB", "BGR", "grey", one channel (ITU-R 601's luma), or "bands", any number of channels in the file's order. mean, scale: a
    number for each channel, in that order; the network's input is (pixel − mean) · scale, pixels 0 … 255. stretch: spread images over
    that range first (`stretched`), for images whose absolute brightness means nothing, such as a microscope's.
    """

    order: str = "RGB"
    mean: tuple = (127.5, 127.5, 127.5)
    scale: tuple = (1 / 64, 1 / 64, 1 / 64)
    stretch: bool = False

    @property
    def bands(self) -> int:
        """C of the images (H, W, C) that it takes: 3, also for grey; for bands, their number."""
        return len(self.mean) if self.order == "bands" else 3

    def stretched(self, image: np.ndarray) -> np.ndarray:
        """The image to give to `apply`, whole or in windows: (H, W, C) uint8, spread if `stretch` is set.

        Raises InputError for anything but such an image.
        """
        require_image(image, self.bands)
        return spread(image) if self.stretch else image

    def check_bands(self, count: int, source: object) -> None:
        """Raise InputError, naming the file or folder `source`, unless its images (H, W, count) have as many bands as this takes."""
        if count != self.bands:
            raise InputError(
                f"{source}: the network reads {bands_in_words(self.bands)}, got {bands_in_words(count)}; take a network trained on such images"
            )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """image (H, W, C) uint8 -> (C, H, W) float32; from RGB, (1, H, W) where the order is "grey". Raises InputError for anything else."""
        require_image(image, self.bands)
        channels = image[:, :, ::-1] if self.order == "BGR" else image
        if self.order == "grey":  # in integers, so that grey pixels keep their value
            channels = (image @ np.array([299, 587, 114]) / 1000)[:, :, None].astype(np.float32)
        mean, scale = np.asarray(self.mean, np.float32), np.asarray(self.scale, np.float32)
        return np.ascontiguousarray(((channels - mean) * scale).transpose(2, 0, 1))

    def fill(self) -> np.ndarray:
        """The colour (C,) uint8 that comes out as zero, for padding photographs."""
        mean = self.mean[::-1] if self.order == "BGR" else self.mean
        return np.resize(np.rint(mean).astype(np.uint8), self.bands)

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict | None, source: object) -> Self | None:
        """The inverse of `as_dict`; None for None. Raises InputError, naming `source`, for anything else."""
        if values is None:
            return None
        try:
            made = cls(
                values["order"],
                tuple(map(float, values["mean"])),
                tuple(map(float, values["scale"])),
                bool(values.get("stretch", False)),
            )
            sound = (
                np.isfinite([made.mean, made.scale]).all()
                and len(made.mean) == {"RGB": 3, "BGR": 3, "grey": 1, "bands": max(1, len(made.mean))}[made.order]
            )
        except (TypeError, KeyError, ValueError, OverflowError):
            sound = False
        if not sound:
            raise InputError(f"{source}: expected a preprocessing (order, mean, scale), got {str(values)[:80]!r}")
        return made


def require_image(image: Any, bands: int | None = 3) -> np.ndarray:
    """The image. Raises InputError for anything but an array (H, W, bands) of uint8 with a pixel in it. bands: None for any number."""
    array = isinstance(image, np.ndarray) and image.ndim == 3
    if not array or image.dtype != np.uint8 or bands not in (None, image.shape[2]) or not image.size:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"image: expected an array (H, W, {bands or 'C'}) of uint8, {bands_in_words(bands or 3)} from 0 to 255; got {found}. From a file, "
            "data.images.read_image makes one; from a Pillow image, np.asarray(image.convert('RGB'))"
        )
    return image


def bands_in_words(count: int) -> str:
    """What the C = count bands of images (H, W, C) are: RGB, also for grey ones, or a number of bands."""
    return "RGB" if count == 3 else f"{count} bands"


def of_channels(count: int) -> Preprocessing:
    """The Preprocessing of a network trained from scratch on images of so many channels: GREY for 1, RGB for 3, else bands."""
    if count == 1:
        return GREY
    return Preprocessing() if count == 3 else Preprocessing("bands", (127.5,) * count, (1 / 64,) * count)


def spread(image: np.ndarray) -> np.ndarray:
    """Stretch an image (H, W, C) uint8: the darkest 1 % of values to 0, the brightest 0.2 % to 255, all channels alike. -> its shape"""
    return spread_table(np.bincount(image.reshape(-1), minlength=256))[image]


def spread_table(counts: np.ndarray) -> np.ndarray:
    """The lookup table of `spread`, (256,) uint8, for an image with this histogram.   counts (256,)"""
    shares = np.cumsum(counts) / counts.sum()
    low, high = np.searchsorted(shares, (0.01, 0.998))
    table = (np.arange(256) - low) * (255 / max(high - low, 1))
    return table.clip(0, 255).astype(np.uint8)


GREY = Preprocessing("grey", (127.5,), (1 / 64,))
# What the usual weights of other libraries were trained with.
CAFFE = Preprocessing("BGR", (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))
TORCHVISION = Preprocessing(
    "RGB", (255 * 0.485, 255 * 0.456, 255 * 0.406), (1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225))
)
LITE0 = Preprocessing("RGB", (127.0, 127.0, 127.0), (1 / 128, 1 / 128, 1 / 128))
