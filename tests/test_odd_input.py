"""Images, labels and names of kinds that nobody meant: they are read rightly or refused in a line, never taken for something else."""

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from attacked_readers import READERS
from matplotlib import rc_context, rcParams
from matplotlib.text import Text
from PIL import Image
from planted_faults import png

from minifcn import data, inference, models, ops
from minifcn.data.images import image_files, numbers_of, read_image, read_mask
from minifcn.data.labels import read_class_names
from minifcn.files import START, stand_in
from minifcn.metrics import ConfusionMatrix
from minifcn.report import figures, page

PHOTO = np.full((8, 9, 3), 200, np.uint8)


def bmp(width, height):
    """A BMP that claims this size, without pixels."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize(("write", "ending"), [(lambda *size: png(*size, 8, bytes(9)), "png"), (bmp, "bmp")])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_images_without_an_area_are_refused(read, write, ending, size, tmp_path):
    path = tmp_path / f"nothing.{ending}"
    path.write_bytes(write(*size))
    with pytest.raises(ValueError, match="nothing") as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


STAND_INS = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n": "a Git LFS pointer in its place; .* git lfs pull",
    b"\xef\xbb\xbf\n<!doctype html>\n<title>Sign in</title>": "a web page in its place; download the file itself",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "a web page in its place",
    b'{"message":"Not Found","status":"404"}': "the text .*Not Found.* in its place; download the file itself",
    b"404: Not Found": "the text '404: Not Found' in its place",
    b"": "an empty file",
}


@pytest.mark.parametrize("reader", ["image", "mask", "npz", "pth", "safetensors", "caffemodel"])
@pytest.mark.parametrize("content", STAND_INS, ids=lambda content: repr(content[:12]))
def test_what_stands_in_for_a_file_is_named(reader, content, tmp_path):
    path = tmp_path / f"vgg16-397923af{READERS[reader].suffix}"  # a name that holds a checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=STAND_INS[content]) as caught:
        READERS[reader].read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_pointer_in_place_of_a_list_is_no_list_of_three_names(tmp_path):
    (tmp_path / "classes.txt").write_bytes(next(iter(STAND_INS)))
    with pytest.raises(ValueError, match="classes.txt: a Git LFS pointer in its place; .* git lfs pull"):
        read_class_names(tmp_path / "classes.txt")


def test_honest_files_stand_for_themselves(tmp_path):
    for name in ("image", "mask", "npz", "pth", "safetensors", "caffemodel"):
        assert not any(stand_in(content[:START]) for content in READERS[name].seeds(tmp_path))
    assert stand_in(b'{"\0\0\0\0\0\0{"w": {"dtype": "F32"}}') is None  # a safetensors header of 8827 bytes


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_photographs_of_unknown_range_are_refused(kind, tmp_path):
    Image.fromarray(np.full((4, 6), 1, kind)).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match="wide.tif: .*range of values is unknown; save it with 8 or 16 bits"):
        read_image(tmp_path / "wide.tif")


def test_grey_of_16_bits_is_scaled_by_its_range(tmp_path):
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0x80, 0x80, 0xFF, 0xFF]))
    assert read_image(tmp_path / "deep.pgm")[0].tolist() == [[128] * 3, [255] * 3]


TURNED = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 6: lambda a: np.rot90(a, -1), 8: np.rot90}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stored", range(1, 10))
@pytest.mark.parametrize(
    "odd", [b"", struct.pack("<HHI4s", 0x11A, 2, 3, b"72"), struct.pack("<HHII", 0x131, 5, 1, 999)]
)
def test_damaged_exif_data_refuse_no_sound_picture(odd, stored, tmp_path):
    pixels = np.arange(0, 240, 10, np.uint8).repeat(3).reshape(4, 6, 3)
    entries = struct.pack("<HHIHH", 0x112, 3, 1, stored, 0) + odd
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries) // 12) + entries + bytes(4)
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    transposed = {5: pixels.swapaxes(0, 1), 7: np.rot90(pixels, 2).swapaxes(0, 1)}.get(stored, pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), TURNED.get(stored, lambda a: a)(transposed))


def test_a_picture_with_too_much_text_says_what_can_be_done(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "text.png", icc_profile=bytes(2 << 20))
    with pytest.raises(ValueError, match="more than 1 MiB; save it without"):
        read_image(tmp_path / "text.png")


def test_a_picture_beyond_pillows_own_limit_is_told_what_to_do(tmp_path):
    (tmp_path / "large.png").write_bytes(png(20000, 10000, 8, bytes(100)))
    with pytest.raises(ValueError, match="large.png: not a readable image: 200000000 pixels; at most .* --tile 512"):
        read_image(tmp_path / "large.png")


def test_a_folder_gives_images_of_every_kind_and_says_what_it_passes_over(tmp_path, caplog):
    photo = Image.fromarray(PHOTO)
    for name in ("a.JPG", "b.jfif", "c.jpe", "d.gif", "e.tif", ".hidden.png", "._a.JPG"):
        photo.save(tmp_path / name, {".jfif": "JPEG", ".jpe": "JPEG"}.get(Path(name).suffix))
    (tmp_path / "notes.heic").write_bytes(b"")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.JPG", "b.jfif", "c.jpe", "d.gif", "e.tif"]
    assert "passed over files that are no images: .heic" in caplog.text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_photographs_of_every_kind_come_out_as_rgb(mode, tmp_path):
    path = tmp_path / "photo.tif"
    grey = mode in ("1", "L", "LA", "YCbCr", "I;16")
    colour = (255, 255, 255) if grey else (255, 0, 0)
    picture = Image.new("RGB", (6, 4), colour).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture.save(path)
    assert (read_image(path) == colour).all()


NUMBERS = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.int32])
def test_masks_of_numbers_of_any_width_are_those_numbers(kind, tmp_path):
    Image.fromarray(NUMBERS.astype(kind)).save(tmp_path / "mask.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), NUMBERS)
    if kind in (np.uint16, np.int32):
        Image.fromarray(NUMBERS.astype(kind) * 300).save(tmp_path / "mask.tif")
        with pytest.raises(ValueError, match=r"expected class numbers 0..255, got 0..300"):
            read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_hold_their_samples(bits, tmp_path):
    (tmp_path / "mask.png").write_bytes(png(8 // bits, 1, bits, b"\0" + bytes([0b11100100]), kind=0))
    expected = {1: [1, 1, 1, 0, 0, 1, 0, 0], 2: [3, 2, 1, 0], 4: [14, 4]}[bits]
    assert read_mask(tmp_path / "mask.png")[0].tolist() == expected


def test_masks_in_floating_point_or_with_alpha():
    with pytest.raises(ValueError, match="got a F image"):
        numbers_of(Image.fromarray(np.ones((3, 3), np.float32)))
    with_alpha = Image.merge("LA", [Image.fromarray(NUMBERS), Image.new("L", (3, 2), 255)])
    np.testing.assert_array_equal(numbers_of(with_alpha), NUMBERS)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_bmp_that_pillow_misreads_is_refused(read, tmp_path):
    picture = Image.frombytes("P", (3, 2), NUMBERS.tobytes())
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "two.bmp")
    with pytest.raises(ValueError, match="two.bmp: a BMP of 8 bits in black and white"):
        read(tmp_path / "two.bmp")


LABELS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
NO_LABELS = ["bool", "float32", "float64", "complex64", "object", "U1"]


@pytest.mark.parametrize("dtype", LABELS)
def test_labels_of_every_integer_type_mean_the_same(dtype, rng):
    logits, labels = rng.normal(size=(1, 3, 2, 2)), np.array([[[0, 1], [2, 1]]])
    expected, _ = ops.softmax_cross_entropy_forward(logits, labels)
    loss, _ = ops.softmax_cross_entropy_forward(logits, labels.astype(dtype))
    assert loss == expected
    matrix = ConfusionMatrix(3)
    matrix.update(labels.astype(dtype), labels.astype(dtype))
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 1]]


@pytest.mark.parametrize("dtype", NO_LABELS)
def test_labels_that_are_no_integers_are_refused(dtype, rng):
    with pytest.raises(TypeError, match="expected integer labels"):
        ops.softmax_cross_entropy_forward(rng.normal(size=(1, 3, 2, 2)), np.zeros((1, 2, 2)).astype(dtype))


def test_counts_of_what_is_no_integer_are_refused():
    with pytest.raises(TypeError, match="expected integers, got int64 and float64"):
        ConfusionMatrix(3).update(np.array([0, 1]), np.array([0.0, 1.5]))


@pytest.mark.parametrize(
    "image",
    [
        *(PHOTO / 255, (PHOTO / 255).astype(np.float32), PHOTO.astype(np.uint16) * 257, PHOTO[:, :, 0]),
        *(PHOTO[:, :, [0, 1, 2, 0]], PHOTO.transpose(2, 0, 1), Image.fromarray(PHOTO), PHOTO.tolist()),
    ],
)
def test_only_bytes_in_three_channels_are_taken_for_an_image(image):
    with pytest.raises(ValueError, match=r"expected an array \(H, W, 3\) of uint8"):
        data.Preprocessing().apply(image)
    network = models.unet(2, width=1, depth=1)
    for use in (inference.predict, inference.probabilities, partial(inference.predict, turns=True)):
        with pytest.raises(ValueError, match=r"expected an array \(H, W, 3\) of uint8"):
            use(network, image)


def test_a_caller_who_has_numpy_raise_still_gets_zeros_for_what_is_too_small(rng):
    logits, labels = np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8)
    logits[:, 0] = 500
    with np.errstate(all="raise"):
        loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
        assert loss == 0
        assert not ops.softmax_cross_entropy_backward(np.float32(1e-30), cache).any()


@pytest.mark.filterwarnings("error:Glyph")
def test_names_of_classes_are_no_formulas(tmp_path):
    label, matrix = np.array([[0, 1], [2, 3]], np.uint8), ConfusionMatrix(4)
    matrix.update(label, label)
    sample, classes = data.Sample(np.zeros((2, 2, 3), np.uint8), label, "a"), ("$$", "us$ and ca$", "$x^$", "叶子")
    with rc_context({"text.usetex": True}):
        figures.side_by_side([sample], {"$$": [label]}, classes, tmp_path / "a.png")
        figures.confusion(matrix, classes, tmp_path / "b.png")
    assert Image.open(tmp_path / "a.png").size[0] > 300


@pytest.mark.filterwarnings("error:Glyph")
def test_letters_that_the_usual_font_lacks_come_from_another_or_are_numbered(tmp_path, caplog, monkeypatch):
    """ⓐ stands for a letter of a language whose font is installed: STIX has it, DejaVu Sans has not."""
    figures._readable.cache_clear()
    label, matrix = np.array([[0, 1], [2, 2]], np.uint8), ConfusionMatrix(3)
    matrix.update(label, label)
    sample, classes, drawn = data.Sample(np.zeros((2, 2, 3), np.uint8), label, "a"), ("sky", "Ⓐ Ⓑ", "叶 Ⓐ"), []
    monkeypatch.setattr(
        "matplotlib.text.Text.set_text", lambda text, s, real=Text.set_text: (drawn.append(s), real(text, s))
    )
    with figures.plain_text(classes) as shown:
        assert shown == ["sky", "Ⓐ Ⓑ", "class 2"] and rcParams["font.family"] == ["sans-serif", "STIXGeneral"]
    figures.side_by_side([sample], {"FCN": [label]}, classes, tmp_path / "a.png")
    figures.confusion(matrix, classes, tmp_path / "b.png")
    assert {"Ⓐ Ⓑ", "class 2"} <= set(drawn) and "叶 Ⓐ" not in drawn
    assert caplog.text.count("no installed font has all letters of these classes: class 2 for 叶 Ⓐ") == 1


def test_a_class_called_script_shows_as_text(tmp_path):
    name = "<script>alert('&')</script>"
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 1]), np.array([0, 1]))
    picture = tmp_path / "picture.png"
    label = np.ones((4, 4), np.uint8)
    sample = data.Sample(np.zeros((4, 4, 3), np.uint8), label, "a")
    figures.side_by_side([sample], {name: [label]}, ("background", name), picture)
    path = tmp_path / "report.html"
    page.write_page(path, name, {name: (matrix, 1.0)}, ("background", name), {picture: name}, {name: name})
    html = path.read_text(encoding="utf-8")
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
