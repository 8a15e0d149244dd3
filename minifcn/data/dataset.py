"""What every data set is: a sequence of samples, each an image and a mask that an id names."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .images import read_image, read_mask
from .labels import check_labels, voc_palette


class Sample(NamedTuple):
    """One labelled image: image (H, W, 3) uint8 RGB, label (H, W) uint8 with 255 for void, and its id."""

    image: np.ndarray
    label: np.ndarray
    id: str


class SegmentationSet(Sequence):
    """Samples that are read when asked for. A subclass sets `ids`, `classes`, `split` and `folder` (for messages), and says
    where an id's files are: `open_image(id)` and `open_mask(id)` give binary file objects, `image_name(id)` and
    `mask_name(id)` what messages call them.

    palette: (256, 3) uint8, the colour of each label, so that palette[label] is a picture; VOC's unless a subclass has its own.
    Files that do not fit together (sizes, labels, colours) raise ValueError, naming the file, when they are read.
    """

    palette = voc_palette()

    @property
    def num_classes(self):
        return len(self.classes)

    def read_label(self, id):
        """An id's class numbers, (H, W) uint8."""
        return read_mask((self.open_mask(id), self.mask_name(id)))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        id = self.ids[index]
        image, label = read_image((self.open_image(id), self.image_name(id))), self.read_label(id)
        if label.shape != image.shape[:2]:
            raise InputError(
                f"{self.mask_name(id)}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}"
            )
        check_labels(label, self.num_classes, self.mask_name(id))
        return Sample(image, label, id)
