"""Data sets, label images and what happens to them on their way to the network."""

from .batches import Augment, BatchStream, Kept
from .labels import VOC_CLASSES, VOID
from .prefetch import Prefetch
from .toyvoc import write_toyvoc
from .transforms import Preprocessing
from .voc import VOC, Sample

__all__ = [
    "VOC",
    "VOC_CLASSES",
    "VOID",
    "Augment",
    "BatchStream",
    "Kept",
    "Prefetch",
    "Preprocessing",
    "Sample",
    "write_toyvoc",
]
