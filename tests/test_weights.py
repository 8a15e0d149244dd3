"""A network's weights, in memory (state_dict) and in this library's files: by name, bit for bit, and of the same network only."""

import json

import numpy as np
import pytest

from minifcn import layers, models, weights
from minifcn.preprocessing import CAFFE
from minifcn.training import checkpoint
from minifcn.weights import npz

SAVE = {".npz": weights.save, ".safetensors": weights.save_safetensors}


def network(**options):
    return models.fcn(**{"variant": "8s", "num_classes": 2, "width": 1, **options})


def lite0_heat(seed=0):
    return models.surgery.convolutionalize(models.efficientnet_lite0(num_classes=7, seed=seed), window=3)


BUILDERS = {"FCN": network, "classifier": models.efficientnet_lite0, "heat map": lite0_heat}


def fill(model, seed=1):
    """Give every parameter and buffer values that no builder draws; a subnormal and a signed zero among them."""
    rng = np.random.default_rng(seed)
    state = {name: rng.uniform(0.5, 2, array.shape).astype(np.float32) for name, array in model.state_dict().items()}
    next(array for name, array in state.items() if name.endswith("weight")).flat[:2] = (1e-42, -0.0)
    model.load_state_dict(state)
    return model


def assert_same_state(state, expected):
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert state[name].dtype == array.dtype and state[name].tobytes() == array.tobytes(), name


# --- In memory --------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_weights():
    five, again, six = (network(seed=seed).state_dict() for seed in (5, 5, 6))
    assert_same_state(again, five)
    assert any((five[name] != array).any() for name, array in six.items())


def test_names_say_where_a_parameter_is():
    names = network().state_dict().keys()
    expected = {"vgg.conv1_1.weight", "vgg.bn1_1.running_mean", "vgg.fc6.weight", "score_fr.bias", "score_pool4.weight"}
    assert expected <= names


def test_state_round_trip_holds_copies():
    source, target = network(seed=1), network(seed=2)
    state = source.state_dict()
    expected = {name: array.copy() for name, array in state.items()}
    target.load_state_dict(state)
    for array in state.values():
        array[...] = 9
    assert_same_state(source.state_dict(), expected)
    assert_same_state(target.state_dict(), expected)
    image = np.random.default_rng(0).normal(size=(1, 3, 20, 30)).astype(np.float32)
    np.testing.assert_array_equal(target.forward(image), source.forward(image))


SPOILED = {
    "missing": lambda weight: {},
    "unexpected": lambda weight: {"vgg.fc7.weight": weight, "vgg.fc7.weight_v": np.zeros(3, np.float32)},
    "another shape": lambda weight: {"vgg.fc7.weight": weight[:, :-1]},
    "text": lambda weight: {"vgg.fc7.weight": np.full(weight.shape, "word")},
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(case):
    model, state = network(seed=1), network(seed=2).state_dict()
    before = model.state_dict()
    state |= SPOILED[case](state.pop("vgg.fc7.weight"))
    with pytest.raises(ValueError, match=r"vgg\.fc7\.weight"):
        model.load_state_dict(state)
    assert_same_state(model.state_dict(), before)


# --- In files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", SAVE)
@pytest.mark.parametrize("kind", BUILDERS)
def test_a_file_gives_back_weights_card_and_network(tmp_path, kind, ending, blank):
    source, again, any_again = fill(BUILDERS[kind]()), BUILDERS[kind](), BUILDERS[kind]()
    source.card.preprocessing = CAFFE
    source.card.classes = tuple(f"class {i}" for i in range(source.card.num_classes))
    source.card.palette = np.arange(768, dtype=np.uint8).reshape(256, 3)
    source.card.longest = 40
    path = tmp_path / "new folder" / f"net{ending}"
    SAVE[ending](path, source, note="hello", iou=np.float32(0.5))
    meta, loaded, rebuilt = weights.load(path, again), weights.load_any(path, any_again), models.load(path)
    for network in (again, any_again, rebuilt, weights.load(path)):
        assert_same_state(network.state_dict(), source.state_dict())
        assert network.card.preprocessing == CAFFE and network.card.classes == source.card.classes
        np.testing.assert_array_equal(network.card.palette, source.card.palette)
        assert network.card.longest == 40
        assert (network.card.builder, network.card.options) == (source.card.builder, source.card.options)
    assert (meta["note"], meta["iou"]) == ("hello", 0.5) and meta["preprocessing"] == json.loads(
        json.dumps(CAFFE.as_dict())
    )
    assert meta["network"] == {"builder": source.card.builder, "options": source.card.options}
    assert loaded.matched.keys() == source.state_dict().keys()
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    np.testing.assert_array_equal(rebuilt.forward(x), source.forward(x))


@pytest.mark.parametrize("ending", SAVE)
def test_half_as_large_files_hold_rounded_numbers_and_refuse_what_they_cannot(tmp_path, ending):
    source = fill(BUILDERS["FCN"]())
    for half in (False, True):
        SAVE[ending](tmp_path / f"{half}{ending}", source, half=half)
    sizes = [(tmp_path / f"{half}{ending}").stat().st_size for half in (True, False)]
    assert sizes[1] - sizes[0] > 1.9 * sum(array.size for array in source.state_dict().values())
    expected = {name: array.astype(np.float16).astype(np.float32) for name, array in source.state_dict().items()}
    assert_same_state(models.load(tmp_path / f"True{ending}").state_dict(), expected)
    source.parameters()["score_fr.bias"].value[0] = -70000
    with pytest.raises(ValueError, match="score_fr.bias: expected numbers that float16 can hold, got one of 7e"):
        SAVE[ending](tmp_path / f"no{ending}", source, half=True)
    assert not (tmp_path / f"no{ending}").exists()


@pytest.mark.parametrize("ending", SAVE)
@pytest.mark.parametrize("kind", BUILDERS)
def test_files_of_older_versions_load(tmp_path, kind, ending, blank):
    """They hold the network's options flat, and call an upsampling's frozen kernel `line`."""
    source = fill(BUILDERS[kind]())
    path = tmp_path / f"old{ending}"
    arrays = {name.replace("kernel_1d", "line"): array for name, array in source.state_dict().items()}
    classes = [f"class {i}" for i in range(source.card.num_classes)]
    builder = {} if kind == "FCN" else {"network": "efficientnet_lite0"}
    meta = {"network": builder | source.card.options, "classes": classes, "preprocessing": CAFFE.as_dict()}
    if ending == ".npz":
        meta = json.dumps({"format": "minifcn 1", **meta}).encode()
        members = {f"weights/{name}": array for name, array in arrays.items()}
        np.savez(path, **{"meta.json": np.frombuffer(meta, np.uint8)}, **members)
    else:
        safetensors = pytest.importorskip("safetensors.numpy")
        safetensors.save_file(arrays, path, {key: json.dumps(value) for key, value in meta.items()})
    again = BUILDERS[kind]()
    weights.load_any(path, again)
    for model in (again, models.load(path)):
        assert_same_state(model.state_dict(), source.state_dict())
        assert model.card.classes == tuple(classes) and model.card.preprocessing == CAFFE


@pytest.mark.parametrize("ending", SAVE)
@pytest.mark.parametrize(
    "other, difference",
    [
        ({"variant": "16s"}, "variant.*8s.*16s"),
        ({"num_classes": 3}, "num_classes.*2.*3"),
        ({"width": 2}, "width.*1.*2"),
        ({"alignment": "same"}, "alignment.*paper.*same"),
        ({"upsampling": "learned"}, "upsampling.*frozen.*learned"),
        ({"at_once": True}, "at_once.*False.*True"),  # the same names and shapes, yet another function of them
    ],
)
def test_weights_of_another_network_are_refused_with_the_difference(tmp_path, ending, other, difference):
    path = tmp_path / f"weights{ending}"
    SAVE[ending](path, network())
    model = network(**other)
    before, card = model.state_dict(), model.card
    for load in (weights.load, weights.load_any):
        with pytest.raises(ValueError, match=rf"weights\{ending}.*{difference}"):
            load(path, model)
    assert_same_state(model.state_dict(), before)
    assert model.card is card


def test_a_network_without_a_card_is_told_from_another_by_its_parameters(tmp_path):
    path, rng = tmp_path / "weights.npz", np.random.default_rng(0)
    source, same, other = (models.Sequential(fc=layers.Linear(2, size, rng)) for size in (3, 3, 4))
    weights.save(path, source)
    weights.load(path, same)
    assert_same_state(same.state_dict(), source.state_dict())
    with pytest.raises(ValueError, match=r"weights\.npz.*fc\.weight.*\(4, 2\).*\(3, 2\)"):
        weights.load(path, other)
    with pytest.raises(ValueError, match=r"weights\.npz: expected the settings of a network, got 'None'"):
        models.load(path)


def test_npz_knows_its_hash_and_refuses_weights_that_are_no_numbers(tmp_path, monkeypatch):
    model = models.fcn("32s", "mini", 2, width=1)
    weights.save(tmp_path / "net.npz", model)
    arrays, meta = npz.read_archive(tmp_path / "net.npz")
    arrays["weights/score_fr.bias"] = arrays["weights/score_fr.bias"] + 1
    with monkeypatch.context() as patch:
        patch.setattr(npz, "_digest", lambda arrays: "0" * 64)
        npz.write_archive(tmp_path / "changed.npz", arrays, meta)
    with pytest.raises(ValueError, match=r"changed\.npz: expected .*, got other arrays than those of its SHA-256"):
        weights.load(tmp_path / "changed.npz", model)
    arrays["weights/score_fr.bias"][0] = np.nan
    npz.write_archive(tmp_path / "nan.npz", arrays, meta)
    with pytest.raises(ValueError, match=r"nan\.npz: expected .* 1 of 2 values of 'weights/score_fr.bias' NaN"):
        weights.load(tmp_path / "nan.npz", model)


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_are_no_numbers_are_not_saved(half, tmp_path):
    model = models.fcn("32s", "mini", 2, width=1)
    model.parameters()["score_fr.bias"].value[0] = np.nan
    for save, name in ((weights.save, "net.npz"), (weights.save_safetensors, "net.safetensors")):
        with pytest.raises(ValueError, match="1 of 2 values of 'score_fr.bias' NaN or infinite"):
            save(tmp_path / name, model, half=half)
    assert not any(tmp_path.iterdir())


def test_missing_files_and_unknown_endings_are_named(tmp_path):
    for load in (weights.load, weights.load_any):
        with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
            load(tmp_path / "absent.npz", network())
    (tmp_path / "net.h5").touch()
    with pytest.raises(ValueError, match=r"net\.h5: expected weights \(\.npz, .*\), got a file ending in \.h5"):
        weights.load_any(tmp_path / "net.h5", network())
    for save in (*SAVE.values(), weights.save_onnx):
        with pytest.raises(ValueError, match=r"new\.h5: expected a file ending in \."):
            save(tmp_path / "new.h5", network())
    for ending, save in SAVE.items():
        with pytest.raises(ValueError, match=rf"new\{ending}: expected metadata that JSON holds"):
            save(tmp_path / f"new{ending}", network(), seen={1, 2})


@pytest.mark.parametrize("ending", SAVE)
@pytest.mark.parametrize("name", ["net", "NET.NPZ", "net.pth", "net.onnx"])
def test_a_file_is_what_its_beginning_says(name, ending, tmp_path):
    SAVE[ending](tmp_path / f"net{ending}", source := network())
    path = (tmp_path / f"net{ending}").rename(tmp_path / name)
    weights.load_any(path, again := network(seed=2))
    for model in (models.load(path), again):
        assert_same_state(model.state_dict(), source.state_dict())


def with_options(**changes):
    return lambda meta: {"network": {**meta["network"], "options": {**meta["network"]["options"], **changes}}}


NOT_A_NUMBER = {"order": "RGB", "mean": [float("nan")] * 3, "scale": [1, 1, 1]}


@pytest.mark.parametrize(
    "change, reason",
    [
        (with_options(num_classes=10**12), "num_classes 1000000000000 but no array"),
        (with_options(width=10**6), "width 1000000 but no array"),
        (with_options(num_classes="2"), "num_classes: expected a whole number of at least 1, got '2'"),
        (with_options(num_classes=2.0), "num_classes: expected a whole number of at least 1, got 2.0"),
        (with_options(seed=-1), "seed: expected a whole number of at least 0, got -1"),
        (with_options(peak_window="7"), "peak_window: expected a whole number of at least 1, got '7'"),
        (with_options(things=["x"]), "things: expected a whole number of at least 0, got 'x'"),
        (with_options(variant="2s"), "variant"),
        (with_options(depth=3), "depth"),
        (lambda meta: {"network": [1]}, "expected the settings of a network, got"),
        (lambda meta: {"network": {"network": "vgg16"}}, "expected the settings of a network, got"),
        (lambda meta: {"network": {"num_classes": 2}}, "expected the settings of a network, got"),
        (lambda meta: {"network": {"builder": "os", "options": {"num_classes": 2}}}, "expected a network out of"),
        (lambda meta: {"classes": 5}, "expected a list of class names, got '5'"),
        (lambda meta: {"classes": ["a"]}, "expected 2 class names, got 1"),
        (lambda meta: {"preprocessing": NOT_A_NUMBER}, "expected a preprocessing"),
        (lambda meta: {"preprocessing": [1]}, "expected a preprocessing"),
        (lambda meta: {"longest": 0}, "expected the longer side of images in pixels, got '0'"),
        (lambda meta: {"longest": "40"}, "expected the longer side of images in pixels, got '40'"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, change, reason):
    """Also where it asks for more than the file has: before a network is made of it."""
    path, model = tmp_path / "net.npz", models.fcn("32s", "mini", 2, width=1)
    weights.save(path, model, classes=["a", "b"])
    arrays, meta = npz.read_archive(path)
    npz.write_archive(path, arrays, meta | change(meta))
    with pytest.raises(ValueError, match="net.npz: ") as caught:
        models.load(path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="net.npz: "):
        weights.load(path, model)


@pytest.mark.parametrize("ending", SAVE)
def test_an_fcn_starts_from_a_file_of_this_library(tmp_path, ending):
    coarse, classifier = models.fcn("32s", "efficientnet_lite0", 3, seed=1), models.efficientnet_lite0(5, seed=2)
    for kind, source in (("coarse", coarse), ("classifier", classifier)):
        path = tmp_path / f"{kind}{ending}"
        SAVE[ending](path, source)
        network = models.fcn("16s", "efficientnet_lite0", 3, seed=3)
        assert str(path) in checkpoint.start_from(path, network)
        theirs, ours = source.state_dict(), network.state_dict()
        shared = [name for name in theirs if name in ours or f"lite0.{name}" in ours]
        assert len(shared) > 200
        assert all((theirs[name] == ours.get(name, ours.get(f"lite0.{name}"))).all() for name in shared)
