"""The card of a network: how to build another of its shape, its preprocessing, and what its outputs mean."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .data.labels import palette_from
from .errors import InputError, require_counts
from .preprocessing import Preprocessing

Network = Any  # a models.Graph, which stands above this file
# The counts among the options of networks: the least.
_COUNTS = {
    "seed": 0,
    "num_classes": 1,
    "channels": 1,
    "width": 1,
    "depth": 1,
    "window": 1,
    "peak_window": 1,
    "least": 1,
}
_COUNTS |= {"output_stride": 1, "rates": 1, "things": 0}
_SIDES = {"native": "the side of a classifier's images", "longest": "the longer side of images"}


@dataclass
class Card:
    """The card of a network, made by its builder and stored with its weights.

    builder, options: `models.build(builder, options)` makes a network of the same shape. preprocessing: that of its
    input. classes: a name for each of its outputs, None if unknown. palette: (256, 3) uint8, the colours of its
    labels; None for VOC's. native: the side of the images that a classifier was trained on, None for a network that
    takes any size alike. longest: the longer side that larger images were shrunk to in training, None where they were not.
    """

    builder: str
    options: dict
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple | None = None
    palette: np.ndarray | None = None
    native: int | None = None
    longest: int | None = None
    KEYS = ("network", "preprocessing", "classes", "palette", *_SIDES)  # of what `describe` gives

    def __post_init__(self) -> None:
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in self.options.items()}
        self.options = plain  # NumPy's numbers as Python's, for JSON

    @property
    def num_classes(self) -> int:
        return self.options["num_classes"]

    @property
    def title(self) -> str:
        """What people call such a network."""
        variant = self.options.get("variant")
        deeplabs = {"largefov": "DeepLab-LargeFOV", "aspp": "DeepLab-ASPP", "v3": "DeepLabv3", "v3plus": "DeepLabv3+"}
        decoders = {"fcn": "FCN-8s", "unet": "U-Net", "v3plus": "DeepLabv3+"}
        if self.builder == "panoptic":
            return f"panoptic {decoders.get(self.options.get('decoder'))}"
        titles = {"fcn": f"FCN-{variant}", "unet": "U-Net", "deeplab": deeplabs.get(variant)}
        return titles.get(self.builder) or self.builder

    def describe(self) -> dict:
        """The card as JSON-ready values, for a file's metadata."""
        meta: dict = {
            "network": {"builder": self.builder, "options": self.options},
            "preprocessing": self.preprocessing.as_dict(),
        }
        if self.classes is not None:
            meta["classes"] = list(self.classes)
        if self.palette is not None:
            meta["palette"] = self.palette.tolist()
        for key in _SIDES:
            if getattr(self, key) is not None:
                meta[key] = getattr(self, key)
        return meta

    def take_over(self, meta: dict, source: object) -> None:
        """Fill in what a file's metadata says. Raises InputError, naming the file, for values that do not fit."""
        classes = meta.get("classes")
        if classes is not None:
            if not (isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)):
                raise InputError(f"{source}: expected a list of class names, got {str(classes)[:60]!r}")
            if len(classes) != self.options.get("num_classes", len(classes)):
                raise InputError(f"{source}: expected {self.num_classes} class names, got {len(classes)}")
            self.classes = tuple(classes)
        self.preprocessing = Preprocessing.from_dict(meta.get("preprocessing"), source) or self.preprocessing
        if "palette" in meta:
            self.palette = palette_from(meta["palette"], source)
        for key, side in _SIDES.items():
            if key in meta:
                if type(meta[key]) is not int or meta[key] < 1:
                    raise InputError(f"{source}: expected {side} in pixels, got {str(meta[key])[:60]!r}")
                setattr(self, key, meta[key])


def settings_of(network: object, source: object) -> tuple[str, dict]:
    """(builder, options) that a file's metadata names; also in the flat form of older files. Raises InputError."""
    given = network if isinstance(network, dict) else {}
    builder, options = given.get("builder"), given.get("options")
    if not isinstance(builder, str) or not isinstance(options, dict):
        options = dict(given)
        builder = "fcn" if "variant" in options else options.pop("network", None)
        if not isinstance(builder, str) or "num_classes" not in options:
            raise InputError(f"{source}: expected the settings of a network, got {str(network)[:60]!r}")
    for name, least in _COUNTS.items():
        value = options.get(name)
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            require_counts(f"{source}: ", {name: one}, least)
    return builder, dict(options)
