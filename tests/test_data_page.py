"""What docs/data.md shows is true: every command runs on a small data set in the layout of its tool."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_datasets import (
    COLOURS,
    ORIGINAL,
    SMALL,
    run,
    write_camvid,
    write_cityscapes,
    write_coco,
    write_nuclei,
    write_own,
    write_plain,
    write_roboflow,
    write_voc,
)

from minifcn import cli, data
from minifcn.data import doctor

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
LABEL = np.kron([[0, 1], [2, 0]], np.ones((12, 15))).astype(np.uint8)


def blocks(section, language):
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands(text):
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("minifcn ")]


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 30, 3), np.uint8)).save(path)


def write_labelme(root):
    write_voc(root, [*"abcdef"])
    shutil.rmtree(root / "ImageSets")
    (root / "class_names.txt").write_text("\n".join(["_background_", *map(str, range(6))]))


def write_cvat(root):
    """As CVAT exports: masks in colours, and one list called default."""
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("a\nb\nc\nd\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:250,50,83::\n")
    (root / "SegmentationClass").mkdir()
    for i, id in enumerate("abcd"):
        photo(root / f"JPEGImages/{id}.jpg", i)
        Image.fromarray(np.uint8([[0, 0, 0], [250, 50, 83]])[LABEL % 2]).save(root / f"SegmentationClass/{id}.png")


def write_studio(root):
    """The brush export of Label Studio, its JSON-MIN and its images; class 2 lies over class 1."""
    (root / "brushes").mkdir()
    tasks = []
    for task in range(1, 6):
        photo(root / f"studio/images/1f3a-photo{task}.jpg", task)
        tasks.append({"id": task, "image": f"/data/upload/1/1f3a-photo{task}.jpg"})
        for name, drawn in (("leaf", LABEL > 0), ("stem", LABEL == 2)):
            path = root / f"brushes/task-{task}-annotation-{task + 7}-by-1-tag-{name}-0.png"
            Image.fromarray(np.where(drawn, 255, 0).astype(np.uint8)).save(path)
    (root / "tasks.json").write_text(json.dumps(tasks))


def write_both_camvids(root):
    write_camvid(root / "camvid")
    write_camvid(root / "original", ORIGINAL)


def write_bowl(root):
    write_nuclei(root)
    ids = data.Nuclei(root, "trainval").ids
    Path("lists").mkdir()
    for split, chosen in (("train", ids[2:]), ("val", ids[:2])):
        Path(f"lists/{split}.txt").write_text("\n".join(chosen))
    shutil.copytree(root / f"stage1_train/{ids[0]}/images", root / "stage1_test/a/images")


def write_white(root):
    write_plain(root, places=("images", "masks"))
    (root / "dataset.toml").write_text(blocks("When every prediction is black", "toml")[0])


def write_grey(root):
    write_plain(root)
    for path in (root / "image").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * np.uint16(257)).save(path)


def write_bands(root):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed; TIFFs of bands need it")
    write_plain(root, values=(0, 1), places=("images", "masks"))
    for path in (root / "images").iterdir():
        pixels = np.random.default_rng(int(path.stem)).integers(0, 65536, (24, 30, 5)).astype(np.uint16)
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack", planarconfig="contig")
        path.unlink()


LAYOUTS = {
    "labelme": ("labelme", write_labelme),
    "CVAT": ("cvat", write_cvat),
    "Roboflow": ("roboflow", write_roboflow),
    "Label Studio": (".", write_studio),
    "PASCAL VOC": (
        "data",
        lambda root: data.write_toyvoc(root / "VOCtrainval_11-May-2012.tar", train=3, val=2, size=32),
    ),
    "Cityscapes": ("cityscapes", write_cityscapes),
    "CamVid": (".", write_both_camvids),
    "Nuclei, or any objects with a mask each": ("nuclei", write_bowl),
    "Polygons, in COCO's JSON": ("coco", write_coco),
    "Which pixels are of which object": ("coco", write_coco),
    "Images and masks, and nothing else": ("isbi2012", write_plain),
    "Your own masks, in numbers or in colours": ("own", write_own),
    "When every prediction is black": ("white", write_white),
    "When images are grey, or have 16 bits": ("grey", write_grey),
    "When images have other bands than red, green and blue": ("tiles", write_bands),
    "When images lie on their sides": ("FOLDER", write_own),
    "When classes are rare": ("FOLDER", write_own),
}


@pytest.mark.parametrize("section", LAYOUTS)
def test_every_command_runs(section, tmp_path, monkeypatch):
    if any("--objects" in command for command in blocks(section, "sh")):
        pytest.importorskip("scipy", reason="SciPy is not installed; predict --objects needs it")
    monkeypatch.chdir(tmp_path)
    place, write = LAYOUTS[section]
    write(Path(place))
    photo(Path("photo.jpg"))
    for code in blocks(section, "python"):
        exec(code, {})
    for command in (command for text in blocks(section, "sh") for command in commands(text)):
        cli.build_parser().parse_args(command)
        if command[:2] == ["data", "download"]:
            continue
        command = [
            name for part in command for name in (sorted(map(str, Path().glob(part))) if "*" in part else [part])
        ]
        coarse = [] if "--network" in command else ["--variant", "32s"]
        small = [*SMALL, *coarse] if command[0] == "train" else []
        assert run(*command, *small) == 0, command
    assert set(SECTIONS) == LAYOUTS.keys()


def test_the_lines_for_label_studio_join_its_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_studio(Path())
    exec(blocks("Label Studio", "python")[0], {})
    joined = data.open_dataset("studio", "trainval")
    assert joined.classes == ("background", "leaf", "stem") and len(joined) == 5
    for sample in joined:
        np.testing.assert_array_equal(sample.label, LABEL)
    assert not doctor.examine("studio").findings.errors


def test_every_description_reads_the_masks_that_it_is_for(tmp_path):
    """ids 0, 1, 2; numbers 1, 2, 5 and void 0; colours, of which leaf has two, and void."""
    plain, numbered, coloured = blocks("Your own masks, in numbers or in colours", "toml")
    palette = np.uint8([*COLOURS.values(), (224, 224, 192)])
    given = {
        plain: (LABEL % 2, LABEL % 2),
        numbered: (np.uint8([0, 1, 5, 2])[LABEL + LABEL // 2], np.uint8([255, 0, 0, 1])[LABEL + LABEL // 2]),
        coloured: (palette[LABEL + LABEL // 2], np.uint8([0, 1, 1, 255])[LABEL + LABEL // 2]),
    }
    for i, (text, (mask, expected)) in enumerate(given.items()):
        root = write_own(tmp_path / str(i), count=5)
        (root / "dataset.toml").write_text(text)
        for j in range(5):
            Image.fromarray(mask).save(root / f"masks/{j}.png")
        for sample in data.open_dataset(root, "trainval"):
            np.testing.assert_array_equal(sample.label, expected)
        assert not doctor.examine(root).findings.errors
