"""Panoptic networks from the command line: a run on toy objects, going on bit by bit, and what is refused."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_datasets import run, write_nuclei

from minifcn import data, inference, models, weights
from minifcn.data import toyvoc
from minifcn.errors import InputError
from minifcn.report import figures
from minifcn.tasks import PanopticScores
from minifcn.training.config import Config
from minifcn.training.run import Run
from minifcn.weights import npz

SMALL = ["--network", "panoptic", "--width", 2, "--crop", 32, "--batch-size", 2, "--iterations", 4, "--eval-every", 4]


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    root = tmp_path_factory.mktemp("toys")
    data.write_toyvoc(root, train=6, val=2, size=48, seed=3, instances=True)
    return root


def config(root, **more):
    values = {"data": str(root), "network": "panoptic", "width": 2, "crop": 32, "batch_size": 2, "iterations": 4}
    return Config.from_dict({**values, "eval_every": 4, **more}, "test")


def test_toy_objects_touch_and_are_told_apart(toys):
    samples = data.open_dataset(toys, "train", instances=True)
    touching = 0
    for sample in samples:
        numbers = np.unique(sample.instances[sample.instances > 0])
        assert not sample.instances[(sample.label == 0) | (sample.label == data.VOID)].any()
        of = {number: np.unique(sample.label[sample.instances == number]) for number in numbers}
        assert all(len(classes) == 1 for classes in of.values())
        touching += len(numbers) > len({int(classes[0]) for classes in of.values()})
    assert touching
    rng = np.random.default_rng
    one, other = toyvoc.draw_scene(rng(5), 64), toyvoc.draw_objects(rng(5), 64)
    for a, b in zip(one, other[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_has_the_targets_of_its_crops(toys):
    """Offsets lead from every pixel of an object to one place, where its bell is 1, whatever moved both."""
    stream = Run(config(toys, crop=40, turn=True, scale=(0.8, 1.2)), toys / "unused").stream
    for _, targets in (next(stream) for _ in range(3)):
        assert targets.labels.shape == targets.known.shape == (2, 40, 40) and targets.inside.any()
        np.testing.assert_array_equal(targets.known, targets.labels != data.VOID)
        inside = targets.inside > 0
        assert (targets.labels[inside] > 0).all() and (targets.labels[inside] != data.VOID).all()
        image, rows, columns = np.nonzero(inside)
        to = np.rint(np.stack([rows, columns]) + targets.offset[image, :, rows, columns].T).astype(int)
        assert targets.centre[image, 0, to[0], to[1]].min() > 0.95


def test_train_evaluate_and_predict(toys, tmp_path, capsys):
    pytest.importorskip("scipy", reason="SciPy is not installed; connected components need it")
    out = tmp_path / "run"
    assert run("train", "--data", toys, "--out", out, *SMALL, "--hardest", 0.5, "--sigma", 4) == 0
    printed = capsys.readouterr()
    assert "PQ things" in printed.out and "PQ" in printed.err
    network = models.load_segmenter(out / "best.npz")
    assert network.card.options["things"] == [1, 2, 3, 4, 5] and network.card.title == "panoptic FCN-8s"
    page = (out / "report.html").read_text()
    assert "PQ things" in page and "The true objects" in page
    assert run("evaluate", "--data", toys, "--weights", out / "best.npz", "--connected", "--tile", 128) == 0
    printed = capsys.readouterr().out
    assert "centres" in printed and "connected" in printed and "AP^r 0.5" in printed
    titles = [
        line.split() for line in printed.splitlines() if "PQ" in line
    ]  # of all objects, and of those of each class
    for words in titles[0][:-3], titles[1]:
        assert words[-4:] == ["COCO", "AP", "COCO", "AP50"]
    photo = next(toys.glob("VOC2012/JPEGImages/*.jpg"))
    assert run("predict", "--weights", out / "best.npz", "--out", tmp_path / "found", photo) == 0
    numbers = np.asarray(Image.open(tmp_path / f"found/{photo.stem}_objects.png"))
    expected = inference.panoptic(network, np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(numbers, expected.instances)
    shrunk = inference.panoptic(network, np.asarray(Image.open(photo)), longest=24)
    assert shrunk.instances.shape == numbers.shape
    sample = data.ObjectSample(np.asarray(Image.open(photo)), shrunk.labels, "a", shrunk.instances)
    scores = inference.evaluate_panoptic(network, [sample], 6, longest=24).scores()
    assert scores["mean_iou"] == 1
    with open(tmp_path / "found/objects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(photo)] * len(expected.classes)
    table = tmp_path / "table.json"
    assert run("predict", "--weights", out / "best.npz", "--out", tmp_path / "found", photo, "--table", table) == 0
    assert len(json.loads(table.read_text())[str(photo)]) == len(rows)
    assert run("predict", "--table", table, "--out", tmp_path / "found", photo) == 2
    seen = photo.read_bytes()
    assert run("predict", "--weights", out / "best.npz", "--out", tmp_path / "found", photo, "--table", photo) == 2
    assert "expected a table's name" in capsys.readouterr().err.splitlines()[-1] and photo.read_bytes() == seen
    assert run("evaluate", "--data", toys, "--weights", "animals", "--connected") == 2
    assert "connected: expected a panoptic network" in capsys.readouterr().err.splitlines()[-1]
    for more in (["--flip"], ["--turns"], ["--scales", 1], ["--crf"]):
        assert run("predict", "--weights", out / "best.npz", "--out", tmp_path / "found", photo, *more) == 2
        assert "a panoptic network takes no" in capsys.readouterr().err.splitlines()[-1]
    assert run("crf-search", "--data", toys, "--weights", out / "best.npz") == 2
    assert "a panoptic network takes no CRF" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_stopped_run_goes_on_to_the_same_bits(toys, tmp_path, frozen):
    more = {"average": 0.9, "scale": (0.7, 1.3)}
    if frozen:
        for _ in Run(config(toys, network="fcn", iterations=1), tmp_path / "start").events():
            pass
        more |= {"start": str(tmp_path / "start/checkpoint.npz"), "frozen_semantic": True}
    for _ in Run(config(toys, **more), tmp_path / "whole").events():
        pass
    stopped = Run(config(toys, **more), tmp_path / "parts")
    for _ in stopped.events(lambda: stopped.done == 2):
        pass
    for _ in Run.resume(tmp_path / "parts").events():
        pass
    one, other = (npz.read_archive(tmp_path / place / "checkpoint.npz")[0] for place in ("whole", "parts"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    if frozen:
        given = models.load(tmp_path / "start/checkpoint.npz").state_dict()
        for name, value in given.items():
            np.testing.assert_array_equal(one[f"weights/{name}"], value, err_msg=name)


def test_connected_parts_of_a_class_are_its_objects():
    pytest.importorskip("scipy", reason="SciPy is not installed; connected components need it")
    labels = np.array([[1, 1, 0, 2], [0, 0, 1, 2], [1, 1, 0, 2]])
    logits = 3.0 * (labels == np.arange(3)[:, None, None])
    found = inference.components(logits, [1, 2])
    np.testing.assert_array_equal(found.instances, [[1, 1, 0, 4], [0, 0, 2, 4], [3, 3, 0, 4]])
    assert found.classes.tolist() == [1, 1, 1, 2]
    np.testing.assert_allclose(found.scores, np.e**3 / (np.e**3 + 2))


def test_all_scores_of_what_is_right_are_1(toys):
    scores = PanopticScores(6, range(1, 6))
    for sample in data.open_dataset(toys, "val", instances=True):
        numbers = np.unique(sample.instances[sample.instances > 0])
        found = np.searchsorted([0, *numbers], sample.instances)
        classes = [sample.label[sample.instances == number][0] for number in numbers]
        scores.update_objects(
            sample.label, sample.instances, (sample.label % 255, found, classes, np.ones(len(numbers)))
        )
    assert all(score == pytest.approx(1) for score in scores.scores().values())


def test_numbers_stand_on_their_objects():
    instances = np.zeros((60, 90), np.uint16)
    instances[5:55, 5:40], instances[5:55, 50:85] = 1, 12
    picture = figures.numbered(np.full((60, 90, 3), 128, np.uint8), instances)
    white = (picture > 200).all(axis=2)
    assert white[20:40, 10:35].any() and white[20:40, 55:80].any() and not white[:, 41:49].any()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"frozen_semantic": True}, "frozen-semantic: expected a panoptic network and --start"),
        ({"border_weight": 10.0}, "border-weight: a panoptic network"),
        ({"border_class": True}, "border-class: a panoptic network"),
        ({"sbd": "sbd"}, "sbd: its images do not say which object"),
        ({"frozen_semantic": True, "start": "imagenet"}, "imagenet: frozen-semantic: expected --start"),
        ({"frozen_semantic": True, "start": "nuclei"}, "for 3 classes, the data have 6; frozen-semantic: expected"),
        ({"sigma": 0.0}, "a sigma above 0"),
        ({"hardest": 0.0}, "a share of the hardest pixels above 0"),
        ({"hardest": 0.5, "reduction": "sum"}, "leave out reduction sum"),
        ({"decoder": "v3"}, "decoder: expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(more, expected, toys, tmp_path):
    with pytest.raises(InputError, match=expected):
        Run(config(toys, **more), tmp_path / "run")


def test_frozen_classes_are_those_of_the_data_by_name(toys, tmp_path):
    classes = data.open_dataset(toys).classes
    given = models.fcn("8s", "mini", len(classes), "same", width=2)
    options = {"start": str(tmp_path / "start.npz"), "frozen_semantic": True}
    given.card.classes = (classes[0], *reversed(classes[1:]))
    weights.save(options["start"], given)
    with pytest.raises(InputError, match="for other classes than the data have; frozen-semantic: expected"):
        Run(config(toys, **options), tmp_path / "run")
    given.card.classes = classes
    weights.save(options["start"], given)
    Run(config(toys, **options), tmp_path / "run")


def test_data_without_objects_are_refused_in_a_line(tmp_path, capsys):
    data.write_toyvoc(tmp_path / "plain", train=2, val=1, size=32)
    assert run("train", "--data", tmp_path / "plain", "--out", tmp_path / "run", *SMALL) == 2
    assert "SegmentationObject" in capsys.readouterr().err.splitlines()[-1]


def test_reproduce_ends_with_objects_and_connected_parts_beside_them(toys, tmp_path, capsys):
    pytest.importorskip("scipy", reason="SciPy is not installed; connected components need it")
    small = ["--width", 2, "--crop", 32, "--batch-size", 2, "--iterations", 1]
    assert run("reproduce", "--instances", "--data", toys, "--out", tmp_path / "all", *small) == 0
    printed = capsys.readouterr().out
    assert "panoptic FCN-8s" in printed and "connected" in printed
    assert "pq" in json.loads((tmp_path / "all/scores.json").read_text())["panoptic FCN-8s"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--alignment", "paper"], "alignment: panoptic has no such option"),
        (["--upsampling", "learned"], "upsampling: panoptic has no such option"),
        (["--backbone", "vgg16"], "panoptic: backbone: expected one of"),
        (["--data", "plain"], "SegmentationObject"),
        (["--no-scipy"], "reproduce --instances: SciPy is not installed"),
    ],
)
def test_reproduce_says_before_its_first_stage_what_its_last_would_refuse(
    options, expected, toys, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data.write_toyvoc("plain", train=2, val=1, size=32)
    if options == ["--no-scipy"]:
        monkeypatch.setitem(sys.modules, "scipy", None)
        options = []
    else:
        pytest.importorskip("scipy", reason="SciPy is not installed; connected components need it")
    assert run("reproduce", "--instances", "--data", toys, "--out", "all", "--iterations", 1, *options) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1] and not Path("all").exists()


def test_nuclei_told_apart_have_no_gaps_between_them(tmp_path):
    cells = write_nuclei(tmp_path / "cells", count=8)
    plain, told = (data.open_dataset(cells, "trainval", instances=instances)[0] for instances in (False, True))
    np.testing.assert_array_equal(plain.instances, told.instances)
    assert (told.label == (told.instances > 0)).all() and plain.label.sum() < told.label.sum()
    dataset = data.open_dataset(cells, "trainval", instances=True)
    np.testing.assert_array_equal(dataset.label_of(told.label, told.instances), told.label)
