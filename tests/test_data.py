"""Reading images and the VOC layout, writing the toy data set, and the errors that name the file at fault."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw
from small_datasets import write_voc

from minifcn import data
from minifcn.data import images, labels, toyvoc
from minifcn.errors import InputError, MissingFileError

VOC_COLOURS = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
    255: (224, 224, 192),
}
FIRST_MASK = np.array([[0, 1, 1], [255, 20, 0]], np.uint8)


@pytest.fixture
def devkit(tmp_path):
    """A VOCdevkit with two images, a and b, of 3×2 and 5×4 pixels (width × height)."""
    root = tmp_path / "VOCdevkit"
    write_voc(root / "VOC2012", [], train=["a", "b"], val=["b 1\r\n\r"], empty=["", " "])
    for id, mask in (("a", FIRST_MASK), ("b", np.full((4, 5), 7, np.uint8))):
        Image.new("RGB", mask.shape[::-1], (200, 30, 90)).save(root / "VOC2012/JPEGImages" / f"{id}.jpg", quality=100)
        images.write_mask(root / "VOC2012/SegmentationClass" / f"{id}.png", mask)
    return root


def test_voc_reads_images_labels_and_ids(devkit):
    train = data.VOC(devkit, "train")
    assert len(train) == 2 and train.ids == ["a", "b"]
    image, label, id = train[0]
    assert (image.shape, image.dtype, label.dtype, id) == ((2, 3, 3), np.uint8, np.uint8, "a")
    assert np.abs(image.astype(int) - (200, 30, 90)).max() < 6  # JPEG
    np.testing.assert_array_equal(label, FIRST_MASK)
    assert [sample.id for sample in train] == ["a", "b"]
    assert [sample.id for sample in train[1:]] == ["b"] and len(train) == 2


def test_ids_replace_the_split_and_a_file_may_name_other_classes(devkit):
    chosen = data.VOC(devkit, "no such split", ids=("b", "a", "b"))
    assert [sample.id for sample in chosen] == ["b", "a", "b"]
    assert chosen.classes == data.VOC_CLASSES and chosen.num_classes == 21
    (devkit / "VOC2012" / "classes.txt").write_text("ground\nleaf\n\nroot\n")
    assert data.VOC(devkit).classes == ("ground", "leaf", "root")
    (devkit / "VOC2012/classes.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"classes\.txt"):
        data.VOC(devkit)


@pytest.mark.parametrize(
    "options, told",
    [
        ({"split": "tset"}, r"tset\.txt.*empty, train, val"),
        ({"ids": ["a", "zebra"]}, r"zebra\.jpg.*no image.*'zebra'"),
    ],
)
def test_what_is_missing_is_named(devkit, options, told):
    with pytest.raises(FileNotFoundError, match=told):
        data.VOC(devkit, **options)


def truncated():
    content = io.BytesIO()
    Image.effect_noise((90, 90), 50).save(content, "PNG")
    return content.getvalue()[:-3000]


UNFIT = {
    "another size": ("png", np.zeros((2, 4), np.uint8), "expected .*3x2, got 4x2"),
    "colours": ("png", np.zeros((2, 3, 3), np.uint8), "expected a palette PNG.*RGB"),
    "labels": (
        "png",
        np.uint8([[0, 21, 21], [255, 20, 40]]),
        r"labels 0\.\.20 or 255.*21 \(2 pixels\), 40 \(1 pixels\)",
    ),
    "text": ("jpg", b"no image", "not a readable image"),
    "truncated image": ("jpg", truncated(), "not a readable image"),
    "truncated mask": ("png", truncated(), "not a readable image"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_file_that_does_not_fit_is_named_when_it_is_read(devkit, fault):
    ending, content, message = UNFIT[fault]
    path = next((devkit / "VOC2012").rglob(f"a.{ending}"))
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    train = data.VOC(devkit)
    with pytest.raises(InputError, match=rf"a\.{ending}: .*{message}"):
        train[0]
    assert train[1].id == "b"


def test_a_written_mask_is_a_palette_image_with_the_same_numbers_in_the_standards_colours(tmp_path):
    numbers = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images.write_mask(tmp_path / "m.png", numbers)
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.png"), numbers)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), labels.colourise(numbers))
    assert {label: tuple(labels.voc_palette()[label]) for label in VOC_COLOURS} == VOC_COLOURS
    assert len(np.unique(labels.voc_palette(), axis=0)) == 256


@pytest.mark.parametrize("dtype, unit", [(np.uint8, 1), (np.uint16, 257)])
def test_grey_images_of_8_and_16_bits_keep_their_brightness(tmp_path, dtype, unit):
    grey = np.array([[0, 1, 100], [128, 200, 255]])
    Image.fromarray((grey * unit).astype(dtype)).save(tmp_path / "grey.png")
    image = images.read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("brightest, seen", [(4095, (0, 1, 128, 255)), (4096, (0, 0, 8, 16))])
def test_grey_below_4096_is_of_12_bits(tmp_path, brightest, seen):
    Image.fromarray(np.array([[0, 17, 2048, brightest]], np.uint16)).save(tmp_path / "camera.tif")
    assert images.read_image(tmp_path / "camera.tif")[0, :, 0].tolist() == list(seen)


def test_a_photograph_is_turned_upright_by_its_exif_data(tmp_path):
    photo = Image.new("RGB", (32, 16))
    ImageDraw.Draw(photo).rectangle((0, 0, 7, 15), fill=(255, 255, 255))  # the left end is bright
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise
    photo.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    image = images.read_image(tmp_path / "turned.jpg")
    assert image.shape == (32, 16, 3)
    assert image[:6].min() > 200 and image[10:].max() < 55  # now the top end is


def test_a_corrupted_png_and_one_that_is_not_there_are_named(tmp_path):
    path = tmp_path / "broken.png"
    Image.effect_noise((64, 64), 50).save(path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(20) + content[middle + 20 :])
    for read in (images.read_image, images.read_mask):
        with pytest.raises(InputError, match=r"broken\.png: not a readable image"):
            read(path)
        with pytest.raises(MissingFileError, match=r"absent\.png"):
            read(tmp_path / "absent.png")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    data.write_toyvoc(root, train=30, val=6, size=48, seed=3)
    return root


def test_an_interrupted_drawing_is_no_data_set_and_is_drawn_again(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(toyvoc, "write_mask", interrupt)
        data.write_toyvoc(tmp_path, train=2, val=1, size=32)
    with pytest.raises(InputError):
        data.open_dataset(tmp_path)
    with pytest.raises(InputError, match="expected whole numbers"):
        data.write_toyvoc(tmp_path, train=1.5, val=1, size=32)
    data.write_toyvoc(tmp_path, train=2, val=1, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["VOC2012"] and len(data.VOC(tmp_path, "trainval")) == 3


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_toy_data_set_reads_as_voc_varies_in_size_and_shows_every_class(toy):
    train, val, both = (data.VOC(toy, split) for split in ("train", "val", "trainval"))
    assert (len(train), len(val)) == (30, 6)
    assert both.ids == train.ids + val.ids and len(set(both.ids)) == 36
    assert train.num_classes == 6 and train.classes[0] == "background"
    for image, label, _ in both:
        assert image.shape == (*label.shape, 3)
        assert all(36 <= side <= 60 for side in label.shape)
    assert len({image.tobytes() for image, *_ in both}) == 36
    for split in (train, val):
        masks = [sample.label for sample in split]
        assert len({mask.shape for mask in masks}) > len(masks) // 2
        assert set(np.concatenate([mask.ravel() for mask in masks]).tolist()) == {*range(6), 255}
    for id in val.ids:
        with Image.open(val.folder / val.image_name(id)) as photo, Image.open(val.folder / val.mask_name(id)) as mask:
            assert (photo.format, photo.mode, mask.format, mask.mode) == ("JPEG", "RGB", "PNG", "P")
            colours = np.asarray(mask.getpalette()).reshape(-1, 3)
            np.testing.assert_array_equal(colours, labels.voc_palette()[: len(colours)])


def test_toy_classes_are_parted_by_void_and_some_objects_are_cut(toy):
    touching, at_the_edge, beside_each_other = 0, 0, 0
    for _, mask, *_ in data.VOC(toy, "train"):
        for m in (mask, mask.T):
            a, b = m[1:], m[:-1]
            touching += ((a != b) & (a != 255) & (b != 255)).sum()
            a, b = m[4:], m[:-4]  # two objects with no more than an outline between them: one hides a part of the other
            beside_each_other += ((a != b) & np.isin(a, range(1, 6)) & np.isin(b, range(1, 6))).any()
            at_the_edge += np.isin(m[[0, -1]], range(1, 6)).any()
    assert touching == 0
    assert at_the_edge > 5 and beside_each_other > 5


def test_the_seed_decides_the_toy_scenes(tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        data.write_toyvoc(tmp_path / name, train=2, val=1, size=32, seed=seed)
    one, again, other = (files_of(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith((".jpg", ".png")))


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"size": 15}, {}])
def test_impossible_toy_data_and_a_folder_that_holds_something_are_refused_before_anything_is_written(devkit, wrong):
    before, root = files_of(devkit), devkit.parent / "toy" if wrong else devkit
    with pytest.raises(ValueError, match="toy data" if wrong else "VOC2012.*nothing was written"):
        data.write_toyvoc(root, **{"train": 1, "val": 1, "size": 32, **wrong})
    assert files_of(devkit) == before and not (devkit.parent / "toy").exists()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_tiffs_of_few_bits_give_their_numbers(bits, tmp_path):
    """As GDAL writes them, and with the order of bits turned round; Pillow reads such, and writes none."""
    numbers = np.arange(16, dtype=np.uint8).reshape(2, 8) % 2**bits
    path = tmp_path / "mask.tif"
    for order in (1, 2):
        rows = b"".join(int("".join(f"{n:0{bits}b}" for n in row), 2).to_bytes(bits) for row in numbers.tolist())
        rows = rows if order == 1 else bytes(int(f"{byte:08b}"[::-1], 2) for byte in rows)
        size, pixels = {256: 8, 257: 2, 258: bits}, {273: 8, 277: 1, 278: 2, 279: len(rows)}  # the pixels are at byte 8
        tags = size | {259: 1, 262: 1, 266: order} | pixels
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        start = struct.pack("<2sHI", b"II", 42, 8 + len(rows))
        path.write_bytes(start + rows + struct.pack("<H", len(tags)) + entries + bytes(4))
        np.testing.assert_array_equal(images.read_mask(path), numbers)
