"""Objects written and read back: VOC's pictures, COCO's results, Cityscapes' files, and the table."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from small_datasets import write_cityscapes

from minifcn import data
from minifcn.data import AMBIGUOUS, CITYSCAPES_CLASSES, VOC, Cityscapes
from minifcn.data.sets.coco_json import draw, region_of
from minifcn.errors import InputError
from minifcn.files import json_text
from minifcn.metrics import COCOAveragePrecision

LABELS = np.zeros((12, 20), int)
LABELS[1:7, 2:9], LABELS[1:7, 9:15], LABELS[8:11, 3:18] = 8, 8, 12
OBJECTS = np.zeros((12, 20), int)
OBJECTS[1:7, 2:9], OBJECTS[1:7, 9:15], OBJECTS[8:11, 3:18] = 1, 3, 2
PREDICTION = (
    LABELS.astype(np.uint8),
    OBJECTS.astype(np.uint16),
    np.array([8, 12, 8, 1], np.uint8),
    np.array([0.5, 0.25, 0.125, 0.1]),
)


def test_voc_pictures_read_back(tmp_path):
    label, instances = LABELS.astype(np.uint8), OBJECTS.astype(np.uint16)
    label[0], instances[8, 3:9], instances[0] = data.VOID, AMBIGUOUS, 7
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (20, 12)).save(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    data.images.write_mask(tmp_path / "SegmentationClass/a.png", label)
    data.write_voc_objects(tmp_path / "SegmentationObject/a.png", instances, label)
    sample = VOC(tmp_path).with_instances()[0]
    np.testing.assert_array_equal(sample.instances[1:], instances[1:])
    assert (sample.instances[0] == 0).all() and sample.instances.dtype == np.uint16
    with Image.open(tmp_path / "SegmentationObject/a.png") as picture:
        assert picture.mode == "P" and (np.asarray(picture)[0] == 255).all()


def test_a_picture_holds_254_objects(tmp_path):
    many = np.arange(256, dtype=np.uint16)[None]
    data.write_voc_objects(tmp_path / "a.png", many[:, :255])
    np.testing.assert_array_equal(data.images.read_mask(tmp_path / "a.png"), many[:, :255])
    with pytest.raises(InputError, match=r"b\.png: expected at most 254 objects, .* got 255"):
        data.write_voc_objects(tmp_path / "b.png", many)
    assert not (tmp_path / "b.png").exists()


def test_cocos_results_read_back():
    results = json.loads(json_text(data.coco_results(7, PREDICTION, {8: 17, 12: 18, 1: 2})))
    assert [(entry["image_id"], entry["category_id"], entry["score"]) for entry in results] == [
        *((7, 17, 0.5), (7, 18, 0.25), (7, 17, 0.125), (7, 2, 0.1))
    ]
    labels, objects = draw([region_of(entry, OBJECTS.shape, {17: 8, 18: 12, 2: 1}) for entry in results], OBJECTS.shape)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(objects, OBJECTS)
    assert {entry["category_id"] for entry in data.coco_results("a", PREDICTION)} == {1, 8, 12}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_pycocotools_reads_the_results(tmp_path, capsys):
    """And scores them as COCOAveragePrecision does."""
    mask, api = pytest.importorskip("pycocotools.mask"), pytest.importorskip("pycocotools.coco").COCO()
    from pycocotools.cocoeval import COCOeval

    results = data.coco_results(1, PREDICTION)
    (tmp_path / "results.json").write_text(json_text(results))
    for number, entry in enumerate(results, 1):
        np.testing.assert_array_equal(mask.decode(entry["segmentation"]), number == OBJECTS)
    shifted = np.roll(OBJECTS, 1, axis=1)
    truth = [
        {"id": i, "image_id": 1, "iscrowd": 0, "area": int((shifted == i).sum()), **{key: entry[key] for key in ("category_id", "segmentation")}}
        for i, entry in enumerate(data.coco_results(1, (LABELS, shifted, *PREDICTION[2:]))[:3], 1)
    ]  # fmt: skip
    api.dataset = {
        "images": [{"id": 1, "height": 12, "width": 20}],
        "categories": [{"id": i} for i in (1, 8, 12)],
        "annotations": truth,
    }
    api.createIndex()
    evaluation = COCOeval(api, api.loadRes(str(tmp_path / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = COCOAveragePrecision(13)
    ours.update(np.roll(LABELS, 1, axis=1), shifted, PREDICTION)
    np.testing.assert_allclose(evaluation.stats[:3], list(ours.scores().values())[:3], atol=1e-9)


def test_cityscapes_files_read_back(tmp_path):
    """As annotations, by the reader; as results, by the form that the evaluation wants."""
    (id,) = write_cityscapes(tmp_path, cities=("ulm",), splits=("train",))
    folder = tmp_path / "gtFine/train/ulm"
    car, rider, road = (CITYSCAPES_CLASSES.index(name) for name in ("car", "rider", "road"))
    labels, objects = np.full((32, 48), road), np.zeros((32, 48), int)
    for number, (kind, part) in enumerate([(car, np.s_[:9, :9]), (rider, np.s_[9:20, :9]), (car, np.s_[:9, 9:30])], 1):
        labels[part], objects[part] = kind, number
    labels[31] = data.VOID
    prediction = labels, objects, np.array([car, rider, car]), np.array([0.5, 1, 1 / 3])
    data.write_cityscapes_objects(folder, id, prediction)
    ids = data.images.read_mask(folder / f"{id}_instanceIds.png", highest=65535)
    assert np.unique(ids).tolist() == [0, 7, 25000, 26000, 26001]
    (folder / f"{id}_instanceIds.png").rename(folder / f"{id}_gtFine_instanceIds.png")
    Image.fromarray(np.where(ids < 1000, ids, ids // 1000).astype(np.uint8)).save(folder / f"{id}_gtFine_labelIds.png")
    sample = Cityscapes(tmp_path).with_instances()[0]
    np.testing.assert_array_equal(sample.label, labels)
    by_id = np.array([0, 2, 1, 3])  # the number of each, riders (25) first
    np.testing.assert_array_equal(sample.instances, by_id[objects])
    rows = [line.split() for line in (folder / f"{id}_pred.txt").read_text().splitlines()]
    assert [row[1:] for row in rows] == [["26", "0.500000"], ["25", "1.000000"], ["26", "0.333333"]]
    for number, (name, *_) in enumerate(rows, 1):
        with Image.open(folder / name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), 255 * (objects == number))


def test_the_table_of_objects(tmp_path):
    names = [f"class {i}" for i in range(13)]
    rows = data.object_table(PREDICTION, names)
    assert [list(row.values()) for row in rows] == [
        [1, "class 8", 0.5, 2, 1, 7, 6, 42],
        [2, "class 12", 0.25, 3, 8, 15, 3, 45],
        [3, "class 8", 0.125, 9, 1, 6, 6, 36],
        [4, "class 1", 0.1, 0, 0, 0, 0, 0],
    ]
    data.write_table(tmp_path / "a.csv", {"x.jpg": rows, "none.jpg": [], 'y, "z".jpg': rows[:1]})
    with open(tmp_path / "a.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["image"] for row in read] == ["x.jpg"] * 4 + ['y, "z".jpg']
    assert [*read[1].values()] == ["x.jpg", "2", "class 12", "0.25", "3", "8", "15", "3", "45"]
    data.write_table(tmp_path / "a.json", {"x.jpg": rows, "none.jpg": []})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x.jpg": rows, "none.jpg": []}


def test_predictions_that_are_none_are_refused():
    for write in (lambda p: data.coco_results(1, p), lambda p: data.object_table(p, ["a", "b"])):
        with pytest.raises(InputError, match=r"expected objects of 0\.\.1, got 0\.\.2"):
            write((LABELS * 0, np.minimum(OBJECTS, 2), np.array([1]), np.array([1.0])))
