"""The seven classes of the network "animals" as a data set in VOC's layout with boxes, for networks that tell objects apart.

    python benchmarks/animals_boxes.py VOCdevkit/VOC2012 animals/VOC2012

VOCdevkit/VOC2012 has JPEGImages, SegmentationClass, ImageSets/Segmentation and boxes.json ({id: [[class, [x, y, width, height], difficult,
crowd], …]}); the new folder gets links to the photographs, masks of seven numbers, the lists, classes.txt, and the boxes of the six animals.
"""

import argparse
import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minifcn.data.images import read_mask, write_mask
from minifcn.data.labels import VOID
from minifcn.data.sets.folder import number_table

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
    boxes = json.loads((args.source / "boxes.json").read_text())
    kept = {id: [row for row in rows if row[0] in names] for id, rows in boxes.items()}
    (args.target / "boxes.json").write_text(json.dumps(kept))
    for photo in tqdm(sorted((args.source / "JPEGImages").iterdir()), disable=None):
        (args.target / "JPEGImages" / photo.name).symlink_to(photo.resolve())
        mask = f"SegmentationClass/{photo.stem}.png"
        write_mask(args.target / mask, table[read_mask(args.source / mask)].astype(np.uint8))


if __name__ == "__main__":
    main()
