"""Data sets, label images and what happens to them on their way to the network."""

from .batches import Augment, BatchStream, Kept
from .cityscapes import CITYSCAPES_CLASSES, Cityscapes
from .datasets import open_dataset
from .folder import Folder
from .labels import VOC_CLASSES, VOID
from .toyvoc import write_toyvoc
from .transforms import Preprocessing
from .voc import VOC, Sample

__all__ = [
    "CITYSCAPES_CLASSES",
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Augment",
    "BatchStream",
    "Cityscapes",
    "Folder",
    "Kept",
    "Preprocessing",
    "Sample",
    "open_dataset",
    "write_toyvoc",
]
