"""Reader of Roboflow's export of semantic segmentation masks: train, valid and test, each with x.jpg, x_mask.png and _classes.csv."""

from pathlib import Path
from typing import BinaryIO

from ...errors import InputError
from ..files import FolderFiles, read_lines
from ..images import SUFFIXES
from ..labels import VOID, number_in
from .folder import Folder, number_table
from .names import VAL_SHARE, random_split

CLASSES = "_classes.csv"
_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # a folder -> what its split is called here


class Roboflow(Folder):
    """The samples of one split. root: the folder that holds train, valid and test; "val" is valid. Of one alone, a fifth is val.

    ids: use these, such as "train/x", instead of all. limit: only the first so many. Raises InputError as data.Folder does.
    """

    layout = "Roboflow"
    images, masks = (".", *SUFFIXES), (".", ".png")
    lists, others = "{}", (".csv", ".txt")

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        folders = [name for name in _SPLITS if files.is_file(f"{name}/{CLASSES}")]
        described = [read_classes(files.open(f"{name}/{CLASSES}")) for name in folders]
        for name, other in zip(folders, described, strict=True):
            if other != described[0]:
                raise InputError(
                    f"{files.path / name / CLASSES}: expected the classes of {folders[0]}/{CLASSES}, got others"
                )
        self.table = number_table(described[0])
        self._find(files)
        inside = {name: [id for id in self._found[0] if id.startswith(f"{name}/")] for name in folders}
        alone = len(folders) == 1
        self._splits = (
            random_split(inside[folders[0]], VAL_SHARE) if alone else {_SPLITS[n]: i for n, i in inside.items()}
        )
        self._open(files, _SPLITS.get(split, split), tuple(described[0].values()), ids, limit)


def read_classes(file: BinaryIO) -> dict:
    """{number in masks: the class's name} of a _classes.csv, whose lines are like "1, leaf" below a title. Raises InputError."""
    named = {}
    for line in read_lines(file)[1:]:
        number, _, name = (part.strip() for part in line.partition(","))
        if (value := number_in(number, 256)) is None or not name or value in named:
            raise InputError(
                f"{file.name}: expected a title, then a number below 256 and a name a line, got {line[:60]!r}"
            )
        named[value] = name
    if not 0 < len(named) <= VOID:
        raise InputError(f"{file.name}: expected 1 to {VOID} classes, got {len(named)}")
    return named
