"""What every data set is: a sequence of samples, each an image and a mask that an id names."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import read_lines
from .images import read_image, read_mask
from .labels import check_labels


class Sample(NamedTuple):
    """One labelled image: image (H, W, 3) uint8 RGB, label (H, W) uint8 with 255 for void, and its id."""

    image: np.ndarray
    label: np.ndarray
    id: str


class ListedSet(Sequence):
    """The samples whose ids stand in a list, read when asked for.

    A kind of data set says where its files lie, relative to its folder: `images` and `masks` with {} for the id, and
    `lists`, the folder of the lists. files, inner: a Folder or Tar, and the data set's folder in it. split: a list's name,
    or a path ending in .txt to a list elsewhere. ids: use these instead. limit: only the first so many.
    Raises FileNotFoundError or ValueError, naming the file, for a missing list, image or mask, at construction; and for
    files that do not fit together (sizes, labels, colours), when they are read.
    """

    images = masks = lists = None

    def __init__(self, files, inner, split, classes, ids=None, limit=None):
        self.files, self.inner, self.split, self.classes = files, inner, str(split), classes
        self.ids = (list(ids) if ids is not None else self._read_split())[:limit]
        for id in self.ids:
            if id.startswith("/") or ".." in id.split("/"):
                raise ValueError(f"{self.folder}: expected ids of files in this folder, got {id!r}")
            for what, path in (("image", self.images), ("mask", self.masks)):
                if not files.is_file(self._inner(path.format(id))):
                    raise FileNotFoundError(
                        f"{self._name(path.format(id))}: no {what} for id {id!r} of split {split!r}"
                    )

    @property
    def folder(self):
        """Where the data set lies, for messages."""
        return self.files.path / self.inner

    @property
    def num_classes(self):
        return len(self.classes)

    def image_name(self, id):
        """What messages call an id's image."""
        return self._name(self.images.format(id))

    def mask_name(self, id):
        return self._name(self.masks.format(id))

    def open_image(self, id):
        """The file of an id's image, as a binary file object."""
        return self.files.open(self._inner(self.images.format(id)))

    def open_mask(self, id):
        return self.files.open(self._inner(self.masks.format(id)))

    def read_label(self, id):
        """An id's class numbers, (H, W) uint8."""
        return read_mask((self.open_mask(id), self.mask_name(id)))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        id = self.ids[index]
        image, label = read_image((self.open_image(id), self.image_name(id))), self.read_label(id)
        if label.shape != image.shape[:2]:
            raise ValueError(
                f"{self.mask_name(id)}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}"
            )
        check_labels(label, self.num_classes, self.mask_name(id))
        return Sample(image, label, id)

    def _read_split(self):
        if self.split.endswith(".txt"):
            name, lines = self.split, read_lines(Path(self.split))
        else:
            path = f"{self.lists}/{self.split}.txt" if self.lists else f"{self.split}.txt"
            name = self._name(path)
            if not self.files.is_file(self._inner(path)):
                raise FileNotFoundError(f"{name}: no such split list; {self._what_lists_there_are()}")
            lines = read_lines((self.files.open(self._inner(path)), name))
        if not lines:
            raise ValueError(f"{name}: expected one image id a line, got an empty list")
        return [line.split()[0] for line in lines]

    def _what_lists_there_are(self):
        names = self.files.children(self._inner(self.lists))
        return f"this folder has: {', '.join(n[:-4] for n in names if n.endswith('.txt')) or 'none'}"

    def _inner(self, name):
        return "/".join(part for part in (self.inner, name) if part)

    def _name(self, name):
        return str(self.folder / name)
