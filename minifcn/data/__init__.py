"""Data sets, label images and what happens to them on their way to the network."""

from .batches import Augment, BatchStream, Kept
from .dataset import Sample
from .labels import VOC_CLASSES, VOID
from .sbd import SBD, train_aug
from .tars import unpack
from .toyvoc import write_toyvoc
from .transforms import Preprocessing
from .voc import VOC

__all__ = [
    "SBD",
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Augment",
    "BatchStream",
    "Kept",
    "Preprocessing",
    "Sample",
    "train_aug",
    "unpack",
    "write_toyvoc",
]
