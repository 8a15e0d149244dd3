"""Reader of your own data: a folder of images, a folder of masks, and a dataset.toml that describes them."""

from hashlib import sha256

import numpy as np

from ...errors import InputError
from ..files import FolderFiles
from ..images import SUFFIXES, read_image
from ..labels import VOID, describe, match_colours, voc_palette
from .base import SegmentationDataset, find
from .description import EXAMPLE, FILE_NAME, read_description

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # lossless formats


class Folder(SegmentationDataset):
    """The samples of one split of your own data.

    root: the folder that holds dataset.toml. split: "train", "val" or a list that the file names. ids: use these
    instead. limit: only the first so many. An id is an image's name below the images' folder, without its ending.
    Raises InputError, naming the file (and in dataset.toml the key), for what is missing (MissingFileError) or
    wrong: at construction, or for files that do not fit together (sizes, labels, colours) when they are read.

    A complete dataset.toml:

    """

    __doc__ += "".join(f"        {line}\n" for line in EXAMPLE.splitlines())

    layout = "own data"
    lists = f"{FILE_NAME}, splits.{{}}"

    def __init__(self, root, split="train", ids=None, limit=None):
        files = FolderFiles(root)
        described = read_description(files.path / FILE_NAME)
        self.images, self.masks = (described["images"], *SUFFIXES), (described["masks"], *MASK_SUFFIXES)
        self.coloured, self.void = described["mask_kind"] == "colours", "void" in described
        classes, self._splits = described["classes"], described["splits"]
        self.palette = voc_palette().copy()
        self.palette[: len(classes)] = [entry["colour"] for entry in classes]
        self.palette[VOID] = described.get("void", self.palette[VOID])
        self._found = find(root, *self.images), find(root, *self.masks)
        super().__init__(files, split, tuple(entry["name"].strip() for entry in classes), ids, limit)
        for names in (found.get(id, ()) for id in self.ids for found in self._found):
            if len(names) > 1:
                raise InputError(f"{self.folder / names[0]}: expected one file for its id, got also {names[1]}")

    def splits(self):
        share = self._splits.get("val")
        return random_split(self._found[0], share) if isinstance(share, float) else self._splits

    def found(self):
        return self._found

    def id_of(self, line):
        return line

    def image_name(self, id):
        return self._found[0].get(id, [super().image_name(id)])[0]

    def mask_name(self, id):
        return self._found[1].get(id, [super().mask_name(id)])[0]

    def read_label(self, id):
        """The labels (H, W) uint8 of one mask: its numbers, or the classes of its colours."""
        if not self.coloured:
            return super().read_label(id)
        path = self.folder / self.mask_name(id)
        image = read_image(path)
        label, known = match_colours(image, self.palette, self.num_classes, self.void)
        if not known.all():
            found = describe(*np.unique(image[~known], axis=0, return_counts=True))
            raise InputError(f"{path}: expected the colours of the classes only, got {found}")
        return label


def random_split(ids, share):
    """{"train", "val", "trainval": ids}, `share` of them for validation, and at least one.

    The choice depends on a hash of each id alone, so that adding images moves almost none of the others.
    """
    order = sorted(ids, key=lambda id: sha256(id.encode("utf-8")).digest())
    val = set(order[: max(1, round(share * len(order)))])
    return {"train": [id for id in ids if id not in val], "val": [id for id in ids if id in val], "trainval": list(ids)}
