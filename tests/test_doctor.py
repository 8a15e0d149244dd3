"""The doctor of data sets: a healthy one has nothing, and every planted fault is found under its name."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted_faults import BOX_FAULTS, COCO_FAULTS, IMAGES, MASKS, NUCLEI_FAULTS, Sick
from small_datasets import (
    COW,
    ORIGINAL,
    run,
    write_camvid,
    write_cityscapes,
    write_coco,
    write_nuclei,
    write_own,
    write_plain,
    write_voc_with_boxes,
)

from minifcn import data
from minifcn.data import doctor, images, labels
from minifcn.data.doctor.files import values_in_between
from minifcn.data.doctor.fix import write_fixed


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    data.write_toyvoc(root, train=len(IMAGES) + len(MASKS) + 26, val=8, size=40, seed=5)
    return root


@pytest.fixture(scope="module")
def sick(healthy, tmp_path_factory):
    root = tmp_path_factory.mktemp("sick") / "kit"
    shutil.copytree(healthy, root)
    return Sick(root / "VOC2012")


@pytest.fixture(scope="module")
def diagnosis(sick):
    return doctor.examine(sick.folder)


def found_in(diagnosis):
    return {(kind, name): detail for kind, entries in diagnosis.findings.items() for name, detail in entries}


def names(root, kind):
    return doctor.examine(root).findings.names(kind)


def formats(diagnosis):
    return {(image.format, mask.format) for image, mask in diagnosis.files.values()}


def bytes_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_healthy_data_set_has_no_findings_and_correct_counts(healthy):
    found = doctor.examine(healthy)
    assert found_in(found) == {}
    samples = data.VOC(healthy, "trainval")
    pixels = sum(np.bincount(sample.label.ravel(), minlength=256) for sample in samples)
    np.testing.assert_array_equal(found.pixels, pixels)
    for split in ("train", "val"):
        masks = [sample.label for sample in data.VOC(healthy, split)]
        assert found.mask_counts[split].tolist() == [sum((mask == i).any() for mask in masks) for i in range(256)]
    assert formats(found) == {("JPEG RGB", "PNG P")} and len(found.files) == len(samples)
    assert set(found.samples) == set(range(6))


REASON = "of no known format, or a TIFF of a kind that is not read, such as a mask of several bands"
BANDS = "expected at most 256 bands, of 8 or 16 bits unsigned, got 5 of 32 bits floating-point; save it so"


def test_exactly_what_was_planted_is_reported_by_kind_and_name(sick, diagnosis):
    found = found_in(diagnosis)
    planted = {pair for pairs in sick.expected.values() for pair in pairs}
    assert found.keys() - planted == set() and planted - found.keys() == set()
    assert diagnosis.findings.errors and diagnosis.findings.warnings
    told = {fault: [found[pair] for pair in pairs] for fault, pairs in sick.expected.items()}
    other = sick.ids["image_of_another_ending"]
    for fault, detail in (
        ("label_outside", "77 (50 pixels)"),
        ("missing_image", "listed in train, trainval"),
        ("image_of_another_ending", f"listed in train, trainval; there is {other}.bmp"),
        ("no_image", REASON),
        ("five_bands", BANDS),
        ("too_much_text", "its text or colour profile takes more than 1 MiB; save it without (exiftool -all= FILE)"),
        ("mask_with_exif", "stored on its side"),
        ("unseen_class", "nowhere"),
        ("git_lfs_pointer", "a Git LFS pointer in its place; fetch the file itself with: git lfs pull"),
        ("overlap_by_id", "in train and val"),
        ("overlap_by_content", f"and JPEGImages/{sick.val[0]}.jpg: train and val"),
    ):
        assert told[fault] == [detail]
    assert "the mask fits the image before EXIF turns it" in told["exif_with_a_mask_of_what_is_stored"][1]
    assert told["mask_in_colours"][0].startswith("RGB in the classes' colours: background, ")
    assert "0 of them classes'" in told["mask_in_foreign_colours"][0]
    assert "900000000 pixels" in told["bomb"][0]
    numbers = dict(zip(diagnosis.dataset.classes, sick.renumbered, strict=False))
    for part in told["renumbered"][0].split(", "):
        number, name = part.removesuffix("'s colour").split(" is ")
        assert numbers[name] == int(number) > 0


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


def test_class_names_that_come_twice_and_lists_of_none(healthy, tmp_path):
    shutil.copytree(healthy, tmp_path / "kit")
    root = tmp_path / "kit/VOC2012"
    (root / "classes.txt").write_text((root / "classes.txt").read_text() + "disc\n")
    shutil.rmtree(root / "ImageSets")
    found = doctor.examine(root).findings
    assert (found.names("classes-file"), found.names("no-list")) == (["classes.txt"], [])
    (root / "classes.txt").write_bytes(b"\xff\xfe")
    assert set(found_in(doctor.examine(root))) == {("classes-file", "classes.txt")}


EXPECTED = {write_cityscapes: {"looks-black", "unseen-class"}, write_camvid: {"looks-black"}}
OTHERS = [
    write_own,
    partial(write_own, kind="ids"),
    write_cityscapes,
    write_plain,
    write_camvid,
    partial(write_camvid, folders=ORIGINAL),
]


@pytest.mark.parametrize("write", OTHERS)
def test_other_layouts_are_well_and_copied_with_the_same_labels(write, tmp_path):
    write(tmp_path / "from")
    diagnosis, pixels = doctor.examine(tmp_path / "from"), 0
    assert set(diagnosis.findings) == EXPECTED.get(write, set())
    write_fixed(diagnosis, tmp_path / "new")
    for split in diagnosis.lists.keys() - {"trainval"}:
        old, new = (data.open_dataset(tmp_path / place, split) for place in ("from", "new"))
        assert diagnosis.lists[split] == new.ids == old.ids and new.classes == old.classes
        np.testing.assert_array_equal(new.palette[: new.num_classes], old.palette[: new.num_classes])
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a.label, b.label)
            np.testing.assert_array_equal(a.image, b.image)
            pixels = pixels + np.bincount(a.label.ravel(), minlength=256)
    np.testing.assert_array_equal(diagnosis.pixels, pixels)


def test_every_wrong_entry_of_a_description_is_reported_at_once_and_nothing_written(tmp_path):
    root = write_own(tmp_path / "own", void="void = [1, 2]", splits='extra = 1\n[splits]\nval = "nowhere.txt"')
    found = doctor.examine(root)
    assert set(found.findings) == {"description"} and found.dataset is None
    problems = [detail.split(":")[0] for _, detail in found.findings["description"]]
    assert problems == ["extra", "void", "splits.val"]
    with pytest.raises(ValueError, match=r"wrong entries in dataset\.toml"):
        write_fixed(found, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_lists_of_own_data(tmp_path):
    for split, other in (("train", "no-val-list"), ("val", "no-list")):
        root = write_own(tmp_path / split, splits=f'[splits]\n{split} = "some.txt"')
        (root / "some.txt").write_text("0\n1\n7\n")
        found = doctor.examine(root).findings
        assert found.names(other) == [split]
        assert (found.names("missing-image"), found.names("missing-mask")) == (["images/7.jpg"], ["masks/7.png"])
    for count in (0, 1):
        assert "dataset.toml, splits.train" in names(write_own(tmp_path / str(count), count=count), "empty-list")


def test_foreign_colours_smooth_edges_and_two_files_are_told_apart(tmp_path):
    root = write_own(tmp_path / "own")
    pixels = np.array(Image.open(root / "masks/0.png"))
    pixels[:6, :6] = (1, 2, 3)
    Image.fromarray(pixels).save(root / "masks/0.png")
    mask = Image.open(root / "masks/1.png").resize((60, 48), Image.Resampling.BILINEAR)
    mask.resize((30, 24), Image.Resampling.BICUBIC).save(root / "masks/1.png")
    shutil.copy(root / "images/2.png", root / "images/2.bmp")
    found = doctor.examine(root).findings
    for kind, name in (("colour-outside", "masks/0.png"), ("in-between", "masks/1.png"), ("two-files", "images/2.bmp")):
        assert found.names(kind) == [name]


def mended_copy(root, target):
    """-> (what was left out, {id: sample} of the copy's training part), of a copy that the doctor finds sound"""
    _, left_out = write_fixed(doctor.examine(root), target)
    assert doctor.examine(target).findings.errors == []
    return dict(left_out), {sample.id: sample for sample in data.open_dataset(target, "trainval")}


def test_of_two_files_of_an_id_none_is_guessed(tmp_path):
    root = write_own(tmp_path / "own")
    Image.new("RGB", (30, 24)).save(root / "images/2.bmp")  # the first by name, and the wrong one
    left_out, copied = mended_copy(root, tmp_path / "new")
    assert left_out.keys() == {"2"} and "2" not in copied


def test_void_of_a_renumbered_palette_stays_void(tmp_path):
    root = write_own(tmp_path / "own", kind="ids")
    (root / "dataset.toml").write_text((root / "dataset.toml").read_text().replace("[10, 20, 30]", "[0, 0, 0]"))
    numbers, palette = np.array(Image.open(root / "masks/0.png")), np.zeros((256, 3), np.uint8)
    palette[1:3] = (200, 100, 0), (60, 180, 75)  # the other way round
    numbers[:8, :8] = 255  # black, as padding of a palette leaves it: background's colour
    images.write_mask(root / "masks/0.png", numbers, palette)
    assert names(root, "renumbered-palette") == ["masks/0.png"]
    _, copied = mended_copy(root, tmp_path / "new")
    swapped = np.where(numbers == 255, 255, np.array([0, 2, 1])[numbers % 3])
    np.testing.assert_array_equal(copied["0"].label, swapped)


def test_numbers_and_colours_of_void_are_those_of_the_description(tmp_path):
    root = write_own(tmp_path / "own", kind="ids", void="void = [1, 2, 3]\nvoid_numbers = [7]")
    numbers, palette = np.array(Image.open(root / "masks/0.png")), np.zeros((256, 3), np.uint8)
    palette[[0, 1, 2, 7]] = (10, 20, 30), (60, 180, 75), (200, 100, 0), (1, 2, 3)
    numbers[:8, :8] = 7
    images.write_mask(root / "masks/0.png", numbers, palette)
    assert doctor.examine(root).findings.errors == []


def test_a_class_may_have_the_usual_colour_of_void(tmp_path):
    root = write_own(tmp_path / "own")
    for path in (root / "masks").iterdir():
        pixels = np.array(Image.open(path))
        pixels[(pixels == (200, 100, 0)).all(axis=2)] = (224, 224, 192)
        Image.fromarray(pixels).save(path)
    described = (root / "dataset.toml").read_text().replace("[200, 100, 0]", "[224, 224, 192]")
    (root / "dataset.toml").write_text(described)
    assert doctor.examine(root).findings.errors == []
    _, copied = mended_copy(root, tmp_path / "new")
    np.testing.assert_array_equal(copied["0"].label, data.open_dataset(root, "trainval")[0].label)


def test_grey_images_stay_grey_in_the_copy(tmp_path):
    root = write_plain(tmp_path / "plain", values=(0, 1))
    for path in (root / "image").iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    mended_copy(root, tmp_path / "new")
    assert data.open_dataset(tmp_path / "new").channels == data.open_dataset(root).channels == 1


def test_masks_of_black_and_white_are_explained(tmp_path):
    root = write_own(tmp_path / "own", kind="ids")
    for path in (root / "masks").iterdir():
        label = images.read_mask(path)
        Image.fromarray(np.where(label > 0, 255, 0).astype(np.uint8)).save(path)
    assert sorted(names(root, "black-and-white")) == [f"masks/{i}.png" for i in range(6)]
    images.write_mask(root / "masks/0.png", np.eye(24, 30).astype(np.uint8))  # one that knows class 1: 255 is meant
    assert names(root, "black-and-white") == []


def test_faults_in_cityscapes(tmp_path):
    write_cityscapes(tmp_path)
    place = "gtFine/train/ulm/ulmtrain_000001_000019_gtFine_labelIds.png"
    (tmp_path / "gtFine/train/bonn/bonntrain_000001_000019_gtFine_labelIds.png").unlink()
    (tmp_path / "leftImg8bit/val/ulm/ulmval_000001_000019_leftImg8bit.png").unlink()
    Image.fromarray(np.full((32, 48), 40, np.uint8)).save(tmp_path / place)
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(tmp_path / folder / "train/bonn", tmp_path / folder / "val/bonn", dirs_exist_ok=True)
    (tmp_path / "gtFine/train/ulm/Thumbs.db").touch()
    (tmp_path / "gtFine/train/ulm/ulmtrain_000001_000019_gtFine_polygons.json").touch()
    found = doctor.examine(tmp_path).findings
    assert found.names("missing-mask") == ["gtFine/train/bonn/bonntrain_000001_000019_gtFine_labelIds.png"]
    assert found.names("mask-without-image") == ["gtFine/val/ulm/ulmval_000001_000019_gtFine_labelIds.png"]
    assert found.names("label-outside") == [place]
    assert found.names("overlap-by-id") == ["bonntrain_000001_000019"]
    assert found.names("stray-file") == ["gtFine/train/ulm/Thumbs.db"]


def test_faults_in_camvid(tmp_path):
    write_camvid(tmp_path, lists=("train", "val"))
    (tmp_path / "trainannot/0000TP_000001.png").unlink()
    (tmp_path / "val/0001TP_000000.jpg").unlink()
    Image.fromarray(np.full((32, 64), 12, np.uint8)).save(tmp_path / "testannot/0002TP_000000.png")
    Image.new("RGB", (64, 32), (64, 0, 128)).save(tmp_path / "testannot/0002TP_000001.png")
    with open(tmp_path / "val.txt", "a", encoding="utf-8") as file:
        file.write("0000TP_000000.png\n0009TP_000000.png")
    (tmp_path / "val/Thumbs.db").touch()
    shutil.copy(tmp_path / "test/0002TP_000002.jpg", tmp_path / "test/0002TP_000002.png")
    (tmp_path / "label_colors.txt").write_text("0 0 0 Void\n")
    found = doctor.examine(tmp_path).findings
    for kind, names_ in (
        ("missing-mask", ["trainannot/0000TP_000001.png", "trainannot/0009TP_000000.png"]),
        ("missing-image", ["train/0009TP_000000.png", "val/0001TP_000000.png"]),
        ("unlisted", ["0000TP_000004", "0001TP_000004"]),
        ("label-outside", ["testannot/0002TP_000000.png"]),
        ("mask-mode", ["testannot/0002TP_000001.png"]),
        ("overlap-by-id", ["0000TP_000000"]),
        ("two-files", ["test/0002TP_000002.jpg"]),
        ("stray-file", ["./val/Thumbs.db"]),
    ):
        assert sorted(found.names(kind)) == names_, kind


def test_faults_in_the_original_camvid(tmp_path):
    write_camvid(tmp_path, ORIGINAL)
    masks, before = tmp_path / "LabeledApproved_full", Image.open(tmp_path / "LabeledApproved_full/0000TP_000000_L.png")
    pixels = np.array(before)
    pixels[:8, :8] = (1, 2, 3)
    Image.fromarray(pixels).save(masks / "0000TP_000000_L.png")
    before.resize((63, 32), Image.Resampling.NEAREST).save(masks / "0000TP_000001_L.png")
    (masks / "0000TP_000002_L.png").rename(masks / "0000TP_000002_P.png")
    found = doctor.examine(tmp_path).findings
    for kind, name in (
        ("colour-outside", "LabeledApproved_full/0000TP_000000_L.png"),
        ("size-mismatch", "LabeledApproved_full/0000TP_000001_L.png"),
        ("missing-mask", "LabeledApproved_full/0000TP_000002_L.png"),
    ):
        assert found.names(kind) == [name]


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
    assert sick.ids["overlap_by_id"] in lists["val"] and sick.ids["overlap_by_id"] not in lists["train"]
    assert sick.ids["overlap_by_content"] not in lists["train"]
    assert lists["train"].count(sick.ids["repeated_id"]) == 1
    with pytest.raises(ValueError, match="expected an empty or absent folder"):
        write_fixed(doctor.examine(target), target)


TURNED = ("exif", "exif_with_a_mask_of_what_is_stored")
WRONG_MASKS = ("mask_in_colours", "mask_with_exif", "mask_with_alpha", "renumbered", "grey", "black_palette")
PHOTOS = ("cmyk", "sixteen_bit_grey", "sixteen_bit_colours", "alpha", "animated", "wrong_ending")


@pytest.mark.parametrize("fault", WRONG_MASKS + PHOTOS + TURNED)
def test_masks_get_their_numbers_back_and_photographs_become_rgb_and_upright(fault, mended, sick, healthy):
    id, whole = sick.ids[fault], data.VOC(healthy, "trainval").read(sick.ids[fault])
    np.testing.assert_array_equal(images.read_mask(mended[0] / f"masks/{id}.png"), whole.label)
    with Image.open(mended[0] / f"images/{id}{'.jpg' if fault in WRONG_MASKS else '.png'}") as image:
        pixels = np.asarray(image.convert("RGB"))
        assert image.mode == ("L" if fault == "sixteen_bit_grey" else "RGB") and not image.getexif()
    np.testing.assert_array_equal(pixels, images.read_image(sick.folder / f"JPEGImages/{id}.jpg"))
    assert fault not in TURNED or np.abs(pixels - whole.image.astype(int)).mean() < 20  # JPEG once more


UNUSABLE = (
    *(
        "missing_image",
        "missing_mask",
        "empty_file",
        "no_image",
        "web_page",
        "truncated_image",
        "truncated_mask",
        "bomb",
        "size",
    ),
    *("mask_in_foreign_colours", "label_outside", "resized_smoothly", "jpeg_mask"),
)


def test_what_cannot_be_mended_is_left_out_and_named(mended, sick):
    target, lists, left_out = mended
    ids = {sick.ids[fault] for fault in UNUSABLE}
    assert ids <= left_out.keys() and all(ids.isdisjoint(listed) for listed in lists.values())
    assert not [path for path in target.rglob("*.*") if path.stem in ids]


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_counts_names_and_more(sick, capsys):
    assert run("data", "doctor", sick.folder) == 1
    out = capsys.readouterr().out
    for text in ("PASCAL VOC, 7 classes", "error missing-image (", "and 1 more", "void", "warning unlisted (1)"):
        assert text in out
    assert run("data", "doctor", sick.folder, "--all") == 1
    everything = capsys.readouterr().out
    assert all(name in everything for pairs in sick.expected.values() for _, name in pairs)


def test_the_command_draws_mends_and_is_silent_about_health(healthy, tmp_path, capsys):
    picture, target = tmp_path / "classes.png", tmp_path / "new"
    assert run("data", "doctor", healthy, "--picture", picture, "--fix", target) == 0
    out = capsys.readouterr().out
    assert "no errors, 0 warnings" in out and "error " not in out
    with Image.open(picture) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in labels.voc_palette()[:6]:  # a bar and the class's places in a mask
        assert (pixels == colour).all(axis=1).sum() > 300
    assert run("data", "doctor", target) == 0


@pytest.mark.parametrize(
    "place, options, told",
    [
        ("nowhere", [], "no such folder"),
        ("full", [], "found file.txt"),
        ("full/file.txt", [], "unpack the archive first"),
        ("own", ["--fix", "full"], "expected an empty or absent folder"),
        ("own", ["--picture", "x.txt"], "PNG"),
    ],
)
def test_wrong_use_ends_in_one_line_and_2(place, options, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own(tmp_path / "own")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file.txt").write_text("mine")
    assert run("data", "doctor", place, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn: ")]
    assert told in line and bytes_of(tmp_path / "full") == {"file.txt": b"mine"}


@pytest.mark.slow
@pytest.mark.skipif("MINIFCN_VOC" not in os.environ, reason="MINIFCN_VOC names no VOCdevkit folder")
def test_the_real_voc_images_are_well():
    found = doctor.examine(Path(os.environ["MINIFCN_VOC"]))
    assert {split: len(ids) for split, ids in found.lists.items()} == {"train": 437, "trainval": 637, "val": 200}
    assert formats(found) == {("JPEG RGB", "PNG P")} and set(found.findings) == {"unseen-class"}
    assert [name for name, told in found.findings["unseen-class"] if told == "nowhere"] == ["aeroplane", "train"]
    assert (found.mask_counts["train"][8], found.mask_counts["val"][15]) == (131, 49)  # cats, and people to test on
    assert (found.pixels[255], found.pixels.sum()) == (6820976, 114936017)


def test_nuclei_are_well_but_for_what_is_planted(tmp_path):
    root = write_nuclei(tmp_path / "bowl", count=len(NUCLEI_FAULTS) + 6)
    well = doctor.examine(root)
    assert not well.findings and len(well.files) == len(NUCLEI_FAULTS) + 6
    pixels = sum(np.bincount(sample.label.ravel(), minlength=256) for sample in data.Nuclei(root, "trainval"))
    np.testing.assert_array_equal(well.pixels, pixels)
    assert run("data", "doctor", root, "--picture", tmp_path / "classes.png") == 0
    planted = dict(zip(well.lists["train"], NUCLEI_FAULTS.values(), strict=False))
    for id, (spoil, *_) in planted.items():
        spoil(root / "stage1_train" / id)
    found = found_in(doctor.examine(root))
    for id, (_, kind, told) in planted.items():
        assert found.pop((kind, f"{id}/masks")).startswith(told)
    assert not found
    with pytest.raises(ValueError, match="nothing was written; a copy would lose which object is which"):
        write_fixed(doctor.examine(root), tmp_path / "new")


def test_objects_in_json_are_well_but_for_what_is_planted(tmp_path):
    root = write_coco(tmp_path / "own", count=len(COCO_FAULTS) + 3)
    well = doctor.examine(root)
    assert not well.findings and len(well.files) == len(COCO_FAULTS) + 3
    pixels = sum(np.bincount(sample.label.ravel(), minlength=256) for sample in data.Coco(root, "trainval"))
    np.testing.assert_array_equal(well.pixels, pixels)
    assert run("data", "doctor", root, "--picture", tmp_path / "classes.png") == 0
    content = json.loads((root / "annotations.json").read_text())
    for i, (change, *_) in enumerate(COCO_FAULTS.values()):
        content["annotations"][4 * i].update(change)  # four objects in each image
    (root / "annotations.json").write_text(json.dumps(content))
    found = {
        (kind, name, detail) for kind, entries in doctor.examine(root).findings.items() for name, detail in entries
    }
    for i, (_, kind, told) in enumerate(COCO_FAULTS.values()):
        name = "annotations.json" + (f", {i}.png" if kind != "stray-annotation" else "")
        (one,) = [entry for entry in found if entry[:2] == (kind, name) and str(4 * i + 1) in entry[2]]
        assert told in one[2]
        found.remove(one)
    assert not found
    assert run("data", "doctor", root) == 1
    with pytest.raises(ValueError, match="nothing was written; a copy would lose which object is which"):
        write_fixed(doctor.examine(root), tmp_path / "new")


def details(root):
    """[(kind, name, detail)] of all findings about objects."""
    about = ("objects-differ", "outside-image", "empty-object")
    return [
        (kind, *entry) for kind, entries in doctor.examine(root).findings.items() if kind in about for entry in entries
    ]


def test_boxes_beside_masks_are_well_but_for_what_is_planted(tmp_path):
    good = [["cow", [2, 2, 6, 6], 0, 0]]
    boxes = {**dict.fromkeys(["a", "b"], good), **{name: fault[0] for name, fault in BOX_FAULTS.items()}}
    write_voc_with_boxes(tmp_path / "VOC2012", boxes)
    found = {name: (kind, detail) for kind, name, detail in details(tmp_path)}
    assert found.keys() == {f"SegmentationClass/{name}.png" for name in BOX_FAULTS}
    for name, (_, kind, told) in BOX_FAULTS.items():
        assert found[f"SegmentationClass/{name}.png"][0] == kind
        assert found[f"SegmentationClass/{name}.png"][1].startswith(told)
    (tmp_path / "VOC2012/boxes.json").write_text("[]")
    ((kind, name, detail),) = details(tmp_path)
    assert (kind, name) == ("objects-differ", "boxes.json") and detail.startswith("expected {id")


def test_pictures_of_objects_are_well_but_for_what_is_planted(tmp_path):
    root = tmp_path / "VOC2012"
    write_voc_with_boxes(root, dict.fromkeys("abcde"))
    (root / "boxes.json").unlink()
    assert not details(tmp_path)
    numbers, mixed = COW // 10, COW.copy()
    mixed[2:4, 2:8] = 13
    (root / "SegmentationObject").mkdir()
    for id, drawn in (("a", numbers), ("b", 3 * numbers), ("c", numbers), ("d", numbers[1:])):  # none of e
        images.write_mask(root / f"SegmentationObject/{id}.png", drawn)
    images.write_mask(root / "SegmentationClass/c.png", mixed)
    assert sorted(details(tmp_path)) == [
        ("empty-object", "SegmentationClass/b.png", "object 1"),
        ("empty-object", "SegmentationClass/b.png", "object 2"),
        ("objects-differ", "SegmentationClass/c.png", "object 1 has several classes: pixels 24 of cow, 12 of horse"),
        (
            "objects-differ",
            "SegmentationClass/d.png",
            "SegmentationObject/d.png: expected objects of the mask's size 16x12, got 16x11",
        ),
    ]


def test_objects_of_cityscapes_that_are_not_of_the_labels(tmp_path):
    id = next(iter(write_cityscapes(tmp_path)))
    mask = next(tmp_path.rglob(f"{id}_gtFine_labelIds.png"))
    assert not details(tmp_path)
    ids = images.read_mask(mask).astype(np.uint16)
    Image.fromarray(ids).save(mask.with_name(f"{id}_gtFine_instanceIds.png"))
    assert not details(tmp_path)
    Image.fromarray(np.where(ids == ids[0, 0], 25000, ids).astype(np.uint16)).save(
        mask.with_name(f"{id}_gtFine_instanceIds.png")
    )
    ((kind, name, detail),) = details(tmp_path)
    assert (kind, name) == ("objects-differ", mask.relative_to(tmp_path).as_posix()) and "other labels in" in detail
