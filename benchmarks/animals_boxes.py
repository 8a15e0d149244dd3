"""The seven classes of the network "animals" as a data set in VOC's layout with boxes, for networks that separate objects.

    python benchmarks/animals_boxes.py VOCdevkit/VOC2012 animals/VOC2012

VOCdevkit/VOC2012 has JPEGImages, SegmentationClass, ImageSets/Segmentation and Annotations or a boxes.json (docs/data.md); the new folder
gets links to the photographs, masks of seven numbers, the lists, classes.txt, and a boxes.json of the six animals.
"""

import argparse
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minifcn.data.files import FolderFiles
from minifcn.data.images import read_mask, write_mask
from minifcn.data.labels import VOC_CLASSES, VOID
from minifcn.data.sets.folder import number_table
from minifcn.data.sets.voc_boxes import Boxes

CLASSES = Path(__file__).parent / "animals.toml"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    classes = tomllib.loads(CLASSES.read_text())["classes"]
    names, table = [entry["name"] for entry in classes], number_table(entry["numbers"] for entry in classes)
    table[VOID] = VOID
    for folder in ("JPEGImages", "SegmentationClass"):
        (args.target / folder).mkdir(parents=True)
    shutil.copytree(args.source / "ImageSets", args.target / "ImageSets")
    (args.target / "classes.txt").write_text("\n".join(names) + "\n")
    boxes, kept = Boxes(FolderFiles(args.source), VOC_CLASSES), {}
    for photo in tqdm(sorted((args.source / "JPEGImages").iterdir()), disable=None):
        (args.target / "JPEGImages" / photo.name).symlink_to(photo.resolve())
        mask = f"SegmentationClass/{photo.stem}.png"
        write_mask(args.target / mask, table[read_mask(args.source / mask)].astype(np.uint8))
        named = [(VOC_CLASSES[label], box, crowd) for label, *box, crowd in boxes.of(photo.stem)]
        kept[photo.stem] = [[name, box, 0, int(crowd)] for name, box, crowd in named if name in names]
    (args.target / "boxes.json").write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
