"""What data sets have in common whose every image and mask is a file of its own."""

from ..errors import MissingFileError
from .dataset import SegmentationSet


class Pairs(SegmentationSet):
    """A subclass says where files lie: `image_path(id)` and `mask_path(id)`."""

    def _require_files(self):
        """Raise FileNotFoundError, naming the file, unless every id has its image and its mask."""
        for id in self.ids:
            for what, path in (("image", self.image_path(id)), ("mask", self.mask_path(id))):
                if not path.is_file():
                    raise MissingFileError(f"{path}: no {what} for id {id!r} of split {self.split!r}")

    def open_image(self, id):
        return open(self.image_path(id), "rb")

    def open_mask(self, id):
        return open(self.mask_path(id), "rb")

    def image_name(self, id):
        return str(self.image_path(id))

    def mask_name(self, id):
        return str(self.mask_path(id))
