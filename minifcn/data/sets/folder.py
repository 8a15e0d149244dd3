"""Reader of your own data: a folder of images, a folder of masks, and a dataset.toml that describes them."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import InputError
from ..files import FolderFiles
from ..images import SUFFIXES
from ..labels import VOID, voc_palette
from .base import SegmentationDataset
from .description import EXAMPLE, FILE_NAME, read_description
from .names import find, random_split, stem_of

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # lossless formats
MARKS = ("_mask", "-mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg")  # what tools add to an image's name


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
    _more_colours: list = []

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        described = read_description(files.path / FILE_NAME)
        images, masks = (PurePosixPath(described[kind]).as_posix() for kind in ("images", "masks"))
        self.images, self.masks = (images, *SUFFIXES), (masks, *MASK_SUFFIXES)
        self.exif = described["exif"]
        self.coloured = described["mask_kind"] == "colours"
        self.void = "void" in described or not self.coloured
        classes, self._splits = described["classes"], described["splits"]
        self.palette = voc_palette().copy()
        self.palette[: len(classes)] = [entry["colour"] for entry in classes]
        self.palette[VOID] = described.get("void", self.palette[VOID])
        self._more_colours = [(colour, i) for i, entry in enumerate(classes) for colour in entry["more_colours"]]
        self.table = number_table([entry["numbers"] for entry in classes], described["void_numbers"])
        self.shown = all(entry["numbers"] == [i] for i, entry in enumerate(classes))
        self._find(files)
        self._open(files, split, tuple(entry["name"].strip() for entry in classes), ids, limit)

    def _find(self, files):
        images, masks = PurePosixPath(self.images[0]), PurePosixPath(self.masks[0])
        of_images, of_masks = find(files.path, *self.images), find(files.path, *self.masks)
        if images != masks:  # where one folder lies in the other, what is in the inner one is of its kind alone
            of_images, of_masks = _without(of_images, masks, images), _without(of_masks, images, masks)
        self._found = paired(of_images, of_masks, together=images == masks)

    def _open(self, files, split, classes, ids, limit):
        super().__init__(files, split, classes, ids, limit)
        for names in (found.get(id, ()) for id in self.ids for found in self._found):
            if len(names) > 1:
                raise InputError(f"{self.folder / names[0]}: expected one file for its id, got also {names[1]}")

    def splits(self) -> dict:
        share = self._splits.get("val")
        return random_split(self._found[0], share) if isinstance(share, float) else self._splits

    def found(self) -> tuple:
        return self._found

    def colours(self) -> tuple[np.ndarray, np.ndarray]:
        colours, labels = super().colours()
        for colour, label in self._more_colours:
            colours, labels = np.vstack([colours, np.uint8(colour)]), np.append(labels, np.uint8(label))
        return colours, labels

    def image_name(self, id: str) -> str:
        folder, ending, *_ = self.images
        return self._found[0].get(id, [f"{folder}/{id}{ending}"])[0]

    def mask_name(self, id: str) -> str:
        folder, ending, *_ = self.masks
        mark = MARKS[0] if folder == self.images[0] else ""  # or the image would be its own mask
        return self._found[1].get(id, [f"{folder}/{id}{mark}{ending}"])[0]


def number_table(numbers: Iterable[Any], void: list | tuple = (VOID,)) -> np.ndarray:
    """(256,) uint8: the label of each number in a mask. numbers: each class's, one or more; unlisted ones get a label that is no class."""
    numbers = list(numbers)
    table = np.full(256, len(numbers), np.uint8)
    table[list(void)] = VOID
    for label, of_class in enumerate(numbers):
        table[of_class] = label
    return table


def _without(found, inner, outer):
    """The files that `find` found in the folder `outer`, without those of the folder `inner`, if that lies in it."""
    if not inner.is_relative_to(outer):
        return found
    kept = {
        id: [name for name in names if not PurePosixPath(name).is_relative_to(inner)] for id, names in found.items()
    }
    return {id: names for id, names in kept.items() if names}


def paired(images: dict, masks: dict, together: bool) -> tuple[dict, dict]:
    """The images and masks that `find` found, each mask under its image's id: also a_mask.png, a.jpg.png and so on.

    together: both lie in one folder, where only files with such names are masks.
    """
    found = {}
    for name, files in masks.items():
        ids = [id for id in _ids_in(name) if id in images and not (together and id == name)]
        id = ids[0] if ids else None
        if id or not together:
            found.setdefault(id or name, []).extend(files)
    taken = {file for files in found.values() for file in files if together}
    return {id: files for id, files in images.items() if not taken.intersection(files)}, found


def _ids_in(name):
    """The ids that a mask of this name may belong to."""
    stem = stem_of(name)
    return [name, stem, *(stem.removesuffix(mark) for mark in MARKS if stem.endswith(mark))]
