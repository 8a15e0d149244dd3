"""Reader of the Cityscapes layout: leftImg8bit/<split>/<city> beside gtFine/<split>/<city>. Cordts et al., CVPR 2016."""

from pathlib import Path

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import FolderFiles
from ..images import read_mask
from ..labels import VOID
from .base import SegmentationDataset

# The classes that count of the official table (labels.py of cityscapesScripts): label id, name, colour. The train id is
# the row's number here. All other ids are void; "license plate", id −1, is in no labelIds file.
_TABLE = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
NUM_LABEL_IDS = 34
CITYSCAPES_CLASSES = tuple(name for _, name, _ in _TABLE)
IMAGE_SUFFIX, MASK_SUFFIX = "_leftImg8bit.png", "_gtFine_labelIds.png"


def train_ids():
    """The official table as an array: train_ids()[id] is the train id.   (256,) uint8, VOID where there is no class"""
    table = np.full(256, VOID, np.uint8)
    table[[id for id, _, _ in _TABLE]] = range(len(_TABLE))
    return table


def cityscapes_palette():
    """The colour of each train id, (256, 3) uint8; void is black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(_TABLE)] = [colour for _, _, colour in _TABLE]
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
        if (numbers >= NUM_LABEL_IDS).any():
            raise InputError(f"{self.folder / name}: expected label ids 0..{NUM_LABEL_IDS - 1}, got {numbers.max()}")
        return train_ids()[numbers]
