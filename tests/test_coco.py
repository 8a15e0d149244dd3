"""Data sets in COCO's JSON: where files lie, polygons, runs, crowds, overlaps; and what is refused."""

import json
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from small_datasets import SMALL, SQUARE, TRIANGLE, run, write_camvid, write_coco, write_nuclei, write_voc

from minifcn import data
from minifcn.data import AMBIGUOUS, Coco, polygons, rle
from minifcn.data.sets.coco_json import draw, region_of
from minifcn.errors import InputError, MissingFileError

SIZE = (24, 30)


def test_polygons_runs_and_crowds(tmp_path):
    told = data.open_dataset(write_coco(tmp_path), "trainval", instances=True)
    assert type(told) is Coco and told.classes == ("background", "leaf", "stone wall") and told.things == (1, 2)
    label, instances = np.zeros((2, *SIZE), int)
    triangle = polygons.mask_of(np.reshape(TRIANGLE, (-1, 2)), SIZE)
    for part, kind, number in (
        (np.s_[20:, :], 1, AMBIGUOUS),  # the crowd, uncompressed
        (triangle, 1, 2),
        (np.s_[2:8, 3:9], 2, 1),  # compressed runs
        (np.s_[2:5, 20:28], 1, 4),  # two squares, one object
        (np.s_[12:15, 20:28], 1, 4),
    ):
        label[part], instances[part] = kind, number
    assert len(told) == 6
    for sample in told:
        np.testing.assert_array_equal(sample.label, label)
        np.testing.assert_array_equal(sample.instances, instances)
        assert (sample.label.dtype, sample.instances.dtype) == (np.uint8, np.uint16)
    plain = data.open_dataset(tmp_path, "val")
    assert len(plain) == 1 and plain[0].instances is None
    np.testing.assert_array_equal(plain[0].label, label)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_masks_are_those_of_pycocotools(tmp_path):
    api = pytest.importorskip("pycocotools.coco").COCO()
    api.dataset = json.loads((write_coco(tmp_path) / "annotations.json").read_text())
    api.createIndex()
    told = Coco(tmp_path, "trainval")
    for entry in api.dataset["annotations"]:
        expected = np.zeros(SIZE, bool)
        expected.reshape(-1)[region_of(entry, SIZE, told.labels).places] = True
        np.testing.assert_array_equal(expected, api.annToMask(entry))


STYLES = {
    "alone": ("annotations.json", "images", ["train", "val", "trainval"]),
    "labelme": ("annotations.json", "JPEGImages", ["train", "val", "trainval"]),
    "Label Studio": ("result.json", "images", ["train", "val", "trainval"]),
    "CVAT": ("annotations/instances_default.json", "images/default", ["train", "val", "trainval"]),
    "COCO": ("annotations/instances_{}2017.json", "{}2017", ["train", "val"]),
    "splits": ("{}.json", "images", ["train", "val"]),
    "CVAT, subsets": ("annotations/instances_{}.json", "images/{}", ["train", "val"]),
    "Roboflow": ("{}/_annotations.coco.json", "{}", ["train", "val"]),
}


@pytest.mark.parametrize("style", STYLES)
def test_where_tools_put_files(tmp_path, style):
    source, images, splits = STYLES[style]
    names = (
        ("Train", "Validation") if style == "CVAT, subsets" else ("train", "valid" if style == "Roboflow" else "val")
    )
    for i, split in enumerate(names if "{}" in source else ("",)):
        write_coco(tmp_path, source.format(split), images.format(split), count=3, first=10 * i)
    opened = {split: data.open_dataset(tmp_path, split) for split in splits}
    assert sorted(opened["train"].splits()) == sorted(splits)
    assert {len(dataset) for dataset in opened.values()} == ({3} if "{}" in source else {1, 2, 3})
    for dataset in opened.values():
        assert all(sample.label.any() for sample in dataset)
    with pytest.raises(MissingFileError, match="no such split list; there are: train, val"):
        data.open_dataset(tmp_path, "other")


@pytest.mark.parametrize("name", ["images/{}.png", "C:\\photos\\{}.png", "/home/me/{}.png", "../../{}.png", "./{}.png"])
def test_images_are_found_by_the_names_that_tools_write_and_stay_in_the_folder(tmp_path, name):
    def renamed(content):
        for entry in content["images"]:
            entry["file_name"] = name.format(entry["file_name"].removesuffix(".png"))

    root = write_coco(tmp_path / "a/b", change=renamed)
    assert data.open_dataset(root, "trainval").ids == [f"images/{i}" for i in range(6)]
    for path in (root / "images").iterdir():
        path.rename(tmp_path / path.name)  # where ../.. leads
    with pytest.raises(MissingFileError, match=r"no image for id"):
        data.open_dataset(root, "trainval")


@pytest.mark.parametrize("stored", ["Bäume {}.png", "bäume {}.PNG", "BÄUME {}.Png"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_images_are_found_whatever_the_capitals_and_the_form_of_accents(tmp_path, stored, form):
    def renamed(content):
        for i, entry in enumerate(content["images"]):
            entry["file_name"] = normalize(form, f"Bäume {i}.png")

    root = write_coco(tmp_path, change=renamed)
    for i in range(6):
        (root / f"images/{i}.png").rename(root / "images" / normalize("NFD", stored.format(i)))
    read = data.open_dataset(root, "trainval")
    assert read.ids == [normalize("NFC", f"images/{stored.format(i)}"[:-4]) for i in range(6)] and read[0].label.any()


def test_two_images_of_one_name_and_other_endings(tmp_path):
    root = write_coco(tmp_path, change=of_first("images", file_name="1.jpg"))
    (root / "images/0.png").rename(root / "images/1.jpg")
    read = data.open_dataset(root, "trainval")
    assert read.ids[:2] == ["images/1", "images/1.png"]
    assert [read.image_name(id) for id in read.ids[:2]] == ["images/1.jpg", "images/1.png"]


def test_labels_of_boxes_beside_the_json_are_no_masks(tmp_path):
    """As Ultralytics lays COCO out."""
    write_coco(tmp_path, "annotations/instances_train2017.json", "images/train2017")
    (tmp_path / "labels/train2017").mkdir(parents=True)
    (tmp_path / "labels/train2017/0.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert type(data.open_dataset(tmp_path)) is Coco


@pytest.mark.parametrize(
    "write", [write_nuclei, write_camvid, lambda root: write_voc(root / "VOC2012", "abc", train="ab")]
)
def test_a_file_called_train_json_makes_no_other_layout_coco(tmp_path, write):
    write(tmp_path)
    (tmp_path / "train.json").write_text("[]")
    assert type(data.open_dataset(tmp_path)) is not Coco


def test_two_files_for_one_split_are_refused(tmp_path):
    for year in (2014, 2017):
        write_coco(tmp_path, f"annotations/instances_train{year}.json", f"train{year}")
    with pytest.raises(
        InputError, match="one JSON file for the split 'train', got .*train2014.json and .*train2017.json"
    ):
        data.open_dataset(tmp_path)


def test_an_image_in_two_splits_is_read_from_its_own(tmp_path):
    write_coco(tmp_path, "train.json", "images")
    write_coco(tmp_path, "val.json", "images", change=lambda content: content["annotations"].clear())
    assert data.open_dataset(tmp_path, "train")[0].label.any()
    assert not data.open_dataset(tmp_path, "val")[0].label.any()


def test_the_smallest_of_several_objects_is_seen_and_crowds_are_under_all():
    """A crowd smaller than all, a square of 16 pixels, one of 4 within, and two of 4 at the same place."""
    labels = {7: 1, 9: 2}

    def square(side, kind, crowd=0):
        mask = np.zeros((6, 6), bool)
        mask[:side, :side] = True
        return region_of(
            {"segmentation": {"size": [6, 6], "counts": rle.counts_of(mask)}, "category_id": kind, "iscrowd": crowd},
            (6, 6),
            labels,
        )

    label, instances = draw([square(2, 7), square(4, 9), square(1, 9, 1)], (6, 6))
    assert instances[0].tolist() == [1, 1, 2, 2, 0, 0] and label[0].tolist() == [1, 1, 2, 2, 0, 0]
    label, instances = draw([square(2, 7), square(2, 9)], (6, 6))
    assert instances[0, 0] == 2 and label[0, 0] == 2


def test_training_and_evaluation(tmp_path):
    root, out = write_coco(tmp_path / "own"), tmp_path / "run"
    assert run("train", "--data", root, "--out", out, *SMALL, "--variant", "32s") == 0
    assert run("evaluate", "--weights", out / "best.npz", "--data", root, "--split", "val") == 0


def part(name, value):
    return lambda content: content.update({name: value})


def of_first(part, **changes):
    return lambda content: content[part][0].update(changes)


RUNS = {"size": [*SIZE], "counts": [720]}
REFUSED = {
    "a list": (None, r"annotations\.json: expected COCO's JSON with a list 'images'"),
    "no images": (part("images", None), "a list 'images' of entries with id"),
    "images of numbers": (part("images", [1, 2]), "a list 'images'"),
    "no annotations": (lambda content: content.pop("annotations"), "a list 'annotations'"),
    "no categories": (part("categories", []), "expected 1 to 254 categories, got 0"),
    "many categories": (part("categories", [{"id": i, "name": str(i)} for i in range(255)]), "categories, got 255"),
    "twice a category": (lambda content: content["categories"].append(content["categories"][0]), "an id of their own"),
    "a category without a name": (of_first("categories", name=" "), "categories with an id of their own and a name"),
    "a name of two lines": (of_first("categories", name="a\nb"), "categories with an id of their own and a name"),
    "a category of truth": (of_first("categories", id=True), "categories with an id"),
    "twice an id": (of_first("images", id=2), "images with an id of their own"),
    "an id that is a list": (of_first("images", id=[1]), "images with an id of their own"),
    "twice an image": (of_first("images", file_name="1.png"), "each image once, got two of 'images/1'"),
    "no file name": (of_first("images", file_name="../.."), "and a file_name"),
    "a file name that is none": (of_first("images", file_name="a\ud800"), "and a file_name"),
    "no height": (of_first("images", height="24"), r"height and width of '0\.png', got \['24', 30\]"),
    "too large": (of_first("images", height=1 << 40), "height and width of"),
    "another size": (of_first("images", height=25), r"annotation 1: expected runs of the image's size \[25, 30\]"),
    "of another size than the image": (
        lambda content: (content["annotations"].clear(), content["images"][0].update(height=25)),
        r"annotations\.json: 0\.png: expected a mask of the image's size 30x24, got 30x25",
    ),
    "no such category": (of_first("annotations", category_id=4), r"0\.png: annotation 1: expected the id of a category, got 4"),
    "a category that is a list": (of_first("annotations", category_id=[]), "the id of a category"),
    "a box": (of_first("annotations", segmentation=[]), "polygons or runs, got a box only"),
    "a flat polygon": (of_first("annotations", segmentation=SQUARE), r"polygons \[\[x, y, x, y, …\], …\], got 20"),
    "two corners": (of_first("annotations", segmentation=[[1, 2, 3, 4]]), "three corners or more, x and y of each, got 4 numbers"),
    "an open polygon": (of_first("annotations", segmentation=[SQUARE[:-1]]), "x and y of each, got 7 numbers"),
    "no numbers": (of_first("annotations", segmentation=[["a"] * 6]), "polygons"),
    "nowhere": (of_first("annotations", segmentation=[[float("nan"), 1, 2, 3, 4, 5]]), "got one without end"),
    "far": (of_first("annotations", segmentation=[[10**400, 1, 2, 3, 4, 5]]), "got one without end"),
    "an outline without end": (of_first("annotations", segmentation=[[0, 0, 300000, 0, 5, 300000]]), "an outline of at most"),
    "neither a crowd nor none": (of_first("annotations", iscrowd="0"), "0.png: annotation 1: expected iscrowd as 0 or 1, got '0'"),
    "images by other ids": (
        lambda content: [entry.update(image_id=str(entry["image_id"])) for entry in content["annotations"]],
        r"annotations\.json: expected annotations whose image_id is the id of an image, such as 0; got '0' and no other",
    ),
    "runs of another size": (of_first("annotations", segmentation=RUNS | {"size": [30, 24]}), r"size \[24, 30\] .*got \[30, 24\]"),
    "runs too short": (of_first("annotations", segmentation=RUNS | {"counts": [719]}), "720 pixels in all, got 719"),
    "runs that are none": (of_first("annotations", segmentation=RUNS | {"counts": None}), "a list or compressed, got None"),
    "cut runs": (of_first("annotations", segmentation=RUNS | {"counts": "0P"}), "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_is_refused_in_a_line(tmp_path, case):
    change, told = REFUSED[case]
    root = write_coco(tmp_path, change=change) if change else write_coco(tmp_path)
    if change is None:
        (root / "annotations.json").write_text("[]")
    with pytest.raises(InputError, match=told) as caught:
        dataset = Coco(root, "trainval")
        [dataset[i] for i in range(len(dataset))]
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(root))
    str(caught.value).encode()


def test_other_categories_in_another_file_are_refused(tmp_path):
    write_coco(tmp_path, "train.json", "images")
    write_coco(tmp_path, "val.json", "images", change=of_first("categories", name="root"))
    with pytest.raises(
        InputError, match=r"val\.json: expected the categories of the other files under the same ids, got"
    ):
        data.open_dataset(tmp_path)


def test_the_same_categories_under_other_ids_are_refused(tmp_path):
    """The ids of one file would be read by the table of the other."""

    def renumbered(content):
        content["categories"][0]["id"] = 109
        for annotation in content["annotations"]:
            if annotation["category_id"] == 9:
                annotation["category_id"] = 109

    write_coco(tmp_path, "train.json", "images")
    write_coco(tmp_path, "val.json", "images", change=renumbered)
    with pytest.raises(InputError, match=r"val\.json: expected the categories of the other files under the same ids"):
        data.open_dataset(tmp_path)


def test_exif_data_turn_the_image_or_not(tmp_path):
    root = write_coco(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "images/0.png") as picture:
        picture.save(root / "images/0.png", exif=exif)
    with pytest.raises(InputError, match="to leave EXIF alone: --no-exif"):
        data.open_dataset(root, "trainval")[0]
    assert data.open_dataset(root, "trainval", exif=False)[0].label.any()
