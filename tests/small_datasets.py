"""Small data sets in each layout, in folders and tars, written for a test."""

import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from minifcn import cli
from minifcn.data import images

SIZE = (5, 7)  # height, width of VOC's
SMALL = ["--width", "2", "--crop", "32", "--batch-size", "2", "--iterations", "2"]
COLOURS = {"ground": (10, 20, 30), "leaf": (60, 180, 75), "root": (200, 100, 0)}
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


COW = np.zeros((12, 16), np.uint8)
COW[2:8, 2:8] = 10


def write_voc_with_boxes(folder, boxes):
    """A VOC<year> folder of images that show COW. boxes: {id: its boxes}"""
    write_voc(folder, boxes, train=[*boxes][::2], val=[*boxes][1::2])
    for i, id in enumerate(boxes):
        noise = np.random.default_rng(i).integers(0, 255, (*COW.shape, 3), np.uint8)
        Image.fromarray(noise).save(folder / "JPEGImages" / f"{id}.jpg")
        images.write_mask(folder / "SegmentationClass" / f"{id}.png", COW)
    (folder / "boxes.json").write_text(json.dumps(boxes))


def write_own(root, *, kind="colours", splits="", void="", count=6):
    """Own data: `count` images of noise with masks of three classes in quarters."""
    label = np.kron([[0, 1], [2, 0]], np.ones((12, 15))).astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[:3] = list(COLOURS.values())
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (24, 30, 3), np.uint8)
        Image.fromarray(noise).save(root / f"images/{i}.png")
        images.write_mask(root / f"masks/{i}.png", label, palette)
        if kind == "colours":
            Image.fromarray(palette[label]).save(root / f"masks/{i}.png")
    classes = "".join(f'[[classes]]\nname = "{name}"\ncolour = {list(c)}\n' for name, c in COLOURS.items())
    (root / "dataset.toml").write_text(f'mask_kind = "{kind}"\n{void}\n{splits}\n{classes}', encoding="utf-8")
    return root


def write_cityscapes(root, *, cities=("ulm", "bonn"), splits=("train", "val")):
    """A small Cityscapes tree; -> {id: ids of the labels as written}."""
    written, rng = {}, np.random.default_rng(0)
    for split, city in ((split, city) for split in splits for city in cities):
        id = f"{city}{split}_000001_000019"
        written[id] = np.kron(rng.choice([0, 3, 7, 11, 26, 33], (4, 6)), np.ones((8, 8))).astype(np.uint8)
        photo = rng.integers(0, 255, (32, 48, 3), np.uint8)
        for place, ending, array in (("leftImg8bit", "leftImg8bit", photo), ("gtFine", "gtFine_labelIds", written[id])):
            path = root / place / split / city / f"{id}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return written


def write_roboflow(root, splits=("train", "valid", "test")):
    """As Roboflow exports masks; class 2 has the number 7."""
    for i, split in enumerate(splits):
        (root / split).mkdir(parents=True)
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf\n7, stone wall\n")
        for j in range(5):
            noise = np.random.default_rng(10 * i + j).integers(0, 255, (24, 30, 3), np.uint8)
            Image.fromarray(noise).save(root / split / f"x{j}_jpg.rf.ab.jpg")
            Image.fromarray(np.kron(np.uint8([[0, 1], [7, 0]]), np.ones((12, 15), np.uint8))).save(
                root / split / f"x{j}_jpg.rf.ab_mask.png"
            )
    (root / "README.roboflow.txt").write_text("exported")
    return root


NUCLEI = np.kron(np.uint16([[1, 0, 2, 3], [1, 0, 2, 3], [0, 0, 0, 0]]), np.ones((8, 6), np.uint16))  # 2 and 3 touch


def write_nuclei(root, count=6):
    """As the Data Science Bowl: each image of noise has the three objects of NUCLEI."""
    for i in range(count):
        folder = root / "stage1_train" / f"{i:064x}"
        for place in ("images", "masks"):
            (folder / place).mkdir(parents=True)
        noise = np.random.default_rng(i).integers(0, 255, (*NUCLEI.shape, 4), np.uint8)
        noise[..., 3] = 255
        Image.fromarray(noise).save(folder / f"images/{folder.name}.png")
        for number in (1, 2, 3):
            Image.fromarray(np.uint8(255) * np.equal(NUCLEI, number)).save(folder / f"masks/{number}.png")
    return root


SQUARE = [20.0, 2, 28, 2, 28, 5, 20, 5]
TRIANGLE = [1.5, 10.2, 14.8, 10.9, 5, 18]


def write_coco(root, source="annotations.json", images="images", count=6, first=0, change=None):
    """COCO's JSON in root/source and its images of noise in root/images. change: spoils what the file is to hold."""
    below = [number + 10 * (i % 2) for i, number in enumerate(SQUARE)]
    annotations = [
        {"category_id": 9, "segmentation": {"size": [24, 30], "counts": "Z26b0000000000f?"}},
        {"category_id": 3, "segmentation": [TRIANGLE]},
        {"category_id": 3, "segmentation": {"size": [24, 30], "counts": [20, 4] * 30}, "iscrowd": 1},
        {"category_id": 3, "segmentation": [SQUARE, below]},
    ]
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / source).parent.mkdir(parents=True, exist_ok=True)
    content = {
        "categories": [{"id": 9, "name": "stone wall"}, {"id": 3, "name": "leaf"}],
        "images": [],
        "annotations": [],
    }
    for i in range(first, first + count):
        noise = np.random.default_rng(i).integers(0, 255, (24, 30, 3), np.uint8)
        Image.fromarray(noise).save(root / images / f"{i}.png")
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": 24, "width": 30})
        for entry in annotations:
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": i} | entry)
    if change:
        change(content)
    (root / source).write_text(json.dumps(content))
    return root


def write_plain(root, values=(0, 255), places=("image", "label"), count=6):
    """Grey images of noise and masks in quarters of these values, without a description, as ISBI's."""
    for place in places:
        (root / place).mkdir(parents=True)
    label = np.kron(np.resize(np.uint8(values), (2, 2)), np.ones((12, 15), np.uint8))
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, label.shape, np.uint8)).save(
            root / places[0] / f"{i}.png"
        )
        Image.fromarray(label).save(root / places[1] / f"{i}.png")
    return root


# CamVid's label_colors.txt, and the number of the class that each becomes.
CAMVID_COLOURS = """\
64 128 64 Animal 9, 192 0 128 Archway 1, 0 128 192 Bicyclist 10, 0 128 64 Bridge 1, 128 0 0 Building 1, 64 0 128 Car 8,
64 0 192 CartLuggagePram 9, 192 128 64 Child 9, 192 192 128 Column_Pole 2, 64 64 128 Fence 7, 128 0 192 LaneMkgsDriv 3,
192 0 64 LaneMkgsNonDriv 3, 128 128 64 Misc_Text 6, 192 0 192 MotorcycleScooter 10, 128 64 64 OtherMoving 8,
64 192 128 ParkingBlock 4, 64 64 0 Pedestrian 9, 128 64 128 Road 3, 128 128 192 RoadShoulder 4, 0 0 192 Sidewalk 4,
192 128 128 SignSymbol 6, 128 128 128 Sky 0, 64 128 192 SUVPickupTruck 8, 0 0 64 TrafficCone 2, 0 64 64 TrafficLight 6,
192 64 128 Train 8, 128 128 0 Tree 5, 192 128 192 Truck_Bus 8, 64 0 64 Tunnel 1, 192 192 0 VegetationMisc 5, 0 0 0 Void 255,
64 192 0 Wall 1"""
SEGNET = {"train": "trainannot", "val": "valannot", "test": "testannot"}
ORIGINAL = {"701_StillsRaw_full": "LabeledApproved_full"}


def write_camvid(root, folders=SEGNET, lists=(), suffix=".jpg"):
    """Five frames of each folder, as SegNet's authors or the original name them; all classes in each. -> their labels (H, W)"""
    colours, taken = zip(*((row.split()[:3], row.split()[4]) for row in CAMVID_COLOURS.split(",")), strict=True)
    grid = np.kron(np.arange(32).reshape(4, 8), np.ones((8, 8))).astype(int)
    labels, numbered = np.array(taken, int)[grid].astype(np.uint8), folders is SEGNET
    mask = np.where(labels == 255, 11, labels) if numbered else np.array(colours, int)[grid]
    for i, (images_, masks) in enumerate(folders.items()):
        names = [f"000{i}TP_{j:06}" for j in range(5)]
        for place in (images_, masks):
            (root / place).mkdir(parents=True)
        for j, name in enumerate(names):
            noise = np.random.default_rng(10 * i + j).integers(0, 255, (*grid.shape, 3), np.uint8)
            Image.fromarray(noise).save(root / images_ / f"{name}{suffix}")
            Image.fromarray(mask.astype(np.uint8)).save(root / masks / f"{name}{'' if numbered else '_L'}.png")
        if images_ in lists:
            text = [f"/SegNet/CamVid/{images_}/{name}.png /SegNet/CamVid/{masks}/{name}.png\n" for name in names[:4]]
            (root / f"{images_}.txt").write_text("".join(text))
    return labels


def tar_of(source, path, inner):
    with tarfile.open(path, "w") as archive:
        archive.add(source, inner)
    return path


def same(first, second):
    return first.id == second.id and all(np.array_equal(a, b) for a, b in zip(first[:2], second[:2], strict=True))


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])
