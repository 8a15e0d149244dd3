"""Reader of CamVid: driving scenes in 11 classes, as the authors of SegNet ship them or in the original's 32 colours."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import MissingFileError
from ..files import FolderFiles
from ..images import SUFFIXES
from .folder import Folder, number_table
from .names import VAL_SHARE, find, pair_in, random_split, stem_of

# Each class with its colour in SegNet's pictures; then the original classes merged into it, as in label_colors.txt.
_TABLE = {
    ("sky", (128, 128, 128)): {"Sky": (128, 128, 128)},
    ("building", (128, 0, 0)): {
        "Building": (128, 0, 0),
        "Wall": (64, 192, 0),
        "Tunnel": (64, 0, 64),
        "Bridge": (0, 128, 64),
        "Archway": (192, 0, 128),
    },
    ("pole", (192, 192, 128)): {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    ("road", (128, 64, 128)): {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
    ("pavement", (60, 40, 222)): {
        "Sidewalk": (0, 0, 192),
        "ParkingBlock": (64, 192, 128),
        "RoadShoulder": (128, 128, 192),
    },
    ("tree", (128, 128, 0)): {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    ("sign", (192, 128, 128)): {
        "SignSymbol": (192, 128, 128),
        "Misc_Text": (128, 128, 64),
        "TrafficLight": (0, 64, 64),
    },
    ("fence", (64, 64, 128)): {"Fence": (64, 64, 128)},
    ("car", (64, 0, 128)): {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    ("pedestrian", (64, 64, 0)): {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    ("bicyclist", (0, 128, 192)): {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
CAMVID_CLASSES = tuple(name for name, _ in _TABLE)
_SPLITS = ("train", "val", "trainval", "test")
EXPECTED = "train with trainannot or 701_StillsRaw_full with LabeledApproved_full (CamVid)"
_ORIGINAL = {  # folder of images -> folder of masks x_L.png in 32 colours
    "701_StillsRaw_full": "LabeledApproved_full",
    "images": "labels",
    **{split: f"{split}_labels" for split in _SPLITS},  # a common copy
}


class CamVid(Folder):
    """The samples of one split: labels are the 11 classes, 255 for void. An id is the name of a frame, without its ending.

    root: as the authors of SegNet ship it, the folders train, val and test beside trainannot, valannot and testannot, whose
    masks hold the numbers 0..10 and 11 for void; or the original, 701_StillsRaw_full beside LabeledApproved_full (also images
    beside labels, or train beside train_labels and so on) with masks x_L.png in 32 colours. split: a list in root, train.txt,
    val.txt, trainval.txt or test.txt, or a path ending in .txt to a list elsewhere. A line is a frame's name, or the paths of
    frame and mask, where only the frame's name counts: frames may be PNG or JPEG, whatever the list says. Without lists the
    folders are the splits; if there is one folder, a random fifth of it is val. ids: use these instead of the split's. limit: only the
    first so many. Raises InputError as data.Cityscapes does.

    Sources: Brostow et al., Pattern Recognition Letters 30 (2009), the 32 classes; Badrinarayanan et al., SegNet,
    https://arxiv.org/abs/1511.00561, the 11 and the splits; MathWorks' camvidPixelLabelIDs, which of the 32 are merged into each.
    """

    layout = "CamVid"
    images, others = (".", *SUFFIXES), (".txt", ".csv")
    palette = np.zeros((256, 3), np.uint8)  # void is black
    palette[: len(_TABLE)] = [colour for _, colour in _TABLE]
    _more_colours = [(colour, i) for i, taken in enumerate(_TABLE.values()) for colour in taken.values()]
    table = number_table(range(len(_TABLE)), [len(_TABLE)])
    lists, shown = "{}.txt", False

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        self._folders = mask_folders(files)
        self.coloured = not any(name.endswith("annot") for name in self._folders.values())
        self.masks = ".", "_L.png" if self.coloured else ".png"
        if not self._folders:
            raise MissingFileError(f"{root}: expected {EXPECTED}, found neither")
        order = sorted(self._folders, key=lambda name: name == str(split))
        frames = {name: find(root, name, *SUFFIXES) for name in order}
        masks = self._masks = {name: find(root, self._folders[name], self.masks[1]) for name in order}
        self._found = {}, {}
        for name in order:  # a frame in two folders is read from the split's folder
            self._found[0].update(frames[name])
            self._found[1].update(masks[name])
        self._place = {id: name for kind in (masks, frames) for name in order for id in kind[name]}
        self._usual = order[-1]
        lists = {name: f"{name}.txt" for name in _SPLITS if files.is_file(f"{name}.txt")}
        folders = {name: list(ids) for name, ids in frames.items() if name in _SPLITS}
        self._splits = folders | lists or random_split(self._found[0], VAL_SHARE)
        self._open(files, split, CAMVID_CLASSES, ids, limit)

    def id_of(self, line: str) -> str:
        path, *_ = pair_in(line) or [line]
        return stem_of(PurePosixPath(path).name)

    def image_name(self, id: str) -> str:
        return self._found[0].get(id, [f"{self._place.get(id, self._usual)}/{id}.png"])[0]

    def mask_name(self, id: str) -> str:
        place = self._place.get(id, self._usual)
        return self._masks[place].get(id, [f"{self._folders[place]}/{id}{self.masks[1]}"])[0]


def mask_folders(files: Any) -> dict[str, str]:
    """{folder of frames: folder of their masks} of CamVid in `files`; empty for any other layout."""
    names = [name for name in files.children("") if files.is_folder(name)]
    if any(f"{name}annot" in names for name in names):
        return {name: f"{name}annot" for name in names if f"{name}annot" in names or name in _SPLITS}
    pairs = {name: masks for name, masks in _ORIGINAL.items() if name in names and masks in names}
    return pairs if any(name.endswith("_L.png") for masks in pairs.values() for name in files.children(masks)) else {}
