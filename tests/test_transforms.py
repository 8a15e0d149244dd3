"""From samples to batches: labels stay labels, image and label stay in register, and a stream goes on where it stood."""

import json

import numpy as np
import pytest

from minifcn.data import VOID, Augment, BatchStream, CachedDataset, Preprocessing, Sample, transforms

CLASSES = (0, 3, 5, 20)  # halfway between two of these lie numbers that are none of them
VGG_MEAN = (104.00699, 116.66877, 122.67892)  # blue, green, red
AUGMENT = Augment(flip=True, scale=(0.6, 1.6), colour=0.2)


def scene(height=13, width=17, seed=0, id="scene"):
    """A read-only sample whose colour tells the label: red is the label, green the row, blue the column."""
    label = np.random.default_rng(seed).choice(CLASSES, (height, width)).astype(np.uint8)
    rows, columns = np.indices((height, width), dtype=np.uint8)
    image = np.stack([label, rows, columns], axis=-1)
    for array in (image, label):
        array.flags.writeable = False
    return Sample(image, label, id)


def samples(count=5):
    return [scene(10 + i, 14 - i, seed=i, id=str(i)) for i in range(count)]


@pytest.mark.parametrize("size", [(13, 17), (5, 9), (40, 31), (1, 1), (26, 3)])
def test_resized_labels_are_labels_of_the_original(size):
    image, label, *_ = scene()
    resized, labels = transforms.resize(image, label, size)
    assert resized.shape == (*size, 3) and labels.shape == size
    assert resized.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*CLASSES}


def test_resizing_keeps_image_and_label_in_register():
    label = np.zeros((40, 40), np.uint8)
    label[10:20, 24:36] = 200
    image, labels = transforms.resize(np.stack([label] * 3, axis=-1), label, (60, 90))
    np.testing.assert_array_equal(image[:, :, 0] > 100, labels == 200)
    image, label, *_ = scene()
    _, labels = transforms.resize(image, label, (39, 51))
    np.testing.assert_array_equal(labels, label.repeat(3, axis=0).repeat(3, axis=1))


def test_random_scale_draws_its_factor_and_keeps_labels():
    image, label, *_ = scene(40, 60)
    rng, heights = np.random.default_rng(0), set()
    for _ in range(60):
        scaled, labels = transforms.random_scale(image, label, rng, 0.5, 2.0)
        height, width = labels.shape
        assert scaled.shape == (height, width, 3) and set(np.unique(labels)) <= {*CLASSES}
        assert abs(height / 40 - width / 60) < 1 / 40
        heights.add(height)
    assert 20 <= min(heights) < 26 and 70 < max(heights) <= 80


@pytest.mark.parametrize(
    "size, expected",
    [((40, 20), (10, 5)), ((20, 40), (5, 10)), ((10, 3), (10, 3)), ((4, 6), (4, 6)), ((90, 1), (10, 1))],
)
def test_shrink_limits_the_longer_side_and_never_enlarges(size, expected):
    image, label, *_ = scene(*size)
    shrunk, labels = transforms.shrink(image, label, 10)
    assert shrunk.shape == (*expected, 3) and labels.shape == expected


def test_flip_mirrors_left_and_right_both_or_none_about_every_other_time():
    image, label, *_ = scene()
    rng = np.random.default_rng(0)
    mirrored = 0
    for _ in range(200):
        flipped, labels = transforms.random_flip(image, label, rng)
        turned = not np.array_equal(labels, label)
        np.testing.assert_array_equal(flipped, image[:, ::-1] if turned else image)
        np.testing.assert_array_equal(labels, label[:, ::-1] if turned else label)
        mirrored += turned
    assert 70 < mirrored < 130


@pytest.mark.parametrize("size", [(13, 17), (5, 9), (20, 30), (8, 30), (30, 8), (1, 1)])
def test_random_crop_keeps_register_and_pads_with_fill_and_void(size):
    image, label, *_ = scene()
    rng, fill = np.random.default_rng(0), np.array([77, 200, 201], np.uint8)
    for _ in range(20):
        cut, labels = transforms.random_crop(image, label, rng, size, fill)
        assert cut.shape == (*size, 3) and labels.shape == size
        covered = labels != VOID
        assert (cut[~covered] == fill).all()
        assert covered.sum() == min(size[0], 13) * min(size[1], 17)
        np.testing.assert_array_equal(cut[covered][:, 0], labels[covered])
        rows, columns = np.nonzero(covered)  # one unbroken part of the image, pixel by pixel
        assert len({*(cut[covered][:, 1] - rows)}) == 1 and len({*(cut[covered][:, 2] - columns)}) == 1


def test_random_crop_reaches_every_place():
    image, label, *_ = scene(4, 3)
    rng = np.random.default_rng(0)
    tops = {tuple(transforms.random_crop(image, label, rng, (2, 3), 0)[0][0, 0, 1:]) for _ in range(100)}
    assert tops == {(0, 0), (1, 0), (2, 0)}
    padded = (transforms.random_crop(image, label, rng, (4, 5), 0)[1] for _ in range(100))
    assert {int(np.argmax(labels[0] != VOID)) for labels in padded} == {0, 1, 2}


def test_jitter_saturates_instead_of_wrapping_around():
    image, label = np.array([[[0] * 3, [255] * 3]], np.uint8), np.zeros((1, 2), np.uint8)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100):
        changed, labels = transforms.jitter_colour(image, label, rng, 0.3)
        assert changed.shape == image.shape and changed.dtype == np.uint8 and labels is label
        assert (changed[0, 0] < 128).all() and (changed[0, 1] > 127).all()
        seen.add(changed.tobytes())
    assert len(seen) > 50


@pytest.mark.parametrize("order, expected", [("RGB", [9, 9, 54]), ("BGR", [29, 9, 14])])
def test_preprocessing_and_the_fill_colour_that_comes_out_as_about_zero(order, expected):
    out = Preprocessing(order, (1, 2, 3), (1, 0.5, 2)).apply(np.array([[[10, 20, 30]]], np.uint8))
    assert out.dtype == np.float32 and out.shape == (3, 1, 1) and out.flags.c_contiguous
    np.testing.assert_array_equal(out.ravel(), expected)
    preprocessing = Preprocessing(order, VGG_MEAN, (1, 1, 1))
    colour = preprocessing.fill()
    assert colour.dtype == np.uint8
    assert np.abs(preprocessing.apply(colour[None, None])).max() <= 0.5


def stream(seed=0, batch_size=2, **options):
    options = {"crop": (9, 11), "augment": AUGMENT, **options}
    return BatchStream(samples(), batch_size, Preprocessing(), np.random.default_rng(seed), **options)


def same(batch, other):
    return all(np.array_equal(a, b) for a, b in zip(batch, other, strict=True))


def test_every_sample_comes_once_an_epoch_in_another_order_each_time():
    count, orders = 5, set()
    plain = BatchStream(samples(count), 1, Preprocessing(), np.random.default_rng(0))
    sizes = {(10 + i, 14 - i): i for i in range(count)}
    for _ in range(6):
        batches = [next(plain) for _ in range(count)]
        order = tuple(sizes[labels.shape[1:]] for _, labels in batches)
        for (images, labels), i in zip(batches, order, strict=True):  # without augmentation, the sample itself
            assert same((images[0], labels[0]), (Preprocessing().apply(samples()[i].image), samples()[i].label))
        assert sorted(order) == [*range(count)]
        orders.add(order)
    assert len(orders) > 1


@pytest.mark.parametrize("taken", [0, 1, 3, 5])  # batches of 2 from 5 samples: in the middle of an epoch, mostly
def test_a_restored_stream_goes_on_bit_by_bit(taken):
    first = stream(seed=1)
    images, labels = next(stream(seed=1))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((2, 3, 9, 11), "float32", (2, 9, 11), "uint8")
    assert same(next(stream(seed=1)), (images, labels)) and not same(next(stream(seed=5)), (images, labels))
    for _ in range(taken):
        next(first)
    arrays, rest = first.state()
    arrays, rest = {name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(rest))
    expected = [next(first) for _ in range(8)]  # and on into the epochs that follow
    second = stream(seed=99)
    next(second)
    second.restore(arrays, rest)
    assert all(same(next(second), batch) for batch in expected)


@pytest.mark.parametrize(
    "batch_size, crop", [(2, None), (0, None), (0, (4, 4)), (-1, (4, 4)), (1, (0, 4)), (2, (4, -1))]
)
def test_impossible_batches_are_refused(batch_size, crop):
    with pytest.raises(ValueError, match="batch"):
        stream(batch_size=batch_size, crop=crop)


class Counted(list):
    """A data set that counts how often each sample is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("fitting, longest", [(5, None), (2, None), (5, 7)])
def test_cached_samples_are_the_same_or_shrunk_and_read_once_if_memory_allows(fitting, longest):
    source, wanted = Counted(samples()), samples()
    if longest:
        wanted = [Sample(*transforms.shrink(image, label, longest), id) for image, label, id, _ in wanted]
        assert all(max(sample.label.shape) == longest for sample in wanted)
    sizes = [sample.image.nbytes + sample.label.nbytes for sample in wanted]
    cached = CachedDataset(source, longest=longest, limit=sum(sizes[:fitting]))
    for _ in range(3):
        assert len(cached) == 5
        for have, want in zip((cached[i] for i in range(5)), wanted, strict=True):
            assert have.id == want.id and same(have[:2], want[:2])
    assert source.reads == fitting + 3 * (5 - fitting)
