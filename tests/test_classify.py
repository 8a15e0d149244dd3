"""A classifier's guesses and heat-maps; on real photographs where the pretrained package and the photographs are there."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import cli, data, inference, models, weights
from minifcn.data.imagenet import IMAGENET_CLASSES
from minifcn.data.images import read_image
from minifcn.data.labels import class_numbers
from minifcn.inference import classify
from minifcn.report import figures

PHOTOS = os.environ.get("MINIFCN_PHOTOS")
CATS = (281, 282, 285)


@pytest.fixture(scope="module")
def lite0():
    model = models.efficientnet_lite0()
    try:
        weights.load_pretrained(model)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return model


def photo(name):
    if not PHOTOS:
        pytest.skip("MINIFCN_PHOTOS is not set")
    return read_image(Path(PHOTOS) / name)


def test_imagenet_has_a_thousand_names():
    assert len(IMAGENET_CLASSES) == len(set(IMAGENET_CLASSES)) == 1000
    assert all(name and name == name.strip() for name in IMAGENET_CLASSES)
    known = {0: "tench", 281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 967: "espresso", 968: "cup"}
    assert {number: IMAGENET_CLASSES[number] for number in known} == known


def test_cats_are_what_it_sees_in_a_cat_and_espresso_in_a_cup(lite0):
    best = classify.top(lite0, photo("chelsea.png"))
    assert {number for number, _ in best[:3]} == set(CATS)
    shares = [share for _, share in best]
    assert len(best) == 5 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-9
    (first, _), *_ = classify.top(lite0, photo("coffee.png"))
    assert IMAGENET_CLASSES[first] in ("espresso", "cup")


@pytest.mark.parametrize("size", [(224, 224), (300, 451), (100, 130), (40, 300)])
def test_any_size_gives_guesses_and_a_heat_map(size):
    model = models.efficientnet_lite0(num_classes=7)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert len(classify.top(model, image, 3)) == 3
    heat = classify.heat_map(model, image, [1, 4])
    assert heat.ndim == 2 and min(heat.shape) >= 7 and heat.dtype == np.float32
    one, other = (classify.heat_map(model, image, [number]) for number in (1, 4))
    np.testing.assert_allclose(heat, one + other, rtol=1e-5, atol=1e-6)
    row, column = classify.peak(heat, size)
    assert 0 <= row < size[0] and 0 <= column < size[1]


def test_the_peak_is_the_middle_of_its_cell():
    heat = np.zeros((4, 5), np.float32)
    heat[2, 1] = 1
    assert classify.peak(heat, (40, 100)) == (25, 30)


def test_windows_are_scored_by_what_is_in_their_middle(rng):
    """Every 16 pixels a window of 64, inside the image; one whose middle is void does not count."""
    network = models.mini(num_classes=3, seed=1, width=2)
    image = rng.integers(0, 256, (100, 83, 3)).astype(np.uint8)
    label = rng.integers(0, 3, (100, 83)).astype(np.uint8)
    label[32:34, 32:34] = 255
    samples = [data.sets.base.Sample(image, label, "a"), data.sets.base.Sample(image[:63], label[:63], "too small")]
    counts = np.zeros((3, 3), int)
    for y, x in [(y, x) for y in (0, 16, 32) for x in (0, 16)][1:]:
        pixels = network.card.preprocessing.apply(image[y : y + 64, x : x + 64])
        counts[label[y + 32, x + 32], network.forward(pixels[None])[0].argmax()] += 1
    np.testing.assert_array_equal(inference.evaluate_windows(network, samples, 3).counts, counts)


def test_command_prints_names_and_draws(lite0, tmp_path, capsys):
    photo("chelsea.png")
    out = tmp_path / "maps"
    assert cli.main(["classify", str(Path(PHOTOS) / "chelsea.png"), "--heatmap", "tabby,282", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "tiger cat (282)" in printed and printed.count("%") == 5
    picture = read_image(out / "chelsea_heatmap.png")
    assert picture.std() > 20 and picture.shape[1] > 800


@pytest.mark.parametrize("size", [(1500, 1), (1, 1500)])
def test_the_heat_map_of_a_strip_is_of_a_size_that_can_be_drawn(size, tmp_path):
    heat = np.arange(40, dtype=np.float32).reshape((-1, 1) if size[1] == 1 else (1, -1))
    figures.heat_map(np.zeros((*size, 3), np.uint8), {"a": heat}, tmp_path / "a.png", peak=(0, 0))
    assert max(read_image(tmp_path / "a.png").shape) < 8000


def test_photographs_that_cannot_be_read_are_skipped_and_named(tmp_path, capsys):
    for name in ("a", "z"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "m.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    command = ["classify", "--weights", tmp_path / "w.npz", "--top", "2"]
    weights.save(tmp_path / "w.npz", models.efficientnet_lite0())
    assert cli.main([str(word) for word in (*command, tmp_path / "a.png", tmp_path / "m.png", tmp_path / "z.png")]) == 1
    said = capsys.readouterr()
    assert all(f"{tmp_path / name}\n" in said.out for name in ("a.png", "z.png")) and "m.png" not in said.out
    assert f"skipped: {tmp_path / 'm.png'}: not a readable image" in said.err
    assert cli.main([str(word) for word in (*command, tmp_path / "m.png")]) == 2


def test_a_heat_map_takes_the_place_of_no_image(tmp_path, capsys):
    for name in ("a", "a_heatmap"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
    weights.save(tmp_path / "w.npz", models.efficientnet_lite0())
    words = [
        "classify",
        "--weights",
        tmp_path / "w.npz",
        "--heatmap",
        "tabby",
        "--out",
        tmp_path,
        *tmp_path.glob("*.png"),
    ]
    before = (tmp_path / "a_heatmap.png").read_bytes()
    assert cli.main([str(word) for word in words]) == 2
    assert "a_heatmap.png: is one of the images" in capsys.readouterr().err
    assert (tmp_path / "a_heatmap.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("classify a.png --network vgg16", "vgg16 has no weights that come with a package; expected --weights"),
        ("classify a.png --top 0", "expected at least 1, got 0"),
        ("explain alexnet_torchvision --variant 8s", "there is no FCN over alexnet_torchvision; choose one of"),
        ("explain vgg16 --num-classes 0", "num-classes: expected at least 1, got 0"),
        ("explain alexnet --size 100", "expected 9216 values an image, got (1024,); use --size 227, or --variant"),
        ("explain alexnet --size 1 2 3", "size: expected one side, or height and width; got 3 numbers"),
        ("convert a.pth b.txt", "b.txt: expected a file ending in .npz or .safetensors"),
        ("convert a.pth b.npz", "a.pth: expected weights, got no such file"),
        ("classify a.png --heatmap unicorn", "expected numbers 0..999 or class names; got 'unicorn'"),
        ("classify a.png --heatmap cat", "or class names, such as tiger cat (282), Persian cat (283)"),
        ("classify a.png --heatmap ,", "expected numbers 0..999 or class names, got ','"),
        ("classify a.png --heatmap ²", "got '²'"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, message, capsys, tmp_path, monkeypatch, blank):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(arguments.split())
    except SystemExit as ended:  # by the parser of the arguments
        code = ended.code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("minifcn")]
    assert code == 2 and message in line


def test_classes_are_told_by_number_or_name_and_count_once():
    assert class_numbers("Tabby, 282,281", IMAGENET_CLASSES) == [281, 282]
    with pytest.raises(ValueError, match="classes: expected numbers"):
        class_numbers("9" * 5000, IMAGENET_CLASSES)


def test_fcn_weights_without_class_names_have_vocs(tmp_path):
    for num_classes, first in ((21, "background"), (3, "class 0")):
        path = tmp_path / f"{num_classes}.npz"
        weights.save(path, models.fcn("32s", "mini", num_classes, width=1))
        names = models.load_segmenter(path).card.classes
        assert len(names) == num_classes and names[0] == first


def test_convert_keeps_every_bit_and_the_class_names(tmp_path, capsys):
    model, names = models.fcn("8s", "mini", 3, width=1, seed=4), ("a", "b", "c")
    files = [tmp_path / name for name in ("a.npz", "b.safetensors", "c.npz")]
    weights.save(files[0], model, classes=names)
    for before, after in pairwise(files):
        assert cli.main(["convert", str(before), str(after)]) == 0
        again = models.load_segmenter(after)
        assert again.card.classes == names
        assert all((again.state_dict()[name] == array).all() for name, array in model.state_dict().items())
    assert cli.main(["convert", *map(str, files[:2])]) == 2
    assert "b.safetensors: exists already" in capsys.readouterr().err


def test_convert_gives_weights_the_names_of_their_classes(tmp_path, capsys):
    weights.save(tmp_path / "a.npz", models.fcn("8s", "mini", 3, width=1))
    for text, told in (("sky\nsea\n", "names.txt: expected 3 class names, got 2"), ("sky\nsea\nland\n", None)):
        (tmp_path / "names.txt").write_text(text)
        command = ["convert", tmp_path / "a.npz", tmp_path / "b.npz", "--classes", tmp_path / "names.txt"]
        assert cli.main([str(word) for word in command]) == (2 if told else 0)
        assert told is None or told in capsys.readouterr().err
    assert models.load_segmenter(tmp_path / "b.npz").card.classes == ("sky", "sea", "land")


def test_explain_prints_a_table_with_totals(capsys):
    command = "explain efficientnet_lite0 --variant 8s --size 375 500 --alignment same"
    assert cli.main(command.split()) == 0
    printed = capsys.readouterr().out
    for part in ("lite0.block10.depthwise", "1 × 21 × 375 × 500", "2,968,823 learned", "multiply-adds, forward"):
        assert part in printed
