"""Reader of the PASCAL VOC layout: JPEGImages, SegmentationClass and ImageSets/Segmentation under VOCdevkit/VOC<year>."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .images import read_image, read_mask
from .labels import VOC_CLASSES, check_labels, read_class_names, voc_palette


class Sample(NamedTuple):
    """One labelled image: image (H, W, 3) uint8 RGB, label (H, W) uint8 with 255 for void, and its id."""

    image: np.ndarray
    label: np.ndarray
    id: str


class VOC(Sequence):
    """The samples of one split, read when asked for.

    root: the VOCdevkit folder (or the VOC<year> folder itself). split: a list in ImageSets/Segmentation, such as "train".
    ids: use these ids instead of the split's. limit: only the first so many. A file `classes.txt` beside the folders names other classes than VOC's 21.
    Raises FileNotFoundError or ValueError, naming the file, for a missing list, image or mask, at construction; and for
    files that do not fit together (sizes, labels, colours), when they are read.
    """

    def __init__(self, root, split="train", year="2012", ids=None, limit=None):
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder; expected a VOCdevkit folder")
        self.folder = root if (root / "JPEGImages").is_dir() else root / f"VOC{year}"
        self.split = split
        names = self.folder / "classes.txt"
        self.classes = read_class_names(names) if names.is_file() else VOC_CLASSES
        self.ids = (list(ids) if ids is not None else self._read_split())[:limit]
        for id in self.ids:
            for what, path in (("image", self.image_path(id)), ("mask", self.mask_path(id))):
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: no {what} for id {id!r} of split {split!r}")

    def _read_split(self):
        path = self.folder / "ImageSets" / "Segmentation" / f"{self.split}.txt"
        if not path.is_file():
            have = sorted(p.stem for p in path.parent.glob("*.txt")) if path.parent.is_dir() else []
            raise FileNotFoundError(f"{path}: no such split list; this folder has: {', '.join(have) or 'none'}")
        ids = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not ids:
            raise ValueError(f"{path}: expected one image id a line, got an empty list")
        return ids

    def image_path(self, id):
        return self.folder / "JPEGImages" / f"{id}.jpg"

    def mask_path(self, id):
        return self.folder / "SegmentationClass" / f"{id}.png"

    @property
    def palette(self):
        """The colour of each label, (256, 3) uint8: VOC's, whatever the classes."""
        return voc_palette()

    @property
    def num_classes(self):
        return len(self.classes)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        id = self.ids[index]
        image, label = read_image(self.image_path(id)), read_mask(self.mask_path(id))
        if label.shape != image.shape[:2]:
            raise ValueError(
                f"{self.mask_path(id)}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}"
            )
        check_labels(label, self.num_classes, self.mask_path(id))
        return Sample(image, label, id)
