"""VOC's objects: from SegmentationObject, and from masks and boxes."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from small_datasets import tar_of, write_camvid, write_nuclei, write_own

from minifcn import data
from minifcn.data import AMBIGUOUS, VOC, doctor, images, targets
from minifcn.data.sets.voc import numbered
from minifcn.data.sets.voc_boxes import Box, tell_apart
from minifcn.errors import InputError, MissingFileError

# Two cats (8) that touch, a dog (12) over the second, void around all.
LABEL = np.full((12, 20), 0, np.uint8)
LABEL[1:11, 1:19] = 255
LABEL[2:10, 2:18] = 8
LABEL[6:10, 12:18] = 12
OBJECTS = np.where((LABEL == 0) | (LABEL == 255), LABEL, np.where(LABEL == 12, 3, np.where(np.arange(20) < 9, 1, 2)))
BOXES = [["cat", [2, 2, 7, 8], 0, 0], ["cat", [9, 2, 9, 8], 0, 0], ["dog", [12, 6, 6, 4], 0, 0]]
XML = "<annotation><object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"


def write(root, *, objects=None, boxes=None, xml=None):
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", LABEL.shape[::-1], (9, 9, 9)).save(root / "JPEGImages/a.jpg")
    images.write_mask(root / "SegmentationClass/a.png", LABEL)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\n")
    if objects is not None:
        (root / "SegmentationObject").mkdir()
        images.write_mask(root / "SegmentationObject/a.png", objects.astype(np.uint8))
    if boxes is not None:
        (root / "boxes.json").write_text(boxes if isinstance(boxes, str) else json.dumps(boxes))
    if xml is not None:
        (root / "Annotations").mkdir()
        (root / "Annotations/a.xml").write_text(xml)
    return root


def test_objects_come_only_when_asked_for(tmp_path):
    dataset = VOC(write(tmp_path, objects=OBJECTS))
    assert dataset[0].instances is None and type(dataset[0]) is data.Sample
    told = dataset.with_instances()
    assert type(told[0]) is data.ObjectSample and type(dataset[0]) is data.Sample
    np.testing.assert_array_equal(told[0].label, dataset[0].label)
    np.testing.assert_array_equal(data.open_dataset(tmp_path, instances=True)[0].instances, told[0].instances)


@pytest.mark.parametrize("in_tar", [False, True])
def test_segmentation_object_with_its_void(tmp_path, in_tar):
    drawn = OBJECTS.copy()
    drawn[9, 2:5] = 255  # void among objects, of a class in the mask of classes
    root = write(tmp_path / "VOC2012", objects=drawn, boxes={"a": []})  # pictures before boxes
    told = VOC(tar_of(root, tmp_path / "x.tar", "VOCdevkit/VOC2012") if in_tar else root).with_instances()
    expected = np.where(LABEL == 255, 0, OBJECTS).astype(np.uint16)
    expected[9, 2:5] = AMBIGUOUS
    assert told[0].instances.dtype == np.uint16 and told.is_exact("a")
    np.testing.assert_array_equal(told[0].instances, expected)


def test_objects_in_colours_as_cvat_writes_them(tmp_path):
    root = write(tmp_path, objects=OBJECTS)
    colours = np.uint8([[0, 0, 0], [9, 200, 3], [9, 3, 200], [8, 0, 0]])
    classes = np.where(LABEL == 255, 0, LABEL)
    objects = np.where(classes == 0, 0, OBJECTS)
    Image.fromarray(images.voc_palette()[classes]).save(root / "SegmentationClass/a.png")
    Image.fromarray(colours[objects]).save(root / "SegmentationObject/a.png")
    listed = [
        f"{name}:{','.join(map(str, c))}::" for name, c in zip(data.VOC_CLASSES, images.voc_palette(), strict=False)
    ]
    (root / "labelmap.txt").write_text("\n".join(listed))
    found = VOC(root).with_instances()[0].instances
    assert found.dtype == np.uint16 and set(np.unique(found)) == {0, 1, 2, 3}
    assert len(np.unique(np.stack([found, objects]).reshape(2, -1), axis=1).T) == 4 and not found[objects == 0].any()
    assert not doctor.examine(root).findings.errors
    assert (numbered(np.full((2, 3, 3), 7, np.uint8)) == 1).all()  # no black, but an object all over
    two = np.where(objects == 1, 2, np.where(objects == 3, 2, objects))  # of two classes
    Image.fromarray(colours[two]).save(root / "SegmentationObject/a.png")
    assert doctor.examine(root).findings.names("objects-differ") == ["SegmentationClass/a.png"]


def test_boxes_tell_apart_what_is_in_one_of_its_class_only(tmp_path):
    told = VOC(write(tmp_path, boxes={"a": BOXES})).with_instances()
    expected = np.where(LABEL == 255, 0, OBJECTS).astype(np.uint16)
    expected[:, 7:12][LABEL[:, 7:12] == 8] = AMBIGUOUS  # columns 0 … 11 are of the first box, 7 … 20 of the second
    np.testing.assert_array_equal(told[0].instances, expected)
    assert not told.is_exact("a")


def test_boxes_in_xml_count_from_one(tmp_path):
    """A box of the columns 6 … 8 and the rows 5 … 6 from 0 holds, with the margin, columns 4 … 11 and rows 3 … 9."""
    told = VOC(write(tmp_path, xml=XML.format("cat", 7, 6, "9.0", 7))).with_instances()
    found = told[0].instances
    rows, columns = np.nonzero(found == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 9, 4, 11)
    assert (found[LABEL == 12] == AMBIGUOUS).all() and told.is_exact("a")


def test_a_crowd_and_what_no_box_holds_are_ambiguous():
    label = np.full((4, 30), 5, np.uint8)
    found, several = tell_apart(label, [Box(5, 0, 0, 5, 4, True), Box(5, 12, 0, 5, 4)])
    assert several == 0
    assert (found[:, 10:20] == 2).all() and (found[:, :10] == AMBIGUOUS).all() and (found[:, 20:] == AMBIGUOUS).all()


def test_unknown_objects_stay_so_in_what_moves_pixels(tmp_path):
    sample = VOC(write(tmp_path, boxes={"a": BOXES})).with_instances()[0]
    joined = targets.join(sample.label, sample.instances)
    for array, expected in zip(targets.part(joined[:, ::-1]), (sample.label, sample.instances), strict=True):
        np.testing.assert_array_equal(array, expected[:, ::-1])
    halved = data.CachedDataset(VOC(tmp_path).with_instances(), longest=10)[0]
    assert set(np.unique(halved.instances)) <= set(np.unique(sample.instances)) and AMBIGUOUS in halved.instances


@pytest.mark.parametrize("write_others", [write_camvid, write_own])
def test_layouts_of_classes_only_say_so(tmp_path, write_others):
    write_others(tmp_path)
    with pytest.raises(MissingFileError, match="expected objects told apart, .*which has classes only"):
        data.open_dataset(tmp_path, instances=True)


def test_nuclei_are_always_told_apart(tmp_path):
    write_nuclei(tmp_path)
    assert data.open_dataset(tmp_path, "trainval", instances=True)[0].instances.any()


REFUSED = {
    "nothing": ({}, r"expected SegmentationObject, Annotations or boxes\.json"),
    "no id": ({"boxes": {}}, r"boxes\.json: expected .* got for 'a': None"),
    "a list": ({"boxes": []}, r"boxes\.json: expected \{id"),
    "no JSON": ({"boxes": "{"}, r"boxes\.json: expected JSON"),
    "deep": ({"boxes": "[" * 100000}, r"boxes\.json: expected JSON"),
    "a class": ({"boxes": {"a": [["yak", [0, 0, 1, 1], 0, 0]]}}, "one of the classes, got 'yak'"),
    "no name": ({"boxes": {"a": [[["cat"], [0, 0, 1, 1], 0, 0]]}}, "one of the classes"),
    "no extent": ({"boxes": {"a": [["cat", [0, 0, 0, 1], 0, 0]]}}, r"\[x, y, width, height\], got \[0, 0, 0, 1\]"),
    "two lines": ({"boxes": {"a": [["cat", "\n", 0, 0]]}}, r"\[x, y, width, height\], got '"),
    "not finite": ({"boxes": '{"a": [["cat", [NaN, 0, 1, 1], 0, 0]]}'}, r"\[x, y, width, height\], got \[nan"),
    "far": ({"boxes": '{"a": [["cat", [0, 0, 1, 1' + "0" * 400 + "], 0, 0]]}"}, r"\[x, y, width, height\]"),
    "truth": ({"boxes": {"a": [["cat", [0, 0, True, 1], 0, 0]]}}, r"\[x, y, width, height\]"),
    "entities": ({"xml": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}, r"a\.xml: expected VOC's boxes without <!DOCTYPE"),
    "no XML": ({"xml": "<annotation>"}, r"a\.xml: expected VOC's <object>"),
    "no number": ({"xml": XML.format("cat", "x", 1, 1, 1)}, r"a\.xml: expected VOC's <object>"),
    "no box": ({"xml": "<annotation><object><name>cat</name></object></annotation>"}, r"a\.xml: expected VOC's <object>"),
    "other size": ({"objects": OBJECTS[1:]}, r"SegmentationObject.a\.png: expected objects of the mask's size 20x12, got 20x11"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_tells_no_objects_apart_is_refused_in_a_line(tmp_path, case):
    written, told = REFUSED[case]
    with pytest.raises(InputError, match=told) as caught:
        VOC(write(tmp_path, **written)).with_instances()[0]
    assert "\n" not in str(caught.value)


def test_missing_objects_are_named_at_construction(tmp_path):
    write(tmp_path, objects=OBJECTS)
    (tmp_path / "SegmentationObject/a.png").unlink()
    with pytest.raises(MissingFileError, match=r"a\.png: no objects for id 'a'"):
        VOC(tmp_path).with_instances()


@pytest.mark.skipif(
    not {"MINIFCN_VOC", "MINIFCN_BOXES"} <= set(os.environ),
    reason="MINIFCN_VOC and MINIFCN_BOXES name no images and boxes",
)
@pytest.mark.parametrize(
    "split, exact, objects", [pytest.param("train", 322, 934, marks=pytest.mark.slow), ("val", 152, 416)]
)
def test_how_many_images_of_voc_the_boxes_decide(tmp_path, split, exact, objects):
    """Of 955 and 424 objects; of the others every pixel is in a second box."""
    (tmp_path / "VOC2012").mkdir()
    for folder in VOC(os.environ["MINIFCN_VOC"]).folder.iterdir():
        (tmp_path / "VOC2012" / folder.name).symlink_to(folder)
    (tmp_path / "VOC2012/boxes.json").symlink_to(os.environ["MINIFCN_BOXES"])
    told = VOC(tmp_path, split).with_instances()
    assert sum(map(told.is_exact, told.ids)) == exact
    assert sum(len(np.setdiff1d(sample.instances, [0, AMBIGUOUS])) for sample in told) == objects
