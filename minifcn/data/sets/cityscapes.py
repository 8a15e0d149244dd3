"""Reader of the Cityscapes layout: leftImg8bit/<split>/<city> beside gtFine/<split>/<city>. Cordts et al., CVPR 2016."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import FolderFiles
from ..images import read_mask
from ..labels import VOID
from .base import SegmentationDataset


class Label(NamedTuple):
    """A row of the official table (labels.py of cityscapesScripts); train_id: 0 … 18, or VOID."""

    id: int
    name: str
    train_id: int
    colour: tuple


# The table's one other row, "license plate" with id −1, is in no labelIds file: a negative id is not drawn.
LABELS = (
    Label(0, "unlabeled", VOID, (0, 0, 0)),
    Label(1, "ego vehicle", VOID, (0, 0, 0)),
    Label(2, "rectification border", VOID, (0, 0, 0)),
    Label(3, "out of roi", VOID, (0, 0, 0)),
    Label(4, "static", VOID, (0, 0, 0)),
    Label(5, "dynamic", VOID, (111, 74, 0)),
    Label(6, "ground", VOID, (81, 0, 81)),
    Label(7, "road", 0, (128, 64, 128)),
    Label(8, "sidewalk", 1, (244, 35, 232)),
    Label(9, "parking", VOID, (250, 170, 160)),
    Label(10, "rail track", VOID, (230, 150, 140)),
    Label(11, "building", 2, (70, 70, 70)),
    Label(12, "wall", 3, (102, 102, 156)),
    Label(13, "fence", 4, (190, 153, 153)),
    Label(14, "guard rail", VOID, (180, 165, 180)),
    Label(15, "bridge", VOID, (150, 100, 100)),
    Label(16, "tunnel", VOID, (150, 120, 90)),
    Label(17, "pole", 5, (153, 153, 153)),
    Label(18, "polegroup", VOID, (153, 153, 153)),
    Label(19, "traffic light", 6, (250, 170, 30)),
    Label(20, "traffic sign", 7, (220, 220, 0)),
    Label(21, "vegetation", 8, (107, 142, 35)),
    Label(22, "terrain", 9, (152, 251, 152)),
    Label(23, "sky", 10, (70, 130, 180)),
    Label(24, "person", 11, (220, 20, 60)),
    Label(25, "rider", 12, (255, 0, 0)),
    Label(26, "car", 13, (0, 0, 142)),
    Label(27, "truck", 14, (0, 0, 70)),
    Label(28, "bus", 15, (0, 60, 100)),
    Label(29, "caravan", VOID, (0, 0, 90)),
    Label(30, "trailer", VOID, (0, 0, 110)),
    Label(31, "train", 16, (0, 80, 100)),
    Label(32, "motorcycle", 17, (0, 0, 230)),
    Label(33, "bicycle", 18, (119, 11, 32)),
)
CITYSCAPES_CLASSES = tuple(label.name for label in LABELS if label.train_id != VOID)
IMAGE_SUFFIX, MASK_SUFFIX = "_leftImg8bit.png", "_gtFine_labelIds.png"


def train_ids():
    """The official table as an array: train_ids()[id] is the train id.   (256,) uint8, VOID where there is no class"""
    table = np.full(256, VOID, np.uint8)
    for label in LABELS:
        table[label.id] = label.train_id
    return table


def cityscapes_palette():
    """The colour of each train id, (256, 3) uint8; void is black."""
    palette = np.zeros((256, 3), np.uint8)
    for label in LABELS:
        if label.train_id != VOID:
            palette[label.train_id] = label.colour
    return palette


def list_files(root, folder, suffix):
    """{id: name} of the files <folder>/<city>/<id><suffix> in the data set, by city and name."""
    paths = sorted(Path(root, folder).glob(f"*/*{suffix}"))
    return {path.name.removesuffix(suffix): path.relative_to(root).as_posix() for path in paths}


def mask_name_of(image_name):
    """The labelIds file's name that belongs to leftImg8bit/<split>/<city>/<id>_leftImg8bit.png."""
    return f"gtFine{image_name.removeprefix('leftImg8bit').removesuffix(IMAGE_SUFFIX)}{MASK_SUFFIX}"


class Cityscapes(SegmentationDataset):
    """The samples of one split: labels are the 19 train ids, 255 for everything else.

    They are made from the labelIds files through the official table; the labelTrainIds files that some copies hold
    are not read. root: the folder that holds leftImg8bit and gtFine. split: a folder in them. ids: use these, such as
    "aachen_000000_000019", instead of all. limit: only the first so many.
    Raises MissingFileError, naming the file, at construction for what is missing; InputError, when they are read, for
    files that do not fit together and for ids that the table does not have.
    """

    def __init__(self, root, split="train", ids=None, limit=None):
        self.files, self.split = FolderFiles(root), split
        self.classes, self.palette = CITYSCAPES_CLASSES, cityscapes_palette()
        photos = f"leftImg8bit/{split}"
        if not self.files.is_folder(photos):
            splits = [
                name for name in self.files.children("leftImg8bit") if self.files.is_folder(f"leftImg8bit/{name}")
            ]
            raise MissingFileError(
                f"{self.folder / photos}: no such folder; leftImg8bit has the splits: {', '.join(splits) or 'none'}"
            )
        found = list_files(root, photos, IMAGE_SUFFIX)
        if not found:
            raise MissingFileError(f"{self.folder / photos}: expected <city>/<id>{IMAGE_SUFFIX}, found none")
        self.ids = list(found if ids is None else ids)[:limit]
        # Where an unknown id would lie, so that the message can name a file.
        self._images = {id: found.get(id, f"{photos}/{id.split('_')[0]}/{id}{IMAGE_SUFFIX}") for id in self.ids}
        self.require_files()

    def image_name(self, id):
        return self._images[id]

    def mask_name(self, id):
        return mask_name_of(self._images[id])

    def read_label(self, id):
        """The train ids (H, W) uint8 of one labelIds file."""
        name = self.mask_name(id)
        numbers = read_mask(self.files.open(name))
        if (numbers >= len(LABELS)).any():
            raise InputError(f"{self.folder / name}: expected label ids 0..{len(LABELS) - 1}, got {numbers.max()}")
        return train_ids()[numbers]
