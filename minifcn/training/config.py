"""Everything that determines a training run, in one flat, printable record."""

import json
from dataclasses import asdict, dataclass, fields

from ..errors import InputError
from ..files import atomic_write
from .optim import OPTIMIZERS
from .schedule import SCHEDULES


@dataclass(frozen=True)
class Config:
    """The settings of a run. Two runs with equal settings on one machine give the same weights, bit by bit."""

    data: str  # the VOCdevkit folder, or VOC's tar
    year: str = "2012"
    sbd: str | None = None  # a folder with SBD, whose images are trained on as well
    split: str = "train"
    val_split: str = "val"
    limit: int | None = None  # train on the first so many images only
    resize: int | None = None  # shrink images so that the longer side has at most so many pixels
    variant: str = "8s"
    backbone: str = "mini"
    width: int | None = None  # of the mini backbone
    alignment: str = "same"
    upsampling: str = "frozen"
    at_once: bool = False
    start: str | None = None  # a coarser variant or a classifier to start from; "imagenet": the installed package's
    backbone_rate: float = 1.0  # the trunk's learning rate, as a multiple of lr
    frozen_statistics: bool = False  # batch normalisation keeps the statistics that it starts with
    crop: int | None = 128  # the side of the training crops; None trains on whole images, one at a time
    batch_size: int = 6
    iterations: int = 340
    optimizer: str = "adam"
    lr: float = 4e-3
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    schedule: str = "poly"
    reduction: str = "mean"  # "sum" is the published solver's loss, with its tiny learning rates
    flip: bool = True
    scale: tuple = (1.0, 1.0)
    colour: float = 0.0
    eval_every: int = 100
    save_every: int = 100
    seed: int = 0

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule: expected one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        if self.reduction not in ("mean", "sum"):
            raise InputError(f"reduction: expected mean or sum; got {self.reduction!r}")
        for name in ("limit", "resize", "crop", "batch_size", "iterations", "eval_every", "save_every", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name.replace('_', '-')}: expected at least 1, got {value}")
        if not self.backbone_rate >= 0:
            raise InputError(f"backbone-rate: expected at least 0, got {self.backbone_rate}")
        if not self.lr > 0:
            raise InputError(f"lr: expected a positive learning rate, got {self.lr}")
        if self.crop is None and self.batch_size != 1:
            raise InputError(f"batch-size: whole images (no crop) go one at a time; expected 1, got {self.batch_size}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale: expected two factors, low and high; got {self.scale}")

    def write(self, path):
        with atomic_write(path) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode("utf-8"))

    def as_dict(self):
        return asdict(self)

    @classmethod
    def from_dict(cls, values, source):
        """The Config that as_dict gave. Raises InputError, naming `source`, for unknown or missing settings."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or "data" not in values or not set(values) <= known:
            raise InputError(f"{source}: expected the settings of a training run, got {str(values)[:60]!r}")
        return cls(**{**values, "scale": tuple(values.get("scale", (1.0, 1.0)))})
