"""The readers of files from elsewhere, and small honest files to begin an attack from."""

import io
import json
from typing import NamedTuple

import numpy as np
import pytest
import weight_writers as write
from PIL import Image
from small_datasets import write_coco

from minifcn import layers
from minifcn.data import VOC, VOC_CLASSES, Coco
from minifcn.data.files import FolderFiles, open_binary
from minifcn.data.images import read_image, read_mask
from minifcn.data.labels import read_class_names
from minifcn.data.sets.description import EXAMPLE, read_description
from minifcn.data.sets.roboflow import read_classes
from minifcn.data.sets.voc import read_labelmap
from minifcn.data.sets.voc_boxes import Boxes, tell_apart
from minifcn.errors import InputError
from minifcn.layers.graph import Graph
from minifcn.layers.sizes import dimension, rounded
from minifcn.weights import load_onnx, save_onnx
from minifcn.weights.caffe import read_caffemodel
from minifcn.weights.npz import read_archive, write_archive
from minifcn.weights.safetensors import read_safetensors
from minifcn.weights.torch import read_torch

DOCUMENTED = InputError
FLOATS = np.arange(6, dtype="<f4").tobytes()


class Reader(NamedTuple):
    """read(path) loads the file or raises DOCUMENTED; seeds(folder) writes honest files and gives their bytes."""

    read: object
    suffix: str
    seeds: object


def photograph(size=(7, 5)):
    return np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)


def encoded(picture, form, **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def images(folder):
    picture = Image.fromarray(photograph())
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    grey = Image.fromarray(photograph()[:, :, 0].astype(np.uint16) * 257)
    return [
        *(encoded(picture, "JPEG", exif=exif), encoded(picture, "JPEG", progressive=True)),
        *(encoded(picture.convert("CMYK"), "JPEG"), encoded(picture.convert("RGBA"), "PNG"), encoded(grey, "PNG")),
        *(encoded(picture, form) for form in ("PNG", "BMP", "WEBP", "TIFF")),
        encoded(picture.convert("P"), "GIF"),
    ]


def masks(folder):
    labels = Image.fromarray(photograph()[:, :, 0] % 5)
    palette = labels.copy()
    palette.putpalette(bytes(range(256)) * 3)
    honest = [encoded(labels, "PNG"), encoded(palette, "PNG"), encoded(labels.convert("RGB"), "PNG")]
    return [*honest, *(encoded(palette, form) for form in ("BMP", "GIF", "TIFF"))]  # these have no checksums


def read_list(path):
    """A split list: it names two files that exist, and whatever else an attacker would like to open."""
    root = path.parent / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            (root / folder / f"{name}.{ending}").touch()
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "train.txt").write_bytes(path.read_bytes())
    return VOC(path.parent, "train")


def read_coco(path):
    """COCO's JSON and one of the images that it may name; every sample that it then has."""
    root = path.parent / "coco"
    if not root.exists():
        write_coco(root, count=1)
    (root / "annotations.json").write_bytes(path.read_bytes())
    dataset = Coco(root, "trainval").with_instances()
    return [dataset[i] for i in range(len(dataset))]


def coco_files(folder):
    content = json.loads((write_coco(folder / "seeds", count=1) / "annotations.json").read_text())
    one = content | {"annotations": content["annotations"][:1]}
    return [json.dumps(content).encode(), json.dumps(one, indent=1).encode()]


def read_boxes(path):
    """Boxes of the image "a" in XML or, where the file begins so, JSON."""
    root, content = path.parent / "boxes", path.read_bytes()
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "boxes.json").unlink(missing_ok=True)
    (root / ("boxes.json" if content[:1] == b"{" else "Annotations/a.xml")).write_bytes(content)
    return tell_apart(np.full((9, 9), 8, np.uint8), Boxes(FolderFiles(root), VOC_CLASSES).of("a"))


def boxes(folder):
    corners = "<xmin>2</xmin><ymin>3</ymin><xmax>7</xmax><ymax>8.5</ymax>"
    xml = f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    return [xml.encode(), b'{"a": [["cat", [1, 2, 6, 6.5], 0, 1], ["dog", [0, 0, 3, 3], 0, 0]]}']


def lists(folder):
    return [b"a\nb\n", b"a\r\n\r\nb 1\r\n", "a\nä\n".encode(), b"\xef\xbb\xbfa\n"]


def class_lists(folder):
    return [b"background\ncat\n", "Hintergrund\nBär\n".encode()]


def class_tables(folder):
    return [b"Pixel Value, Class\n0, background\n1, leaf\n", b"Pixel Value, Class\r\n255, B\xc3\xa4r, brown\r\n"]


def labelmaps(folder):
    return [b"# label:color_rgb:parts:actions\nground:0,0,0::\nleaf:250,50,83::\n"]


def descriptions(folder):
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    return [EXAMPLE.encode(), b'[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n']


def archives(folder):
    path = folder / "seed.npz"
    write_archive(path, {"weights/w": np.arange(6.0, dtype=np.float32)}, {"kind": "seed", "numbers": [1, 2]})
    plain = io.BytesIO()
    np.savez_compressed(plain, w=np.zeros(3))
    chainers = [io.BytesIO(), io.BytesIO()]
    for file, save in zip(chainers, (np.savez, np.savez_compressed), strict=True):
        save(file, **{"conv/W": np.ones((2, 3), np.float32), "conv/b": np.zeros(2, np.float32)})
    return [path.read_bytes(), plain.getvalue(), *(file.getvalue() for file in chainers)]


def torch_files(folder):
    path, seeds = folder / "seed.pth", []
    value = write.dict_of(("w", write.tensor()))
    write.torch_zip(path, value, {"0": FLOATS})
    seeds.append(path.read_bytes())
    write.torch_legacy(path, value, {"0": (6, FLOATS)})
    return [*seeds, path.read_bytes()]


def safetensors(folder):
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header = {"w": entry, "__metadata__": {"format": "pt", "minifcn": json.dumps({"network": "mini"})}}
    return [write.safetensors(header, FLOATS), write.safetensors({"w": {**entry, "dtype": "I32"}}, FLOATS)]


def caffemodels(folder):
    numbers = write.numbers_packed(5, "<f", range(6))
    one_by_one = write.numbers_one_by_one(8, "<d", range(6))
    return [
        write.layer("conv", numbers + write.shape(2, 3), one_by_one + write.shape(6)),
        write.v1_layer("conv", numbers + write.legacy_shape(1, 1, 2, 3)),
    ]


def onnx_files(folder):
    pytest.importorskip("onnx", reason="onnx is not installed")
    rng, seeds = np.random.default_rng(0), []
    table = {
        "pad": (layers.PadToMultiple(2), ["image"]),
        "conv": (layers.Conv2d(1, 2, 2, rng, stride=2), ["pad"]),
        "up": (layers.ResizeLike(), ["conv", "image"]),
        "crop": (layers.CropLike(1), ["pad", "conv"]),
        "mean": (layers.Mean((1,)), ["conv"]),
        "weight": (layers.Constant(layers.Parameter(np.ones((2, 1, 1), np.float32))), ["mean"]),
        "weighed": (layers.Multiply(), ["mean", "weight"]),
        "half": (
            layers.Slice((slice(None), slice(0, 1), slice(rounded("Div", dimension(0, 2), 2), None))),
            ["weighed"],
        ),
    }
    for outputs in (["up"], ["crop"], ["half"]):
        path = folder / "seed.onnx"
        save_onnx(path, Graph(table, outputs))
        seeds.append(path.read_bytes())
    return seeds


READERS = {
    "image": Reader(read_image, ".jpg", images),
    "mask": Reader(read_mask, ".png", masks),
    "list": Reader(read_list, ".txt", lists),
    "classes": Reader(read_class_names, ".txt", class_lists),
    "roboflow": Reader(lambda path: read_classes(open_binary(path)), ".csv", class_tables),
    "labelmap": Reader(lambda path: read_labelmap(open_binary(path)), ".txt", labelmaps),
    "coco": Reader(read_coco, ".json", coco_files),
    "boxes": Reader(read_boxes, ".xml", boxes),
    "toml": Reader(read_description, ".toml", descriptions),
    "npz": Reader(read_archive, ".npz", archives),
    "pth": Reader(read_torch, ".pth", torch_files),
    "safetensors": Reader(read_safetensors, ".safetensors", safetensors),
    "caffemodel": Reader(read_caffemodel, ".caffemodel", caffemodels),
    "onnx": Reader(load_onnx, ".onnx", onnx_files),
}
WEIGHTS = ("npz", "pth", "safetensors", "caffemodel", "onnx")


def attack(reader, path, content):
    """What a reader made of this content; None if it refused it as documented. Raises AssertionError for any other error."""
    path.write_bytes(content)
    try:
        loaded = reader.read(path)
    except DOCUMENTED as error:
        message = str(error)
        assert str(path.parent) in message, f"the file is not named: {message!r}"
        assert "\n" not in message, f"more than one line: {message!r}"
        if reader.suffix.removeprefix(".") in WEIGHTS:
            assert message.startswith(f"{path}: expected ") and message.isprintable(), message
        return None
    return (loaded,)
