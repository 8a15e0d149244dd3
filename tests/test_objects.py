"""Objects from probabilities: drawn scenes worked out by hand, and the true masks of real nuclei, blurred and with noise."""

import builtins
import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import cli, data, inference, layers, metrics, models, weights
from minifcn.card import Card
from minifcn.data.labels import AMBIGUOUS
from minifcn.errors import InputError, MissingFileError
from minifcn.inference import objects_of
from minifcn.metrics import InstanceScores
from minifcn.report import figures

ndimage = pytest.importorskip("scipy.ndimage")

TWO, THREE = ("background", "nucleus"), ("background", "nucleus", "border")
nuclei_there = pytest.mark.skipif(
    "MINIFCN_NUCLEI" not in os.environ, reason="MINIFCN_NUCLEI names no folder of the 2018 Data Science Bowl"
)


def probabilities_of(labels, classes=TWO, sure=0.9):
    """Those of a network that gives `sure` to each pixel's label and as much as is left to each of the others."""
    others = (1 - sure) / (len(classes) - 1)
    return np.where(np.arange(len(classes))[:, None, None] == labels, np.float32(sure), np.float32(others))


def drawn(*boxes, size=(24, 30)):
    """A map of boxes (number, top, left, height, width), later ones above earlier."""
    numbers = np.zeros(size, np.uint16)
    for number, y, x, height, width in boxes:
        numbers[y : y + height, x : x + width] = number
    return numbers


def touching(instances):
    """Where an object's pixel has another object among its eight neighbours, pixel by pixel."""
    edge, around = np.zeros(instances.shape, bool), np.pad(instances, 1)
    for y, x in np.argwhere(instances):
        edge[y, x] = np.any((around[y : y + 3, x : x + 3] > 0) & (around[y : y + 3, x : x + 3] != instances[y, x]))
    return edge


def with_border(instances):
    """Labels of three classes: objects with a rim of one pixel where they end."""
    eroded = ndimage.minimum_filter(instances, 3) == ndimage.maximum_filter(instances, 3)
    return np.where(instances > 0, np.where(eroded, 1, 2), 0)


def same_objects(found, true):
    """Whether the maps show the same objects, whatever their numbers."""
    pairs = {*zip(found.reshape(-1).tolist(), true.reshape(-1).tolist(), strict=True)}
    return len(pairs) == len(np.unique(found)) == len(np.unique(true))


def test_objects_are_numbered_and_scored():
    true = drawn((1, 2, 2, 6, 5), (2, 12, 9, 8, 8))
    probabilities = probabilities_of(true > 0, sure=0.8)
    probabilities[:, 12:20, 9:13] = [[[0.25]], [[0.75]]]
    instances, scores = objects_of(probabilities, TWO)
    np.testing.assert_array_equal(instances, true)
    assert (instances.dtype, scores.dtype) == (np.uint16, np.float64)
    assert scores == pytest.approx([0.8, 0.775])


def test_small_objects_are_dropped_and_the_others_numbered_without_gaps():
    true = drawn((1, 1, 1, 4, 4), (2, 8, 8, 15, 1), (3, 1, 20, 4, 4))
    instances, scores = objects_of(probabilities_of(true > 0), TWO)
    np.testing.assert_array_equal(instances, drawn((1, 1, 1, 4, 4), (2, 1, 20, 4, 4)))
    assert len(scores) == 2
    assert objects_of(probabilities_of(true > 0), TWO, least=15)[0].max() == 3
    assert objects_of(probabilities_of(true > 0), TWO, least=0)[0].max() == 3


@pytest.mark.parametrize("shift", [0, 3])
def test_objects_that_touch_get_back_the_background_that_keeps_them_apart(shift):
    """Side by side, and corner to corner; but not where background lies between objects in truth."""
    true = drawn((1, 2, 2, 8, 8), (2, 2 + shift, 10, 8, 8), (3, 10 + shift, 18, 8, 8))
    instances, _ = objects_of(probabilities_of((true > 0) & ~touching(true)), TWO)
    assert same_objects(instances[true > 0], true[true > 0])
    assert np.count_nonzero(instances) <= np.count_nonzero(true) + 8  # beyond the ends of the lines where they touch
    apart = drawn((1, 2, 2, 8, 8), (2, 2, 13, 8, 8))
    assert same_objects(objects_of(probabilities_of(apart > 0), TWO)[0], apart)


def test_corners_that_touch_do_not_make_one_object():
    true = drawn((1, 2, 2, 8, 8), (2, 10, 10, 8, 8))
    instances, _ = objects_of(probabilities_of(true > 0), TWO)
    assert same_objects(instances[true > 0], true[true > 0])


def test_objects_with_a_border_class_get_their_rims_and_those_without_a_core_are_found():
    true = drawn((1, 2, 2, 8, 8), (2, 2, 10, 8, 8), (3, 14, 2, 2, 12), (4, 18, 20, 5, 5))
    labels = with_border(true)
    assert not (labels[true == 3] == 1).any()  # two pixels high: nothing but rim
    instances, scores = objects_of(probabilities_of(labels, THREE), THREE)
    assert same_objects(instances, true)
    assert scores == pytest.approx(0.95)


def test_a_core_grows_by_two_pixels_at_most():
    labels = drawn((2, 0, 4, 24, 22))  # a broad border
    labels[8:16, 10:18] = 1
    instances, _ = objects_of(probabilities_of(labels, THREE), THREE)
    np.testing.assert_array_equal(instances[12], [0] * 8 + [1] * 12 + [0] * 10)


def test_what_is_not_sure_divides_objects_and_belongs_to_the_nearest():
    probabilities = probabilities_of(drawn((1, 4, 4, 10, 21)) > 0)
    probabilities[:, 4:14, 14] = [[0.45], [0.55]]
    instances, _ = objects_of(probabilities, TWO)
    assert np.count_nonzero(instances) == 10 * 21
    assert (instances[8, 4:14] == 1).all() and (instances[8, 15:25] == 2).all()
    assert objects_of(probabilities, TWO, sure=0.5)[0].max() == 1


def test_holes_are_filled_but_not_what_several_objects_enclose():
    ring, full = drawn((1, 2, 2, 9, 9), (0, 5, 5, 3, 3)), drawn((1, 2, 2, 9, 9))
    np.testing.assert_array_equal(objects_of(probabilities_of(ring > 0), TWO)[0], full)
    inner = drawn((1, 1, 1, 16, 16), (0, 4, 4, 10, 10), (2, 7, 7, 4, 4))
    found, _ = objects_of(probabilities_of(inner > 0), TWO)
    assert (found[7:11, 7:11] == 2).all() and found[5, 5] == 1
    closed = drawn((1, 2, 2, 12, 12), (0, 2, 6, 8, 4), (2, 2, 6, 4, 4))  # a U with a lid
    found, _ = objects_of(probabilities_of(with_border(closed), THREE), THREE)
    assert same_objects(found, closed)


def test_several_classes_of_objects_make_one_interior():
    labels = drawn((1, 4, 4, 8, 4), (3, 4, 8, 8, 4))
    found, _ = objects_of(
        probabilities_of(labels, ("background", "cat", "border", "dog")), ("background", "cat", "border", "dog")
    )
    np.testing.assert_array_equal(found, labels > 0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_pictures_without_objects_and_of_nothing_else(value):
    probabilities = np.stack([np.full((9, 7), 1 - value), np.full((9, 7), value)])
    instances, scores = objects_of(probabilities, TWO)
    np.testing.assert_array_equal(instances, np.full((9, 7), int(value)))
    assert scores.tolist() == [1.0] * int(value)


@pytest.mark.parametrize(
    "shape, classes",
    [((2, 4), TWO), ((2, 4, 4), THREE), ((1, 4, 4), ("background",)), ((2, 4, 4), ("background", "border"))],
)
def test_probabilities_that_are_not_of_objects_are_refused(shape, classes):
    with pytest.raises(InputError, match="expected probabilities .* of objects, got an array"):
        objects_of(np.zeros(shape, np.float32), classes)


@pytest.mark.slow
def test_more_objects_than_16_bits_number_are_refused():
    dots = np.zeros((520, 520))
    dots[::2, ::2] = 1
    with pytest.raises(InputError, match="67600 found, more than 65535; raise least, now 1"):
        objects_of(np.stack([1 - dots, dots]), TWO, least=1)


def test_without_scipy_what_to_install_is_said(monkeypatch):
    def without(name, *more, real=builtins.__import__):
        if name == "scipy":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MissingFileError, match=r"objects: SciPy is not installed; run pip install 'minifcn\[objects\]'"
    ):
        objects_of(np.zeros((2, 4, 4), np.float32), TWO)


# --- Real nuclei ----------------------------------------------------------------------------------------------------


def real_nuclei(count):
    """The objects of every so many images, (H, W) uint16."""
    root = Path(os.environ["MINIFCN_NUCLEI"], "stage1_train")
    folders = sorted(root.iterdir())
    for folder in folders[:: len(folders) // count]:
        masks = [np.asarray(Image.open(path).convert("L")) > 0 for path in sorted((folder / "masks").glob("*.png"))]
        yield (np.stack(masks) * np.arange(1, len(masks) + 1)[:, None, None]).max(axis=0).astype(np.uint16)


@nuclei_there
@pytest.mark.parametrize(
    "classes, blur, at_50, mean",
    [
        (THREE, 0, 0.99, 0.985),
        (THREE, 0.7, 0.97, 0.89),
        pytest.param(TWO, 0, 0.99, 0.96, marks=pytest.mark.slow),
        pytest.param(TWO, 0.7, 0.975, 0.86, marks=pytest.mark.slow),
    ],
)
def test_real_nuclei_are_told_apart(classes, blur, at_50, mean):
    rng, scores = np.random.default_rng(0), InstanceScores()
    for true in real_nuclei(25):
        labels = with_border(true) if classes == THREE else (true > 0) & ~touching(true)
        probabilities = probabilities_of(labels, classes, sure=0.99)
        if blur:
            logits = np.log(ndimage.gaussian_filter(probabilities, (0, blur, blur)))
            logits += 4 * blur * ndimage.gaussian_filter(rng.standard_normal(logits.shape), (0, 1.5, 1.5))
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
        scores.update(true, objects_of(probabilities.astype(np.float32), classes)[0])
    assert scores.at(0.5) > at_50 and scores.mean() > mean


# --- A network, and the commands ------------------------------------------------------------------------------------

# Three objects, of which two touch; one is darker, and one is as bright as the background.
SCENE = drawn((1, 2, 2, 8, 8), (2, 2, 10, 8, 8), (3, 15, 3, 6, 6), (4, 15, 20, 6, 6))
PHOTO = np.repeat(np.uint8([20, 200, 200, 140, 20])[np.where(touching(SCENE), 0, SCENE)][:, :, None], 3, axis=2)


@pytest.fixture
def by_brightness(monkeypatch):
    """A network that takes what is bright for a nucleus, which the commands load whatever the file."""
    score = layers.Conv2d(3, 2, 1, np.random.default_rng(0))
    score.weight.value[:] = np.float32([0, 2]).reshape(2, 1, 1, 1)
    score.bias.value[:] = 0
    card = Card("unet", {"num_classes": 2}, classes=TWO)
    network = models.Graph({"score": (score, ["image"])}, card=card)
    monkeypatch.setattr(models, "load_segmenter", lambda path: network)
    return network


def test_probabilities_are_those_of_the_scores_also_by_tiles(by_brightness):
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    found = inference.probabilities(by_brightness, image)
    nucleus = 1 / (1 + np.exp(-2 * ((image - 127.5) / 64).sum(axis=2)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1 - nucleus, nucleus], atol=1e-6)
    np.testing.assert_allclose(inference.probabilities(by_brightness, image, 128), found, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=0), inference.predict(by_brightness, image))


def test_a_network_is_scored_by_its_objects(by_brightness):
    found, scores = inference.objects(by_brightness, PHOTO)
    assert same_objects(found[SCENE > 0], np.where(SCENE == 4, 0, SCENE)[SCENE > 0])
    assert scores[2] < min(scores[:2])
    by_brightness.card.classes = None  # as a network just built
    np.testing.assert_array_equal(inference.objects(by_brightness, PHOTO)[0], found)
    samples = [data.ObjectSample(PHOTO, (SCENE > 0).astype(np.uint8), "a", SCENE)]
    bowl, precision = inference.evaluate_objects(by_brightness, samples)
    assert bowl.at(0.5) == 3 / 4 and precision.ap() == 3 / 4
    bowl, _ = inference.evaluate_objects(by_brightness, samples, least=50)  # the third has 36 pixels
    assert bowl.at(0.5) == 2 / 4
    unknown = np.where(SCENE == 4, AMBIGUOUS, SCENE)  # a crowd, which is no object
    bowl, _ = inference.evaluate_objects(by_brightness, [samples[0]._replace(instances=unknown)])
    assert bowl.at(0.5) == 1
    with pytest.raises(InputError, match="b: has no numbers of objects"):
        inference.evaluate_objects(by_brightness, [*samples, data.Sample(PHOTO, PHOTO[:, :, 0], "b")])


class Scenes(list):
    """A data set of samples."""

    classes, folder, objects, bands = TWO, "scenes", True, 3


@pytest.mark.parametrize("instances", [SCENE, None])
def test_evaluate_prints_the_scores_of_objects_where_there_are_some(instances, by_brightness, monkeypatch, capsys):
    samples = Scenes([data.ObjectSample(PHOTO, (SCENE > 0).astype(np.uint8), "a", instances)])
    monkeypatch.setattr(data, "open_dataset", lambda *_, **__: samples)
    forward, runs = by_brightness.prepare().forward, []
    monkeypatch.setattr(models.Graph, "forward", lambda _, x: runs.append(x.shape) or forward(x))
    assert cli.main(["evaluate", "--weights", "any.npz", "--data", "scenes"]) == 0
    assert len(runs) == 1
    printed = capsys.readouterr().out.splitlines()
    if instances is None:
        assert "objects" not in "".join(printed)
    else:
        bowl = inference.evaluate_objects(by_brightness, samples)[0].mean()
        assert printed[-2].split("  ")[-1].strip() == "AP at 0.5"
        assert printed[-1].split() == ["objects", "75.0", f"{100 * bowl:.1f}", "75.0"]


def test_predict_numbers_objects_and_outlines_them(by_brightness, tmp_path, capsys):
    photo = PHOTO.repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(photo).save(tmp_path / "cells.png")
    found = inference.classed_objects(by_brightness, photo, longest=30)
    assert found.instances.shape == found.labels.shape == photo.shape[:2]
    samples = Scenes([data.ObjectSample(photo, (found.labels > 0).astype(np.uint8), "a", found.instances)])
    matrix = metrics.ConfusionMatrix(2)
    bowl, _ = inference.evaluate_objects(by_brightness, samples, longest=30, matrices=[matrix])
    assert bowl.mean() == matrix.mean_iou() == 1
    command = ["predict", "--weights", "any.npz", "--resize", "30", "--out", str(tmp_path / "out")]
    command.append(str(tmp_path / "cells.png"))
    assert cli.main(command) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cells.png", "cells_overlay.jpg"}
    mask = np.asarray(Image.open(tmp_path / "out/cells.png"))
    plain = (tmp_path / "out/cells_overlay.jpg").read_bytes()
    assert " objects" not in capsys.readouterr().out
    assert cli.main([*command, "--objects"]) == 0
    assert "cells.png: 3 objects, background " in capsys.readouterr().out
    numbers = Image.open(tmp_path / "out/cells_objects.png")
    expected = inference.objects(by_brightness, inference.shrunk(photo, 30))[0]
    assert numbers.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(numbers), expected.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(Image.open(tmp_path / "out/cells.png"), mask)
    rows = list(csv.DictReader((tmp_path / "out/objects.csv").open()))
    inner = set(by_brightness.card.classes) - {"background", "border"}
    assert [row["object"] for row in rows] == ["1", "2", "3"] and {row["class"] for row in rows} <= inner
    assert [int(row["area"]) for row in rows] == np.bincount(np.asarray(numbers).reshape(-1))[1:].tolist()
    assert cli.main([*command, "--table", str(tmp_path / "t.csv")]) == 2
    assert "tells no objects apart; expected --objects, or a panoptic network" in capsys.readouterr().err
    assert (tmp_path / "out/cells_overlay.jpg").read_bytes() != plain


def test_predict_writes_no_file_for_two_images(by_brightness, tmp_path, capsys):
    for name in ("a.png", "a_objects.png"):
        Image.fromarray(PHOTO).save(tmp_path / name)
    command = ["predict", "--weights", "any.npz", "--out", str(tmp_path / "out"), str(tmp_path)]
    assert cli.main([*command, "--objects"]) == 2
    assert "a_objects.png: would be written for two of the images" in capsys.readouterr().err
    assert cli.main(command) == 0


def test_outlines_are_the_objects_outermost_pixels_in_colours_of_their_own():
    numbers = drawn((1, 0, 0, 5, 5), (2, 0, 5, 5, 5), (300, 10, 10, 1, 1))
    image = np.full((*numbers.shape, 3), 100, np.uint8)
    drawing = figures.outlined(image, numbers)
    changed = (drawing != 100).any(axis=2)
    inside = np.zeros_like(changed)
    inside[1:4, 1:4] = inside[1:4, 6:9] = True
    np.testing.assert_array_equal(changed, (numbers > 0) & ~inside)
    colours = [np.unique(drawing[changed & (numbers == number)], axis=0) for number in (1, 2, 300)]
    assert [len(one) for one in colours] == [1, 1, 1] and len(np.unique(np.concatenate(colours), axis=0)) == 3
    assert (image == 100).all()


def test_what_no_image_can_pass_is_told_once_and_the_table_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = models.unet(1, width=2, depth=2, padding="same")
    network.card.classes = ("ground",)
    weights.save("net.npz", network)
    for name in "ab":
        Image.new("RGB", (20, 30)).save(f"{name}.png")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/objects.csv").write_text("of an earlier run")
    assert cli.main(["predict", "--device", "cpu", "--weights", "net.npz", "--objects", "a.png", "b.png"]) == 2
    told = capsys.readouterr().err
    assert told.count("net.npz: has no class of objects beside the background (ground)") == 1 and "skipped" not in told
    assert (tmp_path / "predictions/objects.csv").read_text() == "of an earlier run"
