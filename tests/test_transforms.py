"""From samples to batches: labels stay labels, image and label stay in register, and a stream goes on where it stood."""

import json

import numpy as np
import pytest

from minifcn.data import VOID, Augment, BatchStream, CachedDataset, Preprocessing, Sample, transforms
from minifcn.data.labels import AMBIGUOUS

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
    image, label, _ = scene()
    resized, labels = transforms.resize(image, label, size)
    assert resized.shape == (*size, 3) and labels.shape == size
    assert resized.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*CLASSES}


def test_resizing_keeps_image_and_label_in_register():
    label = np.zeros((40, 40), np.uint8)
    label[10:20, 24:36] = 200
    image, labels = transforms.resize(np.stack([label] * 3, axis=-1), label, (60, 90))
    np.testing.assert_array_equal(image[:, :, 0] > 100, labels == 200)
    image, label, _ = scene()
    _, labels = transforms.resize(image, label, (39, 51))
    np.testing.assert_array_equal(labels, label.repeat(3, axis=0).repeat(3, axis=1))


def test_random_scale_draws_its_factor_and_keeps_labels():
    image, label, _ = scene(40, 60)
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
    image, label, _ = scene(*size)
    shrunk, labels = transforms.shrink(image, label, 10)
    assert shrunk.shape == (*expected, 3) and labels.shape == expected


def test_flip_mirrors_left_and_right_both_or_none_about_every_other_time():
    image, label, _ = scene()
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
    image, label, _ = scene()
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
    image, label, _ = scene(4, 3)
    rng = np.random.default_rng(0)
    tops = {tuple(transforms.random_crop(image, label, rng, (2, 3), 0)[0][0, 0, 1:]) for _ in range(100)}
    assert tops == {(0, 0), (1, 0), (2, 0)}
    padded = (transforms.random_crop(image, label, rng, (4, 5), 0)[1] for _ in range(100))
    assert {int(np.argmax(labels[0] != VOID)) for labels in padded} == {0, 1, 2}


@pytest.mark.parametrize(
    "transform, options",
    [
        (transforms.resize, {"size": (5, 9)}),
        (transforms.random_crop, {"rng": np.random.default_rng(0), "size": (8, 30), "fill": 0}),
        (transforms.warp, {"rng": np.random.default_rng(0), "rotate": 20.0}),
        (transforms.mirror, {"context": 3}),
    ],
)
def test_labels_of_large_numbers_keep_them(transform, options):
    image, label, _ = scene()
    _, labels = transform(image, label + np.int32(1 << 20), **options)
    assert labels.dtype == np.int32 and {*np.unique(labels)} <= {VOID, *((1 << 20) + np.array(CLASSES))}


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


def test_a_crop_may_be_a_list():
    assert same(next(stream(crop=[9, 11])), next(stream(crop=(9, 11))))


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
        wanted = [Sample(*transforms.shrink(image, label, longest), id) for image, label, id in wanted]
        assert all(max(sample.label.shape) == longest for sample in wanted)
    sizes = [sample.image.nbytes + sample.label.nbytes for sample in wanted]
    cached = CachedDataset(source, longest=longest, limit=sum(sizes[:fitting]))
    for _ in range(3):
        assert len(cached) == 5
        for have, want in zip((cached[i] for i in range(5)), wanted, strict=True):
            assert have.id == want.id and same(have[:2], want[:2])
    assert source.reads == fitting + 3 * (5 - fitting)


def places(height, width):
    """An image and a label that say where each pixel came from: red and the label's 256s the row, green and its rest the column."""
    rows, columns = np.indices((height, width))
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    return image, (256 * rows + columns).astype(np.int32)


WARPS = [
    {"rotate": 40.0},
    {"shift": 7.5},
    {"elastic": 6.0},
    {"rotate": 180.0, "shift": 300.0, "elastic": 40.0},
]


@pytest.mark.parametrize("options", WARPS)
@pytest.mark.parametrize("size", [(60, 90), (1, 7), (5, 1), (2, 2)])
def test_warped_photograph_and_labels_come_from_the_same_places(options, size):
    """The mean of neighbours' rows is the place itself, so that rounding it gives the nearest row, mirrored or not."""
    (image, label), rng = places(*size), np.random.default_rng(0)
    image.flags.writeable = label.flags.writeable = False
    for _ in range(10):
        warped, labels = transforms.warp(image, label, rng, **options)
        assert (warped.shape, warped.dtype, labels.shape, labels.dtype) == (image.shape, np.uint8, size, np.int32)
        differences = np.stack([labels >> 8, labels & 255], -1) - warped[..., :2]
        assert abs(differences).max() <= 1 and (differences != 0).mean() < 0.01


def test_a_mirrored_copy_of_an_object_is_not_the_object():
    """Number 7 lies at the upper edge; what a shift down mirrors in above it has another centre."""
    label = np.zeros((30, 20), np.int32)
    label[2:6, 5:9] = 7 * 256 + 1
    image, copied = np.zeros((30, 20, 3), np.uint8), False
    for seed in range(20):
        _, every = transforms.warp(image, label, np.random.default_rng(seed), shift=15)
        _, known = transforms.warp(image, label, np.random.default_rng(seed), shift=15, copies=False)
        np.testing.assert_array_equal(known & 255, every & 255)
        differ = known != every
        assert (known[differ] >> 8 == AMBIGUOUS).all() and (every[differ] >> 8 == 7).all()
        assert len(np.unique(np.nonzero(known >> 8 == 7)[0])) <= 4  # its own rows
        copied |= bool(differ.any())
    assert copied


def moved(size, **options):
    """Where each pixel came from, (2, H, W), minus where it is; for fields that stay inside around the middle."""
    _, labels = transforms.warp(*places(*size), **options)
    return np.stack([labels >> 8, labels & 255]) - np.indices(size)


def test_warp_turns_around_the_middle_and_keeps_lengths():
    rng, angles = np.random.default_rng(0), []
    for _ in range(60):
        field = moved((101, 81), rng=rng, rotate=30.0) + np.indices((101, 81))
        assert tuple(field[:, 50, 40]) == (50, 40)
        down = field[:, 70, 40] - field[:, 30, 40]  # 40 pixels apart before, and after
        across = field[:, 50, 60] - field[:, 50, 20]
        assert abs(np.hypot(*down) - 40) < 1.5 and abs(np.hypot(*across) - 40) < 1.5 and abs(down @ across) < 100
        angles.append(np.degrees(np.arctan2(down[1], down[0])))
    assert -31.5 < min(angles) < -24 and 24 < max(angles) < 31.5


def test_warp_shifts_all_pixels_alike_and_as_far_as_it_may():
    rng, shifts = np.random.default_rng(0), []
    for _ in range(60):
        field = moved((40, 50), rng=rng, shift=8.0)[:, 10:30, 10:40]
        assert (field == field[:, :1, :1]).all()
        shifts.append(field[:, 0, 0])
    assert (np.min(shifts, 0) <= -6).all() and (np.max(shifts, 0) >= 6).all() and np.abs(shifts).max() <= 8
    assert len({*np.diff(shifts).ravel()}) > 5  # down and across are drawn each for itself


def test_warp_bends_smoothly_by_displacements_of_the_given_size():
    rng = np.random.default_rng(0)
    fields = np.array([moved((120, 120), rng=rng, elastic=5.0) for _ in range(100)])
    for y, x in ((60, 60), (20, 60), (60, 100)):  # places on the 3×3 grid, far enough from the edge
        assert 4 < fields[:, :, y, x].std() < 6 and abs(fields[:, :, y, x].mean()) < 1.5
    drawn = (
        fields[:, 0, 60, 60],
        fields[:, 1, 60, 60],
        fields[:, 0, 60, 100],
    )  # each direction and each of the nine for itself
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.3
    inside = fields[:, :, 30:90, 30:90]
    assert max(abs(np.diff(inside, axis=axis)).max() for axis in (2, 3)) <= 2


def test_no_warp_gives_what_it_was_given_and_draws_nothing():
    image, label, _ = scene()
    rng = np.random.default_rng(0)
    assert all(a is b for a, b in zip(transforms.warp(image, label, rng), (image, label), strict=True))
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("context", [1, 4, 12, 40])
def test_mirror_repeats_no_edge_pixel_and_leaves_void_around(context):
    for size in ((13, 17), (1, 1), (2, 5)):
        image, label = places(*size)
        wide, labels = transforms.mirror(image, label, context)
        np.testing.assert_array_equal(wide, np.pad(image, ((context,) * 2,) * 2 + ((0, 0),), "reflect"))
        np.testing.assert_array_equal(labels, np.pad(label, context, constant_values=VOID))


def test_turn_gives_each_of_the_eight_ways_to_both():
    image, label, _ = scene(9, 9)
    rng, seen = np.random.default_rng(0), {}
    for _ in range(200):
        turned, labels = transforms.random_turn(image, label, rng)
        np.testing.assert_array_equal(turned[:, :, 0], labels)
        seen[turned.tobytes()] = seen.get(turned.tobytes(), 0) + 1
    assert len(seen) == 8 and min(seen.values()) > 10
    ways = {np.rot90(way, k).tobytes() for way in (image, image[:, ::-1]) for k in range(4)}
    assert {*seen} == ways


def test_context_is_mirrored_before_the_crop_which_keeps_its_size():
    """What the network labels, the crop without its context, covers the image and nothing else, its edges included."""
    seen = np.zeros((13, 17), bool)
    one = BatchStream([scene()], 1, Preprocessing(scale=(1, 1, 1)), np.random.default_rng(0), crop=(15, 16), context=5)
    for _ in range(200):
        images, labels = next(one)
        assert images.shape == (1, 3, 15, 16) and labels.shape == (1, 15, 16)
        red, rows, columns = images[0] + 127.5
        middle = (slice(5, -5), slice(5, -5))
        np.testing.assert_array_equal(red[middle], labels[0][middle])
        seen[rows[middle].astype(int), columns[middle].astype(int)] = True
        assert (np.abs(np.diff(rows, axis=0)) == 1).all() and (np.abs(np.diff(columns, axis=1)) == 1).all()
    assert seen.all()


def test_turning_takes_a_square_crop():
    with pytest.raises(ValueError, match=r"batches: .* square crop, got \(9, 11\)"):
        stream(augment=Augment(turn=True))


@pytest.mark.parametrize("options", [*WARPS, {"turn": True}])
def test_a_stream_with_every_augmentation_goes_on_bit_by_bit(options):
    options = {"crop": (11, 11), "augment": Augment(True, (0.8, 1.2), 0.1, **options), "context": 2}
    first, second = stream(seed=1, **options), stream(seed=9, **options)
    for _ in range(3):
        next(first)
    second.restore(*first.state())
    assert all(same(next(second), next(first)) for _ in range(4))
    plain = {**options, "augment": Augment(True, (0.8, 1.2), 0.1)}
    assert not same(next(stream(seed=1, **options)), next(stream(seed=1, **plain)))
