"""Images larger than memory, and images shared out among processes: what comes out is what one process makes of each at once."""

import os
import queue
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import mpi
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from minifcn import cli, data, inference, models, weights
from minifcn.cli import predict
from minifcn.data import images, large
from minifcn.distributed import MPIWorld
from minifcn.errors import InputError
from minifcn.files import atomic_write
from minifcn.inference import segment, shared_work
from minifcn.metrics import AveragePrecision, BoundaryIoU, ConfusionMatrix, InstanceScores
from minifcn.tasks import PanopticScores

needs_mpi = pytest.mark.skipif(bool(mpi.PROBLEM), reason=mpi.PROBLEM)
SIZE = (150, 230)


def picture(seed=0, size=SIZE):
    """Smooth patches, so that JPEG and the network have something to see."""
    small = np.random.default_rng(seed).integers(0, 255, (size[0] // 10, size[1] // 10, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BILINEAR))


def write_tiles(path, image, tile=(48, 64), prefix=b"II", planes=1):
    """A TIFF of deflated tiles, which Pillow does not write; planes 2: each channel by itself."""
    rows, columns = (-(-length // side) for length, side in zip(image.shape[:2], tile, strict=True))
    padded = np.pad(image, ((0, rows * tile[0] - image.shape[0]), (0, columns * tile[1] - image.shape[1]), (0, 0)))
    cut = padded.reshape(rows, tile[0], columns, tile[1], 3).transpose(0, 2, 1, 3, 4).reshape(-1, *tile, 3)
    parts = [
        zlib.compress(part.tobytes()) for part in (cut if planes == 1 else np.moveaxis(cut, 3, 0).reshape(-1, *tile))
    ]
    table = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix)
    sizes = [len(part) for part in parts]
    offsets = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    end = 8 + sum(sizes)
    entries = {256: image.shape[1], 257: image.shape[0], 258: (8, 8, 8), 259: 8, 262: 2, 277: 3, 284: planes}
    for tag, value in {**entries, 322: tile[1], 323: tile[0], 324: tuple(offsets), 325: tuple(sizes)}.items():
        table.tagtype[tag] = 3 if tag in (258, 259, 262, 277, 284) else 4
        table[tag] = value
    order = "<" if prefix == b"II" else ">"
    path.write_bytes(prefix + struct.pack(f"{order}HI", 42, end) + b"".join(parts) + table.tobytes(end))


def save(path, mode="RGB", **more):
    Image.fromarray(picture()).convert(mode).save(path, **more)


FILES = {
    "tiles.tif": lambda path: write_tiles(path, picture()),
    "big_endian_tiles.tif": lambda path: write_tiles(path, picture(), prefix=b"MM"),
    "tiles_of_planes.tif": lambda path: write_tiles(path, picture(), planes=2),
    "one_strip.tif": save,
    "deflated.tif": lambda path: save(path, compression="tiff_adobe_deflate", tiffinfo={278: 32}),
    "lzw.tif": lambda path: save(path, compression="tiff_lzw", tiffinfo={278: 17}),
    "jpeg.tif": lambda path: save(path, compression="jpeg", tiffinfo={278: 16}),
    "bits.tif": lambda path: save(path, "1", compression="group4", tiffinfo={278: 32}),
    "plain_bits.tif": lambda path: save(path, "1"),
    "palette.tif": lambda path: save(path, "P", compression="tiff_lzw", tiffinfo={278: 32}),
    "deep.tif": lambda path: Image.fromarray(picture()[:, :, 0].astype(np.uint16) * 257).save(
        path, compression="tiff_lzw"
    ),
    "big_endian_deep.tif": lambda path: Image.fromarray((picture()[:, :, 0] * np.uint16(85)).astype(">u2")).save(path),
    "twelve_bits.tif": lambda path: Image.fromarray(picture()[:, :, 0] * np.uint16(16)).save(path),
    "dark_first.tif": lambda path: Image.fromarray(
        picture()[:, :, 0] * np.repeat(np.uint16([16, 257]), 75)[:, None]
    ).save(path, compression="tiff_lzw", tiffinfo={278: 32}),
    "colours.ppm": save,
    "grey.pgm": lambda path: save(path, "L"),
    "colours.bmp": save,
}


@pytest.mark.parametrize("name", FILES)
def test_windows_are_those_of_the_whole_picture(name, tmp_path):
    path, rng = tmp_path / name, np.random.default_rng(1)
    FILES[name](path)
    whole, parts = images.read_image(path), large.open_large(path, more_than=1)
    assert parts.shape == whole.shape
    places = [np.sort(rng.integers(0, length + 1, (30, 2))) for length in SIZE]
    for (top, bottom), (left, right) in [*zip(*places, strict=True), ((140, 150), (220, 230)), ((0, 150), (0, 230))]:
        if top < bottom and left < right:
            np.testing.assert_array_equal(parts[top:bottom, left:right], whole[top:bottom, left:right])
    np.testing.assert_array_equal(parts.counts(), np.bincount(whole.reshape(-1), minlength=256))


def test_no_more_is_read_than_a_window_touches(tmp_path):
    side = 2000
    write_tiles(tmp_path / "large.tif", picture(size=(side, side)), (160, 160))
    parts = large.open_large(tmp_path / "large.tif", more_than=1)
    tracemalloc.start()
    for top in range(0, side, 200):
        for left in range(0, side, 200):
            assert parts[top : top + 200, left : left + 200].shape == (200, 200, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * side * side / 10


def test_wide_strips_are_read_as_far_as_memory_goes(tmp_path, monkeypatch):
    image = picture(size=(40, 900))
    Image.fromarray(image).save(tmp_path / "wide.tif", compression="tiff_lzw", tiffinfo={278: 8})
    opened = large.open_large(tmp_path / "wide.tif", more_than=1)
    monkeypatch.setattr(images, "MAX_PIXELS", 16 * 900)
    np.testing.assert_array_equal(opened[8:24, 5:30], image[8:24, 5:30])
    with pytest.raises(InputError, match="wide.tif: 900x24 pixels have to be read for 25x17; take a smaller --tile"):
        opened[8:25, 5:30]
    write_tiles(tmp_path / "tiles.tif", image)
    tiles = large.open_large(tmp_path / "tiles.tif", more_than=1)
    np.testing.assert_array_equal(tiles.counts(), opened.counts())


def test_files_that_cannot_be_read_by_parts_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 20_000)
    save(tmp_path / "deflated.tif", compression="tiff_adobe_deflate", tiffinfo={278: 150})
    with pytest.raises(InputError, match="deflated.tif: .*compressed in one piece; save it as a TIFF of tiles"):
        large.open_large(tmp_path / "deflated.tif")
    save(tmp_path / "turned.tif", tiffinfo={274: 6})
    with pytest.raises(InputError, match="turned.tif: .*stored turned.*--no-exif"):
        large.open_large(tmp_path / "turned.tif")
    assert large.open_large(tmp_path / "turned.tif", exif=False).shape == (*SIZE, 3)
    write_tiles(tmp_path / "cut.tif", picture())
    content = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[:60] + bytes(60) + content[120:])
    with pytest.raises(InputError, match=r"cut.tif: not readable at rows 0..10, columns 0..10"):
        large.open_large(tmp_path / "cut.tif")[:10, :10]
    save(tmp_path / "photo.png")
    assert large.open_large(tmp_path / "photo.png") is None  # of a kind that is read whole or not at all
    monkeypatch.setattr(images, "MAX_PIXELS", 1 << 26)
    assert large.open_large(tmp_path / "turned.tif") is None  # small


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({256: 1, 257: 1 << 20, 278: 1 << 20, 273: 0, 279: 100}, id="rows that are not there"),
        pytest.param({256: 8, 257: 8, 278: 4, 273: (0, 1 << 20), 279: (32, 32)}, id="a part behind the end"),
        pytest.param({256: 64, 257: 64, 322: 32, 323: 32, 324: (8,) * 4, 325: (1 << 20,) * 4}, id="the whole file in each part"),
        pytest.param({256: 64, 257: 64, 322: 0, 323: 32, 324: 8, 325: 100}, id="tiles without a pixel"),
    ],
)  # fmt: skip
def test_a_tiff_that_claims_what_it_does_not_hold_is_refused_before_it_takes_memory(claims, tmp_path):
    table, size = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II"), 1 << (20 if 324 in claims else 10)
    for tag, value in {258: 8, 259: 1, 262: 1, 277: 1, **claims}.items():
        table.tagtype[tag] = 4 if tag in claims else 3
        table[tag] = value
    (tmp_path / "odd.tif").write_bytes(b"II" + struct.pack("<HI", 42, 8) + table.tobytes(8) + bytes(size))
    with pytest.raises(InputError, match="odd.tif: a TIFF .*its size says; save it again, in tiles"):
        large.open_large(tmp_path / "odd.tif", more_than=0)


def test_a_mask_in_bands_is_the_mask(tmp_path):
    labels = np.random.default_rng(2).integers(0, 21, (50, 33), np.uint8)
    images.write_mask(tmp_path / "a.png", labels, note="found")
    bands = (labels[top : top + 8] for top in range(0, 50, 8))
    large.write_mask_rows(tmp_path / "b.png", labels.shape, bands, note=lambda: "found")
    one, other = (Image.open(tmp_path / name) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(np.asarray(other), labels)
    assert (other.mode, other.palette.palette, other.text) == (one.mode, one.palette.palette, one.text)
    assert images.note_of(tmp_path / "a.png") == images.note_of(tmp_path / "b.png") == "found"
    images.write_mask(tmp_path / "c.png", labels)
    (tmp_path / "d.txt").write_text("found")
    assert images.note_of(tmp_path / "c.png") is images.note_of(tmp_path / "d.txt") is None


def seeing(model):
    """The network with random scores instead of zeros, each class as likely as the others, so that its labels hang on the image."""
    rng, parameters = np.random.default_rng(0), model.parameters()
    for name, parameter in parameters.items():
        if "score" in name and name.endswith("weight"):
            parameter.value = rng.standard_normal(parameter.value.shape).astype(np.float32)
    logits = segment.semantic(model.forward(model.card.preprocessing.apply(picture(1, (48, 48)))[None]))
    parameters["score_fr.bias"].value -= np.median(logits, axis=(0, 2, 3))
    return model


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Seven images with objects in a data set, and networks that were not trained, but see something."""
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=2, val=7, size=48, seed=3, instances=True)
    for name, model in {
        "fcn": models.fcn("8s", "mini", 6, "same", width=2),
        "panoptic": models.panoptic("mini", num_classes=6, width=2),
    }.items():
        weights.save(root / f"{name}.npz", seeing(model))
    return root


def photos(toy):
    return toy / "VOC2012/JPEGImages"


def command(kind, toy, out, *more, network="fcn"):
    """The words of a command that scores the toy set."""
    if kind == "predict":
        return ["predict", "--weights", str(toy / f"{network}.npz"), "--out", str(out), *more, str(photos(toy))]
    return ["evaluate", "--weights", str(toy / f"{network}.npz"), "--data", str(toy), *more]


def environment():
    return {**os.environ, **mpi.SETTINGS, "MINIFCN_NATIVE": "0"}


def mpirun(count, words, **more):
    """Start minifcn in so many processes."""
    start = map(str, mpi.mpirun(count, "-m", "minifcn"))
    return subprocess.Popen(
        [*start, *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def printed(capsys, words):
    """What a command prints, but for its seconds."""
    assert cli.main(words) == 0
    return without_seconds(capsys.readouterr().out)


def without_seconds(text):
    return [
        line.rsplit(maxsplit=1)[0] if line.startswith(("FCN-", "panoptic ")) else line for line in text.splitlines()
    ]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_picture_larger_than_memory_is_predicted_by_parts(toy, tmp_path, monkeypatch, capsys):
    write_tiles(tmp_path / "large.tif", picture(size=(400, 520)))
    words = ["predict", "--weights", str(toy / "fcn.npz"), "--tile", "128", str(tmp_path / "large.tif"), "--out"]
    assert cli.main([*words, str(tmp_path / "whole")]) == 0
    shares = capsys.readouterr().out
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    monkeypatch.setattr(predict, "PREVIEW", 100)
    assert cli.main([*words, str(tmp_path / "parts")]) == 0
    assert capsys.readouterr().out == shares
    masks = [np.asarray(Image.open(tmp_path / folder / "large.png")) for folder in ("whole", "parts")]
    np.testing.assert_array_equal(*masks)
    assert len(np.unique(masks[0])) > 1
    overlay = np.asarray(Image.open(tmp_path / "parts/large_overlay.jpg"), float)
    expected = np.asarray(Image.open(tmp_path / "whole/large_overlay.jpg"), float)[::6, ::6]
    assert overlay.shape == expected.shape and np.abs(overlay - expected).mean() < 25  # both are JPEG
    assert cli.main([*words, str(tmp_path / "parts"), "--resume"]) == 0
    assert capsys.readouterr().out == shares
    (tmp_path / "taken/large_overlay.jpg").mkdir(parents=True)
    assert cli.main([*words, str(tmp_path / "taken")]) == 2
    assert f"minifcn: {tmp_path / 'taken/large_overlay.jpg'}: cannot be written" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "refused"), "--flip"]) == 2
    assert "large.tif: larger than is read at once; it is read by parts with --tile alone" in capsys.readouterr().err
    assert cli.main([w for w in words if w not in ("--tile", "128")] + [str(tmp_path / "refused")]) == 2
    assert "at most 100000 are read at once" in capsys.readouterr().err


def test_the_line_of_a_file_of_several_pictures_tells_how_many(toy, tmp_path, capsys):
    pages = [Image.fromarray(picture(size=(40, 52))).convert("L")] * 3
    for name in ("stack.tif", "moving.gif", "panorama.mpo"):
        pages[0].save(tmp_path / name, save_all=True, append_images=[pages[1].rotate(90), pages[2]])
        words = ["predict", "--weights", str(toy / "fcn.npz"), str(tmp_path / name), "--out", str(tmp_path / "out")]
        assert cli.main(words) == 0
        told = "of 3 pictures in it" in capsys.readouterr().out
        assert told == (name != "panorama.mpo")


def test_an_overlay_is_written_of_a_picture_longer_than_a_jpeg(tmp_path):
    weights.save(tmp_path / "net.npz", seeing(models.fcn("8s", "mini", 4, "same", width=2)))
    Image.new("RGB", (65_600, 2)).save(tmp_path / "scan.png")
    words = ["predict", "--weights", tmp_path / "net.npz", "--out", tmp_path / "masks", tmp_path / "scan.png"]
    assert cli.main([str(word) for word in words]) == 0
    assert images.read_mask(tmp_path / "masks/scan.png").shape == (2, 65_600)
    assert images.read_image(tmp_path / "masks/scan_overlay.jpg").shape == (1, 32_800, 3)


def test_a_file_of_the_longest_name_is_written(tmp_path):
    path = tmp_path / f"{'漢' * 83}.png"  # 253 bytes
    with atomic_write(path) as file:
        file.write(b"content")
    assert path.read_bytes() == b"content"


def test_masks_beside_the_images_are_not_resumed(tmp_path, capsys):
    weights.save(tmp_path / "net.npz", seeing(models.fcn("8s", "mini", 4, "same", width=2)))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos/a.jpg")
    words = [
        "predict",
        "--weights",
        tmp_path / "net.npz",
        "--resume",
        "--out",
        tmp_path / "photos",
        tmp_path / "photos",
    ]
    assert cli.main([str(word) for word in words]) == 2
    assert "photos: holds the images" in capsys.readouterr().err


def test_a_stretched_picture_is_stretched_as_a_whole(tmp_path):
    model = models.fcn("8s", "mini", 4, "same", width=2)
    model.card.preprocessing = data.Preprocessing(stretch=True)
    seeing(model)
    write_tiles(tmp_path / "dark.tif", picture() // 3)
    parts = large.open_large(tmp_path / "dark.tif", more_than=1)
    expected = inference.predict(model, images.read_image(tmp_path / "dark.tif"), 128)
    np.testing.assert_array_equal(inference.predict(model, parts, 128), expected)
    assert len(np.unique(expected)) > 1


def test_a_memory_map_is_predicted_as_the_array(tmp_path):
    model = seeing(models.fcn("8s", "mini", 4, "same", width=2))
    np.save(tmp_path / "picture.npy", picture())
    mapped = np.load(tmp_path / "picture.npy", mmap_mode="r")
    np.testing.assert_array_equal(inference.predict(model, mapped, 128), inference.predict(model, picture(), 128))


def test_what_needs_the_whole_picture_takes_no_parts(tmp_path):
    write_tiles(tmp_path / "large.tif", picture())
    parts = large.open_large(tmp_path / "large.tif", more_than=1)
    with pytest.raises(InputError, match="network of unpadded convolutions takes no image larger than memory"):
        inference.predict(models.unet(3, width=2, depth=2), parts, 128)
    with pytest.raises(InputError, match=r"expected an array \(H, W, 3\) of uint8"):
        inference.predict(models.fcn("8s", "mini", 4, "same", width=2), parts, 128, flip=True)


class Wires:
    """The messages between processes that are threads, as mpi4py carries them."""

    def __init__(self, rank, boxes):
        self.rank, self.boxes = rank, boxes

    def send(self, value, to, tag):
        self.boxes[to].put((self.rank, value))

    def recv(self, source, tag):
        sender, value = self.boxes[self.rank].get(timeout=5)
        assert source == sender or self.rank == 0
        return value

    def iprobe(self, tag, status):
        box = self.boxes[self.rank].queue
        status.source = box[0][0] if box else None
        return bool(box)


def in_threads(size, count, work, late=0.0):
    """`in_order` in so many processes that are threads. -> what each gives; raises what one raised. late: seconds that each begins after the one before"""
    boxes, found, errors = [queue.Queue() for _ in range(size)], [None] * size, []

    def process(rank):
        world = MPIWorld.__new__(MPIWorld)
        world.rank, world.size, world.everybody = rank, size, Wires(rank, boxes)
        world.mpi = SimpleNamespace(Status=SimpleNamespace)
        try:
            time.sleep(late * rank)
            found[rank] = list(shared_work.in_order(world, count, lambda i: work(rank, i)))
            world.everybody.boxes = None  # it may end now, and answer nobody
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if errors:
        raise errors[0]
    return found


@pytest.mark.parametrize(("size", "count"), [(2, 9), (3, 9), (4, 2), (3, 0)])
def test_results_come_in_order_whoever_computes_them(size, count):
    done = []

    def work(rank, i):
        time.sleep(0.02 if i % 3 else 0.06)
        done.append((rank, i))
        return i * i

    first, *others = in_threads(size, count, work)
    assert first == [i * i for i in range(count)] and others == [[]] * (size - 1)
    assert sorted(i for _, i in done) == list(range(count))


def test_who_comes_late_hears_that_nothing_is_left():
    assert in_threads(3, 4, lambda rank, i: (rank, i), late=0.2) == [[(0, i) for i in range(4)], [], []]


def test_who_is_free_takes_the_next():
    ranks = []

    def work(rank, i):
        time.sleep(0.4 if i == 0 else 0.005)
        ranks.append(rank)

    in_threads(3, 30, work)
    assert min(map(ranks.count, set(ranks))) == 1  # the one that had the first image had no time for another
    assert len(ranks) == 30


def test_an_error_of_the_thread_that_hands_out_ends_the_wait():
    def work(rank, i):
        if rank:
            time.sleep(0.1)
            return i
        return None

    unreadable = MPIWorld.__new__(MPIWorld)

    def broken(**_):
        raise RuntimeError("the network is gone")

    unreadable.rank, unreadable.size, unreadable.everybody = 0, 2, SimpleNamespace(iprobe=broken)
    unreadable.mpi = SimpleNamespace(Status=SimpleNamespace)
    waiting, results = shared_work.deque(), [shared_work.Future()]
    shared_work._serve(unreadable, waiting, results)
    with pytest.raises(RuntimeError, match="the network is gone"):
        results[0].result(timeout=5)


def scored(metric, samples):
    for update in samples:
        update(metric)
    return metric


def test_metrics_of_parts_make_the_metric_of_the_whole():
    rng = np.random.default_rng(4)

    def objects(classes):
        numbers = rng.integers(0, 4, (6, 8)).repeat(5, 0).repeat(5, 1).astype(np.uint16)
        numbers = np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape).astype(np.uint16)
        kinds = rng.integers(1, classes, numbers.max() + 1).astype(np.uint8)
        kinds[0] = 0
        return kinds[numbers], numbers, kinds[1:], rng.random(numbers.max())

    def update(true, found):
        def count(metric):
            if isinstance(metric, PanopticScores):
                metric.update_objects(true[0], true[1], found)
            elif isinstance(metric, AveragePrecision):
                metric.update(true[1], found[1], found[3])
            elif isinstance(metric, InstanceScores):
                metric.update(true[1], found[1])
            else:
                metric.update(true[0], found[0])

        return count

    def near(true):  # objects that are mostly right
        shifted = [np.roll(true[0], 1, 1), np.roll(true[1], 1, 1), true[2], rng.random(len(true[2]))]
        return tuple(shifted)

    images_ = [(true := objects(4), near(true)) for _ in range(9)]
    updates = [update(true, found) for true, found in images_]
    for make in (
        lambda: ConfusionMatrix(4),
        lambda: BoundaryIoU(4),
        InstanceScores,
        lambda: AveragePrecision((0.5, 0.75)),
        lambda: PanopticScores(4, (1, 2, 3)),
    ):
        whole, parts = scored(make(), updates), make()
        for some in (updates[:2], updates[2:3], updates[3:]):
            parts.merge(scored(make(), some))
        assert parts.scores() == whole.scores() if hasattr(whole, "scores") else parts.mean() == whole.mean()
        assert all(value == value for value in whole.scores().values())


@pytest.mark.parametrize("network", ["fcn", "panoptic"])
def test_predictions_that_were_kept_are_not_made_again(network, toy, tmp_path, monkeypatch, capsys):
    more = ["--connected"] if network == "panoptic" else ["--boundary"]
    pytest.importorskip("scipy")
    plain = printed(capsys, command("evaluate", toy, None, *more, network=network))
    words = command("evaluate", toy, None, *more, "--resume", str(tmp_path / "kept"), network=network)
    assert printed(capsys, words) == plain
    kept = sorted((tmp_path / "kept").rglob("*.npz"))
    assert len(kept) == 7
    forward = models.Graph.forward
    monkeypatch.setattr(models.Graph, "forward", lambda *_, **__: pytest.fail("predicted again"))
    assert printed(capsys, words) == plain
    monkeypatch.setattr(models.Graph, "forward", forward)
    assert cli.main([*words, "--tile", "128"]) == 0  # another setting: all anew, beside the others
    assert len(list((tmp_path / "kept").iterdir())) == 2
    capsys.readouterr()
    kept[0].write_bytes(b"broken")
    assert cli.main(words) == 2
    assert f"{kept[0]}: not what was kept there; remove it" in capsys.readouterr().err


def test_what_was_kept_of_another_picture_is_not_taken(tmp_path):
    kept, black = shared_work.PredictionCache(tmp_path), np.zeros((2, 3), np.uint8)
    assert [kept("a", np.mean, picture).item() for picture in (black, black + 1, black)] == [0, 1, 0]
    assert len(list(tmp_path.iterdir())) == 2


def test_outlines_on_an_enlarged_picture_are_no_stairs():
    """Of cells 4 pixels wide, with probabilities that are equal at pixel 31: there the class changes, not where a cell ends, at 32."""
    second = np.tile(0.5 + (np.arange(2, 64, 4, dtype=np.float32) - 31) / 100, (2, 1))
    labels = segment.likeliest(np.stack([1 - second, second]), (8, 64))
    assert np.array_equal(labels, np.tile(np.arange(64) >= 31, (8, 1)))


@pytest.mark.parametrize("network", ["fcn", "panoptic"])
def test_finished_images_are_left_out(network, toy, tmp_path, monkeypatch, capsys):
    plain = printed(capsys, command("predict", toy, tmp_path / "out", network=network))
    before, segmented = contents(tmp_path / "out"), []
    whole = predict.Segmenter.segmented
    monkeypatch.setattr(
        predict.Segmenter, "segmented", lambda *args, **more: segmented.append(args[3].name) or whole(*args, **more)
    )
    masks = sorted(path for path in (tmp_path / "out").glob("*.png") if "_objects" not in path.name)
    masks[1].unlink()
    (tmp_path / "out" / f"{masks[3].stem}_overlay.jpg").unlink()
    images.write_mask(masks[5], np.zeros((48, 48), np.uint8), note="[1]")  # by another program
    images.write_mask(masks[6], np.zeros((48, 48), np.uint8), note='{"line": ')  # damaged
    words = command("predict", toy, tmp_path / "out", "--resume", network=network)
    assert printed(capsys, words) == plain and contents(tmp_path / "out") == before
    assert segmented == [masks[i].name for i in (1, 3, 5, 6)]
    segmented.clear()
    assert cli.main([*words[:-1], "--tile", "128", words[-1]]) == 0
    assert len(segmented) == 9  # by other settings
    shutil.copytree(photos(toy), tmp_path / "photos")
    again = [*words[:-1], str(tmp_path / "photos")]
    cli.main(again)
    segmented.clear()
    Image.new("RGB", (48, 48)).save(tmp_path / "photos" / f"{masks[2].stem}.jpg")
    assert cli.main(again) == 0 and segmented == [masks[2].name]  # another image


def test_an_image_whose_files_were_half_written_is_not_finished(toy, tmp_path, monkeypatch, capsys):
    words, save = command("predict", toy, tmp_path / "out"), Image.Image.save
    plain = printed(capsys, words)
    before = contents(tmp_path / "out")

    def killed(image, path, *given, **more):
        if not str(path).endswith("_overlay.jpg"):
            return save(image, path, *given, **more)
        Path(path).write_bytes(b"half")
        raise SystemExit

    monkeypatch.setattr(Image.Image, "save", killed)
    with pytest.raises(SystemExit):
        cli.main(words)
    monkeypatch.setattr(Image.Image, "save", save)
    capsys.readouterr()
    assert printed(capsys, [*words[:-1], "--resume", words[-1]]) == plain and contents(tmp_path / "out") == before


@needs_mpi
@pytest.mark.parametrize(("network", "count"), [("fcn", 3), ("panoptic", 2)])
def test_processes_give_what_one_gives(network, count, toy, tmp_path, capsys):
    pytest.importorskip("scipy")
    for kind in ("predict", "evaluate"):
        single = printed(capsys, command(kind, toy, tmp_path / "one", network=network))
        out, err = (job := mpirun(count, command(kind, toy, tmp_path / "several", network=network))).communicate(
            timeout=120
        )
        assert (job.returncode, without_seconds(out)) == (0, single), err
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


@needs_mpi
def test_a_file_that_cannot_be_read_is_named_once(toy, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos(toy), folder)
    (folder / "a.png").write_bytes(b"no picture")
    words = [*command("predict", toy, tmp_path / "out")[:-1], str(folder)]
    out, err = (job := mpirun(2, words)).communicate(timeout=120)
    assert job.returncode == 1 and err.count("skipped:") == 1 and f"{folder / 'a.png'}: not a readable image" in err
    assert "9 masks and overlays written" in err
    job = subprocess.run(
        [sys.executable, "-m", "minifcn", *words[:-1], "--processes", "2", words[-1]],
        env=environment(),
        capture_output=True,
    )
    said = [line for line in job.stderr.decode().splitlines() if "PMIX ERROR" not in line]  # Open MPI's, now and then
    assert job.returncode == 1 and said[-1].startswith(f"skipped: {folder / 'a.png'}"), said


@needs_mpi
@pytest.mark.parametrize("kind", ["predict", pytest.param("evaluate", marks=pytest.mark.slow)])
def test_a_job_that_was_killed_goes_on(kind, toy, tmp_path, capsys):
    """kill -9 of a process when some images are done: the job ends, and with --resume it does the rest."""
    rng, more = np.random.default_rng(5), [] if kind == "predict" else ["--resume", str(tmp_path / "kept")]
    folder = tmp_path / "several" if kind == "predict" else tmp_path / "kept"
    pattern = "*[0-9].png" if kind == "predict" else "*/*.npz"
    single = printed(capsys, command(kind, toy, tmp_path / "one"))
    for attempt in range(2):
        job = mpirun(2, command(kind, toy, tmp_path / "several", *more, *(["--resume"] if kind == "predict" else [])))
        wanted = min(len(list(folder.glob(pattern))) + 1, 6)
        until = time.monotonic() + 60
        while len(list(folder.glob(pattern))) < wanted and job.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        victims = [int(child) for child in children if b"minifcn" in Path(f"/proc/{child}/cmdline").read_bytes()]
        if victims:
            os.kill(victims[rng.integers(len(victims))], signal.SIGKILL)
        job.communicate(timeout=60)
        assert (job.returncode != 0) == bool(victims), attempt
    finished = {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}
    assert finished
    out, err = (job := mpirun(2, command(kind, toy, tmp_path / "several", "--resume", *more[1:]))).communicate(
        timeout=120
    )
    assert (job.returncode, without_seconds(out)) == (0, single), err
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    if kind == "predict":
        assert contents(tmp_path / "several") == contents(tmp_path / "one")
