"""Data sets, label images and what happens to them on their way to the network."""

from ..preprocessing import Preprocessing
from .batches import Augment, BatchStream, CachedDataset, Prefetch
from .labels import AMBIGUOUS, VOC_CLASSES, VOID
from .object_files import coco_results, object_table, write_cityscapes_objects, write_table, write_voc_objects
from .sets import (
    CAMVID_CLASSES,
    CITYSCAPES_CLASSES,
    SBD,
    VOC,
    CamVid,
    Cityscapes,
    Coco,
    Folder,
    Nuclei,
    PlainFolder,
    Roboflow,
    open_dataset,
    train_aug,
)
from .sets.base import ObjectSample, Sample
from .targets import BORDER, Targets, with_border_class
from .tars import unpack
from .toyvoc import write_toyvoc

__all__ = [
    "AMBIGUOUS",
    "BORDER",
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
    "Coco",
    "Folder",
    "Nuclei",
    "ObjectSample",
    "PlainFolder",
    "Prefetch",
    "Preprocessing",
    "Roboflow",
    "Sample",
    "Targets",
    "coco_results",
    "object_table",
    "open_dataset",
    "train_aug",
    "unpack",
    "with_border_class",
    "write_cityscapes_objects",
    "write_table",
    "write_toyvoc",
    "write_voc_objects",
]
