"""U-Net from the command line: runs on cells and on grey pictures, its targets, and going on bit by bit."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from small_datasets import run, write_nuclei, write_plain, write_voc

from minifcn import data, inference, layers, models
from minifcn.errors import InputError
from minifcn.training import checkpoint
from minifcn.training.config import Config
from minifcn.training.run import Run
from minifcn.weights import npz

SMALL = ["--network", "unet", "--width", 2, "--depth", 2, "--batch-size", 2, "--eval-every", 4, "--save-every", 2]


def config(root, **more):
    values = {
        "data": str(root),
        "network": "unet",
        "width": 2,
        "depth": 2,
        "crop": 24,
        "batch_size": 2,
        "iterations": 4,
    }
    return Config.from_dict({**values, "eval_every": 4, **more}, "test")


@pytest.fixture
def cells(tmp_path):
    pytest.importorskip("scipy", reason="SciPy is not installed; objects need it")
    return write_nuclei(tmp_path / "cells", count=8)


def test_train_evaluate_and_predict_find_objects(cells, tmp_path, capsys):
    out = tmp_path / "run"
    more = ["--border-class", "--dice", 0.5, "--turn", "--elastic", 2, "--rotate", 10, "--shift", 2]
    assert run("train", "--data", cells, "--out", out, *SMALL, "--crop", 24, "--iterations", 4, *more) == 0
    network = models.load_segmenter(out / "best.npz")
    assert (network.card.builder, network.card.classes) == ("unet", ("background", "nucleus", data.BORDER))
    assert network.card.options["channels"] == 3 and network.card.title == "U-Net"
    capsys.readouterr()
    assert run("evaluate", "--data", cells, "--weights", out / "best.npz") == 0
    printed = capsys.readouterr().out
    assert "border" in printed and "AP" in printed
    photo = next(cells.glob("stage1_train/*/images/*.png"))
    assert run("predict", "--objects", "--weights", out / "best.npz", "--out", tmp_path / "found", photo) == 0
    numbers = Image.open(tmp_path / f"found/{photo.stem}_objects.png")
    assert numbers.mode == "I;16" and numbers.size == Image.open(photo).size


def test_class_weights_enter_the_weight_map_once(cells, tmp_path):
    made = Run(config(cells, border_weight=10.0, class_weights=(1.0, 3.0)), tmp_path / "run")
    _, targets = next(made.stream)
    assert made.task.class_weights is None
    np.testing.assert_array_equal(targets.weights[targets.labels == 1], 3)
    background = targets.weights[targets.labels == 0]
    assert background.min() >= 1 and background.max() > 5
    plain = Run(config(cells, class_weights=(1.0, 3.0)), tmp_path / "plain")
    assert plain.task.class_weights.tolist() == [1, 3] and isinstance(next(plain.stream)[1], np.ndarray)


@pytest.mark.parametrize(
    "more", [{"border_weight": 10.0, "class_weights": "balanced"}, {"padding": "valid", "crop": 60}]
)
def test_a_stopped_run_goes_on_to_the_same_bits(cells, tmp_path, more):
    more = {"elastic": 2.0, "rotate": 10.0, "turn": True, "dice": 0.5, **more}
    for _ in Run(config(cells, **more), tmp_path / "whole").events():
        pass
    stopped = Run(config(cells, **more), tmp_path / "parts")
    for _ in stopped.events(lambda: stopped.done == 2):
        pass
    for _ in Run.resume(tmp_path / "parts").events():
        pass
    one, other = (npz.read_archive(tmp_path / place / "checkpoint.npz")[0] for place in ("whole", "parts"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_channels_follow_the_data_and_it_is_said(tmp_path, caplog):
    root = write_plain(tmp_path / "grey")
    with caplog.at_level(logging.INFO, "minifcn.training"):
        grey = Run(config(root), tmp_path / "run")
    assert "grey images: the network has one channel" in caplog.text
    assert next(grey.stream)[0].shape == (2, 1, 24, 24)
    for _ in grey.events():
        pass
    assert models.load_segmenter(tmp_path / "run/best.npz").card.preprocessing.order == "grey"


def test_an_unpadded_network_trains_on_the_middle_of_mirrored_crops(tmp_path):
    write_voc(tmp_path / "data/VOC2012", "abcd", train="abc", val="d")
    made = Run(config(tmp_path / "data", padding="valid", crop=60), tmp_path / "run")
    images, labels = next(made.stream)
    assert images.shape == (2, 3, 60, 60) and made.model.forward(images).shape[2:] == (20, 20)
    assert (labels[:, 20:40, 20:40] != data.VOID).any()
    for _ in made.events():
        pass
    assert np.isfinite(json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])["loss"])


def test_only_the_backbones_statistics_are_frozen(tmp_path):
    write_voc(tmp_path / "data/VOC2012", "abcd", train="abc", val="d")
    values = {"backbone": "efficientnet_lite0", "depth": 4, "crop": 32, "frozen_statistics": True, "backbone_rate": 0.1}
    model = Run(config(tmp_path / "data", **values), tmp_path / "run").model
    norms = {layer.name: layer.frozen for layer in model.layers_of(layers.BatchNorm2d)}
    assert {name.startswith("lite0."): frozen for name, frozen in norms.items()} == {True: True, False: False}
    with pytest.raises(InputError, match="got None; add --backbone efficientnet_lite0"):
        Run(config(tmp_path / "data", start="imagenet"), tmp_path / "run")
    assert model.parameters()["lite0.stem.weight"].lr_mult == 0.1 and model.parameters()["score.weight"].lr_mult == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--padding", "valid", "--crop", 0, "--batch-size", 1],
            "padding valid takes crops of a size, such as --crop 252; got whole",
        ),
        (["--frozen-statistics"], "there are none yet without a backbone that has some"),
        (["--border-class"], "with classes only; train without the border class"),
        (["--start", "imagenet"], "depth: counts without a backbone only; leave it out"),
        (["--padding", "valid", "--crop", 50], "take sides of 44 + 4k; got 50x50, nearest to 50: 48 or 52"),
        (["--variant", "8s"], "variant: unet has no such option; it has backbone, width, depth"),
        (["--border-weight", 10], "expected images whose objects are told apart"),
        (["--dice", -1], "dice: expected at least 0, got -1"),
        (["--backbone", "efficientnet_lite0"], "depth: counts without a backbone only; leave it out"),
        (["--turn", "--crop", 0, "--batch-size", 1], ""),
    ],
)
def test_wrong_use_ends_in_one_line(more, message, tmp_path, capsys):
    write_voc(tmp_path / "data/VOC2012", "abcd", train="abc", val="d")
    code = run("train", "--data", tmp_path / "data", "--out", tmp_path / "run", *SMALL, "--iterations", 1, *more)
    assert code == (2 if message else 0)
    assert message in capsys.readouterr().err
    assert (tmp_path / "run").exists() == (code == 0)


def test_a_run_starts_from_the_best_weights_of_another(cells, tmp_path):
    for _ in Run(config(cells), tmp_path / "first").events():
        pass
    again = Run(config(cells, start=str(tmp_path / "first/best.npz"), border_class=True), tmp_path / "second")
    assert "but for the scores: it has 2 classes, this network 3" in again.started
    arrays, _ = checkpoint.read(tmp_path / "first/checkpoint.npz")
    kept = npz.section(arrays, "weights")["up0.conv2.weight"]
    np.testing.assert_array_equal(again.model.state_dict()["up0.conv2.weight"], kept)


def test_stretched_images_are_seen_alike_in_training_and_prediction(tmp_path):
    """A darker copy of a picture gives the same labels, also where the network goes on from another's weights."""
    root = write_plain(tmp_path / "grey")
    made = Run(config(root, stretch=True), tmp_path / "run")
    for _ in made.events():
        pass
    network = models.load_segmenter(tmp_path / "run/best.npz")
    image = data.open_dataset(root)[0].image // 4 * 4
    assert network.card.preprocessing.stretch
    np.testing.assert_array_equal(inference.predict(network, image), inference.predict(network, image // 4 + 20))
    np.testing.assert_array_equal(inference.predict(network, image, 128), inference.predict(network, image))
    images, _ = next(made.stream)
    assert images.min() == np.float32(-127.5 / 64) and images.max() == np.float32(127.5 / 64)
    again = Run(config(root, start=str(tmp_path / "run/best.npz")), tmp_path / "again")
    assert again.stream.preprocessing.stretch and Run.resume(tmp_path / "run").stream.preprocessing.stretch
