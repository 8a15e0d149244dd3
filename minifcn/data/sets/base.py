"""What every data set is: a sequence of samples, each an image and a mask that an id names."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import read_lines
from ..images import read_image, read_mask
from ..labels import check_labels, voc_palette


class Sample(NamedTuple):
    """One labelled image: image (H, W, 3) uint8 RGB, label (H, W) uint8 with 255 for void, and its id."""

    image: np.ndarray
    label: np.ndarray
    id: str


class SegmentationDataset(Sequence):
    """Samples that are read when they are asked for. A subclass sets `files`, `ids`, `classes` and `split`, and says with
    image_name(id) and mask_name(id) which of the files belong to an id.

    palette: (256, 3) uint8, the colour of each label, so that palette[label] is a picture; VOC's unless a subclass has its own.
    Files that do not fit together (sizes, labels, colours) raise InputError, naming the file, when they are read.
    """

    palette = voc_palette()

    @property
    def num_classes(self):
        return len(self.classes)

    @property
    def folder(self):
        return self.files.path

    def require_files(self):
        """Raise MissingFileError, naming the file, unless every id has its image and its mask."""
        for id in self.ids:
            for what, name in (("image", self.image_name(id)), ("mask", self.mask_name(id))):
                if not self.files.is_file(name):
                    raise MissingFileError(f"{self.folder / name}: no {what} for id {id!r} of split {self.split!r}")

    def read_label(self, id):
        """An id's class numbers, (H, W) uint8."""
        return read_mask(self.files.open(self.mask_name(id)))

    def read(self, id):
        """The Sample of an id."""
        image, label = read_image(self.files.open(self.image_name(id))), self.read_label(id)
        mask = self.folder / self.mask_name(id)
        if label.shape != image.shape[:2]:
            raise InputError(
                f"{mask}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}"
            )
        check_labels(label, self.num_classes, mask)
        return Sample(image, label, id)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.read(self.ids[index])


class ListedDataset(SegmentationDataset):
    """A data set whose ids stand in lists: the layouts of PASCAL VOC and SBD.

    A subclass says where files lie: `images` and `masks`, with {} for the id, and `lists`, the folder of the lists.
    files: FolderFiles or TarFiles. split: a list's name, or a path ending in .txt to a list elsewhere. ids: use these
    instead. limit: only the first so many. Raises InputError, naming the file, for a missing list, image or mask.
    """

    images = masks = lists = None

    def __init__(self, files, split, classes, ids=None, limit=None):
        self.files, self.split, self.classes = files, str(split), classes
        self.ids = list(self._read_split() if ids is None else ids)[:limit]
        for id in self.ids:
            if id.startswith("/") or ".." in id.split("/"):
                raise InputError(f"{self.folder}: expected ids of files in this folder, got {id!r} in {self.split!r}")
        self.require_files()

    def image_name(self, id):
        return self.images.format(id)

    def mask_name(self, id):
        return self.masks.format(id)

    def _read_split(self):
        source = self.split
        if not source.endswith(".txt"):
            name = f"{self.lists}/{self.split}.txt".lstrip("/")
            if not self.files.is_file(name):
                raise MissingFileError(f"{self.folder / name}: no such split list; {self.split_hint()}")
            source = self.files.open(name)
        return [line.split()[0] for line in read_lines(source, of="image id")]

    def split_hint(self):
        """What to do about a missing list."""
        lists = [name.removesuffix(".txt") for name in self.files.children(self.lists) if name.endswith(".txt")]
        return f"this folder has: {', '.join(lists) or 'none'}"


class UnionDataset(SegmentationDataset):
    """Several data sets with the same classes as one: each id once, from the first that has it, and none of `without`.

    Raises InputError for data sets with different classes.
    """

    def __init__(self, datasets, split, without=(), limit=None):
        first = datasets[0]
        for other in datasets[1:]:
            if other.classes != first.classes:
                raise InputError(
                    f"{other.folder}: expected the {first.num_classes} classes of {first.folder}, got {other.num_classes}"
                )
        self.files, self.split, self.classes = first.files, split, first.classes
        self._home = {id: dataset for dataset in reversed(datasets) for id in dataset.ids}
        everything = dict.fromkeys(id for dataset in datasets for id in dataset.ids)
        self.ids = [id for id in everything if id not in without][:limit]

    def read(self, id):
        return self._home[id].read(id)
