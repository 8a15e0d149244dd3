"""Small data sets in VOC's layout, in folders and tars, for the tests of their readers."""

import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from minifcn import cli
from minifcn.data import images

SIZE = (5, 7)  # height, width
SMALL = ["--width", "2", "--crop", "32", "--batch-size", "2", "--iterations", "2"]
lists_there = pytest.mark.skipif(
    "MINIFCN_LISTS" not in os.environ, reason="MINIFCN_LISTS names no folder of VOC's lists"
)


def write_voc(folder, ids, **splits):
    """A VOC<year> folder whose image and mask i are of the number i."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for i, id in enumerate(ids):
        Image.new("RGB", SIZE[::-1], (i, i, i)).save(folder / "JPEGImages" / f"{id}.jpg", quality=100)
        images.write_mask(folder / "SegmentationClass" / f"{id}.png", np.full(SIZE, i % 21, np.uint8))
    for split, chosen in splits.items():
        (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(chosen) + "\n")


def tar_of(source, path, inner):
    with tarfile.open(path, "w") as archive:
        archive.add(source, inner)
    return path


def same(first, second):
    return (
        first.id == second.id
        and np.array_equal(first.image, second.image)
        and np.array_equal(first.label, second.label)
    )


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])
