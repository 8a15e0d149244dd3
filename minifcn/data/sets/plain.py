"""Reader of folders of images and of masks with the same names, such as ISBI's, without a description: classes come from the masks."""

import logging
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..files import FolderFiles, files_below
from ..images import SUFFIXES, read_mask
from ..labels import VOID, describe, voc_palette
from .description import FILE_NAME, DescriptionError
from .folder import MASK_SUFFIXES, Folder, number_table
from .names import VAL_SHARE, random_split

log = logging.getLogger("minifcn.data")
IMAGES, MASKS = ("images", "image"), ("labels", "label", "masks", "mask")
MANY = 8  # more classes without names than this are probably object numbers


class PlainFolder(Folder):
    """The samples of one split. Masks of 0 and 255 have the classes black and white; masks of the numbers 0..K-1, with 255 for
    void, have "class 0" to "class K-1".

    root: the folder with images (or image) and labels (or label, masks, mask). split: "train", "val" (a random fifth of
    the images) or "trainval"; if there are train.txt, val.txt or test.txt, these instead; or a path ending in .txt to a list. ids: use
    these instead. limit: only the first so many. Raises InputError as data.Folder does, and for masks of other numbers.
    """

    layout = "images and masks"
    lists = "{}.txt"

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        images, masks = places(files.path)
        self.images, self.masks = (images, *SUFFIXES), (masks, *MASK_SUFFIXES)
        self._find(files)
        numbers = self._numbers(files)
        self.table, self.palette = number_table(numbers), voc_palette().copy()
        self.shown = numbers != [0, VOID]
        if not self.shown:
            self.palette[1] = 255
        classes = tuple(f"class {n}" for n in numbers) if self.shown else ("black", "white")
        self._open(files, split, classes, ids, limit)

    def check_for_training(self) -> None:
        super().check_for_training()
        if self.num_classes > MANY:
            log.warning(
                "%s: the numbers 0 to %d in masks are taken for classes; where they number objects, write a mask for each object (docs/data.md)",
                self.folder,
                self.num_classes - 1,
            )

    def splits(self) -> dict:
        return self.list_files() or random_split(self._found[0], VAL_SHARE)

    def _numbers(self, files):
        """The number of each class in the masks. Unreadable masks are skipped: whoever needs them reports them."""
        pixels, wrong = np.zeros(256, np.int64), ""
        for name in (name for names in self._found[1].values() for name in names):
            try:
                pixels += np.bincount(read_mask(files.open(name)).reshape(-1), minlength=256)
            except InputError as error:
                wrong = wrong or f"{name}: {str(error).removeprefix(f'{files.path / name}: ')}"
                continue
        if (both := np.flatnonzero(pixels).tolist()) == [0, VOID]:
            return both
        numbers = np.flatnonzero(pixels[:VOID]).tolist()
        if len(numbers) > 1 and numbers == list(range(len(numbers))):
            return numbers
        found = describe(np.flatnonzero(pixels), pixels[pixels > 0]) or wrong or f"no {', '.join(MASK_SUFFIXES)}"
        hint = "" if found == wrong else f"; write {FILE_NAME} (see `minifcn data doctor --help`)"
        raise DescriptionError(
            files.path / FILE_NAME,
            [
                f"no such file, and without one {self.masks[0]} has to hold masks of 0 and 255, or of the numbers 0, 1 … of the "
                f"classes; got {found}{hint}"
            ],
        )


def holds_masks(root: Path) -> bool:
    """Whether there is a file of a mask's format in the folder of masks."""
    found = places(root)
    return bool(found) and any(name.lower().endswith(MASK_SUFFIXES) for name in files_below(root / found[1]))


def places(root: Path) -> tuple[str, str] | None:
    """The folders of images and of masks in a folder; None where one of them is not there."""
    images, masks = (next((n for n in names if (root / n).is_dir()), None) for names in (IMAGES, MASKS))
    return (images, masks) if images and masks else None
