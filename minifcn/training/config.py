"""Everything that determines a training run, in one printable record."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Self

import numpy as np

from ..card import settings_of
from ..errors import InputError, require_known
from ..models import DEEPLABS
from .exchange import WIRES
from .optimizers import OPTIMIZERS
from .schedule import SCHEDULES

# The options of the builders that a run chooses; the data set gives num_classes and channels, and the run's seed is the network's.
NETWORKS: dict = {
    "fcn": {
        "variant": "8s",
        "backbone": "mini",
        "width": None,
        "alignment": "same",
        "upsampling": "frozen",
        "at_once": False,
    },
    "unet": {
        "backbone": None,
        "width": None,
        "depth": 4,
        "padding": "same",
        "batch_norm": True,
        "upsampling": "learned",
    },
    "deeplab": {"variant": "v3plus", "backbone": None, "output_stride": None, "rates": None, "image_pooling": True},
    "panoptic": {
        "decoder": "fcn",
        "backbone": None,  # mini, but for the decoder unet none
        "width": None,
        "peak_window": 7,
        "least": 1,
    },
}
OPTIONS = {option: default for options in reversed(NETWORKS.values()) for option, default in options.items()}
_LARGEST = float(np.finfo(np.float32).max)
_AT_LEAST_0 = (
    "offset_weight",
    "backbone_rate",
    "score_rate",
    "weight_decay",
    "seed",
    "dice",
    "border_weight",
    "rotate",
    "shift",
    "elastic",
)
# Options that only some runs and networks use: their names, whether they count given all settings, and where, in words.
COUNT: tuple = (
    (("sigma", "offset_weight"), lambda of: of["network"] == "panoptic", "in a panoptic network"),
    (
        ("class_weights", "dice", "hardest", "reduction", "score_rate"),
        lambda of: not of["frozen_semantic"],
        "where classes are learned",
    ),
    (("flip",), lambda of: not of["turn"], "without turn"),
    # whose scores learn ten times as fast anyway
    (("score_rate",), lambda of: of.get("variant") not in ("largefov", "aspp"), "outside largefov and aspp"),
    (("momentum",), lambda of: of["optimizer"] == "sgd", "for sgd"),
    (("backbone_rate",), lambda of: of["network"] == "deeplab" or of["backbone"], "over a backbone"),
    (("depth",), lambda of: not of["backbone"], "without a backbone"),
    (("at_once",), lambda of: of["variant"] != "32s", "in FCN-16s and 8s, which have skips"),
    (("image_pooling",), lambda of: of["variant"] in ("v3", "v3plus"), "in v3 and v3plus"),
    (("width",), lambda of: of.get("decoder", "unet") == "unet" or of["backbone"] in (None, "mini"), "over mini"),
)
# The usual settings of a run that starts from ImageNet's weights, those of `animals_v3plus`: new layers learn 25 times as fast
# as the backbone.
FROM_IMAGENET = {
    "backbone": "efficientnet_lite0_head",
    "backbone_rate": 0.04,
    "frozen_statistics": True,
    "optimizer": "adamw",
    "lr": 2e-3,
    "weight_decay": 1e-4,
    "iterations": 3000,
    "average": 0.998,
    "crop": 320,
    "scale": (0.5, 1.25),
    "colour": 0.2,
    "eval_every": 500,
}
BALANCED = "balanced"  # in place of class weights: those of data.labels.balanced_weights


@dataclass(frozen=True)
class Config:
    """The settings of a run. Two runs with equal settings on one machine give the same weights, bit for bit: with compiled kernels for
    any number of threads, without them for the same number."""

    data: str  # the VOCdevkit folder, or VOC's tar
    year: str = "2012"
    sbd: str | None = None  # a folder with SBD, whose images are trained on as well
    split: str = "train"
    val_split: str = "val"
    limit: int | None = None  # train only on this many images, the first ones
    exif: bool = True  # turn images and masks as their EXIF data say
    resize: int | None = None  # shrink images to a longer side of at most this many pixels
    stretch: bool | None = None  # spread each image's values over the whole range; None: as what the run starts from
    network: dict = field(
        default_factory=lambda: {"builder": "fcn", "options": dict(NETWORKS["fcn"])}
    )  # for models.build
    start: str | None = None  # a coarser variant or a classifier to start from; "imagenet": the installed package's
    backbone_rate: float = 1.0  # the backbone's learning rate, as a multiple of lr
    score_rate: float = 1.0  # that of the score layers
    frozen_statistics: bool = False  # batch normalisation keeps the statistics that it starts with
    crop: int | None = 128  # the side of the training crops; None trains on whole images, one at a time
    batch_size: int = 6
    iterations: int = 460
    optimizer: str = "adam"
    lr: float = 4e-3
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    schedule: str = "poly"
    average: float = 0.0  # evaluate and keep a moving average of the weights, in which the past has this share
    class_weights: str | tuple | None = None  # of the loss: numbers, or "balanced" by median frequency
    dice: float = 0.0  # the share of the Dice loss that is added to the cross-entropy
    border_weight: float = 0.0  # w0 of U-Net's weight map, for data sets with objects
    hardest: float = 1.0  # the share of pixels whose cross-entropy counts: those with the greatest losses
    shrink_labels: bool = False  # count only pixels on which the scores lie before they are enlarged to the image
    sigma: float = 8.0  # of the bell around an object's centre, in pixels, that a panoptic network learns
    offset_weight: float = 0.01  # of the offsets' error in pixels, in its loss; more for objects of fewer pixels
    frozen_semantic: bool = False  # a panoptic network keeps the semantic part that it starts with
    border_class: bool = False  # an extra class for the objects' rims and what lies between two that touch
    reduction: str = "mean"  # "sum" is the published solver's loss, with its tiny learning rates
    wire: str = "float32"  # the type in which gradients travel between processes; float16 is half the bytes
    flip: bool = True
    scale: tuple = (1.0, 1.0)
    colour: float = 0.0
    turn: bool = False  # by multiples of 90 degrees, and mirrored
    rotate: float = 0.0  # by up to this many degrees
    shift: float = 0.0  # by up to this many pixels
    elastic: float = 0.0  # standard deviation in pixels of an elastic deformation
    eval_every: int = 100
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        choices: dict = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "reduction": ("mean", "sum"), "wire": WIRES}
        require_known("", vars(self), choices)
        values = {**vars(self), "width": self.options.get("width")}
        counts = ("limit", "resize", "crop", "batch_size", "iterations", "eval_every", "save_every", "width")
        for least, names in ((1, counts), (0, _AT_LEAST_0)):
            for name in names:
                if values[name] is not None and not least <= values[name] < inf:
                    raise InputError(f"{name.replace('_', '-')}: expected at least {least}, got {values[name]}")
        for name in (*counts, "seed"):
            if values[name] is not None and values[name] != int(values[name]):
                raise InputError(f"{name.replace('_', '-')}: expected a whole number, got {values[name]}")
        if not (0 < self.hardest <= 1 and 0 < self.sigma < inf):
            raise InputError(
                f"expected a share of the hardest pixels above 0 and up to 1 and a sigma above 0, got {self.hardest} and {self.sigma}"
            )
        if self.hardest < 1 and self.reduction == "sum":
            raise InputError("hardest: the loss of the hardest pixels is a mean; leave out reduction sum")
        panoptic = self.network["builder"] == "panoptic"
        centres = "a panoptic network goes by centres"
        objects = {
            "border_weight": centres,
            "border_class": centres,
            "shrink_labels": "it learns its objects from every pixel",
            "sbd": "its images do not say which object a pixel is of",
        }
        for name, why in objects.items():
            if panoptic and getattr(self, name):
                raise InputError(f"{name.replace('_', '-')}: {why}; leave it out")
        if self.frozen_semantic and not (panoptic and self.start):
            raise InputError("frozen-semantic: expected a panoptic network and --start, whose weights stay")
        for name in ("momentum", "colour"):
            if not 0 <= values[name] <= 1:
                raise InputError(f"{name}: expected a number from 0 to 1, got {values[name]}")
        if not 0 <= self.average < 1:
            raise InputError(f"average: expected a number from 0 to below 1, got {self.average}")
        weights = self.class_weights
        sound = isinstance(weights, tuple) and all(
            type(weight) in (int, float) and 0 <= weight <= _LARGEST for weight in weights
        )
        sound = sound and any(weights)
        if weights not in (None, BALANCED) and not sound:
            raise InputError(f"class-weights: expected numbers of at least 0, not all 0, or {BALANCED}; got {weights}")
        if not 0 < self.lr < inf:
            raise InputError(f"lr: expected a positive learning rate, got {self.lr}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 100:
            raise InputError(f"scale: expected two factors, low and high, up to 100; got {self.scale}")

    @property
    def options(self) -> dict:
        """The options of the network's builder."""
        return self.network["options"]

    def flat(self) -> dict:
        """All settings by name: the network's are its builder's name and options."""
        return {**vars(self), "network": self.network["builder"], **self.options}

    def with_options(self, **options: object) -> Self:
        """The same Config but for these options of the network."""
        return replace(self, network={**self.network, "options": {**self.options, **options}})

    @classmethod
    def from_dict(cls, values: object, source: object) -> Self:
        """The Config of a dict; a network may be a name, and its options among the rest, as at the command line and in older files.

        Raises InputError, naming `source`, for unknown or missing settings.
        """
        known = {field.name for field in fields(cls)} | set(OPTIONS)
        if not isinstance(values, dict) or not isinstance(values.get("data"), str) or not set(values) <= known:
            raise InputError(f"{source}: expected the settings of a training run, got {str(values)[:60]!r}")
        rest = {name: value for name, value in values.items() if name not in OPTIONS}
        network = values.get("network", "deeplab" if values.get("variant") in DEEPLABS else "fcn")
        if isinstance(network, str) and network in NETWORKS:
            own = {name: values[name] for name in OPTIONS if name in values}
            own_options(network, own, NETWORKS[network])
            builder, options = network, NETWORKS[network] | own
            if builder == "panoptic" and options["decoder"] != "unet" and not options["backbone"]:
                options["backbone"] = "mini"
        else:
            builder, options = settings_of(network, source)
        try:
            rest["scale"] = tuple(values.get("scale", cls.scale))
            if isinstance(weights := values.get("class_weights"), list):  # JSON's
                rest["class_weights"] = tuple(weights)
            return cls(**{**rest, "network": {"builder": builder, "options": options}})
        except TypeError as error:  # text where a number belongs, in a file edited by hand
            raise InputError(f"{source}: {error}") from error


def check_count(given: Collection, settings: dict) -> None:
    """Raise InputError if one of these options, by name, has no effect with the settings, which include the network's options."""
    for names, counts, where in COUNT:
        if (idle := [name for name in names if name in given]) and not counts(settings):
            raise InputError(f"{idle[0].replace('_', '-')}: counts {where} only; leave it out")


def own_options(builder: str, given: dict, known: Iterable) -> None:
    """Raise InputError for options that a builder's networks do not have."""
    if others := given.keys() - set(known):
        has = (
            f"it has {', '.join(known).replace('_', '-')}"
            if known
            else "options are an FCN's, a DeepLab's or a U-Net's"
        )
        raise InputError(f"{min(others).replace('_', '-')}: {builder} has no such option; {has}")
