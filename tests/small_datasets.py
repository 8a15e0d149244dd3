"""Small data sets in the layouts of Cityscapes and of own data, written for a test."""

import numpy as np
from PIL import Image

from minifcn.data import images

COLOURS = {"ground": (10, 20, 30), "leaf": (60, 180, 75), "root": (200, 100, 0)}


def write_own(root, *, kind="colours", splits="", void="", count=6):
    """Own data: `count` images of noise with masks of three classes in quarters."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    label = np.kron([[0, 1], [2, 0]], np.ones((12, 15))).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[:3] = list(COLOURS.values())
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (24, 30, 3), np.uint8)
        Image.fromarray(noise).save(root / "images" / f"{i}.png")
        if kind == "colours":
            Image.fromarray(palette[label]).save(root / "masks" / f"{i}.png")
        else:
            images.write_mask(root / "masks" / f"{i}.png", label, palette)
    classes = "".join(f'[[classes]]\nname = "{name}"\ncolour = {list(c)}\n' for name, c in COLOURS.items())
    (root / "dataset.toml").write_text(f'mask_kind = "{kind}"\n{void}\n{splits}\n{classes}', encoding="utf-8")
    return root


def write_cityscapes(root, *, cities=("ulm", "bonn"), splits=("train", "val")):
    """A small Cityscapes tree; -> {id: ids of the labels as written}."""
    written = {}
    rng = np.random.default_rng(0)
    for split in splits:
        for city in cities:
            id = f"{city}{split}_000001_000019"
            label = np.kron(rng.choice([0, 3, 7, 11, 26, 33], (4, 6)), np.ones((8, 8))).astype(np.uint8)
            for place, name, array in (
                ("leftImg8bit", "leftImg8bit", rng.integers(0, 255, (32, 48, 3), np.uint8)),
                ("gtFine", "gtFine_labelIds", label),
            ):
                folder = root / place / split / city
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{id}_{name}.png")
            written[id] = label
    return written
