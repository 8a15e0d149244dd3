"""The dense CRF against sums over all pairs, the published C++ and numbers by hand; what is averaged at test time; bands around outlines."""

import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import cli, data, inference, metrics, models, weights
from minifcn.data.images import read_image
from minifcn.errors import InputError
from minifcn.inference.dense_crf import reference
from minifcn.inference.permutohedral import Lattice

PARAMETERS = [((4, 49, 5), (3, 3)), ((10, 80, 13), (3, 1)), ((1, 8, 20), (0.5, 2))]


def scene(rng, height=34, width=41, labels=5):
    """A noisy image of a bright disc, and probabilities that know roughly where it is."""
    down, across = np.indices((height, width))
    disc = (down - 15) ** 2 + (across - 20) ** 2 < 120
    image = (np.where(disc, 190, 60)[:, :, None] + rng.normal(0, 6, (height, width, 3))).clip(0, 255).astype(np.uint8)
    scores = rng.normal(0, 1, (labels, height, width))
    scores[:2] += 1.5 * np.stack([~disc, disc])
    return (np.exp(scores) / np.exp(scores).sum(axis=0)).astype(np.float32), image, disc


def test_two_pixels_by_hand():
    """One step for two pixels, one across and 6 grey levels in one channel apart."""
    p = np.array([[[0.9, 0.4]], [[0.1, 0.6]]], np.float32)
    image = np.array([[[50, 0, 0], [56, 0, 0]]], np.uint8)
    k, near = np.exp(-0.5 * (1 / 16 + 36 / 9)), np.exp(-0.5 / 4)
    own, other = 2 / (1 + k) + 0.5 / (1 + near), 2 * k / (1 + k) + 0.5 * near / (1 + near)
    scores = np.log(p) + own * p + other * p[:, :, ::-1]
    expected = np.exp(scores) / np.exp(scores).sum(axis=0)
    given = {"iterations": 1, "bilateral": (2, 4, 3), "spatial": (0.5, 2)}
    np.testing.assert_allclose(reference(p, image, **given), expected, rtol=1e-6)
    np.testing.assert_allclose(inference.dense_crf(p, image, **given), expected, atol=0.05)


@pytest.mark.parametrize(("bilateral", "spatial"), PARAMETERS)
def test_marginals_are_near_those_of_the_sums_over_all_pairs(bilateral, spatial, rng):
    p, image, disc = scene(rng)
    exact = reference(p, image, bilateral=bilateral, spatial=spatial)
    found = inference.dense_crf(p, image, bilateral=bilateral, spatial=spatial)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    assert np.abs(found - exact).mean() < 0.001
    assert (found.argmax(axis=0) == exact.argmax(axis=0)).mean() > 0.997
    right = [(q.argmax(axis=0) == disc).mean() for q in (p, found)]
    assert right[0] < 0.8 and right[1] > right[0] + 0.1


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_lattice_filters_with_a_gaussian_of_standard_deviation_one(d, rng):
    features = rng.uniform(-1.5, 1.5, (700, d))
    kernel = np.exp(-((features[:, None] - features) ** 2).sum(axis=2) / 2)
    values = rng.random((700, 3)).astype(np.float32)
    ratio = Lattice(features).filter(values) / (kernel @ values)
    assert np.abs(ratio / np.median(ratio) - 1).mean() < 0.12


def test_points_far_apart_are_not_summed():
    features = np.array([[0, 0, 0], [0.5, 0, 0.2], [30, 0, 5]])
    found = Lattice(features).filter(np.eye(3))
    np.testing.assert_array_equal(found > 0, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_the_filter_in_reverse_is_the_adjoint(device, rng):
    """⟨y, F x⟩ = ⟨Fᵀ y, x⟩. F itself is not symmetric, because vertices are missing."""
    lattice = Lattice(device.put(rng.uniform(-9, 9, (150, 5))))
    lattice.scale(device.put(rng.uniform(0.5, 2, (150, 1))))  # as the CRF does to have sums alike
    x, y = (device.put(rng.random((150, 4))) for _ in range(2))
    there, back, again = (
        device.get(a) for a in (lattice.filter(x), lattice.filter(y, reverse=True), lattice.filter(y))
    )
    x, y = device.get(x), device.get(y)
    assert (y * there).sum() == pytest.approx((back * x).sum(), rel=1e-12)
    assert abs((again * x).sum() / (back * x).sum() - 1) > 1e-9


def test_every_device_and_every_way_of_cutting_gives_the_same(device, tiling, rng):
    p, image, _ = scene(rng)
    with device.numpy_alone():
        whole = inference.dense_crf(p, image)
    tiling(2000, 2)
    found = inference.dense_crf(device.put(p), image)
    np.testing.assert_allclose(device.get(found), whole, atol=1e-5)
    assert found.dtype == np.float32 and found.flags.c_contiguous


def test_memory_grows_with_the_pixels_only(rng):
    """A sum over pairs would take 2 GB here. In noise no two pixels share a vertex, which is the worst case."""
    p, image, _ = scene(rng, 110, 150, 21)
    for seen, most in ((image, 16), (rng.integers(0, 256, image.shape, np.uint8), 32)):
        tracemalloc.start()
        inference.dense_crf(p, seen, iterations=1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * p.nbytes


def parted(p):
    """Three labels for each one, whose shares change slowly over the image.   (K, H, W) -> (3K, H, W)"""
    down, across = np.indices(p.shape[1:])
    shares = np.exp([np.sin(down / (20 + 7 * i) + across / (31 - 5 * i)) for i in range(3)])
    return np.concatenate([(share * p).astype(np.float32) for share in shares / shares.sum(axis=0)])


@pytest.mark.parametrize(
    ("photo", "labels"),
    [
        ("chelsea", 7),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("chelsea", 21), ("coffee", 7), ("astronaut", 21)]),
    ],
)
def test_marginals_are_those_of_the_published_program(photo, labels):
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    image = np.array(inference.shrunk(read_image(Path(__file__).parent.parent / "docs/photos" / f"{photo}.jpg"), 500))
    p = inference.probabilities(models.pretrained("animals").prepare(), image)
    p = parted(p) if labels == 21 else p
    for (w1, xy, rgb), (w2, near) in PARAMETERS[:2]:
        theirs = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(p))
        theirs.setUnaryEnergy(-np.log(np.maximum(p, 1e-20)).reshape(len(p), -1))
        theirs.addPairwiseGaussian(sxy=near, compat=w2)
        theirs.addPairwiseBilateral(sxy=xy, srgb=rgb, rgbim=image, compat=w1)
        expected = np.array(theirs.inference(10)).reshape(p.shape)
        found = inference.dense_crf(p, image, bilateral=(w1, xy, rgb), spatial=(w2, near))
        assert (np.abs(found - expected) < 1e-3).mean() >= 0.999
        assert (found.argmax(axis=0) == expected.argmax(axis=0)).mean() >= 0.999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bilateral": (4, 0, 5)},
            r"bilateral: expected \(weight, pixels, grey levels\), above 0 and below 1,000,000, got 4, 0, 5",
        ),
        ({"bilateral": (4, 49)}, "bilateral: expected .* got 4, 49"),
        ({"spatial": (-1, 3)}, r"spatial: expected \(weight, pixels\), above 0 and below 1,000,000, got -1, 3"),
        ({"spatial": (3, np.nan)}, "spatial: .* got 3, nan"),
        ({"spatial": 3}, "spatial: .* got 3"),
        ({"bilateral": (1e39, 49, 5)}, "bilateral: .* got 1e\\+39, 49, 5"),
        ({"probabilities": np.full((2, 9, 8), -0.7)}, "expected probabilities from 0 to 1"),
        ({"probabilities": np.full((2, 9, 8), 128, np.uint8)}, "expected probabilities from 0 to 1"),
        ({"probabilities": np.zeros((0, 9, 8), np.float32)}, r"expected probabilities \(K, H, W\) .*, got \(0, 9, 8\)"),
        ({"iterations": 0}, "iterations: expected a whole number, above 0 and below 1,000,000, got 0"),
        ({"iterations": 2.0}, "iterations: expected a whole number, above 0 and below 1,000,000, got 2.0"),
        ({"image": np.zeros((8, 9, 3), np.uint8)}, r"of the image's size \(8, 9\), got \(2, 9, 8\)"),
        ({"image": np.zeros((9, 8, 3))}, "image: expected"),
        ({"bilateral": (4, 1e-200, 5)}, "steps apart, too many in 5 dimensions"),
        ({"bilateral": (4, 1e-4, 1e-4)}, "steps apart, too many in 5 dimensions; use larger standard deviations"),
    ],
)
def test_wrong_input_is_named(change, message, rng):
    image = rng.integers(0, 256, (9, 8, 3), np.uint8)
    p = np.full((2, 9, 8), 0.5, np.float32)
    with pytest.raises(InputError, match=message):
        inference.dense_crf(**{"probabilities": p, "image": image} | change)


@pytest.fixture
def network():
    return models.unet(3, width=2, depth=2, padding="same")


def test_views_are_averaged(network, rng):
    image = rng.integers(0, 256, (64, 96, 3), np.uint8)
    seen = partial(inference.probabilities, network)
    flipped = (seen(image) + seen(np.ascontiguousarray(image[:, ::-1]))[:, :, ::-1]) / 2
    np.testing.assert_allclose(seen(image, flip=True), flipped, atol=1e-6)
    np.testing.assert_array_equal(seen(image, turns=True, flip=True), seen(image, turns=True))
    both = (seen(image) + seen(image, scales=[1.5])) / 2
    np.testing.assert_allclose(seen(image, scales=[1, 1.5]), both, atol=1e-6)
    assert np.abs(both - seen(image)).max() > 1e-3
    np.testing.assert_array_equal(inference.predict(network, image, scales=[1, 1.5]), both.argmax(axis=0))
    flat = np.full((33, 20, 3), 90, np.uint8)
    assert seen(flat, scales=[0.01, 0.3, 2.2]).shape == (3, 33, 20)
    for scales in ((), (0.0,), (1, np.inf), (1e9,)):
        with pytest.raises(
            InputError, match="scales: expected factors above 0 and up to 100, such as 0.75 1 1.25; got"
        ):
            seen(flat, scales=scales)


def test_a_scaled_view_lies_where_the_image_does(network, rng):
    """What differs left from right is found there again, in any scale."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 255
    network.forward = lambda x: np.concatenate([x[:, :1], -x[:, :1], 0 * x[:, :1]], axis=1)
    for scale in (0.5, 0.75, 2):
        labels = inference.predict(network, image, scales=[scale], flip=True)
        assert (labels[:, :46] == 1).all() and (labels[:, 50:] == 0).all()


def test_the_crf_comes_after_the_average(device, network, rng):
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    settings = {"iterations": 2, "bilateral": (5, 30, 10)}
    found = inference.probabilities(network, image, flip=True, crf=settings)
    expected = inference.dense_crf(inference.probabilities(network, image, flip=True), image, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bands_around_outlines(rng):
    """Against the definition, pixel by pixel: what has another label within so many pixels."""
    labels = np.repeat(np.repeat(rng.integers(0, 3, (4, 5)), 6, axis=0), 5, axis=1).astype(np.uint8)
    labels[10:13, 7:12] = 255
    predictions = rng.integers(0, 3, labels.shape).astype(np.uint8)
    boundary = metrics.BoundaryIoU(3, bands=(1, 3))
    boundary.update(labels, predictions)
    for ignore in (-1, 300):  # numbers that uint8 does not have
        no_void, other = np.where(labels == 255, 0, labels), metrics.BoundaryIoU(3, bands=(1,))
        other.update(no_void.astype(np.uint8), predictions, ignore)
        expected = metrics.BoundaryIoU(3, bands=(1,))
        expected.update(no_void, predictions)
        np.testing.assert_array_equal(other.matrices[1].counts, expected.matrices[1].counts)
    for band, matrix in boundary.matrices.items():
        near = np.full(labels.shape, 255, np.uint8)
        for (y, x), label in np.ndenumerate(labels):
            window = labels[max(0, y - band) : y + band + 1, max(0, x - band) : x + band + 1]
            if (window != label).any():
                near[y, x] = label
        expected = metrics.ConfusionMatrix(3)
        expected.update(near, predictions)
        np.testing.assert_array_equal(matrix.counts, expected.counts)
        assert 0 < matrix.counts.sum() < (labels != 255).sum()
        assert boundary.scores()[band] == matrix.mean_iou()


def test_commands_average_refine_and_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data.write_toyvoc("toy", train=1, val=2, size=40)
    samples = data.open_dataset("toy", "val")
    network = models.unet(len(samples.classes), width=2, depth=2, padding="same")
    weights.save("net.npz", network)
    common = ["--device", "cpu", "--weights", "net.npz", "--data", "toy"]
    averages = ["--flip", "--scales", "0.75", "1", "--bilateral", "3", "20", "9"]
    assert cli.main(["evaluate", *common, *averages, "--boundary"]) == 0
    out = capsys.readouterr().out
    more = {"flip": True, "scales": [0.75, 1], "crf": {"bilateral": (3, 20, 9)}}
    boundary = metrics.BoundaryIoU(len(samples.classes))
    expected = inference.evaluate(network, samples, len(samples.classes), boundary=boundary, **more)
    assert f"{100 * expected.mean_iou():.1f}" in out
    assert f"outlines: 1 px {100 * boundary.scores()[1]:.1f}, 2 px" in out
    assert cli.main(["crf-search", *common, "--weight", "2", "5", "--xy", "20", "--rgb", "9"]) == 0
    out = capsys.readouterr().out
    for crf in (None, {"bilateral": (5, 20, 9)}):
        assert f"{100 * inference.evaluate(network, samples, len(samples.classes), crf=crf).mean_iou():8.2f}\n" in out
    assert cli.main(["evaluate", *common, "--crf"]) == 0
    own = inference.evaluate(network, samples, len(samples.classes), crf={})
    assert f"{100 * own.pixel_accuracy():.1f}" in capsys.readouterr().out.splitlines()[1]
    assert cli.main(["evaluate", *common, "--crf", "--spatial", "3", "0"]) == 2
    assert "spatial: expected (weight, pixels), above 0 and below 1,000,000, got 3.0, 0.0" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--bilateral", "0", "49", "5"], ["--scales", "0"]])
def test_wrong_views_are_refused_once_and_not_image_by_image(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    weights.save("net.npz", models.unet(2, width=2, depth=2, padding="same"))
    for name in "ab":
        Image.new("RGB", (20, 30)).save(f"{name}.png")
    assert cli.main(["predict", "--device", "cpu", "a.png", "b.png", "--weights", "net.npz", *wrong]) == 2
    told = capsys.readouterr().err
    assert told.count("expected") == 1 and "skipped" not in told, told
    assert not (tmp_path / "predictions").exists()


def test_a_setting_that_the_crf_does_not_have_is_refused(network):
    with pytest.raises(InputError, match="crf: expected settings of iterations, bilateral, spatial; got sigma"):
        inference.predict(network, np.zeros((20, 30, 3), np.uint8), crf={"sigma": 3})


@pytest.mark.parametrize("bands", [(), (0,), (1.5,), (-1, 2)])
def test_bands_are_whole_pixels(bands):
    with pytest.raises(InputError, match="boundary: expected bands of whole numbers of pixels from 1 on"):
        metrics.BoundaryIoU(2, bands)


def test_a_small_tile_is_refused_instead_of_never_ending(network):
    with pytest.raises(InputError, match="tile: expected a multiple of 32 of at least 128 pixels, got 32"):
        inference.predict(network, np.zeros((300, 300, 3), np.uint8), 32)
