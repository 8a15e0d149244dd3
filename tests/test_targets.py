"""What is learned from objects: labels that keep them apart, and weights between them, against distances measured one by one."""

import pickle
import sys

import numpy as np
import pytest
from small_datasets import write_nuclei

from minifcn.data import (
    AMBIGUOUS,
    VOID,
    Augment,
    BatchStream,
    CachedDataset,
    Nuclei,
    ObjectSample,
    Preprocessing,
    Sample,
    targets,
    with_border_class,
)
from minifcn.data.labels import voc_palette


@pytest.fixture(scope="module")
def scipy():
    return pytest.importorskip("scipy", reason="SciPy is not installed; border weights need it")


def discs(size=(40, 56), count=9, seed=0):
    """(H, W) uint16 of objects that lie over each other in part, touch and are cut by the edge; a number is missing."""
    rng = np.random.default_rng(seed)
    instances, (y, x) = np.zeros(size, np.uint16), np.indices(size)
    for number in range(2, count + 2):
        centre, radius = rng.uniform(0, size), rng.uniform(2, 8)
        instances[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = number
    return instances


def objects_around(instances, y, x):
    """The numbers of the objects in the 3×3 pixels around one, as a set."""
    return {*instances[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel().tolist()} - {0}


def test_separate_takes_away_what_touches_another_object():
    instances = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [3, 0, 0, 0, 2], [0, 0, 0, 4, 0]], np.uint16)
    expected = [[1, 1, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    for dtype in (np.uint16, np.int32, np.uint8):
        apart = targets.separate(instances.astype(dtype))
        assert apart.dtype == np.uint8
        np.testing.assert_array_equal(apart, expected)
    for seed in range(5):
        instances = discs(seed=seed)
        expected = np.zeros(instances.shape, np.uint8)
        for y, x in zip(*np.nonzero(instances), strict=True):
            expected[y, x] = len(objects_around(instances, y, x)) == 1
        np.testing.assert_array_equal(targets.separate(instances), expected)


def by_brute_force(instances, w0, sigma, class_weights=(1, 1)):
    """Each distance to each pixel of each object, one by one."""
    places = [np.argwhere(instances == number) for number in np.unique(instances[instances > 0])]
    apart, weights = targets.separate(instances), np.empty(instances.shape)
    for place in np.ndindex(instances.shape):
        distances = sorted(np.sqrt(((pixels - place) ** 2).sum(1)).min() for pixels in places)
        weights[place] = class_weights[apart[place]]
        if not apart[place] and len(places) > 1:
            weights[place] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize(
    "seed, w0, sigma, class_weights", [(0, 10, 5, (1, 1)), (1, 10, 2, (0.5, 3)), (2, 1, 1, (1, 1)), (3, 60, 8, (1, 2))]
)
def test_border_weights_are_those_of_distances_measured_one_by_one(scipy, seed, w0, sigma, class_weights):
    instances = discs(seed=seed)
    weights = targets.border_weights(instances, w0=w0, sigma=sigma, class_weights=class_weights)
    assert weights.dtype == np.float32 and weights.shape == instances.shape
    np.testing.assert_allclose(weights, by_brute_force(instances, w0, sigma, class_weights), rtol=2e-7)


def test_objects_far_apart_are_measured_as_far_as_float32_tells(scipy):
    """σ = 5: at 31 pixels between them the weight is still above 1; the box of the one does not reach the other."""
    instances = np.zeros((3, 60), np.uint16)
    instances[1, 3], instances[1, 33], instances[1, 34:] = 1, 2, 2
    weights = targets.border_weights(instances)
    np.testing.assert_allclose(weights, by_brute_force(instances, 10, 5), rtol=1e-7)
    assert (weights[1, 4:33] > 1).all()


def test_fewer_than_two_objects_give_no_border(scipy):
    for instances in (np.zeros((4, 5), np.uint16), np.eye(4, dtype=np.uint16)):
        assert (targets.border_weights(instances) == 1).all()


def test_the_class_weights_may_be_those_of_other_labels_void_among_them(scipy):
    label = np.array([[0, 1, 2, VOID]], np.uint8)
    weights = targets.border_weights(np.zeros((1, 4), np.uint16), class_weights=(0.5, 2, 3), label=label)
    np.testing.assert_array_equal(weights, [[0.5, 2, 3, 1]])


@pytest.mark.parametrize("options", [{"w0": -1}, {"sigma": 0}])
def test_weights_that_mean_nothing_are_refused(options):
    with pytest.raises(ValueError, match=r"border weights: expected w0 >= 0 and sigma > 0, got"):
        targets.border_weights(discs(), **options)


def test_without_scipy_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(
        ValueError, match=r"border weights: SciPy is not installed; run pip install 'minifcn\[objects\]'"
    ):
        targets.border_weights(discs())


def test_what_is_joined_comes_apart_as_it_was():
    label = np.array([[0, 7, VOID]], np.uint8)
    instances = np.array([[0, 1, 65535]], np.uint16)
    joined = targets.join(label, instances)
    assert joined.dtype == np.int32
    for have, want in zip(targets.part(joined), (label, instances), strict=True):
        assert have.dtype == want.dtype
        np.testing.assert_array_equal(have, want)
    assert targets.part(targets.join(label, None)) == (label, None)


class Scenes(list):
    """Samples as a data set of two classes."""

    classes, palette, folder = ("background", "nucleus"), voc_palette(), "here"

    def label_of(self, label, instances):
        return label


def nuclei(count=4, instances=True, size=(40, 56)):
    """Samples whose colour tells the object: red is its number · 20, green 90 in what `separate` leaves."""
    scenes = Scenes()
    for seed in range(count):
        numbers = discs(size, seed=seed)
        label = targets.separate(numbers)
        image = np.stack([numbers * 20, label * 90, 0 * label], -1).astype(np.uint8)
        scenes.append(
            ObjectSample(image, label, f"scene {seed}", numbers) if instances else Sample(image, label, f"scene {seed}")
        )
    return scenes


def test_the_border_class_is_the_rim_of_objects_and_what_touches_two():
    scenes = nuclei()
    bordered = with_border_class(scenes)
    assert (len(bordered), bordered.num_classes, bordered.folder) == (4, 3, "here")
    assert bordered.classes == ("background", "nucleus", "border")
    assert bordered.palette.shape == (256, 3) and len(np.unique(bordered.palette[:3], axis=0)) == 3
    for scene, sample in zip(scenes, bordered, strict=True):
        expected, edge = scene.label.copy(), np.pad(scene.instances, 1, "edge")
        for y, x in np.ndindex(expected.shape):
            at_rim = scene.instances[y, x] and (edge[y : y + 3, x : x + 3] != scene.instances[y, x]).any()
            if at_rim or len(objects_around(scene.instances, y, x)) > 1:
                expected[y, x] = 2
        assert sample.label.dtype == np.uint8 and sample.id == scene.id
        np.testing.assert_array_equal(sample.label, expected)
    unknown = scenes[0].instances.copy()
    unknown[:12, :12] = AMBIGUOUS
    found = with_border_class(Scenes([scenes[0]._replace(instances=unknown)]))[0].label
    assert (found[:13, :13] == VOID).all() and not (found[14:, 14:] == VOID).any()
    void = scenes[0]._replace(label=np.full_like(scenes[0].label, VOID))
    assert (with_border_class(Scenes([void]))[0].label == VOID).all()


def test_a_border_beside_255_classes_would_be_void():
    scenes = nuclei(1)
    scenes.classes = tuple(map(str, range(255)))
    with pytest.raises(ValueError, match="the border class: expected fewer than 255 classes"):
        with_border_class(scenes)


def test_samples_without_objects_are_named():
    scenes = nuclei(instances=False)
    with pytest.raises(ValueError, match=r"the border class: expected .*'scene 1' with classes only"):
        with_border_class(scenes)[1]
    with pytest.raises(ValueError, match=r"border weights: expected .*'scene 0' with classes only"):
        BatchStream(scenes, 1, Preprocessing(), np.random.default_rng(0), border_weight=10)


def test_instances_go_through_augmentation_with_their_labels(scipy):
    augment = Augment(True, (0.7, 1.4), 0.0, rotate=20, shift=4, elastic=2, turn=True)
    stream = BatchStream(
        nuclei(), 3, Preprocessing(scale=(1, 1, 1)), np.random.default_rng(0), crop=(48, 48), augment=augment,
        border_weight=7, class_weights=(0.5, 2),
    )  # fmt: skip
    for _ in range(4):
        _, (labels, weights) = next(stream)
        assert labels.shape == weights.shape == (3, 48, 48)
        assert (labels.dtype, weights.dtype) == (np.uint8, np.float32)
        for label, weight in zip(labels, weights, strict=True):
            background = weight[label == 0]
            assert (weight[label == 1] == 2).all() and (weight[label == VOID] == 1).all()
            assert (background >= 0.5).all() and 5 < background.max() <= 7.5


def test_weights_are_those_of_the_augmented_objects(scipy):
    """Without a change of pixels: the sample's own; with a crop: of the objects that are in it."""
    scenes = nuclei(1)
    plain = BatchStream(scenes, 1, Preprocessing(), np.random.default_rng(0), border_weight=10)
    _, made = next(plain)
    assert isinstance(made, targets.Targets)
    np.testing.assert_array_equal(made.labels[0], scenes[0].label)
    np.testing.assert_array_equal(made.weights[0], targets.border_weights(scenes[0].instances))
    cut = BatchStream(scenes, 1, Preprocessing(), np.random.default_rng(0), border_weight=10, crop=(20, 20), context=3)
    wide = np.pad(scenes[0].label, 3, constant_values=VOID), np.pad(scenes[0].instances, 3)
    for _ in range(5):
        labels, weights = (array[0] for array in next(cut)[1])
        places = [
            (slice(y, y + 20), slice(x, x + 20)) for y, x in np.ndindex(27, 43)
            if np.array_equal(wide[0][y : y + 20, x : x + 20], labels)
        ]  # fmt: skip
        assert any(np.array_equal(targets.border_weights(wide[1][place], label=labels), weights) for place in places)


class Copies(list):
    """Samples that are read anew each time."""

    def __getitem__(self, index):
        return super().__getitem__(index)._replace()


def test_a_cached_sample_keeps_its_objects_shrunk_too():
    scenes = nuclei(2)
    for longest, factor in ((None, 1), (28, 2)):
        cached = CachedDataset(scenes, longest)
        for _ in range(2):
            sample = cached[1]
            assert sample.instances is not None and sample.instances.dtype == np.uint16
            assert sample.instances.shape == sample.label.shape == (40 // factor, 56 // factor)
            np.testing.assert_array_equal(sample.label, scenes[1].label[factor // 2 :: factor, factor // 2 :: factor])
            np.testing.assert_array_equal(
                sample.instances, scenes[1].instances[factor // 2 :: factor, factor // 2 :: factor]
            )
    sizes = sum(array.nbytes for array in scenes[0][:2]) + scenes[0].instances.nbytes
    for limit, kept in ((sizes, True), (sizes - 1, False)):
        cached = CachedDataset(Copies(scenes), limit=limit)
        assert (cached[0] is cached[0]) == kept


def test_labels_of_objects_are_drawn_after_augmentation(tmp_path):
    """Halved, gaps and rims of a pixel would be lost or broken, had they been drawn before."""
    write_nuclei(tmp_path, count=8)
    dataset = Nuclei(tmp_path, "trainval")
    augment = Augment(flip=False, scale=(0.5, 0.5), rotate=20.0)
    for made, drawn in ((dataset, targets.separate), (with_border_class(dataset), rims)):
        stream = BatchStream(
            CachedDataset(made), 1, Preprocessing(), np.random.default_rng(0), crop=(20, 20), augment=augment
        )
        for _ in range(4):
            _, label, instances = stream._augmented(stream.dataset[0])
            around = np.pad(label, 1, "edge")
            inside = ~np.any([around[y : y + 20, x : x + 20] == VOID for y in range(3) for x in range(3)], axis=0)
            assert len(np.unique(instances)) == 4
            np.testing.assert_array_equal(label[inside], drawn(instances)[inside])


def test_objects_cut_by_the_pictures_edge_have_no_rim_there(tmp_path):
    """Neither where the picture is mirrored for an unpadded network, nor where it is smaller than the crop."""
    write_nuclei(tmp_path, count=8)
    cells = with_border_class(Nuclei(tmp_path, "trainval"))
    expected = cells[0].label
    for size, options in ((40, {"context": 8, "crop": (40, 40)}), (64, {"crop": (64, 64)})):
        _, label, _ = BatchStream(cells, 1, Preprocessing(), np.random.default_rng(0), **options)._augmented(cells[0])
        inside = label[label != VOID]
        assert label.shape == (size, size) and (label == VOID).any()
        np.testing.assert_array_equal(inside.reshape(expected.shape), expected)


def test_shrunk_samples_have_their_labels_drawn_anew(tmp_path):
    write_nuclei(tmp_path, count=8)
    cells = Nuclei(tmp_path, "trainval")
    sample = CachedDataset(cells, longest=12)[0]
    np.testing.assert_array_equal(sample.label, targets.separate(sample.instances))
    assert pickle.loads(pickle.dumps(with_border_class(cells))).num_classes == 3


def rims(instances):
    """0 outside, 1 in objects, 2 where one of the 3×3 pixels around is of something else than the object, or of two objects."""
    around, label = np.pad(instances, 1, "edge"), np.zeros(instances.shape, int)
    for y, x in np.ndindex(*instances.shape):
        seen = set(around[y : y + 3, x : x + 3].ravel().tolist())
        touched, own = seen - {0}, instances[y, x]
        label[y, x] = 2 if len(touched) > 1 or (own and len(seen) > 1) else int(own > 0)
    return label
