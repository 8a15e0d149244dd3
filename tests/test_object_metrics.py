"""AP^r, COCO's average precision and panoptic quality: by hand, by loops over sets, and against pycocotools."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest

from minifcn import data
from minifcn.errors import DtypeError, InputError
from minifcn.metrics import COCOAveragePrecision, PanopticQuality, RegionAveragePrecision, coco, overlaps, regions
from minifcn.tasks import PanopticScores

VOID, AMBIGUOUS = 255, 65535


def row(*runs):
    """A map of one row from (number, pixels) one after the other."""
    return np.repeat(*np.transpose(runs))[None].astype(np.int64)


def prediction(found, classes, scores=None, labels=None):
    classes = np.array(classes, int)
    if labels is None:
        labels = np.append(0, classes)[found]
    return labels, found, classes, np.ones(len(classes)) if scores is None else np.array(scores, float)


def random_image(rng, num_classes=4, size=(40, 50), crowds=True, void=True):
    """(label, instances, prediction): boxes of classes, some of them crowds; found are the same, moved, with classes and scores."""
    label, instances, found = np.zeros((3, *size), np.int64)
    kinds, numbers = {}, rng.integers(0, 9)
    for number in range(1, numbers + 1):
        y, x, height, width = rng.integers((0, 0, 2, 2), (35, 45, 25, 25))
        part = np.s_[y : y + height, x : x + width]
        label[part] = kinds[number] = rng.integers(1, num_classes)
        instances[part] = number
    for number in range(1, numbers + 1):
        rows, columns = np.nonzero(instances == number)
        if len(rows) and rng.random() < 0.85:
            y, x = rng.integers(-2, 3, 2)
            found[(rows + y).clip(0, size[0] - 1), (columns + x).clip(0, size[1] - 1)] = number
    if rng.random() < 0.5:
        found[5:9, 30:45] = numbers + 1
    there, found = np.unique(found, return_inverse=True)
    found, there = found.reshape(size) + (there[0] > 0), there[there > 0]
    classes = [kinds.get(n, 1) if rng.random() < 0.8 else int(rng.integers(1, num_classes)) for n in there]
    if crowds:
        for kind in range(1, num_classes):
            if of_kind := [n for n in kinds if kinds[n] == kind and rng.random() < 0.3]:
                instances[instances == of_kind[0]] = AMBIGUOUS
    if void:
        label[rng.random(size) < 0.05] = VOID
    return label, instances, prediction(found, classes, rng.integers(1, 8, len(classes)) / 8)


# COCO's


def cocos(images, num_classes):
    """(precision (T, R, K, A), stats) by pycocotools, of images as random_image gives them."""
    mask, coco_api = pytest.importorskip("pycocotools.mask"), pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    def rle(there):
        code = mask.encode(np.asfortranarray(there, np.uint8))
        return code | {"counts": code["counts"].decode()}

    truth, found = [], []
    for i, (label, instances, (_, objects, classes, scores)) in enumerate(images, 1):
        regions = [(instances == n, 0) for n in np.setdiff1d(instances, [0, AMBIGUOUS])]
        regions += [((instances == AMBIGUOUS) & (label == c), 1) for c in np.unique(label[instances == AMBIGUOUS])]
        for there, crowd in regions:
            entry = {"id": len(truth) + 1, "image_id": i, "category_id": int(label[there][0]), "iscrowd": crowd}
            truth.append(entry | {"area": int(there.sum()), "segmentation": rle(there)})
        for j, (kind, score) in enumerate(zip(classes, scores, strict=True), 1):
            found.append({"image_id": i, "category_id": int(kind), "score": score, "segmentation": rle(objects == j)})
    with contextlib.redirect_stdout(io.StringIO()):
        api = coco_api.COCO()
        api.dataset = {
            "images": [
                {"id": i, "height": label.shape[0], "width": label.shape[1]} for i, (label, *_) in enumerate(images, 1)
            ],
            "categories": [{"id": c} for c in range(1, num_classes)],
            "annotations": truth,
        }
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval["precision"][..., -1], evaluation.stats


def equal_to_pycocotools(images, num_classes):
    """Compare all scores, and those of each class, size and threshold, of images counted one by one, in two parts and as a panoptic network's.
    -> our scores"""
    ours, parts = COCOAveragePrecision(num_classes), [COCOAveragePrecision(num_classes) for _ in range(2)]
    things = range(1, num_classes)
    of_network = [PanopticScores(num_classes, things) for _ in range(3)]
    for i, image in enumerate(images):
        ours.update(*image)
        parts[2 * i >= len(images)].update(*image)
        of_network[3 * i // len(images)].update_objects(*image)
    parts[0].merge(parts[1])
    for one in of_network[1:]:
        of_network[0].merge(one)
    for area in coco.AREAS:
        np.testing.assert_array_equal(parts[0].ap(area=area), ours.ap(area=area))
    np.testing.assert_equal(parts[0].scores(), ours.scores())
    precision, stats = cocos(images, num_classes)
    for i, area in enumerate(coco.AREAS):
        for t, threshold in enumerate(coco.THRESHOLDS):
            expected = precision[t, :, :, i].mean(axis=0)
            np.testing.assert_allclose(
                ours.ap(threshold, area)[1:], np.where(expected < 0, np.nan, expected), atol=1e-9, rtol=0
            )
    expected = np.where(stats[:6] < 0, np.nan, stats[:6])
    np.testing.assert_allclose(list(ours.scores().values()), expected, atol=1e-9, rtol=0)
    found = of_network[0].scores()
    np.testing.assert_allclose([found["coco_ap"], found["coco_ap_50"]], expected[:2], atol=1e-9, rtol=0)
    return ours.scores()


@pytest.mark.parametrize("seed", range(25))
def test_cocos_ap_is_that_of_pycocotools(seed):
    """Scores have ties within and between images, classes are confused, objects are of three sizes, some are crowds."""
    rng, size = np.random.default_rng(seed), (40, 50) if seed % 2 else (130, 150)
    scale = np.ones((1, 1), int) if seed % 2 else np.ones((4, 4), int)
    images = []
    for _ in range(rng.integers(2, 9)):
        label, instances, (labels, found, classes, scores) = random_image(rng, void=False)
        large = [np.kron(array, scale)[: size[0], : size[1]] for array in (label, instances, labels, found)]
        images.append((*large[:2], (*large[2:], classes, scores)))
    if any(len(image[2][2]) for image in images):
        equal_to_pycocotools(images, 4)


def test_cocos_ap_takes_a_hundred_objects_of_a_class():
    """121 squares of 3 × 3 pixels, all found: recall 100/121, so 83 of the recalls 0 … 1."""
    cells = np.kron(np.arange(121).reshape(11, 11) + 1, np.pad(np.ones((3, 3), int), (0, 1)))
    image = (cells > 0).astype(int), cells, prediction(cells, np.ones(121), np.linspace(0.1, 0.9, 121))
    assert equal_to_pycocotools([image], 2)["coco_ap_50"] == pytest.approx(83 / 101)


def test_an_iou_of_exactly_the_threshold_is_a_match_for_coco_and_none_for_ap_r():
    image = row((1, 20)), row((1, 20)), prediction(row((1, 10), (0, 10)), [1])
    ours, sds = COCOAveragePrecision(2), RegionAveragePrecision(2)
    for metric in (ours, sds):
        metric.update(*image)
    assert ours.ap(0.5)[1] == pytest.approx(1) and ours.ap(0.55)[1] == 0
    assert sds.ap(0.4)[1] == 1 and sds.ap(0.5)[1] == 0


def test_a_crowd_takes_any_number_of_objects_of_its_class_and_no_other():
    """Class 1 has a crowd of 30 pixels and an object of 10, class 2 an object of 10."""
    label, instances = row((1, 40), (2, 10)), row((AMBIGUOUS, 30), (1, 10), (2, 10))
    found = row((1, 10), (2, 10), (3, 10), (4, 10), (5, 10))
    ours = COCOAveragePrecision(3)
    ours.update(label, instances, prediction(found, [1, 1, 2, 1, 2], [0.9, 0.8, 0.7, 0.6, 0.5]))
    assert ours.ap(0.5)[1] == pytest.approx(1)  # the two in the crowd do not count
    assert ours.ap(0.5)[2] == pytest.approx(0.5)  # the one in a crowd of another class does


def test_true_objects_that_count_come_before_others():
    """One found object, a true one that does not count with IoU 0.9, and one that does with 0.6."""
    ious, none = np.array([[0.9], [0.6]]), np.zeros(2, bool)
    matches = overlaps.match(ious, np.array([0.5, 0.6, 0.7, 0.95]), np.array([True, False]), none)
    assert matches.tolist() == [[1], [1], [0], [-1]]
    assert overlaps.match(ious, np.array([0.5]), none, none).tolist() == [[0]]
    twice = np.array([[0.9, 0.8], [0.6, 0.7]])
    assert overlaps.match(twice, np.array([0.5, 0.75]), none, none).tolist() == [[0, 1], [0, -1]]


# AP^r


def definition(images, num_classes, threshold):
    """AP^r by loops over sets of pixels. -> (num_classes,)"""
    ranked, totals = [[] for _ in range(num_classes)], np.zeros(num_classes, int)
    for label, instances, (_, found, classes, scores) in images:
        uncounted = (label == VOID) | (instances == AMBIGUOUS)
        outside = set(np.flatnonzero(uncounted))
        true = {n: set(np.flatnonzero(instances == n)) - outside for n in np.setdiff1d(instances, [0, AMBIGUOUS])}
        true = {n: pixels for n, pixels in true.items() if pixels}
        kind = {n: np.bincount(label.reshape(-1)[list(pixels)]).argmax() for n, pixels in true.items()}
        for n in true:
            totals[kind[n]] += 1
        left = set(true)
        for i in sorted(range(len(classes)), key=lambda i: -scores[i]):
            all_pixels = set(np.flatnonzero(found == i + 1))
            pixels, best, chosen = all_pixels - outside, threshold, None
            for n in left:
                iou = len(pixels & true[n]) / len(pixels | true[n])
                if kind[n] == classes[i] and iou > best:
                    best, chosen = iou, n
            left.discard(chosen)
            if chosen is not None or 2 * len(all_pixels & outside) <= len(all_pixels):
                ranked[classes[i]].append((scores[i], chosen is not None))
    result = []
    for total, of_class in zip(totals, ranked, strict=True):
        points, area, before = [], 0, 0
        for least in sorted({score for score, _ in of_class}, reverse=True):
            accepted = [hit for score, hit in of_class if score >= least]
            points.append((sum(accepted) / max(total, 1), sum(accepted) / len(accepted)))
        for recall, _ in points:
            area += (recall - before) * max(p for r, p in points if r >= recall)
            before = recall
        result.append(area if total else np.nan)
    return np.array(result)


@pytest.mark.parametrize("seed", range(12))
def test_ap_r_agrees_with_its_definition(seed):
    rng, metric = np.random.default_rng(seed), RegionAveragePrecision(4)
    images = [random_image(rng) for _ in range(5)]
    for image in images:
        metric.update(*image)
    expected = [definition(images, 4, threshold) for threshold in regions.THRESHOLDS]
    for threshold, of_classes in zip(regions.THRESHOLDS, expected, strict=True):
        np.testing.assert_allclose(metric.ap(threshold), of_classes, rtol=1e-12)
    np.testing.assert_allclose(metric.volume(), np.mean(expected, axis=0), rtol=1e-12)
    scores = {"apr_50": np.nanmean(expected[4]), "apr_70": np.nanmean(expected[6]), "apr_vol": np.nanmean(expected)}
    assert metric.scores() == pytest.approx(scores)
    assert metric.scores([2])["apr_70"] == pytest.approx(expected[6][2], nan_ok=True)


def test_ap_r_by_hand():
    """Class 1: right (0.9), a second one on the same object (0.8), right (0.7) with IoU 8/12, which is a match at 0.5 only."""
    label, instances = row((1, 30), (0, 10)), row((1, 10), (2, 10), (3, 10), (0, 10))
    found = row((2, 6), (1, 4), (0, 10), (3, 8), (0, 2), (3, 2), (0, 8))
    metric = RegionAveragePrecision(3)
    metric.update(label, instances, prediction(found, [1, 1, 1], [0.8, 0.9, 0.7]))
    assert metric.ap(0.5)[1] == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert metric.ap(0.7)[1] == 0
    assert metric.ap(0.1)[1] == pytest.approx(metric.ap(0.5)[1])  # the second one on object 1 finds it taken
    assert math.isnan(metric.ap(0.5)[0]) and math.isnan(metric.ap(0.5)[2]) and math.isnan(metric.volume()[2])


def test_absent_classes_have_no_ap_and_are_in_no_mean():
    image = row((1, 10)), row((1, 10)), prediction(row((1, 10)), [1])
    wrong = row((0, 10)), row((0, 10)), prediction(row((1, 10)), [2])  # class 2 is found and nowhere there
    for metric, name in ((RegionAveragePrecision(4), "apr_50"), (COCOAveragePrecision(4), "coco_ap")):
        assert all(math.isnan(score) for score in metric.scores().values())
        metric.update(*image)
        metric.update(*wrong)
        assert np.isnan(metric.ap(0.5)).tolist() == [True, False, True, True]
        assert metric.scores()[name] == pytest.approx(1)
        assert math.isnan(metric.scores([2, 3])[name])


# PQ

# Stuff: 0 sky, 1 road. Things: 2 car, 3 person. 16 pixels of sky, 14 of road, cars of 10, 10 and 4 pixels, void.
LABEL = row((0, 16), (1, 14), (2, 24), (VOID, 6))
INSTANCES = row((0, 30), (7, 10), (9, 10), (3, 4), (0, 6))


def quality(labels, found, classes, **more):
    metric = PanopticQuality(4, things=(2, 3), **more)
    metric.update(LABEL, INSTANCES, prediction(found, classes, labels=labels))
    return metric


def test_panoptic_quality_by_hand():
    """Sky: IoU 16/18. Road: 12/14. Cars: 8/10 and, void left out, 4/4; one missed. A person that is none."""
    labels = row((0, 18), (1, 12), (2, 24), (2, 6))
    found = row((0, 30), (1, 8), (0, 2), (3, 10), (2, 10))
    metric = quality(labels, found, [2, 2, 3])
    np.testing.assert_allclose(metric.pq(), [16 / 18, 12 / 14, (0.8 + 1) / (2 + 0.5), 0])
    np.testing.assert_allclose(metric.sq(), [16 / 18, 12 / 14, 0.9, 0])
    np.testing.assert_allclose(metric.rq(), [1, 1, 2 / 2.5, 0])
    scores = metric.scores()
    assert scores["pq"] == pytest.approx(metric.pq().mean())
    assert scores["pq_things"] == pytest.approx(0.36) and scores["rq_things"] == pytest.approx(0.4)
    assert scores["sq_stuff"] == pytest.approx((16 / 18 + 12 / 14) / 2)
    np.testing.assert_allclose(metric.pq(), metric.sq() * metric.rq())


def test_what_is_found_to_be_nothing_is_no_segment():
    """Sky with IoU 10/16, 6 pixels of it and all of the road found to be void; nothing else is found."""
    metric = quality(row((0, 10), (VOID, 50)), row((0, 60)), [])
    np.testing.assert_allclose(metric.pq(), [10 / 16, 0, 0, np.nan])


def test_an_iou_of_half_is_no_match_and_absent_classes_have_no_quality():
    found = row((0, 30), (1, 5), (0, 25))
    metric = quality(row((0, 30), (2, 30)), found, [2])
    np.testing.assert_array_equal(metric.pq()[1:], [0, 0, np.nan])  # road is missed; no person is there or found
    assert metric.pq()[0] == pytest.approx(16 / 30)
    assert metric.scores()["pq_things"] == 0 and metric.scores()["pq"] == pytest.approx(16 / 90)
    assert all(math.isnan(score) for score in PanopticQuality(4, (2, 3)).scores().values())


@pytest.mark.parametrize("in_void, expected", [(6, math.nan), (5, 0), (4, 0)])
def test_what_is_found_in_void_counts_only_if_half_of_it_or_more_is_elsewhere(in_void, expected):
    """A car of ten pixels where none is."""
    label, instances = row((0, 20), (VOID, 20)), row((0, 40))
    metric = PanopticQuality(4, (2, 3))
    found = row((0, 20 - (10 - in_void)), (1, 10), (0, 20 - in_void))
    metric.update(label, instances, prediction(found, [2], labels=np.where(found, 2, 0)))
    assert metric.pq()[2] == pytest.approx(expected, nan_ok=True)


def test_pixels_of_unknown_objects_excuse_their_class_only():
    label, instances = row((0, 10), (2, 20)), row((0, 10), (AMBIGUOUS, 20))
    for kind, expected in ((2, math.nan), (3, 0)):
        metric = PanopticQuality(4, (2, 3))
        found = row((0, 15), (1, 10), (0, 5))
        metric.update(label, instances, prediction(found, [kind], labels=np.where(found, kind, 0)))
        assert metric.pq()[kind] == pytest.approx(expected, nan_ok=True)


def test_things_without_an_object_are_void_and_a_background_of_neither_is_not():
    label, instances = row((0, 10), (2, 10)), row((0, 20))
    metric = PanopticQuality(4, (2, 3), stuff=())
    metric.update(label, instances, prediction(row((0, 12), (1, 8)), [2]))
    assert np.isnan(metric.pq()).all()
    metric.update(label, instances, prediction(row((1, 8), (0, 12)), [2]))
    np.testing.assert_array_equal(metric.pq(), [np.nan, np.nan, 0, np.nan])


@pytest.mark.parametrize("seed", range(12))
def test_panoptic_quality_agrees_with_its_definition(seed):
    rng, metric = np.random.default_rng(seed), PanopticQuality(4, (2, 3), (0, 1))
    sums = np.zeros((4, 4))  # IoU, TP, FP, FN of each class
    for _ in range(4):
        label, instances, (_, found, classes, scores) = random_image(rng)
        instances[label == 1] = 0
        keep = np.flatnonzero(classes > 1)
        number = np.zeros(len(classes) + 1, int)
        number[keep + 1] = np.arange(1, len(keep) + 1)
        found, classes = number[found], classes[keep]
        labels = np.where(found, np.append(0, classes)[found], rng.integers(0, 4, (8, 10)).repeat(5, 0).repeat(5, 1))
        metric.update(label, instances, (labels, found, classes, scores[keep]))
        true = {
            ("object", n): set(np.flatnonzero((instances == n) & (label != VOID)))
            for n in np.setdiff1d(instances, [0, AMBIGUOUS])
        }
        true = {key: pixels for key, pixels in true.items() if pixels}
        kind = {key: np.bincount(label.reshape(-1)[list(pixels)]).argmax() for key, pixels in true.items()}
        seen = {("object", i): set(np.flatnonzero(found == i + 1)) for i in range(len(classes))}
        of_seen = {("object", i): c for i, c in enumerate(classes)}
        for c in (0, 1):
            stuff = set(np.flatnonzero((label == c) & (instances == 0)))
            true |= {("stuff", c): stuff} if stuff else {}
            stuff = set(np.flatnonzero((labels == c) & (found == 0)))
            seen |= {("stuff", c): stuff} if stuff else {}
            kind["stuff", c] = of_seen["stuff", c] = c
        void = set(np.flatnonzero((label == VOID) | ((label > 1) & (instances == 0))))
        matched = set()
        for a, pixels in true.items():
            for b, others in seen.items():
                iou = len(pixels & others) / len(pixels | others - void)
                if kind[a] == of_seen[b] and iou > 0.5:
                    matched |= {("true", a), ("seen", b)}
                    sums[kind[a]] += iou, 1, 0, 0
        for a in true:
            sums[kind[a], 3] += ("true", a) not in matched
        for b, pixels in seen.items():
            crowd = set(np.flatnonzero((instances == AMBIGUOUS) & (label == of_seen[b])))
            sums[of_seen[b], 2] += ("seen", b) not in matched and len(pixels & (void | crowd)) / max(
                len(pixels), 1
            ) <= 0.5
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(metric.pq(), sums[:, 0] / (sums[:, 1] + sums[:, 2] / 2 + sums[:, 3] / 2), rtol=1e-12)


def test_maps_of_few_bits_hold_many_objects():
    """330 objects of classes up to 200, as uint8 and uint16, and as int64."""
    rng = np.random.default_rng(0)
    cells = np.kron(np.arange(330).reshape(15, 22) + 1, np.ones((3, 3), int))
    classes = rng.integers(1, 201, 330)
    label, instances = np.append(0, classes)[cells], np.where(rng.random(cells.shape) < 0.1, AMBIGUOUS, cells)
    found, scores = np.roll(cells, 1, axis=1), rng.random(330)
    for metric in (RegionAveragePrecision(201), COCOAveragePrecision(201), PanopticQuality(201, range(1, 201))):
        wide, narrow = metric, copy.deepcopy(metric)
        wide.update(label, instances, (np.append(0, classes)[found], found, classes, scores))
        labels, kinds = np.append(0, classes)[found].astype(np.uint8), classes.astype(np.uint8)
        narrow.update(
            label.astype(np.uint8), instances.astype(np.uint16), (labels, found.astype(np.uint16), kinds, scores)
        )
        assert narrow.scores() == pytest.approx(wide.scores(), nan_ok=True, abs=0)
        assert max(score for score in narrow.scores().values() if score == score) > 0.1


# What all refuse

GOOD = row((1, 4)), row((1, 4)), prediction(row((1, 4)), [1])


@pytest.mark.parametrize(
    "change, told",
    [
        ({"label": row((1, 3))}, "one shape"),
        ({"label": np.ones(4, int), "instances": np.ones(4, int), "found": np.ones(4, int), "labels": np.ones(4, int)}, "one shape"),
        ({"label": row((5, 4))}, r"true labels of 0\.\.3, got 5"),
        ({"label": row((-1, 4))}, r"true labels of 0\.\.3, got -1"),
        ({"instances": row((65536, 4))}, r"true objects of 0\.\.65535"),
        ({"found": row((2, 4))}, r"objects of 0\.\.1, got 2"),
        ({"classes": np.array([4])}, r"classes of 0\.\.3, got 4"),
        ({"classes": np.array([1, 1])}, r"got classes \(2,\) and scores \(1,\)"),
        ({"scores": np.array([np.nan])}, "1 not finite"),
        ({"labels": row((9, 4))}, r"labels of 0\.\.3, got 9"),
        ({"label": row((1, 4)) * 1.0}, "true labels of integers, got float64"),
        ({"classes": np.array([1.0])}, "classes of integers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_counted(change, told):
    label, instances, (labels, found, classes, scores) = GOOD
    values = {
        "label": label,
        "instances": instances,
        "labels": labels,
        "found": found,
        "classes": classes,
        "scores": scores,
    } | change
    for metric in (RegionAveragePrecision(4), COCOAveragePrecision(4), PanopticQuality(4, (1, 2, 3))):
        with pytest.raises((InputError, DtypeError), match=told):
            metric.update(
                values["label"], values["instances"], tuple(values[k] for k in ("labels", "found", "classes", "scores"))
            )
        assert all(math.isnan(score) for score in metric.scores().values())


def test_other_mistakes_are_told():
    with pytest.raises(InputError, match="labels, objects, classes and scores"):
        RegionAveragePrecision(4).update(*GOOD[:2], GOOD[2][:3])
    with pytest.raises(InputError, match=r"threshold of 0\.1, .* got 0\.55"):
        RegionAveragePrecision(4).ap(0.55)
    with pytest.raises(InputError, match=r"threshold of 0\.5, .* got 0\.51"):
        COCOAveragePrecision(4).ap(0.51)
    with pytest.raises(InputError, match="an area of all, small, medium, large"):
        COCOAveragePrecision(4).ap(area="huge")
    with pytest.raises(InputError, match="things and stuff of 0"):
        PanopticQuality(4, (1, 2), (2, 3))
    with pytest.raises(InputError, match=r"objects of the classes \(2, 3\), got one of 1"):
        PanopticQuality(4, (2, 3)).update(*GOOD)


def test_void_and_unknown_have_the_numbers_of_the_data():
    assert (overlaps.VOID, overlaps.AMBIGUOUS) == (data.VOID, data.AMBIGUOUS)
