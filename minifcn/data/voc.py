"""Reader of the PASCAL VOC layout: JPEGImages, SegmentationClass and ImageSets/Segmentation under VOCdevkit/VOC<year>."""

import re

from ..errors import MissingFileError
from .files import files_at
from .labels import VOC_CLASSES, read_class_names
from .listed import ListedSet

_ABOVE = ("", "VOCdevkit/", "TrainVal/VOCdevkit/")  # where the official archives of the years have their VOC<year>


class VOC(ListedSet):
    """The samples of one split, read when asked for, from a folder or straight from the official tar (VOCtrainval_*.tar).

    root: the tar, the folder that it was unpacked into, VOCdevkit, or the VOC<year> folder itself, in which case `year`
    does not matter. split: a list in ImageSets/Segmentation, such as "train", or a path ending in .txt to a list
    elsewhere. ids: use these ids instead of the split's. limit: only the first so many. A file `classes.txt` beside the
    folders names other classes than VOC's 21.
    Raises FileNotFoundError or ValueError, naming the file, for a missing list, image or mask, or a tar that is not safe
    and sound, at construction; and for files that do not fit together (sizes, labels, colours), when they are read.
    """

    images, masks, lists = "JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation"

    def __init__(self, root, split="train", year="2012", ids=None, limit=None):
        files = files_at(root)
        inner = _folder_of_year(files, str(year))
        names = f"{inner}/classes.txt" if inner else "classes.txt"
        own = files.is_file(names)
        classes = read_class_names((files.open(names), str(files.path / names))) if own else VOC_CLASSES
        super().__init__(files, inner, split, classes, ids, limit)

    def _advice(self, split):
        if split != "seg11valid":
            return super()._advice(split)
        return (
            "VOC comes without it: get its 736 ids from "
            "https://github.com/shelhamer/fcn.berkeleyvision.org/blob/master/data/pascal/seg11valid.txt "
            "and save them there, or name the file itself, also for a tar: --split path/to/seg11valid.txt"
        )


def years_in(files):
    """{"VOC2012": the folder of that name in `files`, …} for every year that is there."""
    found = {}
    for above in _ABOVE:
        for child in files.children(above.rstrip("/")):
            if re.fullmatch(r"VOC\d{4}", child) and files.is_folder(f"{above}{child}/JPEGImages"):
                found.setdefault(child, above + child)
    return found


def _folder_of_year(files, year):
    """The VOC<year> folder in `files`. Raises FileNotFoundError, telling the years that are there, if it is not."""
    if files.is_folder("JPEGImages"):
        return ""
    found = years_in(files)
    if f"VOC{year}" in found:
        return found[f"VOC{year}"]
    if found:
        years = ", ".join(name[3:] for name in found)
        raise MissingFileError(f"{files.path}: expected VOC{year}, found the year {years}; choose it with --year")
    raise MissingFileError(
        f"{files.path}: expected VOC{year} with JPEGImages, SegmentationClass and ImageSets in it, found none"
    )
