"""Weights, in memory (state_dict) and on disk (.npz): whole or not at all, by name, and never executed."""

import io
import json
import os
import pickle
import zipfile
import zlib

import numpy as np
import pytest

from minifcn import layers, models, weights


def network(**options):
    return models.fcn(**{"variant": "8s", "num_classes": 2, "width": 1, **options})


def assert_same_state(state, expected):
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert state[name].dtype == array.dtype and state[name].tobytes() == array.tobytes(), name


def differs(state, other):
    return any((state[name] != array).any() for name, array in other.items())


def test_the_seed_decides_the_weights():
    assert_same_state(network(seed=5).state_dict(), network(seed=5).state_dict())
    assert differs(network(seed=5).state_dict(), network(seed=6).state_dict())


def test_names_say_where_a_parameter_is():
    names = network().state_dict().keys()
    expected = {"vgg.conv1_1.weight", "vgg.bn1_1.running_mean", "vgg.fc6.weight", "score_fr.bias", "score_pool4.weight"}
    assert expected <= names
    with_bias = models.VGG((1,) * 5, (1,) * 5, 1, 1, first_pad=1, fc_pad=0, rng=np.random.default_rng(0))
    assert {"conv1_1.bias", "fc7.bias"} <= with_bias.parameters().keys()


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


def without(state):
    del state["vgg.fc7.weight"]


def with_more(state):
    state["vgg.fc7.weight_v"] = np.zeros(3, np.float32)


def with_another_shape(state):
    state["vgg.fc7.weight"] = state["vgg.fc7.weight"][:, :-1]


def with_text(state):
    state["vgg.fc7.weight"] = np.full(state["vgg.fc7.weight"].shape, "word")


@pytest.mark.parametrize("spoil", [without, with_more, with_another_shape, with_text])
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(spoil):
    model, state = network(seed=1), network(seed=2).state_dict()
    before = model.state_dict()
    spoil(state)
    with pytest.raises(ValueError, match=r"vgg\.fc7\.weight"):
        model.load_state_dict(state)
    assert_same_state(model.state_dict(), before)


def test_file_round_trip_bit_for_bit(tmp_path):
    path = tmp_path / "new folder" / "weights.npz"
    source, target = network(seed=1), network(seed=2)
    source.parameters()["score_fr.bias"].value[:] = (np.float32(1e-42), -0.0)  # a subnormal, a signed zero
    weights.save(path, source, note="hello")
    meta = weights.load(path, target)
    assert_same_state(target.state_dict(), source.state_dict())
    assert meta["note"] == "hello"
    assert meta["network"] == source.config
    assert meta["preprocessing"] == json.loads(json.dumps(source.card.preprocessing.as_dict()))


@pytest.mark.parametrize(
    "other, told",
    [
        ({"variant": "16s"}, "variant.*8s.*16s"),
        ({"num_classes": 3}, "num_classes.*2.*3"),
        ({"width": 2}, "width.*1.*2"),
        ({"alignment": "same"}, "alignment.*paper.*same"),
        ({"upsampling": "learned"}, "upsampling.*frozen.*learned"),
        ({"at_once": True}, "at_once.*False.*True"),  # the same names and shapes, yet another function of them
    ],
)
def test_weights_of_another_network_are_refused_and_the_difference_told(tmp_path, other, told):
    path = tmp_path / "weights.npz"
    weights.save(path, network())
    model = network(**other)
    before = model.state_dict()
    with pytest.raises(ValueError, match=rf"weights\.npz.*{told}"):
        weights.load(path, model)
    assert_same_state(model.state_dict(), before)


def test_weights_of_another_plain_layer_are_refused_by_parameter(tmp_path):
    path = tmp_path / "weights.npz"
    weights.save(path, network().score_fr)
    with pytest.raises(ValueError, match=r"weights\.npz.*weight.*\(3, 8, 1, 1\).*\(2, 8, 1, 1\)"):
        weights.load(path, network(num_classes=3).score_fr)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        weights.load(tmp_path / "absent.npz", network())


def linear(seed=0):
    """A model of few bytes, for tests that go through all of them."""
    return layers.Linear(2, 3, np.random.default_rng(seed))


def saved(tmp_path, model):
    path = tmp_path / "weights.npz"
    weights.save(path, model)
    return path, path.read_bytes()


def assert_refused(path, model):
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"weights\.npz"):
        weights.load(path, model)
    assert_same_state(model.state_dict(), before)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive", b"\x93NUMPY", b"\x80\x04", b"\x00" * 1000])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    assert_refused(path, network())


@pytest.mark.parametrize("content", [np.arange(3), np.array({"a": 1}, dtype=object)], ids=["array", "object array"])
def test_a_bare_array_file_is_refused(tmp_path, content):
    path = tmp_path / "weights.npz"
    with open(path, "wb") as file:
        np.save(file, content)
    assert_refused(path, network())


def test_an_archive_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"vgg.conv1_1.weight": np.zeros(3)})
    assert_refused(path, network())


def test_a_file_truncated_anywhere_is_refused(tmp_path):
    path, whole = saved(tmp_path, linear())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert_refused(path, linear(seed=1))


@pytest.mark.parametrize("value", [0x00, 0x81, 0xFF])
def test_a_file_with_one_wrong_byte_is_refused_or_loads_unharmed(tmp_path, value):
    """Some bytes of an archive mean nothing (dates, say), but none may lead to other weights or another error."""
    expected = linear().state_dict()
    path, whole = saved(tmp_path, linear())
    escaped = {}
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
        target = linear(seed=1)
        try:
            weights.load(path, target)
            assert_same_state(target.state_dict(), expected)
        except ValueError as error:
            assert "weights.npz" in str(error)
        except Exception as error:
            escaped.setdefault(f"{type(error).__name__}: {error}", position)
    assert escaped == {}


def repack(path, changes, compression=zipfile.ZIP_STORED):
    """Write the archive anew with these contents for some members, old or new; None leaves one out."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()} | changes
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in members.items():
            if content is not None:
                new.writestr(name, content)


def test_an_array_that_claims_more_than_the_memory_is_refused(tmp_path):
    path, _ = saved(tmp_path, linear())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 55,)})
    repack(path, {"weights/weight.npy": header.getvalue()})
    assert_refused(path, linear(seed=1))


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path, _ = saved(tmp_path, linear())
    repack(path, {"weights/weight.npy": None, "weights/weight": b"not an array"})
    assert_refused(path, linear(seed=1))


def test_a_damaged_compressed_archive_is_refused(tmp_path):
    path, _ = saved(tmp_path, linear())
    repack(path, {}, zipfile.ZIP_DEFLATED)
    name, packed = b"weights/weight.npy", path.read_bytes()
    start = packed.index(name) + len(name)
    path.write_bytes(packed[:start] + b"\xff" * 10 + packed[start + 10 :])
    with zipfile.ZipFile(path) as archive, pytest.raises(zlib.error):  # what is to become a ValueError
        archive.read(name.decode())
    assert_refused(path, linear(seed=1))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def object_array(payload):
    """An .npy of object dtype: a header, then a pickle."""
    content = io.BytesIO()
    np.save(content, np.array([payload], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize("member", ["weights/weight.npy", "meta.json.npy", "weights/other.npy"])
def test_a_pickle_inside_the_archive_is_never_executed(tmp_path, member):
    path, _ = saved(tmp_path, linear())
    trace = tmp_path / "executed"
    content = object_array(Payload(trace))
    np.load(io.BytesIO(content), allow_pickle=True)
    trace.unlink()  # so the payload does work, where it is let
    repack(path, {member: content})
    assert_refused(path, linear(seed=1))
    assert not trace.exists()


def test_a_bare_pickle_is_never_executed(tmp_path):
    path, trace = tmp_path / "weights.npz", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Payload(trace)))
    assert_refused(path, network())
    assert not trace.exists()


@pytest.mark.parametrize("crash", ["while writing", "before it is in place"])
def test_a_crash_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, crash):
    old = network(seed=1)
    path, whole = saved(tmp_path, old)

    def fail(file, *arguments, **arrays):
        if crash == "while writing":
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(*((np, "savez") if crash == "while writing" else (os, "replace")), fail)
    with pytest.raises(OSError, match="disk full"):
        weights.save(path, network(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npz"]
    assert path.read_bytes() == whole
