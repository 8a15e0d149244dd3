"""Images of any number of bands: TIFFs read, transformed, learned from and predicted for; what refuses them, and how."""

import io
import json
import logging
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from planted_faults import five_bands
from small_datasets import run

from minifcn import data, inference, models, weights
from minifcn.data import doctor, images, transforms
from minifcn.data.large import open_large
from minifcn.errors import InputError
from minifcn.preprocessing import GREY, Preprocessing, of_channels
from minifcn.training.config import Config
from minifcn.training.run import Run

NETWORK = ["--network", "unet", "--width", 8, "--depth", 2]
SIZE = (24, 32)


@pytest.fixture
def tifffile():
    return pytest.importorskip("tifffile", reason="tifffile is not installed; TIFFs of bands need it")


def noise(bands, bits=8, size=(19, 23)):
    return np.random.default_rng(bands).integers(0, 1 << bits, (*size, bands)).astype(f"uint{bits}")


def write(tifffile, path, pixels, **more):
    """A TIFF of the bands of `pixels` (H, W, C), side by side or, planar, one after the other."""
    planar = more.get("planarconfig") == "separate"
    given = {"photometric": "minisblack", "planarconfig": "contig", **more}
    tifffile.imwrite(path, np.moveaxis(pixels, 2, 0) if planar else pixels, **given)
    return path


# --- Files --------------------------------------------------------------------------------------------------------

STORED = {
    "two": (2, 8, {}),
    "three of grey": (3, 8, {}),
    "four": (4, 8, {}),
    "four, three of them RGB": (4, 8, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "five of 16 bits": (5, 16, {}),
    "five, one after the other": (5, 8, {"planarconfig": "separate"}),
    "four of 16 bits, one after the other, compressed": (4, 16, {"planarconfig": "separate", "compression": "zlib"}),
    "seven, compressed differences": (7, 8, {"compression": "zlib", "predictor": True}),
    "five in tiles": (5, 8, {"tile": (16, 16)}),
    "five in strips": (5, 16, {"rowsperstrip": 4, "byteorder": ">"}),
    "four in a BigTIFF": (4, 8, {"bigtiff": True}),
    "two hundred": (200, 8, {}),
}


@pytest.mark.parametrize("kind", STORED)
def test_bands_are_read_as_they_were_written(kind, tifffile, tmp_path):
    bands, bits, more = STORED[kind]
    pixels = noise(bands, bits)
    path = write(tifffile, tmp_path / "a.tif", pixels, **more)
    expected = pixels if bits == 8 else np.floor(pixels / 65535 * 255 + 0.5)
    for source in (path, named(path)):
        found = images.read_image(source)
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)
    assert images.kind_of(path) == (bands, bits == 16)


def named(path):
    """A file's content in memory, as a tar's files are."""
    file = io.BytesIO(path.read_bytes())
    file.name = path
    return file


def test_of_several_pages_the_first_is_read_and_all_are_counted(tifffile, tmp_path):
    write(tifffile, tmp_path / "a.tif", noise(5))
    for _ in range(2):
        write(tifffile, tmp_path / "a.tif", noise(4), append=True)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), noise(5))
    with open(tmp_path / "a.tif", "rb") as file:
        assert images.count_pictures(images.open_photo(file)) == 3


@pytest.mark.parametrize(("brightest", "seen"), [(4095, 255), (4096, 16)])
def test_16_bits_become_8_as_those_of_grey_images_do(brightest, seen, tifffile, tmp_path):
    pixels = np.zeros((3, 4, 5), np.uint16)
    pixels[1, 2, 4] = brightest
    assert images.read_image(write(tifffile, tmp_path / "a.tif", pixels)).max() == seen


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_turned_upright_as_rgb_is(orientation, tifffile, tmp_path):
    pixels, tag = noise(5), [(274, 3, 1, orientation, True)]
    write(tifffile, tmp_path / "bands.tif", pixels, extratags=tag)
    write(tifffile, tmp_path / "rgb.tif", pixels[:, :, :3], photometric="rgb", extratags=tag)
    for exif in (True, False):
        found, rgb = (images.read_image(tmp_path / f"{name}.tif", exif) for name in ("bands", "rgb"))
        np.testing.assert_array_equal(found[:, :, :3], rgb)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("bands", "more"),
    [
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (2, {"extrasamples": ["unassalpha"]}),
        (3, {"photometric": "rgb"}),
    ],
)
def test_rgb_and_grey_with_alpha_stay_what_they_are(bands, more, tifffile, tmp_path):
    pixels = noise(bands)
    pixels[:, :, 3 if bands == 4 else 1 :] = 255
    path = write(tifffile, tmp_path / "a.tif", pixels, **more)
    expected = pixels[:, :, :3] if bands > 2 else np.repeat(pixels[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(images.read_image(path), expected)


WRONG = {
    "floating-point": (
        lambda: five_bands(),
        "at most 256 bands, of 8 or 16 bits unsigned, got 5 of 32 bits floating-point",
    ),
    "signed": (lambda: five_bands(16, 2), "at most 256 bands, of 8 or 16 bits unsigned, got 5 of 16 bits signed"),
    "12 bits": (lambda: five_bands(12, 1), "at most 256 bands, of 8 or 16 bits unsigned, got 5 of 12 bits unsigned"),
    "too many": (
        lambda: five_bands(8, 1).replace(b"\x15\x01\4\0\1\0\0\0\5\0", b"\x15\x01\4\0\1\0\0\0\1\2"),
        "at most 256 bands.*got 513 of 8 bits unsigned",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_other_pixels_are_refused_in_a_line_that_names_the_file(fault, tmp_path):
    content, message = WRONG[fault]
    (tmp_path / "a.tif").write_bytes(content())
    for read in (images.read_image, images.kind_of):
        with pytest.raises(InputError, match=rf"a\.tif: expected {message}; save it so$"):
            read(tmp_path / "a.tif")


def test_without_tifffile_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    (tmp_path / "a.tif").write_bytes(five_bands(8, 1))
    with pytest.raises(InputError, match=r"a\.tif: has 5 bands, and tifffile.*pip install 'minifcn\[bands\]'"):
        images.read_image(tmp_path / "a.tif")


def test_sizes_are_checked_before_pixels_are_decoded(tifffile, tmp_path, monkeypatch):
    path = write(tifffile, tmp_path / "a.tif", noise(6, size=(20, 30)))
    monkeypatch.setattr(images, "MAX_PIXELS", 1200)
    assert images.read_image(path).shape == (20, 30, 6)
    monkeypatch.setattr(images, "MAX_PIXELS", 1199)
    monkeypatch.delattr("minifcn.data.bands.Bands.pixels")
    with pytest.raises(InputError, match=r"a\.tif: .*30x20 pixels of 6 bands; .*at most 599 .*; cut it into smaller"):
        images.read_image(path)
    assert open_large(path, more_than=10) is None  # such a file is not read by parts


@pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
def test_a_file_that_is_cut_off_is_refused(more, tifffile, tmp_path):
    path = write(tifffile, tmp_path / "a.tif", noise(5), **more)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"a\.tif: truncated"):
        images.read_image(path)


@pytest.mark.parametrize(
    ("number", "message"),
    [(5, "compressed by LZW.*deflate, or run pip install imagecodecs"), (8, "not a readable image")],
)
def test_a_compression_that_needs_more_is_named(number, message, tifffile, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    path = write(tifffile, tmp_path / "a.tif", noise(5))
    tag = struct.pack("<HHI", 259, 3, 1)
    path.write_bytes(path.read_bytes().replace(tag + b"\1\0", tag + struct.pack("<H", number)))
    with pytest.raises(InputError, match=rf"a\.tif: .*{message}"):
        images.read_image(path)


def test_a_strip_that_inflates_to_more_than_its_pixels_is_refused(tifffile, tmp_path):
    path = write(tifffile, tmp_path / "a.tif", noise(5), compression="zlib")
    bomb = zlib.compress(bytes(1 << 19))
    with tifffile.TiffFile(path) as file:
        length, start = (file.pages[0].tags[number] for number in (279, 273))
        assert len(bomb) < length.value[0]
    content = bytearray(path.read_bytes())
    content[start.value[0] : start.value[0] + len(bomb)] = bomb
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif: inflates to more than the pixels"):
        images.read_image(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}, {"tile": (16, 16)}])
def test_damaged_headers_are_read_or_refused_in_a_line(more, tifffile, tmp_path, rng):
    good = write(tifffile, tmp_path / "a.tif", noise(5), **more).read_bytes()
    refused = 0
    for _ in range(60):
        content = bytearray(good)
        for place in rng.integers(0, 260, 2):
            content[place] = rng.integers(0, 256)
        (tmp_path / "a.tif").write_bytes(content)
        try:
            images.read_image(tmp_path / "a.tif")
        except InputError as error:
            refused += 1
            assert "a.tif: " in str(error) and "\n" not in str(error)
    assert refused


def test_people_see_the_first_three_bands_or_the_first_in_grey():
    np.testing.assert_array_equal(images.in_colours(noise(5)), noise(5)[:, :, :3])
    np.testing.assert_array_equal(images.in_colours(noise(3)), noise(3))
    np.testing.assert_array_equal(images.in_colours(noise(2)), noise(2)[:, :, [0, 0, 0]])


# --- Preprocessing and transforms ---------------------------------------------------------------------------------


def test_a_network_sees_each_band_by_its_mean_and_scale():
    seen = Preprocessing("bands", (1.0, 2.0, 3.0, 4.0), (1.0, 0.5, 0.25, 0.125))
    image = noise(4)
    expected = (image - np.float32([1, 2, 3, 4])) * np.float32([1, 0.5, 0.25, 0.125])
    np.testing.assert_array_equal(seen.apply(image), expected.transpose(2, 0, 1))
    assert seen.fill().tolist() == [1, 2, 3, 4] and seen.bands == 4
    assert Preprocessing.from_dict(json.loads(json.dumps(seen.as_dict())), "test") == seen
    assert (of_channels(1), of_channels(3), of_channels(5).bands) == (GREY, Preprocessing(), 5)
    for wrong in (noise(3), noise(5), image[:, :, 0], image.astype(np.uint16)):
        with pytest.raises(InputError, match=r"expected an array \(H, W, 4\) of uint8, 4 bands"):
            seen.apply(wrong)
    for mean, scale in (((), ()), ((1.0,), (1.0, 2.0))):
        with pytest.raises(InputError, match="expected a preprocessing"):
            Preprocessing.from_dict({"order": "bands", "mean": mean, "scale": scale}, "test")


TRANSFORMS = {
    "resize": lambda image, label, rng: transforms.resize(image, label, (31, 12)),
    "flip": transforms.random_flip,
    "turn": transforms.random_turn,
    "scale": lambda image, label, rng: transforms.random_scale(image, label, rng, 0.5, 1.5),
    "warp": lambda image, label, rng: transforms.warp(image, label, rng, rotate=20, shift=3, elastic=2),
    "mirror": lambda image, label, rng: transforms.mirror(image, label, 5),
    "crop": lambda image, label, rng: transforms.random_crop(image, label, rng, (12, 40), [7] * image.shape[2]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("bands", [2, 5])
def test_a_transform_does_to_each_band_what_it_does_to_rgb(name, bands):
    label, seed = noise(1)[:, :, 0], 3
    image = noise(bands)
    found, moved = TRANSFORMS[name](image, label, np.random.default_rng(seed))
    for band in range(bands):
        rgb, expected = TRANSFORMS[name](image[:, :, [band] * 3], label, np.random.default_rng(seed))
        np.testing.assert_array_equal(found[:, :, band], rgb[:, :, 0])
    np.testing.assert_array_equal(moved, expected)
    assert found.shape[2] == bands


def test_colours_change_by_a_factor_for_each_band():
    image = np.full((4, 4, 5), 150, np.uint8)
    changed, _ = transforms.jitter_colour(image, image[:, :, 0], np.random.default_rng(0), 0.3)
    assert changed.shape == image.shape and len(np.unique(changed)) == 5


# --- Data sets ----------------------------------------------------------------------------------------------------


def sample(rng, size=SIZE):
    """An image of four bands and its classes: which class a pixel has, only the fourth band tells."""
    label = np.kron(rng.integers(0, 2, (3, 4)), np.ones([side // n for side, n in zip(size, (3, 4), strict=True)]))
    image = rng.integers(0, 256, (*label.shape, 4)).astype(np.uint8)
    image[:, :, 3] = 60 + 130 * label + rng.integers(-40, 41, label.shape)
    return image, label.astype(np.uint8)


def write_tiles(tifffile, root, bands=4, count=10, bits=8):
    """A folder of images of the first so many bands, and of masks of 0 and 1, with both lists."""
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for i in range(count):
        image, label = sample(np.random.default_rng(i))
        pixels = image[:, :, :bands] if bits == 8 else image[:, :, :bands] * np.uint16(257)
        rgb = {"photometric": "rgb"} if bands == 3 else {}
        write(tifffile, root / f"images/{i}.tif", pixels, **rgb)
        Image.fromarray(label).save(root / f"masks/{i}.png")
    return root


def trained(root, out, *more):
    given = ["--data", root, "--out", out, "--crop", 24, "--batch-size", 4, "--iterations", 60, "--eval-every", 60]
    assert run("train", *given, *NETWORK, *more) == 0
    (record,) = [r for r in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "scores" in r]
    return record["scores"]["mean_iou"]


def test_what_only_the_fourth_band_tells_is_learned_from_four(tifffile, tmp_path, capsys, caplog):
    tiles = write_tiles(tifffile, tmp_path / "tiles")
    with caplog.at_level(logging.INFO, "minifcn.training"):
        four = trained(tiles, tmp_path / "four", "--turn", "--elastic", 1, "--colour", 0.1)
    assert f"{tiles}: images of 4 bands: the network has 4 channels" in caplog.text
    three = trained(write_tiles(tifffile, tmp_path / "rgb", bands=3), tmp_path / "three")
    assert four > 0.9 and three < 0.6
    for name in ("report.html", "figures/side_by_side.png", "figures/steps/images.jpg"):
        assert (tmp_path / "four" / name).stat().st_size
    best = tmp_path / "four/best.npz"
    assert run("evaluate", "--data", tiles, "--weights", best) == 0
    assert "mean IU" in (printed := capsys.readouterr().out) and f"{100 * four:.1f}" in printed
    image, label = sample(np.random.default_rng(99), size=(300, 400))
    write(tifffile, tmp_path / "photo.tif", image)
    found = {}
    for tile in ([], ["--tile", 128]):
        assert run("predict", "--weights", best, "--out", tmp_path / "found", *tile, tmp_path / "photo.tif") == 0
        found[bool(tile)] = images.read_mask(tmp_path / "found/photo.png")
    np.testing.assert_array_equal(found[True], found[False])
    assert (found[False] == label).mean() > 0.95
    picture = np.asarray(Image.open(tmp_path / "found/photo_overlay.jpg")).astype(int)
    there = label == found[False]
    background = there & (label == 0)
    assert np.abs(picture - image[:, :, :3])[background].mean() < 60  # JPEG of noise
    network = models.load_segmenter(best)
    assert network.card.preprocessing == of_channels(4)
    assert (inference.predict(network, image, turns=True) == label).mean() > 0.95
    assert (inference.predict(network, image, scales=[1.0, 1.25], flip=True) == label).mean() > 0.9


def test_an_unpadded_network_and_one_of_objects_read_bands(rng):
    image = noise(5, size=(40, 50))
    unpadded = models.unet(2, channels=5, width=2, depth=2)
    assert inference.predict(unpadded, image, tile=128).shape == image.shape[:2]
    panoptic = models.panoptic(None, "unet", 2, channels=5, width=2)
    assert inference.panoptic(panoptic, image).labels.shape == image.shape[:2]
    assert panoptic.card.preprocessing.bands == 5
    with pytest.raises(InputError, match="channels: expected a whole number of at least 1, got 0"):
        models.panoptic(None, "unet", 2, channels=0)


def test_stretched_images_of_bands_and_cards_in_files(tmp_path):
    image = noise(4) // 4
    network = models.unet(2, channels=4, width=2, depth=2, padding="same")
    network.card.preprocessing = Preprocessing("bands", (1.0,) * 4, (0.5,) * 4, stretch=True)
    assert network.card.preprocessing.stretched(image).max() == 255
    weights.save(tmp_path / "a.npz", network)
    again = models.load_segmenter(tmp_path / "a.npz")
    assert again.card.preprocessing == network.card.preprocessing
    np.testing.assert_array_equal(inference.predict(again, image), inference.predict(network, image))


@pytest.mark.parametrize("changes", [{"colour": 0.3}, {"turn": True, "elastic": 2.0, "scale": (0.5, 1.5)}])
def test_parts_of_a_batch_are_those_of_the_whole(changes):
    tiles = [data.Sample(*sample(np.random.default_rng(i)), str(i)) for i in range(5)]

    def batch(part=None):
        stream = data.BatchStream(
            tiles,
            4,
            of_channels(4),
            np.random.default_rng(1),
            crop=(16, 16),
            augment=data.Augment(**changes),
            part=part,
        )
        return [next(stream) for _ in range(2)][1]

    whole = batch()
    assert whole[0].shape == (4, 4, 16, 16)
    for part in (slice(0, 2), slice(2, 4)):
        for found, expected in zip(batch(part), whole, strict=True):
            np.testing.assert_array_equal(found, expected[part])


def test_images_of_another_number_of_bands_are_named(tifffile, tmp_path):
    root = write_tiles(tifffile, tmp_path / "tiles", count=6)
    dataset = data.open_dataset(root, "train")
    assert dataset.channels == 4 and dataset[0].image.shape == (*SIZE, 4)
    dataset.check_for_training()
    other = dataset.image_name(dataset.ids[1])
    write(tifffile, root / other, noise(5, size=SIZE))
    message = rf"{other}: expected 4 bands, as in {dataset.image_name(dataset.ids[0])}, got 5 bands"
    for act in (lambda: dataset[1], data.open_dataset(root, "train").check_for_training):
        with pytest.raises(InputError, match=message):
            act()
    write(tifffile, root / other, noise(4, size=SIZE))
    for name in map(dataset.image_name, data.open_dataset(root, "val").ids):
        Image.fromarray(noise(3, size=SIZE)).save(root / name)
    with pytest.raises(InputError, match="tiles, val: the network reads 4 bands, got RGB"):
        Run(Config.from_dict({"data": str(root), "network": "unet"}, "test"), tmp_path / "run")
    Image.fromarray(noise(3, size=SIZE)).save(root / other)
    with pytest.raises(InputError, match=rf"{other}: expected 4 bands.*got RGB"):
        dataset[1]


def test_the_doctor_examines_bands(tifffile, tmp_path, capsys):
    root = write_tiles(tifffile, tmp_path / "tiles", bits=16)
    assert run("data", "doctor", root, "--picture", tmp_path / "classes.png", "--fix", tmp_path / "copy") == 0
    printed = capsys.readouterr().out
    assert "10 TIFF 4 bands" in printed and "16-bit (10)" in printed
    assert Image.open(tmp_path / "classes.png").size[0] > 100
    ours, copied = data.open_dataset(root, "train"), data.open_dataset(tmp_path / "copy", "train")
    np.testing.assert_array_equal(ours[0].image, copied[copied.ids.index(ours.ids[0])].image)
    write(tifffile, root / "images/3.tif", noise(2, size=SIZE))
    found = doctor.examine(root).findings
    assert found["other-bands"] == [("images/3.tif", "2 bands, most have 4 bands")]


# --- What refuses -------------------------------------------------------------------------------------------------


@pytest.fixture
def kit(tifffile, tmp_path):
    """Data sets of four bands and of RGB, an image of each, and a network for each."""
    for name, bands in (("tiles", 4), ("rgb", 3)):
        write_tiles(tifffile, tmp_path / name, bands, count=5)
        network = models.unet(2, channels=bands, width=2, depth=2, padding="same")
        network.card.classes = ("class 0", "class 1")
        weights.save(tmp_path / f"{name}.npz", network)
    return tmp_path


READS = "the network reads 4 bands, got RGB; take a network trained on such images"
REFUSED = {
    "an FCN trained": ("train --data tiles --out run", "this network reads 3 channels; a U-Net reads any number"),
    "a U-Net over a backbone": (
        "train --data tiles --out run --network unet --backbone efficientnet_lite0",
        "images of 4 bands, and this network reads 3 channels",
    ),
    "a start of other channels": (
        "train --data tiles --out run --network unet --width 2 --depth 2 --start rgb.npz",
        "a network for images of 3 channels, the data have 4; train without --start",
    ),
    "predict on RGB": ("predict --weights tiles.npz rgb/images/0.tif --out run", f"rgb/images/0.tif: {READS}"),
    "predict on RGB by tiles": (
        "predict --weights tiles.npz --tile 128 rgb/images/0.tif --out run",
        f"rgb/images/0.tif: {READS}",
    ),
    "predict on bands": (
        "predict --weights rgb.npz tiles/images/0.tif --out run",
        "tiles/images/0.tif: the network reads RGB, got 4 bands",
    ),
    "evaluate on RGB": ("evaluate --weights tiles.npz --data rgb", f"rgb: {READS}"),
    "the CRF": (
        "predict --weights tiles.npz --crf tiles/images/0.tif --out run",
        "tiles.npz: the CRF goes by colours, and this network reads 4 bands",
    ),
    "the CRF's search": ("crf-search --weights tiles.npz --data tiles", "the CRF goes by colours"),
    "the explorer": ("explore --weights tiles.npz tiles/images/0.tif --out a.html", "this network reads 4 bands"),
    "the explorer on bands": (
        "explore --weights rgb.npz tiles/images/0.tif --out a.html",
        "tiles/images/0.tif: the network reads RGB, got 4 bands",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case, kit, capsys, monkeypatch):
    monkeypatch.chdir(kit)
    command, message = REFUSED[case]
    assert run(*command.split()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "minifcn" in line and ": " in line]
    assert message in line
    assert not (kit / "a.html").exists() and not list(kit.glob("run/*.np[zg]"))


def test_pixels_of_bands_go_into_no_onnx_file(kit):
    pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(InputError, match="pixels: expected a network with .* one or three channels"):
        weights.save_onnx(kit / "a.onnx", models.load(kit / "tiles.npz"), pixels=True)
    assert not (kit / "a.onnx").exists()


def test_the_crf_takes_rgb_only():
    network = models.unet(2, channels=4, width=2, depth=2, padding="same")
    with pytest.raises(InputError, match=r"expected an array \(H, W, 3\)"):
        inference.predict(network, noise(4), crf={})


def test_a_data_set_of_bands_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for place in ("images", "masks"):
        (tmp_path / "tiles" / place).mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"tiles/images/{i}.tif").write_bytes(five_bands(8, 1))
        Image.fromarray(np.uint8([[0, 1, 1, 0]] * 4)).save(tmp_path / f"tiles/masks/{i}.png")
    assert run("train", "--data", tmp_path / "tiles", "--out", tmp_path / "run", *NETWORK) == 2
    assert "has 5 bands, and tifffile" in capsys.readouterr().err
