"""Weight files of PyTorch, safetensors and Caffe, as their own programs write them, read to the last bit."""

import hashlib
import os

import attacked_readers
import numpy as np
import pytest
import weight_writers as write
from weight_writers import SIX

from minifcn.weights import formats
from minifcn.weights.caffe import read_caffemodel
from minifcn.weights.npz import write_archive
from minifcn.weights.safetensors import read_safetensors, write_safetensors
from minifcn.weights.torch import read_torch

TWO_BY_THREE = np.arange(6, dtype=np.float32).reshape(2, 3)


def assert_same(arrays, expected):
    """The same names in the same order, types, shapes and bits; and the arrays are ours to change."""
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        read = arrays[name]
        assert (read.dtype, read.shape) == (array.dtype, array.shape), name
        assert read.tobytes() == array.tobytes(), name
        assert read.flags.c_contiguous and read.flags.writeable, name


def as_numpy(state):
    """What a state dictionary of PyTorch's should be read as."""
    torch = pytest.importorskip("torch")
    return {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        for name, tensor in state.items()
    }


def tensors():
    """Tensors of every kind that a state dictionary may hold."""
    torch = pytest.importorskip("torch")
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    types = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    return {
        **{f"typed.{name}": (base * 9).to(getattr(torch, name)) for name in types},
        "base": base,
        "shared": base[1:3],
        "shared again": base.view(-1)[5:],
        "transposed": base.T,
        "every other": base[::2, 1::3],
        "one column": base[:, 2],
        "permuted": base.view(2, 2, 6).permute(2, 0, 1),
        "0-d": torch.tensor(3.5),
        "0-d inside": base[2, 3],
        "empty": torch.zeros(0, 3),
        "empty view": base[4:],
        "parameter": torch.nn.Parameter(base[0]),
        "frozen": torch.nn.Parameter(base, requires_grad=False),
        "extremes": torch.tensor([1e-42, -0.0, 3.4e38]),
        "unit axes": base[:1].unsqueeze(0),
        "unit axis with a long stride": base.as_strided((1, 6), (1 << 62, 1)),
    }


@pytest.mark.torch
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrap", ["bare", "state_dict"])
def test_tensors_of_every_kind_saved_by_torch(tmp_path, as_zip, protocol, wrap):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = module.state_dict()  # with attributes, its `_metadata`
    state.update(tensors())
    checkpoint = {"epoch": 3, "best": 0.5, "size": torch.Size([3, 4]), "optimizer": optimizer.state_dict(), wrap: state}
    saved, path = state if wrap == "bare" else checkpoint, tmp_path / "weights.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    assert_same(read_torch(path), as_numpy(state))


def old_parameter(stored):
    """As PyTorch 0.1 and Python 2 wrote a parameter: the first rebuilding function, and flags set afterwards."""
    where = (write.number(0), write.tuple_of(*map(write.number, (2, 3))), write.tuple_of(*map(write.number, (3, 1))))
    made = write.call("torch._utils._rebuild_tensor", stored, *where)
    flags = write.tuple_of(b"\x88", b"\x89", write.call("collections.OrderedDict"))
    return write.call("torch.nn.parameter.Parameter", made) + flags + b"b"


def test_a_file_of_the_first_torch(tmp_path):
    path = tmp_path / "weights.pth"
    far = b"r\xff\xff\xff\xff"  # a memo index of four billion costs nothing
    items = write.list_of(write.list_of(b"U\x01w", old_parameter(write.storage(more=b"N")) + far))
    write.torch_legacy(path, write.call("collections.OrderedDict", items), {"0": (6, SIX)})
    assert_same(read_torch(path), {"w": TWO_BY_THREE})


@pytest.mark.torch
def test_safetensors_of_torch_and_for_torch(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    path = tmp_path / "weights.safetensors"
    state = {name: tensor.detach().clone().contiguous() for name, tensor in tensors().items()}
    torch_files.save_file(state, path, {"format": "pt"})
    arrays, metadata = read_safetensors(path)
    assert_same({name: arrays[name] for name in state}, as_numpy(state))
    assert arrays.keys() == state.keys() and metadata == {"format": "pt"}
    write_safetensors(path, {"w": TWO_BY_THREE.T})
    assert (torch_files.load_file(path)["w"].numpy() == TWO_BY_THREE.T).all()


def some_arrays():
    return {
        **{f"typed/{name}": np.arange(4).astype(name) for name in ("f8", "f4", "f2", "i8", "i4", "u2", "u1", "bool")},
        "transposed": TWO_BY_THREE.T,
        "0-d": np.array(2.5),
        "empty": np.zeros((0, 3)),
        "big": np.arange(3, dtype=">f4"),
    }


@pytest.mark.parametrize("metadata", [None, {"network": '{"variant": "8s"}', "é": "ü"}])
def test_safetensors_round_trip(tmp_path, metadata):
    path = tmp_path / "new folder" / "weights.safetensors"
    write_safetensors(path, some_arrays(), metadata)
    arrays, read = read_safetensors(path)
    expected = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in some_arrays().items()}
    assert_same({name: arrays[name] for name in expected}, expected)
    assert arrays.keys() == expected.keys() and read == (metadata or {})


@pytest.mark.parametrize(
    "arrays, metadata, reason",
    [
        ({}, None, "without tensors"),
        ({"w": np.array([1, np.nan])}, None, "1 of 2 values of 'w' NaN"),
        ({"w": np.array(["text"])}, None, "str128"),
        ({"w": np.zeros(2, complex)}, None, "complex128"),
        ({"../w": np.zeros(2)}, None, "'../w'"),
        ({"__metadata__": np.zeros(2)}, None, "header"),
        ({"w": np.zeros(2)}, {"epoch": 3}, "'metadata'"),
    ],
)
def test_what_safetensors_cannot_hold_is_not_written(tmp_path, arrays, metadata, reason):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ValueError) as caught:
        write_safetensors(path, arrays, metadata)
    assert str(path) in str(caught.value) and reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write_to", [write_safetensors, lambda path, arrays: write_archive(path, arrays, {})])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, write_to, step):
    path = tmp_path / "weights"
    write_to(path, {"w": TWO_BY_THREE})
    whole = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="weights.*disk full"):
        write_to(path, {"w": TWO_BY_THREE + 1})
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == whole


SHAPES = {"new": write.shape(2, 3, 1, 1), "legacy": write.legacy_shape(2, 3, 1, 1)}
SHAPES["new, one by one"] = write.bytes_field(7, *(write.int_field(1, dim) for dim in (2, 3, 1, 1)))
NUMBERS = {
    "packed": write.numbers_packed(5, "<f", range(6)),
    "one by one": write.numbers_one_by_one(5, "<f", range(6)),
    "mixed": write.numbers_packed(5, "<f", range(4)) + write.numbers_one_by_one(5, "<f", (4, 5)),
    "double, packed": write.numbers_packed(8, "<d", range(6)),
    "double, one by one": write.numbers_one_by_one(8, "<d", range(6)),
}


@pytest.mark.parametrize("layer", [write.layer, write.v1_layer], ids=["layer", "V1 layer"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_caffe_blobs_of_every_form(tmp_path, layer, shape, numbers):
    path = tmp_path / "fcn.caffemodel"
    blob = SHAPES[shape] + write.numbers_packed(6, "<f", range(9)) + NUMBERS[numbers]  # field 6: a diff, passed over
    bias = write.shape(2) + write.numbers_packed(5, "<f", (0.5, -1))
    unknown = write.int_field(1000, 1 << 63) + write.numbers_one_by_one(1001, "<f", [1]) + write.bytes_field(1002, b"x")
    net = write.bytes_field(1, b"FCN") + unknown + layer("relu1") + layer("conv1/7x7", blob + unknown, bias) + unknown
    path.write_bytes(net + layer("loss") + layer("score", write.shape() + write.numbers_packed(5, "<f", [7])))
    dtype = np.float64 if "double" in numbers else np.float32
    weight = TWO_BY_THREE.astype(dtype).reshape(2, 3, 1, 1)
    expected = {"conv1/7x7[0]": weight, "conv1/7x7[1]": np.float32([0.5, -1]), "score[0]": np.array(7, np.float32)}
    assert_same(read_caffemodel(path), expected)


READERS = {"pth": read_torch, "safetensors": read_safetensors, "caffemodel": read_caffemodel}


def write_small(path):
    """A readable file of the kind its name tells. -> its SHA-256"""
    reader = attacked_readers.READERS[path.suffix[1:]]
    path.write_bytes(reader.seeds(path.parent)[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", READERS)
def test_the_checksum_is_compared(tmp_path, kind):
    read = READERS[kind]
    path = tmp_path / f"weights.{kind}"
    found = write_small(path)
    for right in (None, found, found[:8], found.upper()):
        read(path, sha256=right)
    for wrong in (found[:-1] + ("0" if found[-1] != "0" else "1"), "0" * 8):
        with pytest.raises(ValueError, match=rf"weights\.{kind}: expected SHA-256 {wrong}, got {found[: len(wrong)]}"):
            read(path, sha256=wrong)
    for no_digits in ("", "0123456", "0" * 65, "g" * 8, 12345678):
        with pytest.raises(ValueError, match=rf"weights\.{kind}: expected sha256 as 8 to 64 hex digits"):
            read(path, sha256=no_digits)


def test_the_checksum_in_a_name_like_torch_hubs_is_compared(tmp_path):
    path = tmp_path / "weights.pth"
    found = write_small(path)
    for name in (f"weights-{found[:8]}.pth", "a-20260115.safetensors", "a-abcdef.pth", "a-deadbeef", "deadbeef.pth"):
        path = path.rename(tmp_path / name)
        read_torch(path)
    path = path.rename(tmp_path / "weights-deadbeef.pth")
    for right in (None, found):
        with pytest.raises(ValueError, match="expected SHA-256 deadbeef as in the file's name"):
            read_torch(path, sha256=right)


@pytest.mark.parametrize(
    "name, start, kind, otherwise",
    [
        ("net.npz", b"\x80\x02}", "PyTorch", "minifcn convert .*net.npz NEW.npz --network"),
        ("net", b"PK\x03\x04" + b"\0" * 22 + b"\x0c\0\0\0net/data.pkl", "PyTorch", "minifcn convert"),
        ("NET.PT", b"", "PyTorch", "minifcn convert"),
        ("NET.CAFFEMODEL", b"\n", "Caffe", "minifcn convert"),
        ("net.Onnx", b"\x08\x06", "ONNX", "weights.load_onnx reads it"),
    ],
)
def test_a_file_of_another_kind_says_what_else_to_do(name, start, kind, otherwise, tmp_path):
    (tmp_path / name).write_bytes(start)
    assert formats.kind(tmp_path / name) == kind
    with pytest.raises(
        ValueError, match=f"{name}: expected a .npz or .safetensors file, got one of {kind}; .*{otherwise}"
    ):
        formats.read(tmp_path / name)
