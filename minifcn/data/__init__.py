"""Data sets, label images and what happens to them on their way to the network."""

from .batches import Augment, BatchStream, Kept
from .dataset import Sample
from .labels import VOC_CLASSES, VOID
from .toyvoc import write_toyvoc
from .transforms import Preprocessing
from .voc import VOC

__all__ = ["VOC", "VOC_CLASSES", "VOID", "Augment", "BatchStream", "Kept", "Preprocessing", "Sample", "write_toyvoc"]
