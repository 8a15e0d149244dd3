"""The trained network that comes with the library does what its card says, from files that lie in the package alone."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import cli, data, errors, inference, models
from minifcn.data.images import read_image
from minifcn.models.catalogue import TRAINED

PHOTOS = Path(__file__).parents[1] / "docs/photos"
CLASSES = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
OF_VOC = [0, 8, 10, 12, 13, 15, 17]


@pytest.fixture(scope="module")
def animals():
    return models.pretrained("animals").prepare()


@pytest.mark.parametrize("network", ["animals", "animals_v3plus"])
@pytest.mark.parametrize(("photo", "name", "least"), [("chelsea", "cat", 0.6), ("astronaut", "person", 0.3)])
def test_photographs_come_out_as_what_they_show(network, photo, name, least):
    network = models.pretrained(network)
    labels = inference.predict(network, read_image(PHOTOS / f"{photo}.jpg"))
    shares = np.bincount(labels.reshape(-1), minlength=7) / labels.size
    assert network.card.classes == CLASSES
    assert CLASSES[shares[1:].argmax() + 1] == name and shares.max() < 0.9
    assert shares[CLASSES.index(name)] > least
    assert shares[0] + shares[CLASSES.index(name)] > 0.85  # part of the suit is taken for a horse


def test_a_cup_of_coffee_is_none_of_them(animals):
    assert (inference.predict(animals, read_image(PHOTOS / "coffee.jpg")) == 0).mean() > 0.98


@pytest.mark.parametrize("options", [[], ["--weights", "animals_v3plus"]])
def test_predict_needs_no_option_and_sees_large_photographs_at_the_size_that_the_network_knows(
    options, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with Image.open(PHOTOS / "chelsea.jpg") as photo:
        photo.resize((1500, 998)).save("cat.jpg")
    assert cli.main(["predict", *options, "cat.jpg"]) == 0
    printed = capsys.readouterr()
    share = float(re.search(r"^cat\.jpg: cat ([\d.]+) %, background", printed.out, re.MULTILINE)[1])
    assert share > 60 and "1 mask and overlay written to predictions" in printed.err
    mask = np.asarray(Image.open("predictions/cat.png"))
    assert mask.shape == (998, 1500) and abs((mask == 1).mean() - share / 100) < 0.001
    assert Image.open("predictions/cat_overlay.jpg").size == (1500, 998)


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(
        errors.InputError, match="pretrained: expected one of animals, animals_v3plus, nuclei; got 'plants'"
    ):
        models.pretrained("plants")


def test_it_is_small_and_has_a_card():
    for path in TRAINED.glob("*.npz"):
        assert path.stat().st_size <= (12_000_000 if path.stem == "animals_v3plus" else 7_000_000)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        classes = models.pretrained(path.stem).card.classes
        assert all(word in card for word in ("minifcn train", "seed", "License", "bad at", *classes))


@pytest.mark.slow
@pytest.mark.skipif("MINIFCN_VOC" not in os.environ, reason="MINIFCN_VOC names no VOCdevkit folder")
@pytest.mark.parametrize("name", ["animals", "animals_v3plus"])
def test_its_scores_are_those_of_its_card(name):
    """On the first validation images of the subset that it was judged on; the card has the figure for these, too."""
    card = (TRAINED / f"{name}.md").read_text(encoding="utf-8")
    count, expected = re.search(r"first (\d+) .*?\*\*([\d.]+)\*\*", card).groups()
    seven = np.zeros(256, np.uint8)
    seven[OF_VOC] = range(7)
    seven[255] = 255
    samples = data.VOC(os.environ["MINIFCN_VOC"], "val", limit=int(count))
    relabelled = [data.sets.base.Sample(image, seven[label], id) for image, label, id in samples]
    found = inference.evaluate(models.pretrained(name), relabelled, 7)
    assert 100 * found.mean_iou() == pytest.approx(float(expected), abs=0.1)


@pytest.mark.slow
@pytest.mark.skipif(
    "MINIFCN_NUCLEI" not in os.environ, reason="MINIFCN_NUCLEI names no folder of the 2018 Data Science Bowl"
)
def test_the_scores_of_nuclei_are_those_of_their_card():
    pytest.importorskip("scipy", reason="SciPy is not installed; objects need it")
    card = (TRAINED / "nuclei.md").read_text(encoding="utf-8")
    expected = [
        float(figure) for figure in re.search(r"first 10 .*?\*\*([\d.]+)\*\* and \*\*([\d.]+)\*\*", card).groups()
    ]
    samples = data.Nuclei(os.environ["MINIFCN_NUCLEI"], "val", limit=10)
    bowl, _ = inference.evaluate_objects(models.pretrained("nuclei"), samples)
    assert [100 * bowl.at(0.5), 100 * bowl.mean()] == pytest.approx(expected, abs=0.3)
