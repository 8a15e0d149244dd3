"""COCO's run-length encoding and polygons, by hand and against pycocotools."""

import numpy as np
import pytest

from minifcn.data import polygons, rle
from minifcn.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
BLOCK = np.zeros((6, 7), bool)
BLOCK[1:4, 2:5] = BLOCK[5, 6] = True
LINES = np.zeros((200, 100), bool)
LINES[10:190, 20] = LINES[3:5, 70] = LINES[:, 99] = True
KITE = """\
............
...#........
..#####.....
..########..
..#######...
..######....
.#######....
...####.....
.....#......
............"""


@pytest.fixture
def coco():
    """pycocotools.mask, where it is installed."""
    return pytest.importorskip("pycocotools.mask")


@pytest.mark.parametrize("mask, text", [(BLOCK, "=33000:N"), (LINES, "Zm3d5eb9^J^RLV6")])
def test_runs_as_pycocotools_writes_them(mask, text):
    counts = rle.counts_of(mask)
    assert rle.text_of(counts) == text and rle.counts_in(text) == counts
    np.testing.assert_array_equal(rle.mask_from(counts, mask.shape), mask)


def test_runs_by_hand():
    assert rle.counts_of(BLOCK) == [13, 3, 3, 3, 3, 3, 13, 1]
    assert rle.counts_of(BLOCK.T) == [9, 3, 4, 3, 4, 3, 15, 1]


def test_a_polygon_as_pycocotools_draws_it():
    corners = np.array([[2.5, 1.2], [9.7, 3.3], [6.1, 8.9], [1.4, 6.6]])
    drawn = polygons.mask_of(corners, (10, 12))
    assert "\n".join("".join(".#"[there] for there in line) for line in drawn.astype(int)) == KITE


def masks():
    rng = np.random.default_rng(0)
    yield from (np.zeros((4, 3), bool), np.ones((4, 3), bool), np.eye(5, dtype=bool), np.ones((1, 1), bool))
    yield from (
        rng.random((h, w)) < share for h, w, share in ((7, 9, 0.5), (1, 40, 0.1), (40, 1, 0.9), (300, 200, 0.002))
    )
    large = np.zeros((1200, 900), bool)
    large[3:1100, 2:880] = True
    yield large


@pytest.mark.parametrize("mask", list(masks()))
def test_runs_and_their_text_are_those_of_pycocotools(coco, mask):
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))
    counts = rle.counts_of(mask)
    assert rle.text_of(counts) == theirs["counts"].decode()
    assert rle.counts_in(theirs["counts"].decode()) == counts
    uncompressed = coco.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
    np.testing.assert_array_equal(coco.decode(uncompressed), mask)
    again = rle.mask_from(counts, mask.shape)
    assert again.dtype == bool
    np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize(
    "counts, told",
    [
        ([3, 4], "12 pixels in all, got 7"),
        ([13], "12 pixels in all, got 13"),
        ([-1, 13], "whole numbers from 0 on"),
        ([12.0], "whole numbers from 0 on"),
        ([True, 11], "whole numbers from 0 on"),
        ([10**400], "12 pixels in all, got 1000"),
    ],
)
def test_runs_that_are_no_mask_are_refused(counts, told):
    with pytest.raises(InputError, match=told):
        rle.mask_from(counts, (4, 3))


@pytest.mark.parametrize(
    "text, told", [("a b", "' '"), ("0\x00", "x00"), ("é", "é"), ("0P", "cut off"), ("P" * 99, "'P'")]
)
def test_text_that_is_no_runs_is_refused(text, told):
    with pytest.raises(InputError, match=told):
        rle.counts_in(text)


def theirs(coco, corners, size):
    return coco.decode(coco.frPyObjects([corners.reshape(-1).tolist()], *size))[:, :, 0].astype(bool)


@pytest.mark.parametrize("seed", range(40))
def test_polygons_are_those_of_pycocotools_to_the_pixel(coco, seed):
    """Of 3 to 12 corners: whole and broken numbers, beyond the picture, twice the same, crossing themselves."""
    rng, size = np.random.default_rng(seed), (37, 53)
    for _ in range(25):
        corners = rng.uniform((-9, -9), (62, 46), (rng.integers(3, 13), 2))
        corners = [corners, np.round(corners), np.round(corners * 2) / 2, np.repeat(corners, 2, axis=0)][
            rng.integers(4)
        ]
        np.testing.assert_array_equal(polygons.mask_of(corners, size), theirs(coco, corners, size))


@pytest.mark.parametrize("corners", [[[3, 3]] * 3, [[0, 0], [53, 0], [53, 37], [0, 37]], [[0, 0], [9, 9], [4, 4]]])
def test_polygons_without_pixels_and_of_the_whole_picture(coco, corners):
    corners = np.array(corners, float)
    np.testing.assert_array_equal(polygons.mask_of(corners, (37, 53)), theirs(coco, corners, (37, 53)))


def test_an_outline_without_end_is_refused():
    with pytest.raises(InputError, match="outline of at most 838860 pixels, got 1600000000"):
        polygons.mask_of(np.array([[0, 0], [4e8, 0], [4e8, 4e8], [0, 4e8]]), (9, 9))
