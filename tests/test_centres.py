"""Centres and offsets: what is learned of objects, its losses by hand, and objects from maps, by loops as the oracle."""

import numpy as np
import pytest

from minifcn import ops
from minifcn.data import AMBIGUOUS, VOID
from minifcn.data.centres import CentreTargets, centres
from minifcn.errors import InputError
from minifcn.inference.panoptic import apart, group, peaks
from minifcn.tasks import PanopticSegmentation

BOX = np.array([[1, 1, 1, 2], [1, 1, 1, 2], [0, 0, AMBIGUOUS, 2]], np.uint16)


def test_centres_by_hand():
    label = np.where(BOX > 0, 1, 0).astype(np.uint8)
    label[0, 3] = VOID  # of object 2, whose middle is then that of the two others
    centre, offset, known, inside = centres(label, BOX, sigma=0.5)
    assert [part.dtype for part in (centre, offset, known, inside)] == [np.float32] * 4
    np.testing.assert_array_equal(known, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]])
    np.testing.assert_array_equal(inside, [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    middles = {1: (0.5, 1.0), 2: (1.5, 3.0)}
    for (row, column), number in np.ndenumerate(BOX):
        to = middles[number] if inside[row, column] else (row, column)
        np.testing.assert_array_equal(offset[:, row, column], np.subtract(to, (row, column)))
        bells = [np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * 0.5**2)) for y, x in middles.values()]
        assert centre[0, row, column] == pytest.approx(max(bells), abs=np.exp(-4.5))
    assert centre[0, 0, 1] == np.float32(np.exp(-0.5))


def test_no_object_gives_zeros_and_a_bell_is_cut_off_beyond_three_sigma():
    centre, offset, known, inside = centres(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint16))
    assert not centre.any() and not offset.any() and not inside.any() and known.all()
    one = np.zeros((1, 60), np.uint16)
    one[0, 20] = 7
    (line,) = centres(np.ones((1, 60), np.uint8), one, sigma=4.0)[0][0]
    assert np.flatnonzero(line).tolist() == list(range(8, 33)) and line[20] == 1


def batch(rng, dtype=np.float64):
    labels = rng.integers(0, 3, (2, 5, 6)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = VOID
    instances = np.where(labels == 1, rng.integers(1, 4, labels.shape), 0).astype(np.uint16)
    instances[0, 0] = AMBIGUOUS
    outputs = {"semantic": rng.standard_normal((2, 3, 5, 6)), "centre": rng.standard_normal((2, 1, 5, 6))}
    outputs["offset"] = rng.standard_normal((2, 2, 5, 6))
    return {name: maps.astype(dtype) for name, maps in outputs.items()}, CentreTargets.of(labels, instances, 2.0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_is_the_published_sum_and_its_gradient_that_of_each_part(reduction, rng):
    outputs, targets = batch(rng)
    task = PanopticSegmentation(reduction)
    total, weight, cache = task.loss(outputs, targets)
    count = (targets.labels != VOID).sum()
    squared = ((outputs["centre"] - targets.centre)[:, 0] ** 2 * targets.known).sum() / targets.known.sum()
    absolute = (abs(outputs["offset"] - targets.offset).sum(axis=1) * targets.inside).sum() / targets.inside.sum()
    classes, _ = ops.softmax_cross_entropy_forward(outputs["semantic"], targets.labels)
    expected = classes + 200 * squared + 0.01 * absolute
    assert weight == (count if reduction == "mean" else 0)
    assert total / count == pytest.approx(expected, rel=1e-6)
    gradients = task.loss_backward(1 / (weight or 1), cache)
    factor = 1 if reduction == "mean" else count
    by_hand = 400 * factor * targets.known[:, None] * (outputs["centre"] - targets.centre) / targets.known.sum()
    np.testing.assert_allclose(gradients["centre"], by_hand, rtol=1e-6, atol=1e-12)
    signs = np.sign(outputs["offset"] - targets.offset) * targets.inside[:, None]
    np.testing.assert_allclose(gradients["offset"], 0.01 * factor * signs / targets.inside.sum(), rtol=1e-6)
    frozen = PanopticSegmentation(reduction, frozen=True)
    total, _, cache = frozen.loss(outputs, targets)
    assert total / count == pytest.approx(200 * squared + 0.01 * absolute, rel=1e-6)
    assert frozen.loss_backward(1.0, cache).keys() == {"centre", "offset"}


def test_what_is_void_or_of_an_unknown_object_changes_neither_loss_nor_gradient(rng):
    outputs, targets = batch(rng)
    changed = {name: maps.copy() for name, maps in outputs.items()}
    unknown = targets.known == 0
    assert unknown.any()
    for name in ("centre", "offset"):
        changed[name][:, 0][unknown] = np.inf
    for one in (outputs, changed):
        total, weight, cache = PanopticSegmentation().loss(one, targets)
        gradients = PanopticSegmentation().loss_backward(1 / weight, cache)
        assert np.isfinite(total) and not gradients["centre"][:, 0][unknown].any()
    assert total == PanopticSegmentation().loss(outputs, targets)[0]


def test_the_hardest_pixels_by_hand():
    logits = np.log(np.array([[[0.9, 0.5, 0.2, 0.5, 0.1]], [[0.1, 0.5, 0.8, 0.5, 0.9]]]).transpose(1, 0, 2))
    labels = np.array([[0, 0, 0, 0, 255]], np.uint8)  # losses −log of 0.9, 0.5, 0.2, 0.5; the last is ignored
    for share, kept in ((0.25, [2]), (0.3, [1, 2]), (0.75, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        loss, cache = ops.hardest_cross_entropy_forward(logits, labels, hardest=share)
        assert loss == pytest.approx(-np.log(np.array([0.9, 0.5, 0.2, 0.5])[kept]).mean())
        gradient = ops.hardest_cross_entropy_backward(1.0, cache)
        assert np.flatnonzero(gradient[0, 0]).tolist() == kept
    with pytest.raises(InputError, match="a share above 0"):
        ops.hardest_cross_entropy_forward(logits, labels, hardest=0)


def test_errors_are_divided_by_the_weights():
    x, target = np.array([[[[1.0, 5.0]], [[2.0, 0.0]]]]), np.zeros((1, 2, 1, 2))
    weight = np.array([[[3.0, 0.5]]])
    for op, expected in (("squared", (3 * (1 + 4) + 0.5 * 25) / 3.5), ("absolute", (3 * 3 + 0.5 * 5) / 3.5)):
        loss, _ = getattr(ops, f"{op}_error_forward")(x, target, weight)
        assert loss == pytest.approx(expected)


def test_weights_that_are_none_are_refused():
    x = np.zeros((1, 2, 1, 2))
    for weight in (np.array([[[1, -1.0]]]), np.array([[[1, np.nan]]])):
        with pytest.raises(InputError, match="finite weights of at least 0"):
            ops.squared_error_forward(x, x, weight)


# --- From maps to objects, by loops ---------------------------------------------------------------------------------


def peaks_in_loops(centre, window):
    found, reach = [], window // 2
    height, width = centre.shape
    for row in range(height):
        for column in range(width):
            best = centre[row, column] >= 0.1
            for i in range(max(0, row - reach), min(height, row + reach + 1)):
                for j in range(max(0, column - reach), min(width, column + reach + 1)):
                    before = (i, j) < (row, column)
                    best &= centre[i, j] < centre[row, column] or (not before and centre[i, j] == centre[row, column])
            if best:
                found.append((row, column))
    return sorted(found, key=lambda at: -centre[at])


def apart_in_loops(centre, found):
    """Of the peaks those from which every line to a higher one leads through a valley, pixel by pixel."""
    kept = []
    for peak in found:
        valleys, steps = [], max([1, *(abs(a - b) for other in kept for a, b in zip(other, peak, strict=True))])
        for other in kept:
            line = [
                [a + int(np.floor((b - a) * i / steps + 0.5)) for a, b in zip(peak, other, strict=True)]
                for i in range(steps + 1)
            ]
            valleys.append(min(centre[row, column] for row, column in line) <= centre[peak] - 0.1)
        if all(valleys):
            kept.append(peak)
    return kept


def group_in_loops(logits, centre, offset, things, window, least):
    """Each pixel's object, then each object's class and score, as the article tells it."""
    labels, instances = logits.argmax(axis=0), np.zeros(centre.shape, int)
    found, pixels = apart_in_loops(centre, peaks_in_loops(centre, window)), {}
    for row, column in np.ndindex(centre.shape):
        if labels[row, column] in things and found:
            down, across = row + offset[0, row, column], column + offset[1, row, column]
            distances = [(down - y) ** 2 + (across - x) ** 2 for y, x in found]
            pixels.setdefault(distances.index(min(distances)), []).append((row, column))
    classes, scores = [], []
    pixels = {peak: places for peak, places in pixels.items() if len(places) >= least}
    for number, peak in enumerate(sorted(pixels), start=1):
        of_object = [labels[at] for at in pixels[peak]]
        classes.append(max(range(len(logits)), key=lambda c, seen=of_object: (seen.count(c), -c)))
        likely = [np.exp(logits[(classes[-1], *at)]) / np.exp(logits[(slice(None), *at)]).sum() for at in pixels[peak]]
        middle = tuple(round(float(np.mean(side))) for side in zip(*pixels[peak], strict=True))
        scores.append(np.mean(likely) * min(max(centre[middle], 0), 1))
        for at in pixels[peak]:
            labels[at], instances[at] = classes[-1], number
    return labels, instances, classes, scores


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_those_of_the_loops(seed):
    """Heights and offsets in coarse steps, so that there are ties of every kind."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 30, 2))
    centre = rng.choice([-0.2, 0.0, 0.05, 0.1, 0.3, 0.3, 0.9, 1.2], size)
    if seed % 3 == 0:
        centre = np.round(np.kron(centre, np.ones((5, 4)))[: size[0], : size[1]], 1)  # plateaus
    logits, offset = rng.integers(-2, 3, (4, *size)).astype(float), rng.integers(-9, 10, (2, *size)).astype(float)
    things, window = [1, 2] if seed % 2 else [1, 2, 3], (7, 7, 3, 13)[seed % 4]
    np.testing.assert_array_equal(peaks(centre, window), np.reshape(peaks_in_loops(centre, window), (-1, 2)))
    given = logits, centre, offset, things, window, 1 + 4 * (seed % 5 == 0)
    found, expected = group(*given), group_in_loops(*given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert [array.dtype for array in found] == [np.uint8, np.uint16, np.uint8, np.float64]


def test_peaks_on_one_ridge_are_one_objects():
    """Two bells, a wide one between them, and a lone one: the ridge's height decides, not how far its ends are from each other."""
    rows, columns = np.mgrid[:40, :120]

    def bell(row, column, height=1.0, sigma=6.0):
        return height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))

    two = np.maximum(bell(20, 20), bell(20, 60, 0.8))
    for ridge, expected in ((0.65, [(20, 20), (20, 60), (5, 110)]), (0.75, [(20, 20), (5, 110)])):
        centre = np.maximum.reduce(
            [two, ridge * (abs(rows - 20) < 3) * (columns >= 20) * (columns <= 60), bell(5, 110, 0.3)]
        )
        found = peaks(centre)
        np.testing.assert_array_equal(found, [(20, 20), (20, 60), (5, 110)])
        np.testing.assert_array_equal(apart(centre, found), expected)
    assert apart(centre, found[:0]).shape == (0, 2)


def test_no_peak_no_thing_and_more_peaks_than_200(caplog):
    nothing = group(np.zeros((2, 3, 4)), np.full((3, 4), 0.09), np.zeros((2, 3, 4)), [0, 1])
    assert not nothing.instances.any() and nothing.classes.size == nothing.scores.size == 0
    splinters = group(np.zeros((2, 3, 4)), np.ones((3, 4)), np.zeros((2, 3, 4)), [0, 1], least=13)
    assert len(splinters.classes) == 0 and not splinters.instances.any()
    only_stuff = group(np.zeros((2, 3, 4)), np.ones((3, 4)), np.zeros((2, 3, 4)), [1])
    assert not only_stuff.instances.any() and only_stuff.scores.size == 0
    many = np.zeros((16, 16))
    many[::4, ::4] = np.linspace(0.5, 1, 16).reshape(4, 4)
    many = np.tile(many, (4, 4))
    given = np.stack([0 * many, 1 + many]), many, np.zeros((2, 64, 64)), [1]
    assert len(peaks(many)) == 256 and not caplog.messages
    for name in ("crowd", "crowd", "other crowd"):
        found = group(*given, name=name)
        high = found.instances[many > 0.61]
        assert len(found.classes) == 200 and len(np.unique(high)) == high.size == 192
    expected = "more than 200 centres of objects, of which the highest 200 count"
    assert caplog.messages == [f"crowd: {expected}", f"other crowd: {expected}"]


def test_an_object_is_found_where_it_was_put():
    """Targets as outputs give the objects back: two that touch, of one class."""
    instances = np.zeros((40, 50), np.uint16)
    instances[8:28, 5:20], instances[10:30, 20:44] = 1, 2
    label = (instances > 0).astype(np.uint8)
    centre, offset, _, _ = centres(label, instances, 4.0)
    found = group(np.stack([1.0 - label, label]), centre[0], offset, [1])
    both = {(int(a), int(b)) for a, b in zip(instances.ravel(), found.instances.ravel(), strict=True)}
    assert len(both) == 3 and found.classes.tolist() == [1, 1]
    assert found.scores == pytest.approx([np.e / (1 + np.e)] * 2, abs=0.02)
