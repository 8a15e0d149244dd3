"""Cityscapes and own data are read as they say they are; what they are is seen by what is in the folder."""

import json
import os
import shutil
from functools import partial
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from planted_faults import png
from small_datasets import (
    COLOURS,
    NUCLEI,
    ORIGINAL,
    SEGNET,
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

from minifcn import data
from minifcn.data import doctor, images, labels
from minifcn.data.doctor import fix
from minifcn.data.sets import cityscapes, folder
from minifcn.data.sets.description import EXAMPLE, DescriptionError, read_description
from minifcn.errors import InputError, MissingFileError

# --- Cityscapes ------------------------------------------------------------------------------------------------------


def test_the_official_table():
    """Written out a second time, from the table's published form: which id is which train id."""
    ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    table, palette = data.Cityscapes.table, data.Cityscapes.palette
    assert cityscapes.NUM_LABEL_IDS == 34 and len(data.CITYSCAPES_CLASSES) == len(ids)
    assert table.tolist() == [ids.index(id) if id in ids else 255 for id in range(256)]
    assert [data.CITYSCAPES_CLASSES[i] for i in (0, 11, 13, 18)] == ["road", "person", "car", "bicycle"]
    colours = [[128, 64, 128], [220, 20, 60], [0, 0, 142], [119, 11, 32], [0, 0, 0]]
    assert palette[[0, 11, 13, 18, 255]].tolist() == colours
    assert len(np.unique(palette[:19], axis=0)) == 19


def test_cityscapes_reads_train_ids(tmp_path):
    written = write_cityscapes(tmp_path)
    train = data.Cityscapes(tmp_path, "train")
    assert train.ids == ["bonntrain_000001_000019", "ulmtrain_000001_000019"]
    for image, label, id in train:
        assert image.shape == (32, 48, 3) and label.dtype == np.uint8
        np.testing.assert_array_equal(label, train.table[written[id]])
    assert {255, 0, 2, 13, 18} == set(np.unique([sample.label for sample in train]).tolist())
    assert data.Cityscapes(tmp_path, "val", limit=1).ids == ["bonnval_000001_000019"]
    chosen = data.Cityscapes(str(tmp_path), "val", ids=["ulmval_000001_000019"])
    assert chosen[0].id == "ulmval_000001_000019"


def test_an_id_in_two_splits_is_read_from_its_own(tmp_path):
    write_cityscapes(tmp_path, cities=("ulm",))
    for path in tmp_path.rglob("ulmval*.png"):
        path.rename(path.with_name(path.name.replace("ulmval", "ulmtrain")))
    for split in ("train", "val"):
        dataset, name = data.Cityscapes(tmp_path, split), f"{split}/ulm/ulmtrain_000001_000019"
        assert dataset.image_name(dataset.ids[0]) == f"leftImg8bit/{name}_leftImg8bit.png"
        assert dataset.mask_name(dataset.ids[0]) == f"gtFine/{name}_gtFine_labelIds.png"


def test_coarse_labels_serve_where_there_are_no_fine_ones(tmp_path):
    written = write_cityscapes(tmp_path, splits=("train", "train_extra"))
    (tmp_path / "gtCoarse").mkdir()
    (tmp_path / "gtFine/train_extra").rename(tmp_path / "gtCoarse/train_extra")
    for path in (tmp_path / "gtCoarse").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    for split in ("train", "train_extra"):
        for _, label, id in data.Cityscapes(tmp_path, split):
            np.testing.assert_array_equal(label, data.Cityscapes.table[written[id]])
    assert not doctor.examine(tmp_path).findings.errors  # which opens train


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_split_without_labels_is_said_to_have_no_scores(tmp_path, capsys):
    write_cityscapes(tmp_path, splits=("train", "test"))
    for path in (tmp_path / "gtFine/test").rglob("*.png"):
        Image.new("L", Image.open(path).size, 3).save(path)
    out = tmp_path / "run"
    assert run("train", "--data", tmp_path, "--val-split", "test", "--out", out, *SMALL) == 0
    (evaluated,) = [line for line in (out / "metrics.jsonl").read_text().splitlines() if "evaluated" in line]
    assert json.loads(evaluated, parse_constant=pytest.fail)["scores"]["mean_iou"] is None
    best, last = (np.load(out / f"{name}.npz") for name in ("best", "checkpoint"))
    assert all(np.array_equal(best[key], last[key]) for key in best if key.startswith("weights/"))
    assert run("evaluate", "--weights", out / "best.npz", "--data", tmp_path, "--split", "test") == 0
    assert "no pixel of split test is labelled" in capsys.readouterr().err


def test_what_is_missing_in_cityscapes_is_named(tmp_path):
    write_cityscapes(tmp_path, splits=("train",))
    (tmp_path / "leftImg8bit/empty").mkdir()
    path = next((tmp_path / "gtFine").rglob("*labelIds.png"))
    Image.fromarray(np.full((32, 48), 34, np.uint8)).save(path)
    for split, ids, told in (
        ("val", None, r"leftImg8bit/val: no such split list; there are: empty, train"),
        ("empty", None, "leftImg8bit/empty: expected images for this split, found none"),
        ("train", ["rome_1_2"], r"rome_1_2_leftImg8bit\.png: no image for id 'rome_1_2'"),
        ("train", None, rf"{path.name}: expected labels 0\.\.33, got 34 \(1536 pixels\)"),
    ):
        with pytest.raises(ValueError, match=told):
            list(data.Cityscapes(tmp_path, split, ids))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name}: no mask"):
        data.Cityscapes(tmp_path, "train")


@pytest.mark.skipif("MINIFCN_CITYSCAPES" not in os.environ, reason="MINIFCN_CITYSCAPES names no Cityscapes folder")
def test_the_real_samples_and_how_far_their_train_id_files_are_off():
    """labelTrainIds files in these samples differ from the table on about half a percent of the pixels: not the truth."""
    root = Path(os.environ["MINIFCN_CITYSCAPES"])
    train, found = data.Cityscapes(root, "train"), doctor.examine(root)
    assert found.lists == {"train": train.ids} and len(train) == 3
    assert set(found.findings) == {"no-val-list", "looks-black", "unseen-class"}
    assert found.findings.names("unseen-class") == ["bus", "train", "motorcycle"]
    assert (found.pixels[255], found.pixels.sum()) == (530982, 3 * 2048 * 1024)
    for image, label, id in train:
        assert image.shape == (1024, 2048, 3) and label.shape == (1024, 2048)
        mask = str(train.folder / train.mask_name(id))
        drawn = np.asarray(Image.open(mask.replace("labelIds", "color")).convert("RGB"))
        np.testing.assert_array_equal(train.palette[label][label != 255], drawn[label != 255])
        differing = (images.read_mask(mask.replace("labelIds", "labelTrainIds")) != label).mean()
        assert 0.003 < differing < 0.007


# --- Own data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["colours", "ids"])
def test_own_data_in_numbers_and_in_colours(tmp_path, kind):
    own = data.Folder(write_own(tmp_path / "own", kind=kind), "trainval")
    assert own.ids == list("012345") and own.classes == tuple(COLOURS) and own.num_classes == 3
    assert own.palette[:3].tolist() == [list(colour) for colour in COLOURS.values()]
    for image, label, _ in own:
        np.testing.assert_array_equal(label, np.kron([[0, 1], [2, 0]], np.ones((12, 15))))
        assert image.shape == (24, 30, 3)


def test_numbers_of_ones_own_and_of_void(tmp_path):
    """A class takes several numbers, void another than 255; numbers that no entry names are refused."""
    root = write_own(tmp_path / "own", kind="ids", void="void_numbers = [0, 9]")
    text, numbers = (root / "dataset.toml").read_text(), iter(["[1]", "[2, 7]", "[40]"])
    lines = [line + f"\nnumbers = {next(numbers)}" if "colour =" in line else line for line in text.splitlines()]
    (root / "dataset.toml").write_text("\n".join(lines))
    images.write_mask(root / "masks/0.png", np.kron(np.uint8([[0, 1, 2], [7, 40, 9]]), np.ones((12, 10), np.uint8)))
    label = data.Folder(root, ids=["0"])[0].label
    np.testing.assert_array_equal(label[::12, ::10], [[255, 0, 1], [1, 2, 255]])
    for wrong in (3, 255):
        Image.fromarray(np.full((24, 30), wrong, np.uint8)).save(root / "masks/1.png")
        with pytest.raises(InputError, match=rf"1\.png: expected labels 0..2, 7, 9 or 40, got {wrong} \(720 pixels\)"):
            data.Folder(root, ids=["1"])[0]
    diagnosis = doctor.examine(root)
    assert diagnosis.findings.names("label-outside") == ["masks/1.png"]
    fix.write_fixed(diagnosis, tmp_path / "mended")
    np.testing.assert_array_equal(data.Folder(tmp_path / "mended", ids=["0"])[0].label, label)


def write_turned(root, ending, *, both=False, kind="ids", size=(24, 30)):
    """Own data whose masks lie on their objects as the pixels are stored, one for each orientation; both: masks have EXIF data, too."""
    label = np.zeros(size, np.uint8)
    label[:8, :10] = 1
    colours = np.array(list(COLOURS.values()), np.uint8)
    write_own(root, kind=kind, count=0)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[images.ORIENTATION] = turn
        Image.fromarray(np.stack([label * 200 + np.uint8(turn)] * 3, -1)).save(
            root / f"images/{turn}{ending}", exif=exif
        )
        mask = Image.fromarray(label if kind == "ids" else colours[label])
        mask.save(root / f"masks/{turn}{ending.replace('jpg', 'png')}", **({"exif": exif} if both else {}))
    return root


def all_on_their_objects(dataset):
    return all((sample.image[sample.label == 1] > 100).all() and (sample.label == 1).sum() == 80 for sample in dataset)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_exif_can_be_left_alone(kind, ending, tmp_path):
    root = write_turned(tmp_path / "own", ending, kind=kind, size=(30, 30))
    assert not all_on_their_objects(data.Folder(root, "trainval"))
    assert all_on_their_objects(data.open_dataset(root, "trainval", exif=False))
    found = doctor.examine(root, exif=False)
    fix.write_fixed(found, tmp_path / "mended")
    assert "exif-rotated" not in found.findings and all_on_their_objects(data.Folder(tmp_path / "mended", "trainval"))
    (root / "dataset.toml").write_text("exif = false\n" + (root / "dataset.toml").read_text())
    assert all_on_their_objects(data.open_dataset(root, "trainval"))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_exif_data_of_masks_turn_them_with_their_images(kind, ending, tmp_path):
    root = write_turned(tmp_path / "own", ending, kind=kind, both=True)
    for exif in (True, False):
        assert all_on_their_objects(data.open_dataset(root, "trainval", exif=exif))
        assert not doctor.examine(root, exif=exif).findings.errors


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_masks_that_fit_their_images_as_stored_are_mended(ending, tmp_path):
    found = doctor.examine(write_turned(tmp_path / "own", ending))
    assert "exif-rotated" in found.findings
    fix.write_fixed(found, tmp_path / "mended")
    mended = data.Folder(tmp_path / "mended", "trainval")
    turned = [sample for sample in mended if sample.id in ("5", "6", "7", "8")]  # those whose sides change places
    assert len(turned) == 4 and all_on_their_objects(turned)


def test_a_mask_that_fits_its_image_as_stored_is_told_what_to_do(tmp_path, capsys):
    root, out = write_turned(tmp_path / "own", ".png"), tmp_path / "run"
    told = (
        r"masks/6.png: expected .* 24x30, got 30x24, that of the image before .*: --no-exif, or exif = false in dataset"
    )
    with pytest.raises(InputError, match=told):
        data.Folder(root, ids=["6"])[0]
    images.write_mask(root / "masks/6.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="24x30, got 9x9$"):
        data.Folder(root, ids=["6"])[0]
    write_turned(tmp_path / "other", ".png")
    assert run("train", "--data", tmp_path / "other", "--out", out, *SMALL, "--no-exif") == 0
    assert run("evaluate", "--weights", out / "best.npz", "--data", tmp_path / "other", "--no-exif") == 0
    assert run("evaluate", "--weights", out / "best.npz", "--data", tmp_path / "other", "--split", "trainval") == 2
    for options, size in (([], (24, 30)), (["--no-exif"], (30, 24))):
        command = [
            "predict",
            "--weights",
            out / "best.npz",
            "--out",
            tmp_path / "masks",
            *options,
            root / "images/6.png",
        ]
        assert run(*command) == 0 and Image.open(tmp_path / "masks/6.png").size == size
    assert (
        run("data", "doctor", tmp_path / "other") == 1 and run("data", "doctor", tmp_path / "other", "--no-exif") == 0
    )


def test_a_path_of_windows_in_a_description_says_how_to_write_it(tmp_path):
    root = write_own(tmp_path / "own")
    (root / "dataset.toml").write_text('images = "my\\photos"\n' + (root / "dataset.toml").read_text())
    with pytest.raises(DescriptionError, match=r"expected TOML .*; write folders with / in place of \\$"):
        data.Folder(root)


def test_black_void_beside_numbers_needs_its_numbers(tmp_path):
    """It may be meant as number 0, or as the colour that void is shown in; which of the two, void_numbers says."""
    root = write_own(tmp_path / "own", kind="ids", void="void = [0, 0, 0]")
    with pytest.raises(InputError, match=r"void: a grey colour.* void_numbers = \[0\] or \[255\]"):
        data.Folder(root)
    shown = write_own(tmp_path / "shown", kind="ids", void="void = [0, 0, 0]\nvoid_numbers = [255]")
    assert np.unique(data.Folder(shown, ids=["0"])[0].label).tolist() == [0, 1, 2]


def test_several_colours_of_one_class(tmp_path):
    root = write_own(tmp_path / "own")
    (root / "dataset.toml").write_text((root / "dataset.toml").read_text() + "more_colours = [[1, 2, 3], [4, 5, 6]]\n")
    pixels = np.array(Image.open(root / "masks/0.png"))
    pixels[0, :5], pixels[1, 0] = (1, 2, 3), (4, 5, 6)
    Image.fromarray(pixels).save(root / "masks/0.png")
    label, before = data.Folder(root, ids=["0", "1"])
    expected = before.label.copy()
    expected[0, :5], expected[1, 0] = 2, 2
    np.testing.assert_array_equal(label.label, expected)
    assert not doctor.examine(root).findings.errors


@pytest.mark.parametrize("void", ["", "void = [224, 224, 192]"])
def test_void_has_a_colour_of_its_own_and_colours_of_no_class_are_named(tmp_path, void):
    root = write_own(tmp_path / "own", void=void)
    pixels = np.array(Image.open(root / "masks/0.png"))
    pixels[0, :4] = (224, 224, 192)  # void's usual colour, which a dataset.toml need not list
    Image.fromarray(pixels).save(root / "masks/0.png")
    own = data.Folder(root, ids=["0"])
    if void:
        assert (own[0].label[0, :4] == 255).all() and (own[0].label[1:] < 3).all()
        assert own.palette[255].tolist() == [224, 224, 192]
    else:
        with pytest.raises(ValueError, match=r"0\.png: expected the colours of .* got \[224, 224, 192\] \(4 pix"):
            own[0]


def test_colours_of_16_bits_are_those_of_8_or_refused(tmp_path):
    root = write_own(tmp_path, count=1)
    (mask,) = (root / "masks").iterdir()
    for value, told in (
        (65535, r"of the classes only, got \[255, 255, 255\]"),
        (1, "grey samples of 16 bits, such as 1; if they are class numbers"),
    ):
        Image.fromarray(np.full(np.array(Image.open(mask)).shape[:2], value, np.uint16)).save(mask)
        with pytest.raises(InputError, match=told):
            data.open_dataset(root, "trainval")[0]


def test_match_colours_against_all_comparisons():
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (256, 3), np.uint8)
    near = [palette[i][[1, 0, 2]] for i in range(4)] + [palette[i] ^ np.eye(3, dtype=np.uint8)[i % 3] for i in range(4)]
    image = rng.choice(np.concatenate([palette[[0, 1, 2, 3, 4, 255]], near]), (9, 7))
    for void in (False, True):
        numbers = np.array([0, 1, 2, 3, 255] if void else [0, 1, 2, 3], np.uint8)
        equal = (image[:, :, None] == palette[numbers]).all(axis=3)
        found, known = labels.match_colours(image, palette[numbers], numbers)
        np.testing.assert_array_equal(known, equal.any(axis=2))
        np.testing.assert_array_equal(found[known], numbers[equal.argmax(axis=2)][known])


def test_shares_are_stable_and_complete():
    ids = [f"image{i}" for i in range(100)]
    splits = folder.random_split(ids, 0.2)
    assert len(splits["val"]) == 20 and splits["train"] + splits["val"] != ids
    assert sorted(splits["train"] + splits["val"]) == sorted(ids) and splits["trainval"] == ids
    assert set(folder.random_split(ids[::-1], 0.2)["val"]) == set(splits["val"])
    more = folder.random_split([*ids, "one more"], 0.2)
    assert len(set(more["val"]) ^ set(splits["val"])) <= 2
    assert len(folder.random_split(["a", "b"], 0.01)["val"]) == 1


def test_lists_and_folders_within_folders(tmp_path):
    root = write_own(tmp_path / "own", splits='[splits]\ntrain = "some.txt"\nother = "some.txt"')
    for place, name in (("images", "with space.PNG"), ("masks", "with space.png")):  # in whatever case
        (root / place / "deep").mkdir()
        (root / place / "0.png").rename(root / place / "deep" / name)
    for place, name in (("images", "1.jpg"), ("masks", "1.png")):
        (root / f"far {place}").mkdir()
        shutil.copy(root / place / "1.png", root / f"far {place}" / name)
        (root / place / "far").symlink_to(f"../far {place}")
    (root / "some.txt").write_bytes(b"\xef\xbb\xbfdeep/with space\r\n\r\n1\r\n")
    assert [sample.id for sample in data.Folder(root)] == ["deep/with space", "1"]
    assert data.Folder(root, ids=["far/1"])[0].image.shape == (24, 30, 3)
    for content, split, told in (
        ("1", "val", r"dataset\.toml, splits\.val: no such split list; there are: train, other"),
        ("../masks/1", "train", r"expected ids of files in this folder, got '\.\./masks/1'"),
        ("9", "train", "images/9.jpg: no image for id '9'"),
        ("", "train", r"splits\.train: expected images for this split, found none"),
    ):
        (root / "some.txt").write_text(f"{content}\n")
        with pytest.raises(ValueError, match=told):
            data.Folder(root, split)


@pytest.mark.parametrize("name", ["{}_mask.png", "{}.png.png", "{}_L.png", "{}-mask.png"])
@pytest.mark.parametrize("place", ["masks", "images"])
def test_masks_are_found_by_the_names_that_tools_give_them(name, place, tmp_path):
    write_own(tmp_path, kind="ids")
    for path in list((tmp_path / "masks").iterdir()):
        path.rename(tmp_path / place / name.format(path.stem))
    description = tmp_path / "dataset.toml"
    description.write_text(f'masks = "{place}"\n' + description.read_text(encoding="utf-8"), encoding="utf-8")
    read = data.Folder(tmp_path, "trainval")
    assert read.ids == [*"012345"] and all(set(np.unique(sample.label)) == {0, 1, 2} for sample in read)
    assert not doctor.examine(tmp_path).findings.errors


def test_an_image_is_not_its_own_mask(tmp_path):
    root = write_own(tmp_path / "own", kind="ids")
    for path in list((root / "masks").iterdir()):
        path.rename(root / "images" / f"{path.stem}_mask.png")
    (root / "dataset.toml").write_text('masks = "images/"\n' + (root / "dataset.toml").read_text())
    write_roboflow(tmp_path / "robo")
    for name, mask in (("own", "images/1_mask.png"), ("robo", "train/x1_jpg.rf.ab_mask.png")):
        (tmp_path / name / mask).unlink()
        with pytest.raises(MissingFileError, match=f"{mask}: no mask"):
            data.open_dataset(tmp_path / name, "trainval" if name == "own" else "train")
        (missing,) = doctor.examine(tmp_path / name).findings.names("missing-mask")
        assert Path(missing) in (Path(mask), Path("images", mask))


def test_folders_behind_links_are_searched_but_none_within_itself(tmp_path):
    write_own(tmp_path / "own", kind="ids")
    write_own(tmp_path / "far", kind="ids")
    for place in ("images", "masks"):
        (tmp_path / "own" / place / "link").symlink_to(f"../../far/{place}")
        (tmp_path / "far" / place / "back").symlink_to(".")
        (tmp_path / "far" / place / "Thumbs.db").touch()
    names = [*"012345"]
    assert data.Folder(tmp_path / "own", "trainval").ids == [*names, *(f"link/{name}" for name in names)]
    found = doctor.examine(tmp_path / "own").findings
    assert found.names("stray-file") == [f"{place}/link/Thumbs.db" for place in ("images", "masks")]


@pytest.mark.parametrize(("images_in", "masks_in"), [("images", "images/masks"), (".", "masks")])
def test_masks_in_a_folder_within_the_images_are_no_images(images_in, masks_in, tmp_path):
    write_own(tmp_path, kind="ids")
    (tmp_path / "masks").rename(tmp_path / "kept")
    (tmp_path / "kept").rename(tmp_path / masks_in)
    description = tmp_path / "dataset.toml"
    description.write_text(f'images = "{images_in}"\nmasks = "{masks_in}"\n' + description.read_text())
    if images_in == ".":
        for path in (tmp_path / "images").iterdir():
            path.rename(tmp_path / path.name)
    read = data.Folder(tmp_path, "trainval")
    assert read.ids == [*"012345"] and all(set(np.unique(sample.label)) == {0, 1, 2} for sample in read)
    assert not doctor.examine(tmp_path).findings.errors


def test_hidden_files_are_no_samples_and_accents_are_one_letter(tmp_path):
    write_own(tmp_path, kind="ids", count=3)
    for place in ("images", "masks"):
        (tmp_path / place / ".ipynb_checkpoints").mkdir()
        for copy in (".ipynb_checkpoints/0-checkpoint.png", "._0.png"):
            shutil.copy(tmp_path / place / "0.png", tmp_path / place / copy)
    (tmp_path / "images/1.png").rename(tmp_path / "images" / (normalize("NFD", "Blätter") + ".png"))
    (tmp_path / "masks/1.png").rename(tmp_path / "masks" / (normalize("NFC", "Blätter") + ".png"))
    assert data.Folder(tmp_path, "trainval").ids == ["0", "2", normalize("NFC", "Blätter")]


# --- VOC's layout as tools leave it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["leaf 1", "leaf"], ["leaf 1", "leaf"]),
        (["leaf 1", "other  1", "leaf -1"], ["leaf 1", "other"]),
        (["leaf 1  -1", "leaf 1 1"], ["leaf 1"]),
        (["/JPEGImages/leaf.jpg /Aug/leaf.png"], ["leaf"]),
        (["/JPEGImages/leaf 1.jpg /Aug/leaf.png", "JPEGImages/leaf.jpg\tAug/leaf.png"], ["leaf 1", "leaf"]),
        (["JPEGImages/leaf 1.jpg"], None),
    ],
)
def test_lists_of_ids_with_spaces_with_numbers_and_of_paths(lines, expected, tmp_path):
    write_voc(tmp_path, ["leaf 1", "leaf", "other"], train=lines)
    (tmp_path / "Aug").mkdir()
    images.write_mask(tmp_path / "Aug/leaf.png", np.full((5, 7), 9, np.uint8))
    if expected is None:
        with pytest.raises(InputError, match="no image for id 'JPEGImages/leaf 1.jpg'"):
            data.VOC(tmp_path)
        return
    read = data.VOC(tmp_path)
    assert read.ids == expected
    numbers = {"leaf 1": 9 if "1.jpg" in lines[0] else 0, "leaf": 9 if "Aug" in lines[0] else 1, "other": 2}
    assert [sample.label.max() for sample in read] == [numbers[id] for id in expected]


@pytest.mark.parametrize("ending", [".png", ".JPG", ".jpeg"])
def test_images_of_other_endings_and_no_lists(ending, tmp_path):
    write_voc(tmp_path, [*"abcdef"])
    for path in list((tmp_path / "JPEGImages").iterdir()):
        path.rename(path.with_suffix(ending))
    splits = [data.VOC(tmp_path, split).ids for split in ("train", "val")]
    assert len(splits[1]) == 1 and sorted(splits[0] + splits[1]) == [*"abcdef"]
    assert len(data.VOC(tmp_path, "trainval")[0].image) == 5


def test_class_names_of_labelme(tmp_path):
    write_voc(tmp_path, ["a"], train=["a"])
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\nleaf\n")
    assert data.VOC(tmp_path).classes == ("_background_", "leaf")


def test_the_labelmap_of_cvat(tmp_path):
    write_voc(tmp_path, ["a"], train=["a"])
    colours = np.array([[0, 0, 0], [250, 50, 83]], np.uint8)
    label = np.arange(35).reshape(5, 7) % 2
    Image.fromarray(colours[label]).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nground:0,0,0::\nleaf:250,50,83::\n")
    read = data.VOC(tmp_path)
    assert read.classes == ("ground", "leaf") and read.palette[1].tolist() == [250, 50, 83]
    np.testing.assert_array_equal(read[0].label, label)
    assert not doctor.examine(tmp_path).findings.errors
    (tmp_path / "labelmap.txt").write_text("ground:0,0,0::\nleaf:250,50,83::\nstem:250,50,83::\n")
    with pytest.raises(InputError, match="a name and a colour of its own for every label, got 'stem'"):
        data.VOC(tmp_path)
    for wrong in ("leaf:300,0,0::", f"leaf:{'9' * 5000},0,0::", "leaf", "# nothing"):
        (tmp_path / "labelmap.txt").write_text(wrong + "\n")
        with pytest.raises(InputError, match="labelmap.txt: expected lines like leaf:250,50,83::"):
            data.VOC(tmp_path)


LABEL = np.arange(35, dtype=np.uint8).reshape(5, 7) % 2


def test_an_older_labelme2voc_has_its_masks_in_a_folder_of_their_own(tmp_path):
    write_voc(tmp_path, [*"abcdef"])
    shutil.rmtree(tmp_path / "ImageSets")
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassPNG")
    (tmp_path / "SegmentationClass").mkdir()
    for id in "abcdef":
        np.save(tmp_path / f"SegmentationClass/{id}.npy", LABEL)
        Image.fromarray(LABEL).save(tmp_path / f"SegmentationClassPNG/{id}.png")
    (tmp_path / "class_names.txt").write_text("_background_\nleaf\n")
    for sample in data.open_dataset(tmp_path, "trainval"):
        np.testing.assert_array_equal(sample.label, LABEL)
    assert not doctor.examine(tmp_path).findings.errors


@pytest.mark.parametrize(
    ("place", "lists", "found"),
    [
        ("Main", {"train": "ab", "val": "c"}, {"train": "ab", "val": "c"}),
        ("Segmentation", {"Train": "ab", "Validation": "c", "Test": "d"}, {"train": "ab", "val": "c", "test": "d"}),
        ("Segmentation", {"default": "abcd"}, {"default": "abcd", "trainval": "abcd"}),
        ("Segmentation", {"Train": "abcd"}, {"trainval": "abcd"}),
    ],
)
def test_lists_as_labelling_tools_call_them(place, lists, found, tmp_path):
    write_voc(tmp_path, [*"abcde"], **lists)
    (tmp_path / "ImageSets/Segmentation").rename(tmp_path / "lists")
    (tmp_path / "lists").rename(tmp_path / "ImageSets" / place)
    for split, ids in found.items():
        assert data.open_dataset(tmp_path, split).ids == [*ids]
    parts = [data.open_dataset(tmp_path, split).ids for split in ("train", "val")]
    assert len(lists) > 1 or sorted(parts[0] + parts[1]) == [*"abcd"]


def test_hidden_files_are_no_lists(tmp_path):
    write_voc(tmp_path, [*"abc"], train="a", val="bc")
    (tmp_path / "ImageSets/Segmentation").rename(tmp_path / "ImageSets/Main")
    (tmp_path / "ImageSets/Segmentation").mkdir()
    (tmp_path / "ImageSets/Segmentation/.DS_Store").write_bytes(b"\0")
    (tmp_path / "ImageSets/Main/._train.txt").write_bytes(b"\xff")
    (tmp_path / "ImageSets/Main/README.txt").write_text("lists of my data\n")
    assert [data.VOC(tmp_path, split).ids for split in ("train", "val")] == [["a"], ["b", "c"]]
    assert not doctor.examine(tmp_path).findings.errors


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", [True, False])
def test_names_with_accents_in_vocs_layout_are_found_in_either_form(listed, form, tmp_path):
    names = [normalize(form, name) for name in ("Blätter", "Bäume", "Äste")]
    write_voc(tmp_path, names, **({"train": [normalize("NFC", n) for n in names], "val": names} if listed else {}))
    assert len(data.VOC(tmp_path, "train" if listed else "trainval")) == 3
    assert [sample.image.shape for sample in data.VOC(tmp_path, "val")] == [(5, 7, 3)] * (3 if listed else 1)


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("kind", ["own", "camvid", "nuclei", "objects", "boxes"])
def test_names_with_accents_in_other_layouts_are_found_in_either_form(kind, stored, listed, tmp_path):
    name, root = normalize(stored, "Blätter"), tmp_path / kind
    if kind == "own":
        write_own(root, kind="ids", splits='[splits]\ntrain = "train.txt"', count=1)
        paths = {"images/0.png": f"{name}.png", "masks/0.png": f"{name}_mask.png"}
    elif kind == "camvid":
        write_camvid(root)
        paths = {
            f"{place}/0000TP_000000{ending}": name + ending
            for place, ending in (("train", ".jpg"), ("trainannot", ".png"))
        }
    elif kind == "nuclei":
        write_nuclei(root, count=1)
        folder = f"stage1_train/{0:064x}"
        paths = {f"{folder}/images/{0:064x}.png": f"{name}.png", folder: name}
    else:
        write_voc(root, [name])
        (root / "SegmentationObject").mkdir()
        shutil.copy(root / f"SegmentationClass/{name}.png", root / f"SegmentationObject/{name}.png")
        if kind == "boxes":
            shutil.rmtree(root / "SegmentationObject")
            (root / "boxes.json").write_text(json.dumps({name: []}))
        paths = {}
    for path, new in paths.items():
        (root / path).rename((root / path).with_name(new))
    (root / "train.txt").write_text(f"{normalize(listed, 'Blätter')}\n")
    read = data.open_dataset(root, str(root / "train.txt"), instances=kind not in ("own", "camvid"))
    assert read.ids == [normalize("NFC", "Blätter")] and read[0].label.shape == read[0].image.shape[:2]


def test_names_that_are_no_utf8(tmp_path):
    root = write_own(tmp_path / "own", kind="ids")
    for place in ("images", "masks"):
        os.rename(root / place / "1.png", os.fsencode(root / place) + b"/B\xe4ume.png")
    assert len([*data.Folder(root, "trainval")]) == 6
    diagnosis = doctor.examine(root)
    assert diagnosis.findings.names("name-coding") == ["images/B\udce4ume.png"]
    assert run("data", "doctor", root, "--fix", tmp_path / "mended") == 0
    assert "Bäume" in data.Folder(tmp_path / "mended", "train").ids + data.Folder(tmp_path / "mended", "val").ids


def test_names_that_no_list_can_hold_become_others_each_its_own(tmp_path):
    root, names = (
        write_own(tmp_path / "own", kind="ids"),
        [b"B\xe4ume", "Bäume".encode(), b" leaf ", b"leaf", b"leaf_2"],
    )
    for place in ("images", "masks"):
        for i, name in enumerate(names):
            os.rename(root / place / f"{i}.png", os.fsencode(root / place) + b"/" + name + b".png")
    diagnosis = doctor.examine(root)
    assert diagnosis.findings.names("name-coding") == ["images/ leaf .png", "images/B\udce4ume.png"]
    fix.write_fixed(diagnosis, tmp_path / "mended")
    mended = data.Folder(tmp_path / "mended", "trainval")
    assert sorted(mended.ids) == ["5", "Bäume", "Bäume_2", "leaf", "leaf_2", "leaf_3"]
    read = {sample.id: sample.image for sample in mended}
    originals = {"Bäume_2": "B\udce4ume", "Bäume": "Bäume", "leaf_3": " leaf ", "leaf": "leaf", "leaf_2": "leaf_2"}
    for name, original in originals.items():
        np.testing.assert_array_equal(read[name], images.read_image(root / f"images/{original}.png"))


def test_the_export_of_roboflow(tmp_path):
    root = write_roboflow(tmp_path / "robo")
    for split, folder_ in (("train", "train"), ("val", "valid"), ("valid", "valid"), ("test", "test")):
        read = data.open_dataset(root, split)
        assert read.ids == [f"{folder_}/x{j}_jpg.rf.ab" for j in range(5)]
        assert read.classes == ("background", "leaf", "stone wall")
        for sample in read:
            np.testing.assert_array_equal(sample.label, np.kron([[0, 1], [2, 0]], np.ones((12, 15))))
    assert not doctor.examine(root).findings.errors and "stray-file" not in doctor.examine(root).findings
    write_roboflow(tmp_path / "one", ["train"])
    assert [len(data.open_dataset(tmp_path / "one", split)) for split in ("train", "val")] == [4, 1]
    Image.new("L", (30, 24), 2).save(root / "train/x0_jpg.rf.ab_mask.png")
    with pytest.raises(InputError, match=r"x0_jpg.rf.ab_mask.png: expected labels 0..1, 7 or 255, got 2"):
        data.open_dataset(root)[0]
    for text, told in (
        (
            "Pixel Value, Class\n300, leaf\n",
            "_classes.csv: expected a title, then a number below 256 and a name a line",
        ),
        (f"Pixel Value, Class\n{'9' * 5000}, leaf\n", "_classes.csv: expected a title, then a number below 256"),
        ("Pixel Value, Class\n1, leaf\n1, tree\n", "_classes.csv: expected a title, then .*got '1, tree'"),
        ("Pixel Value, Class\n", "_classes.csv: expected 1 to 255 classes, got 0"),
        ("Pixel Value, Class\n0, leaf\n", "expected the classes of train/_classes.csv, got others"),
    ):
        (root / "valid/_classes.csv").write_text(text)
        with pytest.raises(InputError, match=told):
            data.open_dataset(root)
        assert doctor.examine(root).findings.names("classes-file") == ["_classes.csv"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("SegmentationClass/a.png", "put these into JPEGImages"),
        ("task-1-annotation-2-by-3-tag-leaf-0.png", "docs/data.md has the lines that join them"),
        ("a.json", "labelme2voc.py"),
    ],
)
def test_what_tools_leave_that_is_no_data_set_says_what_to_do(name, told, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=told):
        data.open_dataset(tmp_path)


def test_two_images_of_one_id_and_too_few(tmp_path):
    root = write_own(tmp_path / "own", count=1)
    with pytest.raises(ValueError, match="expected images for this split, found none"):
        data.Folder(root)
    Image.new("RGB", (3, 3)).save(root / "images/0.jpg")
    with pytest.raises(ValueError, match=r"0\.jpg: expected one file for its id, got also images/0\.png"):
        data.Folder(root, "val")


def test_the_example_is_complete_and_stands_where_people_look(tmp_path, capsys):
    path = write_own(tmp_path / "own") / "dataset.toml"
    path.write_text(EXAMPLE)
    found = read_description(path)
    assert [entry["name"] for entry in found["classes"]] == ["background", "leaf"] and found["splits"] == {"val": 0.2}
    assert set(found) == {"images", "masks", "mask_kind", "void", "void_numbers", "exif", "splits", "classes"}
    with pytest.raises(SystemExit):
        run("data", "doctor", "--help")
    printed = capsys.readouterr().out
    for line in EXAMPLE.splitlines():
        assert line in printed and line in data.Folder.__doc__


COLOUR = "expected a colour of three numbers 0..255"
A = '{name = "a", colour = [1, 2, 3]}'
WRONG = [  # an entry of dataset.toml (or all of it, where it has to do with the classes), and the key that is named with what was expected
    ("# \xff\xfe", "expected TOML in UTF-8"),
    ("x = ", "expected TOML"),
    ("colour = 1", "colour: expected only images, masks"),
    ("images = 3", "images: expected the name of a folder, got 3"),
    ('images = ""', "images: expected the name of a folder"),
    ('masks = "nowhere"', "masks: expected the name of a folder, got 'nowhere'"),
    ('masks = "a\\u0000b"', "masks: expected the name of a folder"),
    ('mask_kind = "rgb"', "mask_kind: expected 'ids' or 'colours', got 'rgb'"),
    ("void = [1, 2]", f"void: {COLOUR}, got [1, 2]"),
    ("void = [1, 2, true]", f"void: {COLOUR}"),
    ("void = [10, 20, 30]", "classes[0].colour: expected another colour than that of void, got [10, 20, 30]"),
    (
        "void = [7, 7, 7]",
        "void: a grey colour, which marks no pixel in masks of numbers; name the numbers of void, too: ",
    ),
    ("splits = 3", "splits: expected a table of lists, or val = a share of the images, got 3"),
    ("splits = {val = 1.5}", "splits.val: expected a list's file name, or a share above 0 and below 1"),
    ("splits = {val = nan}", "splits.val: expected a list's file name, or a share"),
    ("splits = {train = 0.5}", "splits.train: expected the name of a file with one id a line, got 0.5"),
    ('splits = {train = "no.txt"}', "splits.train: expected the name of a file with one id a line, got 'no.txt'"),
    ('splits = {val = 0.2, test = "dataset.toml"}', "splits.val: expected a list's file name, or a share"),
    ("", "classes: expected 1 to 255 tables [[classes]], got nothing"),
    ("classes = []", "classes: expected 1 to 255 tables"),
    ("classes = [1]", "classes[0]: expected a table with name and colour, got 1"),
    ("classes = [{colour = [1, 2, 3]}]", "classes[0].name: expected a name, got nothing"),
    ('classes = [{name = "a", colour = [1, 2, 300]}]', f"classes[0].colour: {COLOUR}"),
    ('classes = [{name = "a", color = [1, 2, 3]}]', "classes[0].color: expected only name, colour"),
    ('exif = "no"', "exif: expected true or false, got 'no'"),
    ("void_numbers = 255", "void_numbers: expected a list of numbers 0..255, got 255"),
    ("void_numbers = [256]", "void_numbers: expected a list of numbers 0..255, got [256]"),
    ("void_numbers = [0]", "classes[0].numbers: expected other numbers than those of void_numbers, got 0"),
    (
        'classes = [{name = "a", colour = [1, 2, 3], numbers = [true]}]',
        "classes[0].numbers: expected a list of numbers",
    ),
    ('classes = [{name = "a", colour = [1, 2, 3], more_colours = [[1, 2]]}]', f"classes[0].more_colours[0]: {COLOUR}"),
    (
        'classes = [{name = "a", colour = [1, 2, 3], more_colours = 1}]',
        "classes[0].more_colours: expected a list of colours",
    ),
    (f"classes = [{A}, {A}]", "classes[1].name: expected another name than that of classes[0], got 'a'"),
]


@pytest.mark.parametrize(("entry", "message"), WRONG, ids=[repr(entry) for entry, _ in WRONG])
def test_a_wrong_entry_is_reported_in_one_line_with_file_and_key(tmp_path, entry, message):
    root = write_own(tmp_path / "own", kind="ids")
    path = root / "dataset.toml"
    whole = message.startswith("classes") and "void" not in entry
    rest = "" if whole else path.read_text().removeprefix('mask_kind = "ids"')
    path.write_bytes(f"{entry}\n{rest}".encode("latin-1"))
    with pytest.raises(DescriptionError) as error:
        data.Folder(root)
    problem, *more = error.value.problems
    assert problem.startswith(message) and str(error.value) == f"{path}: {problem}" and "\n" not in problem
    assert not more or "color = " in entry or A in entry


# --- CamVid ----------------------------------------------------------------------------------------------------------

KAGGLE = {"train": "train_labels", "val": "val_labels", "test": "test_labels"}


@pytest.mark.parametrize("folders", [SEGNET, KAGGLE])
@pytest.mark.parametrize("lists", [(), ("train", "val")])
def test_camvid_in_folders_by_split(tmp_path, folders, lists):
    """A list names four of the five frames, as PNG, which they are not."""
    labels = write_camvid(tmp_path, folders, lists)
    assert set(np.unique(labels)) == {*range(11), 255}
    for i, split in enumerate(folders):
        read = data.open_dataset(tmp_path, split)
        assert read.ids == [f"000{i}TP_{j:06}" for j in range(4 if split in lists else 5)]
        assert read.classes == data.CAMVID_CLASSES and read.num_classes == 11
        for j, sample in enumerate(read):
            np.testing.assert_array_equal(sample.label, labels)
            frame = images.read_image(tmp_path / split / f"000{i}TP_{j:06}.jpg")
            np.testing.assert_array_equal(sample.image, frame)
    assert type(read) is data.CamVid
    (tmp_path / "some.txt").write_text("0002TP_000003\nval/0001TP_000001.png\n")
    assert data.CamVid(tmp_path, str(tmp_path / "some.txt")).ids == ["0002TP_000003", "0001TP_000001"]


@pytest.mark.parametrize("folders", [ORIGINAL, {"images": "labels"}])
def test_the_original_camvid_becomes_eleven_classes(tmp_path, folders):
    labels = write_camvid(tmp_path, folders, suffix=".png")
    train, val = (data.open_dataset(tmp_path, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 1) and not set(train.ids) & set(val.ids)
    assert train.palette[[4, 10, 255]].tolist() == [[60, 40, 222], [0, 128, 192], [0, 0, 0]]  # SegNet's, in pictures
    for sample in (*train, *val):
        np.testing.assert_array_equal(sample.label, labels)
    for split, ids in (
        ("train", "0000TP_000001"),
        ("test", "/SegNet/CamVid/test/0000TP_000003.png /a/0000TP_000003.png"),
    ):
        (tmp_path / f"{split}.txt").write_text(ids)
    assert [data.open_dataset(tmp_path, split).ids for split in ("train", "test")] == [
        ["0000TP_000001"],
        ["0000TP_000003"],
    ]
    mask = tmp_path / next(iter(folders.values())) / "0000TP_000001_L.png"
    Image.new("RGB", (64, 32), (1, 2, 3)).save(mask)
    with pytest.raises(InputError, match=rf"{mask.name}: expected the colours of the classes only, got \[1, 2, 3\]"):
        data.open_dataset(tmp_path)[0]


def test_frames_of_camvid_whose_names_have_spaces_and_dots(tmp_path):
    write_camvid(tmp_path)
    names = ["leaf", "leaf 1", "leaf 2", "a.b", "c"]
    for place in ("train", "trainannot"):
        for path, name in zip(sorted((tmp_path / place).iterdir()), names, strict=True):
            path.rename(path.with_name(name + path.suffix))
    for line in ("{}", "{}.png", "x/{}.png  annot/{}.png", "{}.JPG\t{}_L.png"):
        (tmp_path / "train.txt").write_text("".join(line.format(name, name) + "\n" for name in names))
        assert data.CamVid(tmp_path).ids == names


def test_a_frame_in_two_splits_of_camvid_is_read_from_its_own(tmp_path):
    write_camvid(tmp_path)
    for place, ending, array in (("test", ".jpg", np.zeros((32, 64, 3))), ("testannot", ".png", np.zeros((32, 64)))):
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / place / f"0000TP_000000{ending}")
    assert not data.CamVid(tmp_path, "test", ["0000TP_000000"])[0].label.any()
    assert data.CamVid(tmp_path, "train", ["0000TP_000000"])[0].label.any()


def test_what_is_wrong_in_camvid_is_named(tmp_path):
    write_camvid(tmp_path, lists=("train", "val"))
    (tmp_path / "val.txt").write_text("0009TP_000000.png")
    Image.new("L", (64, 32), 12).save(tmp_path / "trainannot/0000TP_000000.png")
    for split, told in (
        ("night", "night.txt: no such split list; there are: test, train, val"),
        ("val", r"val/0009TP_000000\.png: no image for id '0009TP_000000' of split 'val'"),
        ("train", r"trainannot/0000TP_000000\.png: expected labels 0\.\.11, got 12 \(2048 pixels\)"),
    ):
        with pytest.raises(InputError, match=told):
            list(data.open_dataset(tmp_path, split))
    write_own(tmp_path / "own")
    (tmp_path / "own/masks").rename(tmp_path / "own/labels")  # whose names are not x_L.png
    with pytest.raises(FileNotFoundError, match="own: expected train with trainannot or .*, found neither"):
        data.CamVid(tmp_path / "own")
    (tmp_path / "testannot/0002TP_000004.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"testannot/0002TP_000004\.png: no mask"):
        data.open_dataset(tmp_path, "test")


@pytest.mark.slow
@pytest.mark.skipif("MINIFCN_CAMVID" not in os.environ, reason="MINIFCN_CAMVID names no CamVid folder")
def test_the_frames_of_camvid():
    """The split of SegNet's authors; shares of void and of some classes as counted over all 701 masks by other means."""
    root = Path(os.environ["MINIFCN_CAMVID"])
    found = doctor.examine(root)
    assert {split: len(ids) for split, ids in found.lists.items()} == {"train": 367, "val": 101, "test": 233}
    assert set(found.findings) == {"looks-black"} and found.pixels.sum() == 701 * 480 * 360
    shares = found.pixels / found.pixels.sum()
    np.testing.assert_allclose(shares[[0, 3, 10, 255]], [0.1581, 0.2932, 0.0054, 0.0359], atol=5e-5)
    sample = data.open_dataset(root, "val", limit=1)[0]
    assert sample.image.shape == (360, 480, 3) and sample.label.shape == (360, 480)


# --- Any of them -----------------------------------------------------------------------------------------------------


def test_a_folder_is_known_by_what_is_in_it(tmp_path):
    write_cityscapes(tmp_path / "city")
    write_own(tmp_path / "own")
    data.write_toyvoc(tmp_path / "toy", train=2, val=1, size=32)
    kinds = {"city": data.Cityscapes, "own": data.Folder, "toy": data.VOC, "toy/VOC2012": data.VOC}
    for name, kind in kinds.items():
        assert type(data.open_dataset(tmp_path / name, "train")) is kind
    assert len(data.open_dataset(tmp_path / "toy", limit=1)) == 1
    assert data.open_dataset(tmp_path / "own", ids=["3"])[0].id == "3"
    (tmp_path / "toy/VOC2012").rename(tmp_path / "toy/VOC2007")
    assert data.open_dataset(tmp_path / "toy").folder.name == "VOC2007"


def test_what_is_none_of_them_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such folder or tar file; expected a data set"):
        data.open_dataset(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"expected VOC<year>.*leftImg8bit.*dataset\.toml.*; found nothing"):
        data.open_dataset(tmp_path)
    for i in range(7):
        (tmp_path / f"file{i}").touch()
    with pytest.raises(ValueError, match=r"found file0, file1, file2, file3, file4, …$"):
        data.open_dataset(tmp_path)


def recoloured(path):
    """Another picture in a mask's place."""
    with Image.open(path) as mask:
        other = np.roll(np.array(mask), 1)
    Image.fromarray(other).save(path)


def replaced(path, old, new):
    """Another number in the middle of a text, whose length stays."""
    text = path.read_text()
    middle = text.index(old, len(text) // 2)
    path.write_text(text[:middle] + new + text[middle + len(old) :])


def write_voc_with(root, **files):
    write_voc(root, ["a", "b"], train=["a", "b"])
    for place, content in files.items():
        (root / place).mkdir()
        for id in ("a", "b"):
            if content is None:
                images.write_mask(root / place / f"{id}.png", LABEL)
            else:
                (root / place / f"{id}.xml").write_text(content)


def write_city_objects(root):
    write_cityscapes(root)
    for path in (root / "gtFine").rglob("*_labelIds.png"):
        shutil.copy(path, path.with_name(path.name.replace("labelIds", "instanceIds")))


XML = "<annotation>" + 9 * "<object><name>cow</name><xmin>1</xmin></object>" + "</annotation>"
BOXES = json.dumps({"a": [["cow", [1, 1, 2, 2], 0, 0]] * 200, "b": []})
OBJECTS = [  # how a data set is written, and a change to what its objects are made of
    (write_nuclei, lambda root: recoloured(root / f"stage1_train/{0:064x}/masks/1.png")),
    (
        partial(write_coco, count=60),
        lambda root: replaced(root / "annotations.json", '"category_id": 9', '"category_id": 3'),
    ),
    (partial(write_voc_with, SegmentationObject=None), lambda root: recoloured(root / "SegmentationObject/b.png")),
    (partial(write_voc_with, Annotations=XML), lambda root: replaced(root / "Annotations/b.xml", "1", "2")),
    (
        lambda root: (write_voc_with(root), (root / "boxes.json").write_text(BOXES)),
        lambda root: replaced(root / "boxes.json", "2", "3"),
    ),
    (write_city_objects, lambda root: recoloured(next((root / "gtFine/train").rglob("*_instanceIds.png")))),
]


@pytest.mark.parametrize(("write", "change"), OBJECTS)
def test_a_data_set_of_other_objects_has_another_fingerprint(tmp_path, write, change):
    write(tmp_path)
    before = data.open_dataset(tmp_path, instances=True).fingerprint()
    assert data.open_dataset(tmp_path, instances=True).fingerprint() == before
    change(tmp_path)
    assert data.open_dataset(tmp_path, instances=True).fingerprint() != before


@pytest.mark.parametrize("write", [write_cityscapes, write_own, write_camvid])
def test_a_network_learns_from_any_and_draws_in_its_colours(tmp_path, write):
    root, best = tmp_path / "data", tmp_path / "run/best.npz"
    write(root)
    dataset = data.open_dataset(root)
    assert run("train", "--data", root, "--out", tmp_path / "run", *SMALL, "--variant", "32s") == 0
    assert run("evaluate", "--weights", best, "--data", root, "--tile", "128") == 0
    assert run("convert", best, tmp_path / "best.safetensors") == 0
    photo = root / dataset.image_name(dataset.ids[0])
    for weights in (best, tmp_path / "best.safetensors"):
        out = tmp_path / f"out {weights.suffix}"
        assert run("predict", "--weights", weights, "--out", out, photo) == 0
        with Image.open(out / f"{photo.stem}.png") as mask:
            assert mask.mode == "P"
            used = np.unique(np.asarray(mask))
            colours = np.array(mask.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(colours[used], dataset.palette[used])


@pytest.mark.parametrize(
    "wrong", [None, 3, [[1, 2, 3]], [[0, 0, 256]] * 256, [[0, 0, 0.5]] * 256, [[1], [2, 3]], [[[]]]]
)
def test_a_palette_is_256_colours(wrong):
    with pytest.raises(ValueError, match=r"^weights\.npz: expected a palette"):
        labels.palette_from(wrong, "weights.npz")
    assert labels.palette_from(labels.voc_palette().tolist(), "x").tolist() == labels.voc_palette().tolist()


# --- Nuclei ----------------------------------------------------------------------------------------------------------


def test_nuclei_have_their_numbers_and_labels_that_keep_them_apart(tmp_path):
    root = write_nuclei(tmp_path / "bowl")
    apart = np.uint8(NUCLEI > 0)
    apart[:16, 17:19] = 0  # the two columns where objects 2 and 3 touch
    splits = [data.open_dataset(place, split) for place in (root, root / "stage1_train") for split in ("train", "val")]
    assert [len(read) for read in splits] == [5, 1, 5, 1]
    for sample in (sample for read in splits for sample in read):
        assert sample.image.shape == (24, 24, 3) and sample.instances.dtype == np.uint16
        np.testing.assert_array_equal(sample.instances, NUCLEI)
        np.testing.assert_array_equal(sample.label, apart)
    (tmp_path / "few.txt").write_text(f"{2:064x}\n")
    assert data.Nuclei(root, str(tmp_path / "few.txt")).ids == [f"{2:064x}"]
    assert splits[0].channels == 3


def test_masks_of_nuclei_that_do_not_fit_together(tmp_path):
    root = write_nuclei(tmp_path / "bowl", count=1)
    masks = root / f"stage1_train/{0:064x}/masks"

    def told(drawn, value=255, dtype=np.uint8):
        Image.fromarray((value * drawn).astype(dtype)).save(masks / "4.png")
        with pytest.raises(InputError) as error:
            data.Nuclei(root, "trainval")[0]
        return str(error.value)

    drawn = np.zeros(NUCLEI.shape, bool)
    drawn[14:20, :6] = True
    assert told(drawn).startswith(f"{masks / '4.png'}: overlaps 1.png (pixels in both: 12)")
    assert "expected a mask of the image's size 24x24, got 24x10" in told(drawn[:10])
    assert "4.png: overlaps 1.png" in told(drawn, 1, np.uint16)  # of 16 bits, as stored
    drawn[:16] = False
    assert "4.png: expected one object in one value on black, got 2 values" in told(
        drawn, 255 - np.indices((24, 24))[1] // 4
    )
    (masks / "4.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"4\.png: not a readable") as error:
        data.Nuclei(root, "trainval")[0]
    assert str(error.value).count("4.png") == 1
    shutil.rmtree(masks)
    with pytest.raises(FileNotFoundError, match="masks: no mask for id"):
        data.Nuclei(root, "trainval")


def test_a_pixel_that_two_masks_share_at_the_rim_is_of_the_first(tmp_path):
    root = write_nuclei(tmp_path / "bowl", count=1)
    masks = root / f"stage1_train/{0:064x}/masks"
    second, third = np.zeros((2, *NUCLEI.shape), bool)
    second[:, 12:18] = third[:, 18:] = third[0, 17] = True  # 144 pixels each, and one of them in both
    for number, drawn in ((2, second), (3, third)):
        Image.fromarray(np.uint8(255) * drawn).save(masks / f"{number}.png")
    instances = data.Nuclei(root, "trainval")[0].instances
    np.testing.assert_array_equal(instances[:, 12:], np.where(second, 2, 3)[:, 12:])
    third[1, 17] = True
    Image.fromarray(np.uint8(255) * third).save(masks / "3.png")
    with pytest.raises(InputError, match=r"3.png: overlaps 2.png \(pixels in both: 2\)"):
        data.Nuclei(root, "trainval")[0]


@pytest.mark.skipif(
    "MINIFCN_NUCLEI" not in os.environ, reason="MINIFCN_NUCLEI names no folder of the Data Science Bowl"
)
def test_the_real_nuclei():
    """The first twenty, and the three images in which two masks share a pixel or two."""
    root = os.environ["MINIFCN_NUCLEI"]
    train, val = (data.open_dataset(root, split) for split in ("train", "val"))
    assert (len(train), len(val), train.channels) == (284, 50, 3)
    sharing = [id for id in (*train.ids, *val.ids) if id[:6] in ("0a7d30", "72e8c4", "f26f4c")]
    assert len(sharing) == 3
    for sample in (*data.Nuclei(root, ids=sharing), *data.Nuclei(root, limit=20)):
        assert sample.image.shape == (256, 256, 3)
        assert len(np.unique(sample.instances)) == 1 + len(train.object_names(sample.id))


# --- Images and masks without a description --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "places", "classes", "label"),
    [
        ((0, 255, 255, 0), ("image", "label"), ("black", "white"), [[0, 1], [1, 0]]),
        ((0, 2, 1, 255), ("images", "masks"), ("class 0", "class 1", "class 2"), [[0, 2], [1, 255]]),
    ],
)
def test_masks_say_their_classes_where_no_description_does(tmp_path, values, places, classes, label):
    root = write_plain(tmp_path / "plain", values, places)
    Image.new("L", (30, 24)).save(root / places[1] / "0.png")  # all black, which either may have
    (root / "README.txt").write_text("of a microscope")
    train, val = (data.open_dataset(root, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (5, 1) and train.classes == classes and train.channels == 1
    for sample in (*train, *val):
        expected = np.kron(label, np.ones((12, 15))) * (sample.id != "0")
        np.testing.assert_array_equal(sample.label, expected)
    (root / "val.txt").write_text("3\n")
    (root / "train.txt").write_text("0\n1\n")
    assert [data.open_dataset(root, split).ids for split in ("train", "val")] == [["0", "1"], ["3"]]
    Image.new("L", (30, 24), 7).save(root / places[1] / "1.png")
    with pytest.raises(InputError, match=rf"{places[1]}.1.png: expected labels 0|dataset.toml: no such file"):
        data.open_dataset(root)[1]


@pytest.mark.parametrize(
    ("values", "told"), [((0, 128), r"got \[?0"), ((0,), "got 0"), ((1, 2), "got 1"), ((0, 1, 255, 3), "got 0")]
)
def test_other_masks_need_a_description(tmp_path, values, told):
    root = write_plain(tmp_path / "plain", values)
    with pytest.raises(InputError, match=f"dataset.toml: no such file, and without one label has to hold .*{told}"):
        data.open_dataset(root)
    assert doctor.examine(root).findings.names("description") == ["dataset.toml"]


def test_masks_in_lossy_formats_are_none(tmp_path):
    root = write_plain(tmp_path / "plain")
    for path in (root / "label").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(InputError, match=r"got no \.png, \.bmp, \.tif, \.tiff; write dataset\.toml"):
        data.open_dataset(root)


def test_masks_in_colours_without_a_description(tmp_path):
    root = write_plain(tmp_path / "plain")
    for path in (root / "label").iterdir():
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(
        InputError, match=r"got label.0.png: expected a palette PNG or a grey one.*write a dataset.toml"
    ):
        data.open_dataset(root)


@pytest.mark.skipif("MINIFCN_ISBI" not in os.environ, reason="MINIFCN_ISBI names no folder of the ISBI 2012 challenge")
def test_the_real_membranes():
    train, val = (data.open_dataset(os.environ["MINIFCN_ISBI"], split) for split in ("train", "val"))
    assert (len(train), len(val), train.channels, train.classes) == (24, 6, 1, ("black", "white"))
    assert 0.7 < np.mean([sample.label for sample in train]) < 0.85  # white: the inside of cells


# --- What is said before training ------------------------------------------------------------------------------------


def test_masks_of_0_and_255_are_refused_before_the_first_step(tmp_path, capsys):
    root = write_own(tmp_path / "own", kind="ids")
    for path in (root / "masks").iterdir():
        Image.fromarray(np.where(images.read_mask(path) > 0, 255, 0).astype(np.uint8)).save(path)
    assert run("train", "--data", root, "--out", tmp_path / "run", *SMALL) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"{root / 'masks'}: masks of 0 and 255 only, and 255 is void: in dataset.toml set mask_kind = " in told
    assert not (tmp_path / "run").exists()
    last = data.open_dataset(root).ids[-1]  # one mask that shows a class: 255 is meant
    images.write_mask(root / f"masks/{last}.png", np.eye(24, 30).astype(np.uint8))
    data.open_dataset(root).check_for_training()


@pytest.mark.parametrize("change", ['mask_kind = "colours"', "void_numbers = []"])
def test_masks_of_0_and_255_that_are_described_are_trained_on(tmp_path, change):
    root = write_plain(tmp_path / "own", (0, 255, 0, 0), ("images", "masks"))
    classes = '[[classes]]\nname = "ground"\ncolour = [0, 0, 0]\n[[classes]]\nname = "leaf"\ncolour = [255, 255, 255]\n'
    (root / "dataset.toml").write_text(f"{change}\n{classes}{'numbers = [255]' if 'void' in change else ''}")
    train = data.open_dataset(root)
    train.check_for_training()
    assert np.unique(train[0].label).tolist() == [0, 1]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "RGB", "RGBA", "P", "16-bit RGB"])
def test_channels_follow_the_images_and_16_bits_are_told_once(tmp_path, caplog, mode):
    root = write_plain(tmp_path / "plain")
    for path in (root / "image").iterdir():
        if mode == "16-bit RGB":
            path.write_bytes(png(30, 24, 16, b"".join(b"\0" + bytes(range(180)) for _ in range(24))))
        else:
            Image.new(mode, (30, 24)).save(path)
    read = data.open_dataset(root)
    assert read.channels == (3 if mode in ("RGB", "RGBA", "P", "16-bit RGB") else 1)
    assert all(sample.image.shape == (24, 30, 3) for sample in read)
    read.check_for_training()
    told = [record.getMessage() for record in caplog.records]
    expected = f"{root}: images of more than 8 bits a channel, of which 8 are used"
    assert told == ([expected] if "16" in mode else [])


@pytest.mark.parametrize("count", [8, 9])
def test_masks_of_many_numbers_may_be_of_objects(tmp_path, caplog, count):
    root = write_plain(tmp_path / "plain")
    for path in (root / "label").iterdir():
        Image.fromarray(np.arange(720, dtype=np.uint8).reshape(24, 30) % count).save(path)
    read = data.open_dataset(root)
    read.check_for_training()
    assert len(read.classes) == count
    assert ("the numbers 0 to 8 in masks are taken for classes; where they number objects" in caplog.text) == (
        count == 9
    )


def test_vocs_layout_comes_before_folders_that_others_put_beside_it(tmp_path):
    write_voc(tmp_path / "VOCdevkit/VOC2012", "abc", train="ab")
    write_plain(tmp_path / "VOCdevkit", places=("images", "labels"))
    assert data.open_dataset(tmp_path / "VOCdevkit").ids == ["a", "b"]
