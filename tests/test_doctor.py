"""The doctor of data sets: a healthy one has nothing, and every planted fault is found under its name."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import Sick
from small_datasets import write_cityscapes, write_own

from minifcn import cli, data
from minifcn.data import doctor, images, labels
from minifcn.data.doctor.files import values_in_between
from minifcn.data.doctor.fix import write_fixed

FAULTS = sorted(name.removeprefix("fault_") for name in dir(Sick) if name.startswith("fault_"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    data.write_toyvoc(root, train=len(FAULTS) + 12, val=8, size=40, seed=5)
    return root


@pytest.fixture(scope="module")
def sick(healthy, tmp_path_factory):
    root = tmp_path_factory.mktemp("sick") / "kit"
    shutil.copytree(healthy, root)
    return Sick(root / "VOC2012").plant_all()


@pytest.fixture(scope="module")
def diagnosis(sick):
    return doctor.examine(sick.folder)


def found_in(diagnosis):
    return {(kind, name) for kind, entries in diagnosis.findings.items() for name, _ in entries}


def bytes_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# --- What is well, and what is planted -------------------------------------------------------------------------------


def test_a_healthy_data_set_has_no_findings_and_correct_counts(healthy):
    found = doctor.examine(healthy)
    assert found_in(found) == set()
    samples = data.VOC(healthy, "trainval")
    pixels = sum(np.bincount(sample.label.ravel(), minlength=256) for sample in samples)
    np.testing.assert_array_equal(found.pixels, pixels)
    for split in ("train", "val"):
        masks = [sample.label for sample in data.VOC(healthy, split)]
        assert found.mask_counts[split].tolist() == [sum((mask == i).any() for mask in masks) for i in range(256)]
    assert {(image.format, mask.format) for image, mask in found.files.values()} == {("JPEG RGB", "PNG P")}
    assert set(found.samples) == set(range(6))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_reported_by_kind_and_name(fault, sick, diagnosis):
    for kind, name in sick.expected[fault]:
        assert name in diagnosis.findings.names(kind), (kind, name)


def test_nothing_is_reported_that_was_not_planted(sick, diagnosis):
    planted = {pair for pairs in sick.expected.values() for pair in pairs}
    assert found_in(diagnosis) - planted == set()
    assert diagnosis.findings.errors and diagnosis.findings.warnings


def test_details_say_what_was_found(sick, diagnosis):
    told = {(kind, name): detail for kind, entries in diagnosis.findings.items() for name, detail in entries}

    def detail(fault, at=0):
        return told[sick.expected[fault][at]]

    ids = sick.ids
    assert detail("label_outside") == "77 (50 pixels)"
    assert detail("missing_image") == "listed in train, trainval"
    other = ids["fault_image_of_another_ending"]
    assert detail("image_of_another_ending") == f"listed in train, trainval; there is {other}.JPG"
    assert "the mask fits the image before EXIF turns it" in detail("exif_with_a_mask_of_what_is_stored", 1)
    assert detail("mask_in_colours").startswith("RGB in the classes' colours: background, ")
    assert "0 of them classes'" in detail("mask_in_foreign_colours")
    assert detail("mask_of_two_values") == "1 with the values 0, 1; --fix can write it"
    assert detail("no_image") == "cannot identify image file"
    assert detail("unseen_class") == "nowhere"
    assert "900000000 pixels" in detail("bomb")
    assert detail("overlap_by_id") == "in train and val"
    assert detail("overlap_by_content") == f"and JPEGImages/{sick.val[0]}.jpg: train and val"
    numbers = dict(zip(diagnosis.dataset.classes, sick.renumbered, strict=False))
    for part in detail("renumbered").split(", "):
        number, name = part.removesuffix("'s colour").split(" is ")
        assert numbers[name] == int(number) > 0


# --- Traces of a smooth resize ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.3, 2])
@pytest.mark.parametrize("way", ["BILINEAR", "BICUBIC", "NEAREST"])
def test_only_smooth_resizes_leave_values_in_between(healthy, factor, way):
    for mask in (sample.label for sample in data.VOC(healthy, ids=None, limit=12)):
        size = [round(side * factor) for side in mask.shape[::-1]]
        resized = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling[way]))
        assert bool(values_in_between(resized, np.bincount(resized.ravel(), minlength=256))) == (way != "NEAREST")


def test_a_thin_line_and_small_dots_are_not_in_between():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 9
    mask[:, 19] = 5  # one thin class between two others
    mask[5, 5], mask[9, 9], mask[30, 3] = 2, 3, 4  # dots on class 0 lie between nothing
    assert values_in_between(mask, np.bincount(mask.ravel(), minlength=256)) == []


# --- Own data --------------------------------------------------------------------------------------------------------


def names(root, kind):
    return doctor.examine(root).findings.names(kind)


@pytest.mark.parametrize("kind", ["colours", "ids"])
def test_healthy_own_data(tmp_path, kind):
    root = write_own(tmp_path / "own", kind=kind)
    found = doctor.examine(root)
    assert found_in(found) == set()
    assert {split: len(ids) for split, ids in found.lists.items()} == {"train": 5, "val": 1, "trainval": 6}
    assert found.pixels[:3].tolist() == [6 * 2 * 180, 6 * 180, 6 * 180]
    shutil.copy(root / "images/2.png", root / "images/2.bmp")
    assert names(root, "two-files") == ["images/2.bmp"]


def test_every_wrong_entry_of_a_description_is_reported_at_once_and_nothing_written(tmp_path):
    root = write_own(tmp_path / "own", void="void = [1, 2]", splits='extra = 1\n[splits]\nval = "nowhere.txt"')
    found = doctor.examine(root)
    ((kind, entries),) = found.findings.items()
    assert kind == "description" and found.dataset is None
    assert [detail.split(":")[0] for _, detail in entries] == ["extra", "void", "splits.val"]
    with pytest.raises(ValueError, match=r"wrong entries in dataset\.toml"):
        write_fixed(found, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_lists_of_own_data(tmp_path):
    root = write_own(tmp_path / "own")
    (root / "some.txt").write_text("0\n1\n7\n")
    text = (root / "dataset.toml").read_text()
    (root / "dataset.toml").write_text(text + '[splits]\ntrain = "some.txt"\n')
    found = doctor.examine(root).findings
    assert found.names("no-val-list") == ["own"]
    assert (found.names("missing-image"), found.names("missing-mask")) == (["images/7.jpg"], ["masks/7.png"])
    (root / "dataset.toml").write_text(text + '[splits]\nval = "some.txt"\n')
    assert names(root, "no-list") == ["own"]
    for count in (0, 1):
        assert names(write_own(tmp_path / str(count), count=count), "empty-list")[0] == "dataset.toml, splits.train"


def test_foreign_colours_and_smooth_edges_are_told_apart(tmp_path):
    root = write_own(tmp_path / "own")
    pixels = np.array(Image.open(root / "masks/0.png"))
    pixels[:6, :6] = (1, 2, 3)
    Image.fromarray(pixels).save(root / "masks/0.png")
    with Image.open(root / "masks/1.png") as mask:
        mask.resize((60, 48), Image.Resampling.BILINEAR).resize((30, 24), Image.Resampling.BICUBIC).save(
            root / "masks/1.png"
        )
    found = doctor.examine(root).findings
    assert found.names("colour-outside") == ["masks/0.png"]
    assert found.names("in-between") == ["masks/1.png"]


def test_masks_of_black_and_white_are_explained(tmp_path):
    root = write_own(tmp_path / "own", kind="ids")
    for path in (root / "masks").iterdir():
        label = images.read_mask(path)
        Image.fromarray(np.where(label > 0, 255, 0).astype(np.uint8)).save(path)
    assert sorted(names(root, "black-and-white")) == [f"masks/{i}.png" for i in range(6)]
    images.write_mask(root / "masks/0.png", np.eye(24, 30).astype(np.uint8))  # one that knows class 1: 255 is meant
    assert names(root, "black-and-white") == []


def test_class_names_that_come_twice_and_lists_of_none(healthy, tmp_path):
    root = tmp_path / "kit"
    shutil.copytree(healthy, root)
    path = root / "VOC2012/classes.txt"
    path.write_text(path.read_text() + "disc\n")
    assert names(root, "classes-file") == ["classes.txt"]
    shutil.rmtree(root / "VOC2012/ImageSets")
    assert names(root, "no-list") == ["VOC2012"]
    path.write_bytes(b"\xff\xfe")
    assert names(root, "classes-file") == ["classes.txt"]


# --- Cityscapes ------------------------------------------------------------------------------------------------------


def test_cityscapes_counts_train_ids_and_explains_what_looks_black(tmp_path):
    written = write_cityscapes(tmp_path)
    found = doctor.examine(tmp_path)
    assert set(found.findings) == {"looks-black", "unseen-class"}
    expected = np.bincount(data.Cityscapes.table[np.stack(list(written.values()))].ravel(), minlength=256)
    np.testing.assert_array_equal(found.pixels, expected)


def test_faults_in_cityscapes(tmp_path):
    write_cityscapes(tmp_path)
    place = "gtFine/train/ulm/ulmtrain_000001_000019_gtFine_labelIds.png"
    (tmp_path / "gtFine/train/bonn/bonntrain_000001_000019_gtFine_labelIds.png").unlink()
    (tmp_path / "leftImg8bit/val/ulm/ulmval_000001_000019_leftImg8bit.png").unlink()
    Image.fromarray(np.full((32, 48), 40, np.uint8)).save(tmp_path / place)
    found = doctor.examine(tmp_path).findings
    assert found.names("missing-mask") == ["gtFine/train/bonn/bonntrain_000001_000019_gtFine_labelIds.png"]
    assert found.names("mask-without-image") == ["gtFine/val/ulm/ulmval_000001_000019_gtFine_labelIds.png"]
    assert found.names("label-outside") == [place]
    for place in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / place / "train/bonn", tmp_path / place / "val/bonn", dirs_exist_ok=True)
    assert names(tmp_path, "overlap-by-id") == ["bonntrain_000001_000019"]


# --- Mending ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mended(sick, diagnosis, tmp_path_factory):
    target = tmp_path_factory.mktemp("mended") / "new"
    before = bytes_of(sick.folder)
    lists, left_out = write_fixed(diagnosis, target)
    assert bytes_of(sick.folder) == before
    return target, lists, dict(left_out)


def test_the_mended_copy_is_well_and_can_be_trained_on(mended, sick):
    target, lists, _ = mended
    assert doctor.examine(target).findings.errors == []
    for split, ids in lists.items():
        assert [sample.id for sample in data.open_dataset(target, split)] == ids
    train, val = ((target / f"{split}.txt").read_text().split() for split in ("train", "val"))
    assert sick.ids["fault_overlap_by_id"] in val and sick.ids["fault_overlap_by_id"] not in train
    assert sick.ids["fault_overlap_by_content"] not in train
    assert train.count(sick.ids["fault_repeated_id"]) == 1


TURNED = ("exif", "exif_with_a_mask_of_what_is_stored")
MASKS = ("mask_in_colours", "mask_with_alpha", "sixteen_bit_mask", "renumbered", "grey", "black_palette")
PHOTOS = ("cmyk", "sixteen_bit_grey", "sixteen_bit_colours", "alpha", "animated", "wrong_ending")


@pytest.mark.parametrize("fault", MASKS + TURNED)
def test_masks_get_their_numbers_and_their_orientation_back(fault, mended, sick, healthy):
    name = f"{sick.ids[f'fault_{fault}']}.png"
    whole = images.read_mask(healthy / "VOC2012/SegmentationClass" / name)
    np.testing.assert_array_equal(images.read_mask(mended[0] / "masks" / name), whole)


@pytest.mark.parametrize("fault", PHOTOS + TURNED)
def test_odd_photographs_become_rgb_and_upright(fault, mended, sick, healthy):
    id = sick.ids[f"fault_{fault}"]
    with Image.open(mended[0] / "images" / f"{id}.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGB") and not image.getexif()
        np.testing.assert_array_equal(np.asarray(image), images.read_image(sick.folder / f"JPEGImages/{id}.jpg"))
        whole = images.read_image(healthy / f"VOC2012/JPEGImages/{id}.jpg").astype(int)
        assert fault not in TURNED or np.abs(np.asarray(image) - whole).mean() < 20  # JPEG once more


UNUSABLE = (
    *("missing_image", "missing_mask", "empty_file", "no_image", "truncated_image", "truncated_mask", "bomb", "size"),
    *("mask_in_foreign_colours", "label_outside", "resized_smoothly", "jpeg_mask"),
)


@pytest.mark.parametrize("fault", UNUSABLE)
def test_what_cannot_be_mended_is_left_out_and_named(fault, mended, sick):
    target, _, left_out = mended
    id = sick.ids[f"fault_{fault}"]
    assert id in left_out
    assert not list((target / "images").glob(f"{id}.*")) and not list((target / "masks").glob(f"{id}.*"))
    assert all(id not in path.read_text().split() for path in target.glob("*.txt"))


def test_mending_refuses_a_folder_that_holds_something(diagnosis, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected an empty or absent folder"):
        write_fixed(diagnosis, tmp_path)
    assert bytes_of(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("kind", ["cityscapes", "colours"])
def test_other_layouts_are_mended_to_the_same_labels(kind, tmp_path):
    root = tmp_path / "from"
    if kind == "cityscapes":
        write_cityscapes(root)
    else:
        write_own(root)
    write_fixed(doctor.examine(root), tmp_path / "new")
    for split in ("train", "val"):
        old, new = (data.open_dataset(place, split) for place in (root, tmp_path / "new"))
        assert (new.ids, new.classes) == (old.ids, old.classes)
        np.testing.assert_array_equal(new.palette[: new.num_classes], old.palette[: new.num_classes])
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a.label, b.label)
            np.testing.assert_array_equal(a.image, b.image)


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_counts_names_and_more(sick, capsys):
    assert cli.main(["data", "doctor", str(sick.folder)]) == 1
    out = capsys.readouterr().out
    for text in (
        "PASCAL VOC, 7 classes",
        "error missing-image (",
        "JPEGImages/",
        "and 2 more",
        "void",
        "warning unlisted (1)",
    ):
        assert text in out
    assert cli.main(["data", "doctor", str(sick.folder), "--all"]) == 1
    everything = capsys.readouterr().out
    for pairs in sick.expected.values():
        assert all(name in everything for _, name in pairs)


def test_the_command_draws_mends_and_is_silent_about_health(healthy, tmp_path, capsys):
    picture, target = tmp_path / "classes.png", tmp_path / "new"
    assert cli.main(["data", "doctor", str(healthy), "--picture", str(picture), "--fix", str(target)]) == 0
    out = capsys.readouterr().out
    assert "no errors, 0 warnings" in out and "error " not in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in labels.voc_palette()[:6]:  # a patch and the class's places in a mask
        assert (pixels == colour).all(axis=1).sum() > 300
    assert cli.main(["data", "doctor", str(target)]) == 0


@pytest.mark.parametrize("case", ["nowhere", "nothing", "not empty", "no png"])
def test_wrong_use_ends_in_one_line_and_2(case, healthy, tmp_path, capsys):
    (tmp_path / "file.txt").write_text("x")
    arguments = {
        "nowhere": [tmp_path / "nowhere"],
        "nothing": [tmp_path],
        "not empty": [healthy, "--fix", tmp_path],
        "no png": [healthy, "--picture", tmp_path / "x.txt"],
    }[case]
    assert cli.main(["data", "doctor", *map(str, arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn: ")]
    assert {"nowhere": "no such folder", "nothing": "found file.txt", "not empty": "empty", "no png": "PNG"}[
        case
    ] in line


# --- Real data -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif("MINIFCN_VOC" not in os.environ, reason="MINIFCN_VOC names no VOCdevkit folder")
def test_the_real_voc_images_are_well():
    found = doctor.examine(Path(os.environ["MINIFCN_VOC"]))
    assert {split: len(ids) for split, ids in found.lists.items()} == {
        "train": 437,
        "trainval": 637,
        "val": 200,
    }
    assert {(image.format, mask.format) for image, mask in found.files.values()} == {("JPEG RGB", "PNG P")}
    assert set(found.findings) == {"unseen-class"}
    assert [name for name, told in found.findings["unseen-class"] if told == "nowhere"] == ["aeroplane", "train"]
    assert (
        found.mask_counts["train"][8] == 131 and found.mask_counts["val"][15] == 49
    )  # cats to learn from, people to test on
    assert int(found.pixels[255]) == 6820976 and int(found.pixels.sum()) == 114936017


@pytest.mark.skipif("MINIFCN_CITYSCAPES" not in os.environ, reason="MINIFCN_CITYSCAPES names no Cityscapes folder")
def test_the_real_cityscapes_images_are_well():
    found = doctor.examine(Path(os.environ["MINIFCN_CITYSCAPES"]))
    assert {split: len(ids) for split, ids in found.lists.items()} == {"train": 3}
    assert set(found.findings) == {"no-val-list", "looks-black", "unseen-class"}
    assert found.findings.names("unseen-class") == ["bus", "train", "motorcycle"]
    assert int(found.pixels.sum()) == 3 * 2048 * 1024 and int(found.pixels[255]) == 530982
