"""Reader of your own data: a folder of images, a folder of masks, and a dataset.toml that describes them."""

from hashlib import sha256
from pathlib import Path

from ...errors import InputError, MissingFileError
from ..files import FolderFiles, read_lines
from ..images import SUFFIXES, read_image
from ..labels import from_colours
from .base import SegmentationDataset
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

    def __init__(self, root, split="train", ids=None, limit=None):
        self.files, self.split = FolderFiles(root), split
        self.description = read_description(self.folder / FILE_NAME)
        self.classes, self.palette = self.description.classes, self.description.palette
        self._images = self._one_file_each(self.description.images, SUFFIXES)
        self._masks = self._one_file_each(self.description.masks, MASK_SUFFIXES)
        self.ids = list(self._read_split() if ids is None else ids)[:limit]
        self.require_files()

    def _one_file_each(self, folder, suffixes):
        found = find_files(self.folder, folder, suffixes)
        for id, names in found.items():
            if len(names) > 1:
                raise InputError(
                    f"{self.folder / names[0]}: expected one file for id {id!r}, got also {Path(names[1]).name}"
                )
        return {id: names[0] for id, names in found.items()}

    def _read_split(self):
        splits = self.description.splits
        if isinstance(splits, float):
            splits = random_split(self._images, splits)
            if self.split in splits and not splits[self.split]:
                images = self.folder / self.description.images
                raise InputError(f"{images}: too few images ({len(self._images)}) for a split")
        if self.split not in splits:
            raise MissingFileError(f"{self.folder / FILE_NAME}: no split {self.split!r}; it has: {', '.join(splits)}")
        ids = splits[self.split]
        return read_lines(self.folder / ids, of="image id") if isinstance(ids, str) else ids

    def image_name(self, id):
        return self._images.get(id, f"{self.description.images}/{id}.jpg")

    def mask_name(self, id):
        return self._masks.get(id, f"{self.description.masks}/{id}.png")

    def read_label(self, id):
        """The labels (H, W) uint8 of one mask: its numbers, or the classes of its colours."""
        if not self.description.coloured:
            return super().read_label(id)
        path = self.folder / self.mask_name(id)
        return from_colours(read_image(path), self.palette, self.num_classes, self.description.void, path)


def find_files(root, folder, suffixes):
    """{id: names} of the files with one of these endings in root/folder and below, by name."""
    found, start = {}, Path(root, folder)
    for path in sorted(start.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            inner = path.relative_to(start)
            found.setdefault(inner.with_suffix("").as_posix(), []).append((Path(folder) / inner).as_posix())
    return found


def random_split(ids, share):
    """{"train", "val", "trainval": ids}, `share` of them for validation, and at least one.

    The choice depends on a hash of each id alone, so that adding images moves almost none of the others.
    """
    order = sorted(ids, key=lambda id: sha256(id.encode("utf-8")).digest())
    val = set(order[: max(1, round(share * len(order)))])
    return {"train": [id for id in ids if id not in val], "val": [id for id in ids if id in val], "trainval": list(ids)}
