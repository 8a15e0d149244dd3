"""Data sets, label images and what happens to them on their way to the network."""

from ..preprocessing import Preprocessing
from .batches import Augment, BatchStream, Kept
from .cityscapes import CITYSCAPES_CLASSES, Cityscapes
from .dataset import Sample
from .datasets import open_dataset
from .folder import Folder
from .labels import VOC_CLASSES, VOID
from .prefetch import Prefetch
from .sbd import SBD, train_aug
from .tars import unpack
from .toyvoc import write_toyvoc
from .voc import VOC

__all__ = [
    "CITYSCAPES_CLASSES",
    "SBD",
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Augment",
    "BatchStream",
    "Cityscapes",
    "Folder",
    "Kept",
    "Prefetch",
    "Preprocessing",
    "Sample",
    "open_dataset",
    "train_aug",
    "unpack",
    "write_toyvoc",
]
