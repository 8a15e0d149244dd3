"""The measures of objects, against numbers worked out by hand and against loops over all pairs of objects."""

import math

import numpy as np
import pytest

from minifcn.errors import DtypeError, InputError
from minifcn.metrics import AveragePrecision, InstanceScores
from minifcn.metrics.instances import THRESHOLDS


def row(*runs):
    """A map of one row from (number, pixels) one after the other."""
    return np.repeat(*np.transpose(runs))[None]


# Object 1 is found with 9 of its 10 pixels and 1 beyond: IoU 9/11. Of object 2 exactly half is found. Number 5 is nothing.
TRUE = row((1, 10), (0, 6), (2, 4), (0, 4))
FOUND = row((0, 1), (3, 10), (0, 5), (9, 2), (0, 4), (5, 2))


def random_maps(seed):
    """Two maps of overlapping boxes, the second the first one's with shifted sides."""
    rng = np.random.default_rng(seed)
    true, found = np.zeros((2, 30, 40), np.uint16)
    for number in rng.permutation(rng.integers(0, 12)) + 1:
        y, x, height, width = rng.integers((0, 0, 1, 1), (25, 35, 12, 12))
        true[y : y + height, x : x + width] = number
        top, left = np.maximum(0, rng.integers(-2, 3, 2) + (y, x))
        found[top : top + height, left : left + width] = 100 * number
    return true, found


def pairs(true, found):
    """[(IoU, true number, found number)] of all pairs, set by set."""
    sets = [{n: set(np.flatnonzero(a == n)) for n in np.unique(a) if n} for a in (true, found)]
    return [(len(t & f) / len(t | f), n, m) for n, t in sets[0].items() for m, f in sets[1].items()], *map(len, sets)


@pytest.mark.parametrize("seed", range(20))
def test_the_bowls_measure_agrees_with_its_definition(seed):
    """Greedy matching over all pairs, best first, which need not know that matches are unique."""
    maps, scores, expected = [random_maps(seed + 100 * i) for i in range(3)], InstanceScores(), []
    for true, found in maps:
        scores.update(true, found)
        overlaps, ours, theirs = pairs(true, found)
        of_image = []
        for threshold in THRESHOLDS:
            taken, hits = set(), 0
            for iou, n, m in sorted(overlaps, reverse=True):
                if iou > threshold and not {("true", n), ("found", m)} & taken:
                    taken |= {("true", n), ("found", m)}
                    hits += 1
            of_image.append(hits / (ours + theirs - hits) if ours + theirs else 1)
        expected.append(of_image)
    assert [scores.at(t) for t in THRESHOLDS] == pytest.approx(np.mean(expected, axis=0), rel=1e-12)
    assert scores.scores() == pytest.approx({"bowl_50": scores.at(0.5), "bowl": np.mean(expected)}, rel=1e-12)


def test_the_bowls_measure_by_hand():
    scores = InstanceScores()
    assert math.isnan(scores.at(0.5)) and math.isnan(scores.mean())
    scores.update(TRUE, FOUND)
    # One match of two true and three found objects, up to 0.80 < 9/11: seven of the ten thresholds.
    assert scores.at(0.5) == scores.at(0.8) == 1 / 4
    assert scores.at(0.85) == 0
    assert scores.mean() == pytest.approx(0.7 / 4)
    scores.update(np.zeros((2, 2), int), np.zeros((2, 2), int))  # nothing there and nothing found is right
    scores.update(np.zeros((2, 2), int), np.ones((2, 2), int))
    assert scores.at(0.5) == pytest.approx((1 / 4 + 1 + 0) / 3)


@pytest.mark.parametrize("share, threshold", [(10, 0.5), (11, 0.55), (12, 0.6), (13, 0.65), (14, 0.7), (19, 0.95)])
def test_an_iou_of_exactly_the_threshold_is_no_match(share, threshold):
    assert threshold in THRESHOLDS
    scores = InstanceScores()
    scores.update(row((1, 20)), row((1, share), (0, 20 - share)))
    assert scores.at(threshold) == 0
    assert scores.at(threshold - 0.001 if share > 10 else 0.5) == (share > 10)


def test_average_precision_by_hand():
    """Three true objects; ranked by score: right, wrong, right, wrong. Precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3."""
    precision = AveragePrecision()
    precision.update(row((1, 5), (2, 5), (0, 5)), row((1, 5), (2, 5), (3, 5)), np.array([0.9, 0.3, 0.1]))
    assert precision.ap() == 1  # a wrong object behind all right ones costs nothing
    precision.update(row((1, 5), (0, 5)), row((0, 5), (1, 5)), [0.5])
    assert precision.ap(0.5) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert precision.scores() == {"ap_50": precision.ap(0.5)}


def test_average_precision_takes_the_highest_precision_at_a_recall_or_beyond():
    precision = AveragePrecision((0.5, 0.75))
    found = row((1, 4), (2, 4), (3, 4))
    precision.update(row((0, 4), (1, 4), (2, 4)), found, np.float32([0.9, 0.8, 0.7]))
    assert precision.ap(0.5) == pytest.approx(2 / 3)  # precision 0, 1/2, 2/3: both steps of recall count 2/3
    assert precision.scores() == {"ap_50": precision.ap(0.5), "ap_75": precision.ap(0.75)}


def test_the_order_of_objects_of_equal_score_does_not_matter():
    true, orders = row((1, 4), (0, 4)), [row((1, 4), (2, 4)), row((2, 4), (1, 4))]
    values = []
    for found in orders:
        precision = AveragePrecision()
        precision.update(true, found, np.array([0.5, 0.5]))
        values.append(precision.ap())
    assert values == [0.5, 0.5]


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_agrees_with_its_definition(seed):
    rng, precision, ranked, total = np.random.default_rng(seed), AveragePrecision(), [], 0
    for image in range(3):
        true, found = random_maps(seed + 100 * image)
        found //= 100
        scores = rng.permutation(int(found.max())) / 12
        precision.update(true, found, scores)
        overlaps, ours, _ = pairs(true, found)
        best = {m: max((iou for iou, _, other in overlaps if other == m), default=0) for m in np.unique(found) if m}
        ranked += [(scores[m - 1], iou) for m, iou in best.items()]
        total += ours
    for threshold in (0.5, 0.7, 0.9) if total else ():
        points = []  # (recall, precision) where all objects of at least a score are accepted
        for least in sorted({score for score, _ in ranked}, reverse=True):
            accepted = [iou > threshold for score, iou in ranked if score >= least]
            points.append((sum(accepted) / total, sum(accepted) / len(accepted)))
        area, before = 0, 0
        for recall, _ in points:
            area += (recall - before) * max(p for r, p in points if r >= recall)
            before = recall
        assert precision.ap(threshold) == pytest.approx(area, rel=1e-12)


def test_average_precision_without_objects():
    precision = AveragePrecision()
    precision.update(np.zeros((2, 2), int), np.ones((2, 2), int), [1.0])
    assert math.isnan(precision.ap())
    precision = AveragePrecision()
    precision.update(np.ones((2, 2), int), np.zeros((2, 2), int), np.zeros(0))
    assert precision.ap() == 0


def test_numbers_of_any_size_dtype_and_gaps_name_the_same_objects():
    true, found = random_maps(7)
    plain, wide = InstanceScores(), InstanceScores()
    plain.update(true, found)
    wide.update(true.astype(np.int64) * ((1 << 31) // 20), found.astype(np.int32) * 10**6)
    assert plain.scores() == wide.scores()


@pytest.mark.parametrize(
    "true, found, told",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\).*\(3, 2\)"),
        ([[0, -1]], [[0, 0]], r"true numbers 0\.\.2147483647, got -1\.\.0"),
        ([[0, 0]], [[0, 1 << 31]], r"predicted numbers 0\.\.2147483647, got 0\.\.2147483648"),
        ([[0, 0]], [[0.0, 1.0]], "expected integers, got int64 and float64"),
    ],
)
def test_maps_that_are_none_of_objects_are_refused_and_nothing_is_counted(true, found, told):
    scores, precision = InstanceScores(), AveragePrecision()
    for update in (scores.update, lambda a, b: precision.update(a, b, np.ones(9))):
        with pytest.raises((InputError, DtypeError), match=told):
            update(np.asarray(true), np.asarray(found))
    assert math.isnan(scores.mean()) and math.isnan(precision.ap())


@pytest.mark.parametrize("scores", [[0.5], [[0.5, 0.5]], [0.5, np.nan], [0.5, np.inf], 0.5])
def test_objects_without_a_finite_score_are_refused(scores):
    precision = AveragePrecision()
    with pytest.raises(InputError, match=r"finite score for each object 1\.\.2"):
        precision.update(row((1, 4), (2, 4)), row((1, 4), (2, 4)), scores)
    assert math.isnan(precision.ap())


@pytest.mark.parametrize("threshold", [0.49, 1.0, math.nan])
def test_thresholds_that_do_not_make_matches_unique_are_refused(threshold):
    for ask in (InstanceScores().at, AveragePrecision().ap, lambda t: AveragePrecision((t,))):
        with pytest.raises(InputError, match=r"threshold of IoU from 0\.5 to below 1"):
            ask(threshold)
