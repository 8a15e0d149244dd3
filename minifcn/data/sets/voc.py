"""Reader of the PASCAL VOC layout: JPEGImages, SegmentationClass and ImageSets/Segmentation under VOCdevkit/VOC<year>."""

import re
from pathlib import Path
from typing import Any, BinaryIO
from unicodedata import normalize

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import files_at, read_lines
from ..images import read_colours, read_mask
from ..labels import AMBIGUOUS, VOC_CLASSES, VOID, number_in, read_class_names, voc_palette
from . import voc_boxes
from .base import SegmentationDataset
from .names import VAL_SHARE, existing, find, pair_in, random_split, stem_of

_LISTS = "ImageSets/Segmentation/{}.txt", "ImageSets/Main/{}.txt"
_OF_CVAT = {
    "Train": "train",
    "Validation": "val",
    "Test": "test",
}  # its names of subsets; "default" where there are none
OBJECTS = "SegmentationObject"
_PARENTS = ("", "VOCdevkit", "TrainVal/VOCdevkit")  # where the official archives of the years have their VOC<year>


class VOC(SegmentationDataset):
    """The samples of one split, read when asked for, from a folder or straight from the official tar (VOCtrainval_*.tar).

    root: the tar, the folder that it was unpacked into, VOCdevkit, or the VOC<year> folder itself, in which case `year`
    does not matter. split: a list in ImageSets/Segmentation, such as "train", or a path ending in .txt to a list
    elsewhere. year: None for 2012 if it is there, else the latest. ids: use these ids instead of the split's. limit: only the
    first so many.
    Classes other than VOC's 21 are named in a file beside the folders: `classes.txt`, or what tools write: `class_names.txt`
    (labelme) and `labelmap.txt` (CVAT, whose masks are in its colours). Lists may also be in ImageSets/Main. Without any, or with
    CVAT's default.txt only, a fifth of the images is val.
    `with_instances` takes instances from the pictures in SegmentationObject, or else from masks and the boxes in
    Annotations/<id>.xml or `boxes.json`, as far as these decide them (`voc_boxes`).
    Raises InputError, naming the file, for a missing list, image or mask (MissingFileError), or a tar that is not safe
    and sound, at construction; and for files that do not fit together (sizes, labels, colours), when they are read.
    """

    layout = "PASCAL VOC"
    images, masks = ("JPEGImages", ".jpg", ".jpeg", ".png"), ("SegmentationClass", ".png")
    lists = _LISTS[0]
    hints = {
        "seg11valid": "VOC comes without it: get its 736 ids from "
        "https://github.com/shelhamer/fcn.berkeleyvision.org/blob/master/data/pascal/seg11valid.txt "
        "and save them there, or name the file itself, also for a tar: --split path/to/seg11valid.txt"
    }

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        year: str | None = "2012",
        ids: list | None = None,
        limit: int | None = None,
    ):
        files = files_at(root)
        files = files.subfolder(year_folder(files, year))
        if files.is_folder("SegmentationClassPNG"):  # of an older labelme2voc, beside its arrays in SegmentationClass
            self.masks = "SegmentationClassPNG", ".png"
        self.lists = next((lists for lists in _LISTS if files.children(lists.rpartition("/")[0])), self.lists)
        classes = VOC_CLASSES
        if names := next((name for name in ("classes.txt", "class_names.txt") if files.is_file(name)), None):
            classes = tuple(name for name in read_class_names(files.open(names)) if name != "__ignore__")
        elif files.is_file("labelmap.txt"):
            classes, self.palette = read_labelmap(files.open("labelmap.txt"))
            self.coloured, self.void = True, False
        self._pairs = {}  # {id: (image, mask)} where a list names both
        super().__init__(files, split, classes, ids, limit)

    def image_name(self, id: str) -> str:
        return self._pairs[id][0] if id in self._pairs else super().image_name(id)

    def mask_name(self, id: str) -> str:
        return self._pairs[id][1] if id in self._pairs else super().mask_name(id)

    def id_of(self, line: str) -> str | None:
        """The id in a line of a list: the whole line; or what is before 1, 0 or -1, as in VOC's Main (None for -1, "not in this
        list"); or the image's name if the line is two paths, an image's and its mask's."""
        if self.files.is_file(self.image_name(line)):
            return line
        if pair := pair_in(line):
            id = normalize("NFC", stem_of(pair[0].removeprefix(f"{self.images[0]}/")))
            self._pairs[id] = tuple(pair)
            return id
        id, *flag = line.rsplit(None, 1)
        return (None if flag == ["-1"] else id) if flag in (["1"], ["0"], ["-1"]) else line

    def objects_name(self, id: str) -> str:
        """The picture of an id's objects, whether it is there or not."""
        return existing(self.files, (OBJECTS, ".png"), id)

    def check_instances(self) -> None:
        files, drawn = self.files, self.files.is_folder(OBJECTS)
        if not (drawn or files.is_file(voc_boxes.JSON) or files.is_folder(voc_boxes.XML)):
            raise MissingFileError(
                f"{self.folder}: expected {OBJECTS}, {voc_boxes.XML} or {voc_boxes.JSON}, which tell objects apart; found none"
            )
        for id in self.ids if drawn else ():
            if not files.is_file(name := self.objects_name(id)):
                raise MissingFileError(f"{self.folder / name}: no objects for id {id!r} of split {self.split!r}")
        self._boxes = None if drawn else voc_boxes.Boxes(files, self.classes)

    def mask_files(self, id: str) -> list[str]:
        if not self.tells_objects:
            return [self.mask_name(id)]
        return [self.mask_name(id), self.objects_name(id) if self._boxes is None else self._boxes.name(id)]

    def read_instances(self, id: str, label: np.ndarray) -> np.ndarray:
        if (boxes := self.boxes(id)) is not None:
            return voc_boxes.tell_apart(label, boxes)[0]
        name = self.objects_name(id)
        if self.coloured:
            numbers = numbered(read_colours(self.files.open(name), self.exif))
        else:
            numbers = read_mask(self.files.open(name), self.exif)
        if numbers.shape != label.shape:
            sizes = "the mask's size {1}x{0}, got {3}x{2}".format(*label.shape, *numbers.shape)
            raise InputError(f"{self.folder / name}: expected objects of {sizes}")
        if self.coloured:
            return numbers
        numbers = np.where(numbers == VOID, np.where(label > 0, np.uint16(AMBIGUOUS), np.uint16(0)), numbers)
        return np.where(label == VOID, np.uint16(0), numbers)

    def boxes(self, id: str) -> list[voc_boxes.Box] | None:
        """The boxes that an id's instances come from; None if they come from a picture. Only after `with_instances`."""
        return None if self._boxes is None else self._boxes.of(id)

    def is_exact(self, id: str) -> bool:
        """Whether no pixel is in two boxes of its class, which would leave its object unknown. Only after `with_instances`."""
        boxes = self.boxes(id)
        return boxes is None or not voc_boxes.tell_apart(self.read_label(id), boxes)[1]

    def splits(self) -> dict:
        found = super().splits()
        lists = {_OF_CVAT.get(name, name): file for name, file in found.items()}
        if list(found) in (["default"], ["Train"]):  # CVAT's, alone
            (file,) = found.values()
            return lists | random_split(self.read_ids(self.files.open(file)), VAL_SHARE)
        return lists or random_split(find(self.folder, *self.images), VAL_SHARE) if self.folder.is_dir() else lists


def numbered(colours: np.ndarray) -> np.ndarray:
    """(H, W) uint16: a number from 1 for each colour in colours (H, W, 3) uint8, and 0 for black."""
    codes = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    numbers = np.unique(np.append(codes, np.uint32(0)), return_inverse=True)[1]  # black comes first, if only here
    return numbers[:-1].reshape(codes.shape).astype(np.uint16)


def read_labelmap(file: BinaryIO) -> tuple[tuple, np.ndarray]:
    """(classes, palette) of CVAT's labelmap.txt, whose lines are name:r,g,b:parts:actions. Raises InputError, naming the file."""
    names, palette = [], voc_palette().copy()
    for line in read_lines(file):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        colour = rest.partition(":")[0].split(",")
        if not all(number_in(part, 256) is not None for part in colour) or len(colour) != 3 or len(names) == VOID:
            raise InputError(f"{file.name}: expected lines like leaf:250,50,83::, at most {VOID}; got {line[:60]!r}")
        palette[len(names)] = [int(part) for part in colour]
        names.append(name)
    if not names:
        raise InputError(f"{file.name}: expected lines like leaf:250,50,83::, got none")
    colours = palette[: len(names)].tolist()
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if name in names[:i] or colour in colours[:i]:
            raise InputError(
                f"{file.name}: expected a name and a colour of its own for every label, got {name!r} and {colour} again"
            )
    return tuple(names), palette


def year_folders(files: Any) -> dict[str, str]:
    """{"2012": the folder VOC2012 in `files`, …} for every year that is there, in order."""
    found = {}
    for parent in _PARENTS:
        for name in files.children(parent):
            folder = f"{parent}/{name}".lstrip("/")
            if re.fullmatch(r"VOC\d{4}", name) and files.is_folder(f"{folder}/JPEGImages"):
                found.setdefault(name[3:], folder)
    return dict(sorted(found.items()))


def year_folder(files: Any, year: str | None = None) -> str:
    """The folder of a year in `files`. Raises MissingFileError, saying which years are there, if it is not."""
    if files.is_folder("JPEGImages"):
        return ""
    found = year_folders(files)
    if year is None:
        year = "2012" if "2012" in found else next(reversed(found), "2012")
    if str(year) not in found:
        parts = " with JPEGImages, SegmentationClass and ImageSets in it, found none"
        there = f", found the year {', '.join(found)}; choose it with --year" if found else parts
        raise MissingFileError(f"{files.path}: expected VOC{year}{there}")
    return found[str(year)]
