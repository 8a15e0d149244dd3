"""predict --write: objects as VOC's, COCO's and Cityscapes' tools take them, out of the files that each image has."""

import csv
import json

import mpi
import numpy as np
import pytest
from networks import stirred
from PIL import Image
from small_datasets import run

from minifcn import data, inference, models, weights
from minifcn.cli import predict
from minifcn.data import CITYSCAPES_CLASSES
from minifcn.data.images import read_image, read_mask
from minifcn.data.sets.coco_json import draw, region_of

NAMES = ("000000000139", "aachen_000000_000019_leftImg8bit", "b")


def saved(path, classes):
    """Write a panoptic network that finds objects of several classes everywhere."""
    network = stirred(models.panoptic("mini", "fcn", len(classes), width=2))
    network.parameters()["instance.centre.score.bias"].value += 1
    network.card.classes = classes
    weights.save(path, network)
    return models.load_segmenter(path).prepare()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks and three images."""
    root, rng = tmp_path_factory.mktemp("write"), np.random.default_rng(3)
    saved(root / "few.npz", ("background", "cat", "dog"))
    saved(root / "streets.npz", CITYSCAPES_CLASSES)
    (root / "images").mkdir()
    for name, size in zip(NAMES, ((40, 60), (50, 33), (64, 64)), strict=True):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(root / f"images/{name}.png")
    return root


def command(folder, out, *more, network="few"):
    return ["predict", "--weights", folder / f"{network}.npz", "--out", out, *more, folder / "images"]


def expected(folder, name, network="few"):
    image = read_image(folder / f"images/{name}.png")
    return inference.panoptic(models.load_segmenter(folder / f"{network}.npz").prepare(), image)


def test_voc_gets_a_palette_picture_for_each_image(folder, tmp_path):
    assert run(*command(folder, tmp_path, "--write", "voc")) == 0
    for name in NAMES:
        found = expected(folder, name)
        assert found.instances.any()
        with Image.open(tmp_path / f"SegmentationObject/{name}.png") as picture:
            assert picture.mode == "P"
            np.testing.assert_array_equal(np.asarray(picture), found.instances)


def results(folder, out):
    """COCO's results by the name of the image, each compared with what the network finds."""
    entries = json.loads((out / "coco_results.json").read_text())
    names = dict(zip((139, *NAMES[1:]), NAMES, strict=True))
    assert [id for id in names if any(entry["image_id"] == id for entry in entries)] == list(names)
    for id, name in names.items():
        own, found = [entry for entry in entries if entry["image_id"] == id], expected(folder, name)
        assert [entry["category_id"] for entry in own] == found.classes.tolist()
        assert [entry["score"] for entry in own] == found.scores.tolist()
        _, drawn = draw([region_of(entry, found.instances.shape, {1: 1, 2: 2}) for entry in own], found.instances.shape)
        np.testing.assert_array_equal(drawn, found.instances)
    return entries


def test_coco_gets_one_file_of_all_images(folder, tmp_path, capsys):
    assert run(*command(folder, tmp_path, "--write", "coco")) == 0
    assert f"the objects as coco has them: {tmp_path / 'coco_results.json'}" in capsys.readouterr().err
    entries = results(folder, tmp_path)
    with open(tmp_path / "objects.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(entries)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_pycocotools_takes_the_file(folder, tmp_path, capsys):
    api = pytest.importorskip("pycocotools.coco").COCO()
    assert run(*command(folder, tmp_path, "--write", "coco")) == 0
    entries = results(folder, tmp_path)
    ids = list(dict.fromkeys(entry["image_id"] for entry in entries))
    api.dataset = {"images": [{"id": id} for id in ids], "categories": [{"id": i} for i in (1, 2)], "annotations": []}
    api.createIndex()
    assert len(api.loadRes(str(tmp_path / "coco_results.json")).anns) == len(entries)


def test_cityscapes_gets_a_text_and_masks_for_each_image(folder, tmp_path):
    assert run(*command(folder, tmp_path, "--write", "cityscapes", network="streets")) == 0
    id, place = NAMES[1].removesuffix("_leftImg8bit"), tmp_path / "cityscapes"
    found = expected(folder, NAMES[1], "streets")
    rows = [line.split() for line in (place / f"{id}_pred.txt").read_text().splitlines()]
    assert len(rows) == len(found.classes) > 0
    for number, (name, label, score) in enumerate(rows, 1):
        assert data.Cityscapes.table[int(label)] == found.classes[number - 1]
        assert float(score) == pytest.approx(found.scores[number - 1], abs=1e-6)
        np.testing.assert_array_equal(read_mask(place / name) > 0, found.instances == number)
    ids = read_mask(place / f"{id}_instanceIds.png", highest=65535)
    np.testing.assert_array_equal(data.Cityscapes.table[np.where(ids < 1000, ids, ids // 1000)], found.labels)
    assert (place / "b_pred.txt").exists()


def test_what_was_finished_before_is_in_the_file_and_is_not_segmented_again(folder, tmp_path, monkeypatch):
    assert run(*command(folder, tmp_path)) == 0  # without --write
    (tmp_path / "b.png").unlink()
    segmented, whole = [], predict.Segmenter.segmented
    monkeypatch.setattr(
        predict.Segmenter, "segmented", lambda *args, **more: segmented.append(args[3].stem) or whole(*args, **more)
    )
    for form in ("coco", "voc"):
        assert run(*command(folder, tmp_path, "--write", form, "--resume")) == 0
    assert segmented == ["b"]
    results(folder, tmp_path)
    assert len(list((tmp_path / "SegmentationObject").iterdir())) == 3


@pytest.mark.skipif(bool(mpi.PROBLEM), reason=mpi.PROBLEM)
def test_processes_write_what_one_writes(folder, tmp_path):
    assert run(*command(folder, tmp_path / "one", "--write", "coco")) == 0
    words = command(folder, tmp_path / "several", "--write", "coco")
    job = mpi.Job(mpi.mpirun(2, "-m", "minifcn", *words), tmp_path / "said.txt", MINIFCN_NATIVE="0")
    code, said = job.wait()
    assert code == 0, said
    assert results(folder, tmp_path / "one") == results(folder, tmp_path / "several")


def test_an_image_of_more_objects_than_a_picture_can_hold_is_named_and_the_others_are_written(
    folder, tmp_path, monkeypatch, capsys
):
    many, found = np.arange(4096, dtype=np.uint16).reshape(64, 64) % 256, inference.panoptic

    def crowded(network, image, **more):
        objects = inference.Objects(many * 0 + 1, many, np.ones(255, np.uint8), np.ones(255))
        objects = objects._replace(labels=objects.labels.astype(np.uint8))
        return objects if image.shape[:2] == many.shape else found(network, image, **more)

    monkeypatch.setattr(inference, "panoptic", crowded)
    assert run(*command(folder, tmp_path, "--write", "voc")) == 1
    assert "b.png: expected at most 254 objects" in capsys.readouterr().err.splitlines()[-1]
    assert sum("b.png" in line for line in (tmp_path / "objects.csv").read_text().splitlines()) == 255
    assert {path.stem for path in (tmp_path / "SegmentationObject").iterdir()} == set(NAMES[:2])


@pytest.mark.parametrize(
    ("more", "network", "message"),
    [
        (["--write", "coco"], "animals", "write: animals tells no objects apart; expected --objects, or a panoptic"),
        (["--write", "cityscapes"], "few", "write: cityscapes takes a network of Cityscapes' 19 classes"),
        (["--write", "voc", "--out", "voc"], "few", "SegmentationObject: is of a data set, and would be written over"),
        (["--write", "voc", "SegmentationObject"], "few", "SegmentationObject: is where the images or the table are"),
        (["--write", "coco", "--table", "coco_results.json"], "few", "coco_results.json: is where the images or the"),
        (["--write", "coco", "other/139.png"], "few", "write: two of the images would be 139 to coco; rename one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(more, network, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for place in ("voc/JPEGImages", "SegmentationObject", "other"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("other/139.png", "SegmentationObject/a.png"):
        Image.new("RGB", (8, 8)).save(name)
    given = network if network == "animals" else folder / f"{network}.npz"
    assert run("predict", "--weights", given, "--out", ".", *more, folder / "images") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "b.png").exists()
