"""SBD, and SBD beside VOC."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_datasets import SIZE, SMALL, lists_there, run, same, tar_of, write_voc

from minifcn import data
from minifcn.training.config import Config
from minifcn.training.run import Run

savemat = pytest.importorskip("scipy.io", reason="SciPy is not installed; SBD's .mat files need it").savemat


def write_sbd(root, labels, **splits):
    """labels: id -> label (H, W)."""
    folder = root / "dataset"
    for name in ("img", "cls"):
        (folder / name).mkdir(parents=True)
    for id, label in labels.items():
        Image.new("RGB", label.shape[::-1], (200, 30, 90)).save(folder / "img" / f"{id}.jpg", quality=100)
        edges = np.empty((2, 1), object)
        edges[:] = 0.0  # as in SBD's files, where they are sparse matrices
        content = {"GTcls": {"Boundaries": edges, "Segmentation": label}}
        savemat(folder / "cls" / f"{id}.mat", content, do_compression=True)
    for split, ids in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return root


LABEL = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 21


@pytest.fixture
def sbd(tmp_path):
    return write_sbd(tmp_path / "benchmark_RELEASE", {"x": LABEL, "y": LABEL[::-1]}, train=["x"], val=["y", "x"])


def test_sbd_reads_images_and_labels(sbd):
    for root in (sbd, sbd / "dataset", sbd.parent, tar_of(sbd, sbd.parent / "sbd.tar", "benchmark_RELEASE")):
        train = data.SBD(root)
        assert (train.ids, train.classes, train.num_classes, train.split) == (["x"], data.VOC_CLASSES, 21, "train")
        image, label, id = train[0]
        assert (image.shape, image.dtype, label.dtype, id) == ((*SIZE, 3), np.uint8, np.uint8, "x")
        np.testing.assert_array_equal(label, LABEL)
        assert data.SBD(root, "val").ids == ["y", "x"]
        assert train.folder.name == "dataset" and train.mask_name("x") == "cls/x.mat"


def test_a_line_of_pixels_stays_a_picture(tmp_path):
    root = write_sbd(tmp_path, {"row": LABEL[:1], "column": LABEL[:, :1]}, train=["row", "column"])
    assert [sample.label.shape for sample in data.SBD(root)] == [(1, 7), (5, 1)]


SHAPE = r"expected GTcls\.Segmentation \(H, W\) of integers, got "
NO_STRUCT = r"expected a \.mat file with GTcls\.Segmentation, got \w+"


@pytest.mark.parametrize(
    "content, told",
    [
        (LABEL[:, :4], "expected a mask of the image's size 7x5, got 4x5"),
        (np.full(SIZE, 21, np.uint8), r"expected labels 0\.\.20 or 255, got 21 \(35 pixels\)"),
        (np.full(SIZE, 300, np.uint16), "expected labels .* got 300"),
        (np.full(SIZE, -1, np.int8), "expected labels .* got -1"),
        (np.full(SIZE, 1.0), rf"{SHAPE}\(5, 7\) float64"),
        (np.zeros((5, 7, 2), np.uint8), rf"{SHAPE}\(5, 7, 2\)"),
        (np.zeros((0, 0), np.uint8), rf"{SHAPE}\(0, 0\)"),
        (b"", NO_STRUCT),
        (b"no .mat file" * 40, NO_STRUCT),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), NO_STRUCT),
        ("half", NO_STRUCT),
        ("another struct", NO_STRUCT),
    ],
)
def test_labels_that_are_none_are_named(sbd, content, told):
    path = sbd / "dataset/cls/x.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        savemat(path, {"GTcls": {"Segmentation": content}})
    elif content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        savemat(path, {"GTinst": {"Segmentation": LABEL}})
    with pytest.raises(ValueError, match=rf"x\.mat: {told}"):
        data.SBD(sbd)[0]


def test_what_sbd_lacks_is_named(sbd):
    for missing, told in (("cls/x.mat", "no mask"), ("img/x.jpg", "no image"), ("train.txt", "no such split")):
        (sbd / "dataset" / missing).unlink()
        with pytest.raises(FileNotFoundError, match=rf"dataset.{missing}: {told}"):
            data.SBD(sbd)
    with pytest.raises(FileNotFoundError, match="expected SBD's folder dataset"):
        data.SBD(sbd / "dataset/img")


def test_without_scipy_the_command_to_install_it_is_told(sbd, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(FileNotFoundError, match=r"scipy: not installed; .*pip install scipy"):
        data.SBD(sbd)


@pytest.fixture
def both(tmp_path):
    """VOC with a, b to train on and c, d to validate on; SBD with some of both, and more."""
    write_voc(tmp_path / "VOC2012", ["a", "b", "c", "d"], train=["a", "b"], val=["c", "d"])
    labels = dict.fromkeys("acxyz", np.full((9, 9), 20, np.uint8))
    write_sbd(tmp_path / "sbd", labels, train=["y", "a", "c"], val=["x", "z"])
    return tmp_path


def test_train_aug_is_voc_first_then_what_sbd_adds_and_nothing_of_val(both):
    train, val = data.VOC(both, "train"), data.VOC(both, "val")
    joined = data.train_aug(train, val, both / "sbd")
    assert joined.ids == ["a", "b", "y", "x", "z"]
    joined.check_for_training()
    assert joined.channels == train.channels
    assert (joined.split, joined.classes, joined.num_classes, len(joined)) == ("train_aug", data.VOC_CLASSES, 21, 5)
    assert same(joined[0], train[0])  # VOC's label, which has void, where both have one
    assert [sample.label[0, 0] for sample in joined] == [0, 1, 20, 20, 20]
    for id, source in (("a", train), ("x", data.SBD(both / "sbd", "val"))):
        assert same(joined.read(id), source.read(id))
    train.exif = False
    assert not any(home.exif for home in data.train_aug(train, val, both / "sbd")._home.values())
    assert data.train_aug(train, val, both / "sbd", limit=3).ids == ["a", "b", "y"]
    assert data.train_aug(val, val, both / "sbd").ids == ["c", "d", "y", "a", "x", "z"]  # what was asked for stays


def test_only_sets_of_the_same_classes_are_joined(both):
    (both / "VOC2012/classes.txt").write_text("ground\nthing\n")
    train = data.VOC(both, "train")
    with pytest.raises(ValueError, match=r"VOC2012: expected VOC's 21 classes, got 2"):
        data.train_aug(train, train, both / "sbd")


@pytest.mark.slow
@lists_there
def test_train_aug_of_the_official_lists_is_the_official_list(tmp_path):
    lists = Path(os.environ["MINIFCN_LISTS"])
    ids = {name: (lists / f"{name}.txt").read_text().split() for name in ("train", "val", "train_aug")}
    everything = sorted(set(ids["train_aug"] + ids["val"]))  # SBD labels most of VOC's val as well
    write_voc(tmp_path / "VOC2012", [])
    write_sbd(tmp_path / "sbd", {}, train=everything[::2], val=everything[1::2])
    for place, names in (
        ("VOC2012/JPEGImages/{}.jpg", ids["train"] + ids["val"]),
        ("VOC2012/SegmentationClass/{}.png", ids["train"] + ids["val"]),
        ("sbd/dataset/img/{}.jpg", everything),
        ("sbd/dataset/cls/{}.mat", everything),
    ):
        for name in names:
            (tmp_path / place.format(name)).touch()
    train, val = (data.VOC(tmp_path, lists / f"{name}.txt") for name in ("train", "val"))
    joined = data.train_aug(train, val, tmp_path / "sbd")
    assert len(joined) == 10582 and set(joined.ids) == set(ids["train_aug"])


def test_training_with_sbd_sees_its_images(both, tmp_path, capsys):
    settings = {"data": str(both), "sbd": str(both / "sbd"), "width": 2, "crop": 32, "batch_size": 2, "iterations": 1}
    made = Run(Config.from_dict(settings, "test"), tmp_path / "made")
    assert made.train_data.dataset.ids == ["a", "b", "y", "x", "z"] and made.val_data.dataset.ids == ["c", "d"]
    assert run("train", "--data", both, "--sbd", both / "sbd", "--out", tmp_path / "run", *SMALL) == 0
    assert run("train", "--data", both, "--sbd", both, "--out", tmp_path / "other", *SMALL) == 2
    assert "minifcn: " in capsys.readouterr().err and not (tmp_path / "other").exists()
