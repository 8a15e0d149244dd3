"""What data sets of image and mask files have in common, wherever the files lie."""

from collections.abc import Sequence

from .images import read_image, read_mask
from .labels import check_labels
from .voc import Sample


class Pairs(Sequence):
    """Pairs of an image and a mask, read when asked for. A subclass sets `folder`, `split`, `ids`, `classes` and
    `palette`, says where files lie (`image_path`, `mask_path`), and how a mask's file becomes labels (`read_label`).

    palette: (256, 3) uint8, the colour of each label, so that palette[label] is a picture.
    """

    def _require_files(self):
        """Raise FileNotFoundError, naming the file, unless every id has its image and its mask."""
        for id in self.ids:
            for what, path in (("image", self.image_path(id)), ("mask", self.mask_path(id))):
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: no {what} for id {id!r} of split {self.split!r}")

    def read_label(self, id):
        """The labels (H, W) uint8 of one mask. Raises ValueError, naming the file, for what is no label."""
        label = read_mask(self.mask_path(id))
        check_labels(label, self.num_classes, self.mask_path(id))
        return label

    def open_image(self, id):
        """The image's file, opened for reading bytes."""
        return open(self.image_path(id), "rb")

    def open_mask(self, id):
        """The mask's file, opened for reading bytes."""
        return open(self.mask_path(id), "rb")

    def image_name(self, id):
        """What messages call the image's file."""
        return str(self.image_path(id))

    def mask_name(self, id):
        """What messages call the mask's file."""
        return str(self.mask_path(id))

    @property
    def num_classes(self):
        return len(self.classes)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        id = self.ids[index]
        image, label = read_image(self.image_path(id)), self.read_label(id)
        if label.shape != image.shape[:2]:
            raise ValueError(
                f"{self.mask_path(id)}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}"
            )
        return Sample(image, label, id)
