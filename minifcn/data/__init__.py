"""Data sets, label images and what happens to them on their way to the network."""

from ..preprocessing import Preprocessing
from .batches import Augment, BatchStream, CachedDataset, Prefetch
from .labels import VOC_CLASSES, VOID
from .sets import (
    CAMVID_CLASSES,
    CITYSCAPES_CLASSES,
    SBD,
    VOC,
    CamVid,
    Cityscapes,
    Folder,
    Roboflow,
    open_dataset,
    train_aug,
)
from .sets.base import Sample
from .tars import unpack
from .toyvoc import write_toyvoc

__all__ = [
    "CAMVID_CLASSES",
    "CITYSCAPES_CLASSES",
    "SBD",
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Augment",
    "BatchStream",
    "CachedDataset",
    "CamVid",
    "Cityscapes",
    "Folder",
    "Prefetch",
    "Preprocessing",
    "Roboflow",
    "Sample",
    "open_dataset",
    "train_aug",
    "unpack",
    "write_toyvoc",
]
