"""Prediction by tiles: every pixel once, and the whole image's logits wherever a tile's edge cannot reach."""

import numpy as np
import pytest

from minifcn import cli, inference, models, weights
from minifcn.errors import InputError
from minifcn.inference import sliding_window


@pytest.mark.parametrize("size", [(1, 1), (128, 128), (129, 127), (256, 1000), (1024, 2048), (700, 513)])
@pytest.mark.parametrize("tile", [128, 160, 512, 2048])
def test_tiles_cover_every_pixel_once_and_begin_on_cells(size, tile):
    covered = np.zeros(size, int)
    where = np.arange(size[0] * size[1]).reshape(size)
    for seen, kept, place in sliding_window.windows(size, tile):
        covered[place] += 1
        np.testing.assert_array_equal(where[seen][kept], where[place])
        for part, length in zip(seen, size, strict=True):
            assert part.start % 32 == 0 and 0 < part.stop - part.start <= tile and part.stop <= length
    assert (covered == 1).all()


@pytest.mark.parametrize(("tile", "margin"), [(128, 32), (256, 32), (512, 64)])
def test_what_is_kept_lies_inside_its_tile_unless_the_image_ends(tile, margin):
    size = (300, 2048)
    for seen, kept, _ in sliding_window.windows(size, tile):
        for part, inner, length in zip(seen, kept, size, strict=True):
            end = part.stop - part.start
            assert inner.start == (0 if part.start == 0 else margin)
            assert inner.stop == (end if part.stop == length else end - margin)


def network(alignment):
    """An FCN-8s whose score layers are not zero, so that its logits hang on the image."""
    rng = np.random.default_rng(0)
    model = models.fcn("8s", "mini", 4, alignment, width=2)
    for name, parameter in model.parameters().items():
        if name.startswith("score"):
            parameter.value = rng.standard_normal(parameter.value.shape).astype(np.float32)
    return model


@pytest.mark.parametrize("alignment", models.ALIGNMENTS)
def test_away_from_a_tiles_edges_its_logits_are_the_whole_images(alignment):
    model = network(alignment)
    reach = models.explain(model, 64).receptive_field / 2 + 2 * 32  # and the enlargements', two coarse cells
    image = np.random.default_rng(1).standard_normal((1, 3, 64, 1500)).astype(np.float32)
    whole = model.forward(image)
    compared = 0
    for (_, seen), _, _ in sliding_window.windows((64, 1500), 768):
        part = model.forward(np.ascontiguousarray(image[..., seen]))
        inside = slice(0 if seen.start == 0 else int(reach), part.shape[3] - (0 if seen.stop == 1500 else int(reach)))
        expected = whole[..., seen][..., inside]
        np.testing.assert_allclose(part[..., inside], expected, rtol=1e-4, atol=1e-4 * np.abs(whole).max())
        compared += expected.shape[3]
        if inside.start:  # and near the edge they are not, or this test would compare nothing
            assert np.abs(part[..., :32] - whole[..., seen][..., :32]).max() > 0.01 * np.abs(whole).max()
    assert compared > 900


@pytest.mark.parametrize("alignment", models.ALIGNMENTS)
def test_a_tile_no_smaller_than_the_image_is_the_image(alignment):
    model = network(alignment)
    image = np.random.default_rng(2).integers(0, 255, (96, 128, 3), np.uint8)
    whole = inference.predict(model, image)
    assert len(np.unique(whole)) > 1
    for tile in (128, 4096):
        np.testing.assert_array_equal(inference.predict(model, image, tile), whole)


def test_predictions_come_from_the_tiles(monkeypatch):
    model, sizes = network("same"), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: sizes.append(x.shape[2:]) or forward(x))
    image = np.random.default_rng(3).integers(0, 255, (300, 420, 3), np.uint8)
    tiled = inference.predict(model, image, 256)
    assert sizes == [(256, 256), (256, 228), (108, 256), (108, 228)]
    np.testing.assert_array_equal(tiled[:224, :224], inference.predict(model, image[:256, :256])[:224, :224])
    np.testing.assert_array_equal(tiled[224:, 224:], inference.predict(model, image[192:, 192:])[32:, 32:])


@pytest.mark.parametrize("tile", [0, -32, 96, 100, 500])
def test_impossible_tiles_are_refused_in_one_line(tile, tmp_path, capsys):
    for wrong in (tile, float(max(tile, 128))):  # whole pixels
        with pytest.raises(ValueError, match="tile: expected a multiple of 32 of at least 128"):
            sliding_window.check_tile(wrong)
    model = network("same")
    weights.save(tmp_path / "w.npz", model)
    command = ["evaluate", "--weights", str(tmp_path / "w.npz"), "--data", str(tmp_path), "--tile", str(tile)]
    assert cli.main(command) == 2
    assert "minifcn: tile: expected a multiple of 32" in capsys.readouterr().err


def test_networks_of_another_kind_are_refused():
    image, fcn = np.zeros((40, 40, 3), np.uint8), models.fcn("8s", "mini", 3, width=2)
    for infer, network, message in (
        (inference.predict, models.mini(5), "a network with scores for every pixel, got a mini"),
        (inference.panoptic, fcn, "a panoptic network, got a FCN-8s"),
        (inference.predict, models.Graph(fcn.nodes), "a network with a card"),
        (inference.panoptic, models.Graph(fcn.nodes), "a network with a card"),
    ):
        with pytest.raises(InputError, match=f"expected {message}"):
            infer(network, image)


def test_more_classes_than_labels_hold_are_refused(tmp_path):
    weights.save(tmp_path / "net.npz", models.fcn("32s", "mini", 300, width=1))
    with pytest.raises(
        InputError, match="net.npz: expected at most 256 classes, as many as uint8 labels hold, got 300"
    ):
        models.load_segmenter(tmp_path / "net.npz")
