"""VOC from a folder and from its tar alike, the years, and lists from elsewhere."""

import io
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_datasets import SIZE, SMALL, lists_there, run, same, tar_of, write_voc

from minifcn import data
from minifcn.data import files

IDS = [f"2007_{i:06d}" for i in range(60)]


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    write_voc(root / "VOC2012", IDS, train=IDS[:50], val=IDS[50:])
    return root


@pytest.fixture(scope="module")
def tar(devkit):
    return tar_of(devkit, devkit.parent / "VOCtrainval_11-May-2012.tar", "VOCdevkit")


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tar_gives_what_the_folder_gives(devkit, tar, split):
    packed, unpacked = data.VOC(tar, split), data.VOC(devkit, split)
    assert packed.ids == unpacked.ids and len(packed) > 9
    assert all(same(a, b) for a, b in zip(packed, unpacked, strict=True))
    name = packed.mask_name(packed.ids[0])
    for voc, root in ((packed, tar), (unpacked, devkit)):
        with voc.files.open(name) as opened:
            assert str(opened.name) in (f"{root}/VOC2012/{name}", f"{root}/VOCdevkit/VOC2012/{name}")
            assert opened.read() == (devkit / "VOC2012" / name).read_bytes()


def open_files():
    return sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None


class SlowToRead(io.BufferedReader):
    """A file in which every other thread gets a turn between seek and read."""

    def __init__(self, path, mode):
        super().__init__(io.FileIO(path))

    def seek(self, *where):
        super().seek(*where)
        time.sleep(0.002)


def test_many_threads_read_from_one_tar(devkit, tar, monkeypatch):
    monkeypatch.setattr(files, "open", SlowToRead, raising=False)
    voc, before = data.VOC(tar), open_files()
    content = [(devkit / f"VOC2012/JPEGImages/{id}.jpg").read_bytes() for id in voc.ids]
    assert len(set(content)) == 50
    start = threading.Barrier(8)

    def read(seed):
        start.wait()
        return all(
            voc.files.open(voc.image_name(voc.ids[i])).read() == content[i]
            for i in np.random.default_rng(seed).permutation(50)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert open_files() == before


def test_a_tar_that_changed_is_named(tar, tmp_path):
    copy = shutil.copy(tar, tmp_path / "copy.tar")
    voc = data.VOC(copy)
    os.truncate(copy, 2000)
    with pytest.raises(ValueError, match=r"copy\.tar.*jpg: expected .* bytes, got .*has the tar changed"):
        voc[40]


def test_a_file_in_a_tar_that_does_not_fit_or_is_not_there_is_named(tmp_path):
    write_voc(tmp_path / "VOC2012", ["a", "b"], train=["a", "b"])
    (tmp_path / "VOC2012/JPEGImages/a.jpg").write_bytes(b"no image")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "VOC2012/SegmentationClass/b.png")
    voc = data.VOC(tar_of(tmp_path / "VOC2012", tmp_path / "a.tar", "VOC2012"))
    with pytest.raises(
        ValueError, match=r"a\.tar.VOC2012.JPEGImages.a\.jpg: not a readable image: the text 'no image'"
    ):
        voc[0]
    with pytest.raises(ValueError, match=r"a\.tar.VOC2012.SegmentationClass.b\.png: expected a palette PNG"):
        voc[1]
    for missing in ("JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/Segmentation/train.txt"):
        (tmp_path / "VOC2012" / missing).rename(tmp_path / "aside")
        path = tar_of(tmp_path / "VOC2012", tmp_path / "b.tar", "VOC2012")
        with pytest.raises(FileNotFoundError, match=rf"b\.tar.VOC2012.{missing}: no "):
            data.VOC(path)
        (tmp_path / "aside").rename(tmp_path / "VOC2012" / missing)


# --- Where VOC<year> may lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["VOCdevkit/VOC2010", "VOC2010", ".", "TrainVal/VOCdevkit/VOC2010"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_year_is_found_where_its_archive_has_it(tmp_path, inner, packed):
    write_voc(tmp_path / "root" / inner, ["a"], train=["a"])
    root = tar_of(tmp_path / "root", tmp_path / "a.tar", ".") if packed else tmp_path / "root"
    assert data.VOC(root, year="2010").ids == data.VOC(root, year=2010).ids == ["a"]
    if inner == ".":
        assert data.VOC(root).ids == ["a"]  # the folder itself was named
    else:
        with pytest.raises(
            FileNotFoundError, match=rf"^{root}: expected VOC2012, found the year 2010; choose it with --year$"
        ):
            data.VOC(root)


def test_several_years_are_reported_and_chosen(tmp_path):
    for path, message in (("absent.tar", "no such folder or tar file"), ("", "expected VOC2012 with JPEGImages")):
        with pytest.raises(FileNotFoundError, match=message):
            data.VOC(tmp_path / path)
    for year in ("2007", "2012"):
        write_voc(tmp_path / f"VOCdevkit/VOC{year}", [f"of{year}"], train=[f"of{year}"])
    (tmp_path / "VOCdevkit/VOC2009").mkdir()  # nothing in it
    assert data.VOC(tmp_path / "VOCdevkit", year="2007").ids == ["of2007"]
    assert data.VOC(tmp_path).ids == ["of2012"]
    with pytest.raises(FileNotFoundError, match=r"expected VOC2009, found the year 2007, 2012; choose it with --year"):
        data.VOC(tmp_path, year="2009")


# --- Lists from elsewhere ------------------------------------------------------------------------------------------


def test_a_split_may_be_the_path_of_a_list(devkit, tar, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{IDS[7]} 1\r\n\r\n{IDS[3]}".encode())
    for root in (devkit, tar):
        assert data.VOC(root, path).ids == data.VOC(root, str(path)).ids == [IDS[7], IDS[3]]


@pytest.mark.parametrize(
    "content, told",
    [
        (b"\n \n", "expected images for this split"),
        (b"\xff\xfea\0", "expected text in UTF-8, got byte 0xff"),
        (None, "no such file"),
        (b"a" * 300, "no image for id"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(devkit, tmp_path, content, told):
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(ValueError, match=told):
        data.VOC(devkit, tmp_path / "mine.txt")


@pytest.mark.parametrize("id", ["../a", "x/../../a", "/etc/a"])
def test_ids_stay_in_the_folder(devkit, tmp_path, id):
    (tmp_path / "mine.txt").write_text(id + "\n")
    with pytest.raises(ValueError, match=rf"VOC2012: expected ids of files in this folder, got '{id}' in .*mine\.txt"):
        data.VOC(devkit, tmp_path / "mine.txt")


def test_a_missing_seg11valid_says_where_to_get_it_and_what_to_do(devkit, tar):
    for root in (devkit, tar):
        message = r"Segmentation/seg11valid\.txt: no such split list; .*736.*https://.*--split path"
        with pytest.raises(FileNotFoundError, match=f"{root}.*{message}"):
            data.VOC(root, "seg11valid")


@lists_there
def test_the_official_lists_read_as_they_are(tmp_path):
    folder = Path(os.environ["MINIFCN_LISTS"])
    counts = {"train": 1464, "val": 1449, "trainval": 2913, "seg11valid": 736}
    ids = {name: (folder / f"{name}.txt").read_text().split() for name in counts}
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / "VOC2012" / name).mkdir(parents=True)
    for id in ids["trainval"]:
        (tmp_path / "VOC2012/JPEGImages" / f"{id}.jpg").touch()
        (tmp_path / "VOC2012/SegmentationClass" / f"{id}.png").touch()
    for name, count in counts.items():
        voc = data.VOC(tmp_path, folder / f"{name}.txt")
        assert voc.ids == ids[name] and len(voc) == count
    assert set(ids["seg11valid"]) <= set(ids["val"])


@pytest.mark.skipif("MINIFCN_VOC" not in os.environ, reason="MINIFCN_VOC names no VOCdevkit folder")
def test_real_voc_reads_from_a_tar(tmp_path):
    root = Path(os.environ["MINIFCN_VOC"])
    path = tar_of(root, tmp_path / "voc.tar", "VOCdevkit")
    for split, count in (("train", 437), ("val", 200)):
        packed, unpacked = data.VOC(path, split), data.VOC(root, split)
        assert packed.ids == unpacked.ids and len(packed) == count
        assert all(same(packed[i], unpacked[i]) for i in range(0, count, 40))


# --- From the command line -----------------------------------------------------------------------------------------


def test_train_and_evaluate_take_a_tar_a_year_and_lists(devkit, tmp_path, capsys):
    (tmp_path / "TrainVal").mkdir()
    path = tar_of(devkit / "VOC2012", tmp_path / "VOC.tar", "TrainVal/VOCdevkit/VOC2011")
    few = tmp_path / "few.txt"
    few.write_text(f"{IDS[1]}\n{IDS[2]}\n")
    options, out = ["--data", path, "--year", "2011"], tmp_path / "run"
    assert run("train", *options, "--out", out, "--split", few, "--val-split", few, *SMALL) == 0
    weights = ["--weights", out / "best.npz"]
    assert run("evaluate", *weights, *options, "--limit", "2") == 0
    assert run("evaluate", *weights, *options, "--split", few) == 0
    assert capsys.readouterr().out.count("pixel acc.") == 3
    assert run("evaluate", *weights, "--data", path) == 2
    assert f"minifcn: {path}: expected VOC2012, found the year 2011; choose it with --year" in capsys.readouterr().err
    assert run("train", "--resume", out) == 0
