"""Objects in the formats that data sets' own tools read: what `predict --write` adds to masks and table."""

from collections import Counter

import numpy as np

from .. import data
from ..data.images import read_mask
from ..data.labels import AMBIGUOUS
from ..errors import InputError
from ..files import make_folder, writing

# The values of --write, and the folder or file of each in --out.
FORMS = {"voc": "SegmentationObject", "coco": "coco_results.json", "cityscapes": "cityscapes"}


class ObjectForm:
    """Writes the objects of images in the format of a data set's tools. They are read from each image's files, so that it does not matter
    which process wrote those, or when.

    place: the folder in `out`, or COCO's file.
    """

    def __init__(self, kind, out, classes, files):
        self.kind, self.out, self.classes, self.files, self.place = kind, out, classes, files, out / FORMS[kind]
        ids = {
            "coco": lambda name: int(name) if name.isdecimal() else name,
            "cityscapes": lambda name: name.removesuffix("_leftImg8bit"),
        }
        self.ids = {name: ids.get(kind, str)(name) for name in files}

    def check(self, images, table):
        """Raise InputError where a file would be overwritten or written twice, and for classes that are not the data set's.

        images: those to segment; table: the other table of objects.
        """
        if self.kind == "cityscapes" and tuple(self.classes) != data.CITYSCAPES_CLASSES:
            raise InputError(
                "write: cityscapes takes a network of Cityscapes' 19 classes, in their order; expected voc or coco"
            )
        if self.kind == "voc" and (self.out / "JPEGImages").exists():
            raise InputError(
                f"{self.place}: is of a data set, and would be written over; choose another folder with --out"
            )
        if self.place.resolve() in {table.resolve(), *(image.parent for image in images)}:
            raise InputError(f"{self.place}: is where the images or the table are; choose another folder with --out")
        if twice := [id for id, count in Counter(self.ids.values()).items() if count > 1]:
            raise InputError(f"write: two of the images would be {twice[0]} to {self.kind}; rename one")

    def write(self, name, rows):
        """Write the objects of an image. rows: its table. -> the entries for COCO's results, which are one file for all images"""
        mask, _, numbered = self.files[name]
        classes = np.array([self.classes.index(row["class"]) for row in rows], int)
        scores = np.array([row["score"] for row in rows], float)
        instances = read_mask(numbered, highest=AMBIGUOUS)
        prediction = read_mask(mask), instances, classes, scores
        if self.kind == "coco":
            return data.coco_results(self.ids[name], prediction)
        with writing(make_folder(self.place)):
            if self.kind == "voc":
                data.write_voc_objects(self.place / f"{name}.png", instances)
            else:
                data.write_cityscapes_objects(self.place, self.ids[name], prediction)
        return []
