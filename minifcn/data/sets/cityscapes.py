"""Reader of the Cityscapes layout: leftImg8bit/<split>/<city> beside gtFine/<split>/<city>. Cordts et al., CVPR 2016."""

from collections import ChainMap
from pathlib import Path

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import FolderFiles
from ..images import read_mask
from ..labels import AMBIGUOUS, VOID
from .base import SegmentationDataset
from .names import find

# The classes of the official table (labels.py of cityscapesScripts) that count: label id, name, colour. The train id is
# the row's index here. All other ids are void; "license plate", id −1, is in no labelIds file.
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
COARSE = "gtCoarse", "_gtCoarse_labelIds.png"  # the masks of splits without gtFine
INSTANCE_IDS = "_instanceIds.png"
PER_CLASS = 1000  # an object's id is its label id times this, plus its number
_THINGS = tuple(range([name for _, name, _ in _TABLE].index("person"), len(_TABLE)))  # those with instances
LABEL_IDS = np.array([id for id, _, _ in _TABLE])  # of each class
CITYSCAPES_CLASSES = tuple(name for _, name, _ in _TABLE)


class Cityscapes(SegmentationDataset):
    """The samples of one split: labels are the 19 train ids, 255 for everything else.

    They are made from the labelIds files through the official table; the labelTrainIds files that some copies hold are
    not read. A split without gtFine has gtCoarse's. root: the folder that holds leftImg8bit and gtFine. split: a folder
    in them. ids: use these, such as "aachen_000000_000019", instead of all. limit: only the first so many.
    `with_instances` takes the instances of persons, riders and vehicles from the instanceIds files; their groups are AMBIGUOUS.
    Raises InputError, naming the file, at construction for what is missing (MissingFileError); when they are read, for
    files that do not fit together and for ids that the table does not have.
    """

    layout = "Cityscapes"
    images, masks = ("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_labelIds.png")
    lists, others = "leftImg8bit/{}", (".json",)
    palette = np.zeros((256, 3), np.uint8)  # void is black
    palette[: len(_TABLE)] = [colour for _, _, colour in _TABLE]
    table = np.full(256, VOID, np.uint8)  # label id -> train id, VOID where there is no class
    table[LABEL_IDS] = range(len(_TABLE))
    shown, allowed = False, np.arange(256) < NUM_LABEL_IDS

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        splits = [name for name in files.children("leftImg8bit") if files.is_folder(f"leftImg8bit/{name}")]
        self._splits = {name: _by_id(root, f"leftImg8bit/{name}", self.images[1]) for name in splits}
        # An id in several splits is read from the requested one.
        self._images = ChainMap(self._splits.get(split, {}), *self._splits.values())
        fine = {name for name in splits if files.is_folder(f"gtFine/{name}")}
        self._coarse = {name for name in splits if name not in fine and files.is_folder(f"gtCoarse/{name}")}
        super().__init__(files, split, CITYSCAPES_CLASSES, ids, limit)

    def splits(self) -> dict:
        return {split: list(images) for split, images in self._splits.items()}

    def found(self) -> tuple:
        masks = _by_id(self.folder, *self.masks)
        for split in self._coarse:
            masks |= _by_id(self.folder, f"{COARSE[0]}/{split}", COARSE[1])
        return self._images, masks

    def image_name(self, id: str) -> str:
        unknown = f"leftImg8bit/{self.split}/{id.split('_')[0]}/{id}{self.images[1]}"
        return self._images.get(id, [unknown])[0]

    @property
    def things(self) -> tuple[int, ...]:
        return _THINGS

    def check_instances(self) -> None:
        for name in map(self.objects_name, self.ids):
            if not self.files.is_file(name):
                raise MissingFileError(f"{self.folder / name}: no such file; it says which pixels are of which object")

    def objects_name(self, id: str) -> str:
        """The instanceIds file of an id, whether it is there or not."""
        return self.mask_name(id).removesuffix("_labelIds.png") + INSTANCE_IDS

    def mask_files(self, id: str) -> list[str]:
        return [self.mask_name(id), *([self.objects_name(id)] if self.tells_objects else [])]

    def read_instances(self, id: str, label: np.ndarray) -> np.ndarray:
        name = self.objects_name(id)
        ids = read_mask(self.files.open(name), self.exif, highest=AMBIGUOUS)
        of_label = self.table[np.where(ids < PER_CLASS, ids, ids // PER_CLASS).clip(max=VOID)]
        if ids.shape != label.shape or (of_label != label).any():
            other = (
                "another size"
                if ids.shape != label.shape
                else f"other labels in {np.count_nonzero(of_label != label)} pixels"
            )
            raise InputError(
                f"{self.folder / name}: expected the objects of {Path(self.mask_name(id)).name}, got {other}"
            )
        objects = (ids >= PER_CLASS) & (label != VOID)
        groups = ~objects & np.isin(label, _THINGS)
        instances = np.zeros(ids.shape, np.uint16)
        instances[objects] = np.unique(ids[objects], return_inverse=True)[1] + 1
        instances[groups] = AMBIGUOUS
        return instances

    def mask_name(self, id: str) -> str:
        place = self.image_name(id).removeprefix(self.images[0]).removesuffix(self.images[1])
        folder, ending = COARSE if place.split("/")[1] in self._coarse else self.masks
        return f"{folder}{place}{ending}"


def _by_id(root, folder, ending):
    """{id: names}: an id is a file's name alone, without its city and its ending."""
    return {place.rpartition("/")[2]: names for place, names in find(root, folder, ending).items()}
