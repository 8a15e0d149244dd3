"""Images, labels and names of kinds that nobody meant: they are read rightly or refused in a line, never taken for something else."""

import struct

import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image
from planted_faults import png

from minifcn import data, ops
from minifcn.data.images import read_image, read_mask
from minifcn.metrics import ConfusionMatrix
from minifcn.report import figures, page


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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -5.0])
def test_photographs_in_floating_point_come_out_as_bytes_whatever_they_hold(odd, tmp_path):
    values = np.full((4, 6), 100, np.float32)
    values[1, 2] = odd
    path = tmp_path / "float.tif"
    Image.fromarray(values).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)
    assert (image[0] == 100).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_photographs_of_every_kind_come_out_as_rgb(mode, tmp_path):
    path = tmp_path / "photo.tif"
    grey = mode in ("1", "L", "LA", "YCbCr", "I;16", "I", "F")
    colour = (255, 255, 255) if grey else (255, 0, 0)
    picture = Image.new("RGB", (6, 4), colour).convert("L" if mode in ("I;16", "I", "F") else mode)
    if mode in ("I;16", "I", "F"):
        scale = 257 if mode == "I;16" else 1
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        picture = Image.fromarray((np.asarray(picture).astype(kind) * scale).astype(kind))
    picture.save(path)
    assert (read_image(path) == colour).all()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_masks_of_wider_numbers_are_refused(kind, tmp_path):
    path = tmp_path / "mask.tif"
    Image.fromarray(np.ones((3, 3), kind)).save(path)
    with pytest.raises(ValueError, match="expected a palette PNG"):
        read_mask(path)


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


PHOTO = np.full((8, 9, 3), 200, np.uint8)


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


def test_a_caller_who_has_numpy_raise_still_gets_zeros_for_what_is_too_small(rng):
    logits, labels = np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8)
    logits[:, 0] = 500
    with np.errstate(all="raise"):
        loss, cache = ops.softmax_cross_entropy_forward(logits, labels)
        assert loss == 0
        assert not ops.softmax_cross_entropy_backward(np.float32(1e-30), cache).any()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_classes_are_no_formulas(tmp_path):
    label, matrix = np.array([[0, 1], [2, 3]], np.uint8), ConfusionMatrix(4)
    matrix.update(label, label)
    sample, classes = data.Sample(np.zeros((2, 2, 3), np.uint8), label, "a"), ("$$", "us$ and ca$", "$x^$", "叶子")
    with rc_context({"text.usetex": True}):
        figures.side_by_side([sample], {"$$": [label]}, classes, tmp_path / "a.png")
        figures.confusion(matrix, classes, tmp_path / "b.png")
    assert Image.open(tmp_path / "a.png").size[0] > 300


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
