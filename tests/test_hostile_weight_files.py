"""Broken and hostile files for safetensors, Caffe and our own format; and every reader with files missing, cut off or one byte wrong."""

import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import weight_writers as write
from minifcn.weights.safetensors_file import read_safetensors, write_safetensors
from minifcn.weights.torch_file import read_torch
from weight_writers import assert_refused, bytes_field, int_field, layer, shape

from minifcn.weights.caffe import read_caffemodel
from minifcn.weights.npz import read_archive, write_archive

HUGE = 1 << 62
SIX = struct.pack("<6f", 0, 1, 2, 3, 4, 5)
NAN = struct.pack("<6f", 0, 1, float("nan"), 3, float("inf"), 5)
FLOATS = write.numbers_packed(5, "<f", range(6))


def entry(dims=(6,), dtype="F32", offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(dims), "data_offsets": list(offsets)}


W = json.dumps(entry())
SAFETENSORS = {
    "name twice": ("'w' twice", write.safetensors(f'{{"w": {W}, "w": {W}}}'.encode(), SIX)),
    "metadata twice": (
        "'a' twice",
        write.safetensors(f'{{"__metadata__": {{"a": "", "a": ""}}, "w": {W}}}'.encode(), SIX),
    ),
    "overlapping": ("SafetensorError", write.safetensors({"v": entry(), "w": entry()}, SIX)),
    "beyond the end": ("SafetensorError", write.safetensors({"w": entry((HUGE,), offsets=(0, HUGE * 4))}, SIX)),
    "shape that overflows": ("SafetensorError", write.safetensors({"w": entry((HUGE, 4))}, SIX)),
    "shape that does not fit": ("SafetensorError", write.safetensors({"w": entry((7,))}, SIX)),
    "negative dimension": ("SafetensorError", write.safetensors({"w": entry((-6,))}, SIX)),
    "a hundred dimensions": ("100", write.safetensors({"w": entry((6,) + (1,) * 99)}, SIX)),
    "bytes of nobody": ("SafetensorError", write.safetensors({"w": entry()}, SIX + b"1")),
    "header of 2**63": ("a header of 9223372036854775808 bytes", struct.pack("<Q", 1 << 63) + b"{}"),
    "header of 5 MB": ("a header of", write.safetensors(b"{" + b" " * (5 << 20) + b"}", b"")),
    "header beyond the end": ("SafetensorError", struct.pack("<Q", 1000) + b"{}"),
    "header nested deep": ("SafetensorError", write.safetensors(b'{"w":' * 100_000, b"")),
    "no tensors": ("without tensors", write.safetensors({}, b"")),
    "control characters in a type": ("unknown variant", write.safetensors({"w": entry(dtype="F\x7f\x85\u2028")}, SIX)),
    "float8": ("'w' of type F8_E4M3", write.safetensors({"w": entry((24,), "F8_E4M3")}, SIX)),
    "NaN": ("2 of 6 values of 'w' NaN", write.safetensors({"w": entry()}, NAN)),
    "name that is a path": ("'../w'", write.safetensors({"../w": entry()}, SIX)),
    "seven bytes": ("a damaged file", b"1234567"),
    "a web page": ("a header of", b"<!DOCTYPE html>\n<p>404</p>\n"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_files(tmp_path, case):
    path = tmp_path / "weights.safetensors"
    reason, raw = SAFETENSORS[case]
    path.write_bytes(raw)
    assert_refused(read_safetensors, path, reason)


def blob(*fields):
    return layer("conv", b"".join(fields))


CAFFE = {
    "length beyond the end": ("a field of 1000 bytes where 1 are left", b"\xa2\x06" + write.varint(1000) + b"x"),
    "length of 2**63": ("a field of 9223372036854775808 bytes", b"\xa2\x06" + write.varint(1 << 63)),
    "length of numbers beyond the blob": ("a field of 1000 bytes", blob(shape(6), b"\x2a" + write.varint(1000) + SIX)),
    "shape of 2**63": ("shape [-9223372036854775808]", blob(shape(1 << 63), FLOATS)),
    "shape that overflows": ("shape [4294967296, 4294967296]", blob(shape(1 << 32, 1 << 32), FLOATS)),
    "negative shape": ("shape [-2, -3]", blob(shape(-2, -3), FLOATS)),
    "negative legacy shape": ("shape [-1, 6, -1, 1]", blob(write.legacy_shape(-1, 6, -1, 1), FLOATS)),
    "shape of more than there is": ("a blob of 6 numbers and shape [7]", blob(shape(7), FLOATS)),
    "shape of less than there is": ("a blob of 6 numbers and shape [5]", blob(shape(5), FLOATS)),
    "no shape": ("a blob of 6 numbers and shape []", blob(FLOATS)),
    "no numbers": ("a blob of 0 numbers", blob(shape(0))),
    "a million dimensions": ("more than 32 dimensions", blob(shape(6, *[1] * 1_000_000), FLOATS)),
    "shapes without end": ("more than 32 dimensions", blob(shape(1) * 100_000, FLOATS)),
    "numbers cut off": ("buffer size", blob(shape(6), bytes_field(5, SIX[:-1]))),
    "numbers as varints": ("wire type 0", blob(shape(1), int_field(5, 1))),
    "numbers float and double": ("float and double", blob(shape(6), FLOATS, write.numbers_packed(8, "<d", range(6)))),
    "dimension as a text": ("a dimension of wire type 2", blob(bytes_field(1, b"6"), FLOATS)),
    "NaN": ("2 of 6 values of 'conv[0]' NaN", blob(shape(6), bytes_field(5, NAN))),
    "layer twice": ("two layers named 'conv'", blob(shape(6), FLOATS) * 2),
    "layer without a name": ("the name ''", layer("", shape(6) + FLOATS)),
    "layer named as a path": ("the name '../conv'", layer("../conv", shape(6) + FLOATS)),
    "layer named in no language": ("'utf-8' codec", bytes_field(100, bytes_field(1, b"\xff"))),
    "layer as a number": ("wire type 0", int_field(100, 1)),
    "V0 network": ("a V0 network", bytes_field(2, bytes_field(1, bytes_field(1, b"conv")))),
    "group": ("wire type 3", b"\x0b\x0c"),
    "wire type 7": ("wire type 7", b"\x0f"),
    "field 0": ("a field numbered 0", bytes(1000)),
    "field of 2**61": ("a field numbered", write.varint(1 << 63) + b"\x00"),
    "varint of eleven bytes": ("a varint", b"\x80" * 10 + b"\x01"),
    "varint of 70 bits": ("a varint", b"\x08" + b"\xff" * 9 + b"\x7f"),
    "varint cut off": ("a varint", b"\x08\xff"),
    "no layers": ("without blobs", bytes_field(1, b"net")),
    "layers without blobs": ("without blobs", layer("relu")),
    "thousands of blobs": ("more than 5000 blobs", layer("conv", *[shape(1) + bytes_field(5, SIX[:4])] * 20_001)),
    "a web page": ("wire type 4", b"<!DOCTYPE html>\n<p>404</p>\n"),
    "a picture": ("a field", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
}


@pytest.mark.parametrize("case", CAFFE)
def test_caffe_files(tmp_path, case):
    path = tmp_path / "fcn.caffemodel"
    reason, raw = CAFFE[case]
    path.write_bytes(raw)
    assert_refused(read_caffemodel, path, reason)


META = np.frombuffer(b'{"format": "minifcn 1"}', np.uint8)


def npy(array):
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


def npy_header(*dims):
    """An .npy that announces float32 numbers and holds none."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "<f4", "fortran_order": False, "shape": dims})
    return raw.getvalue()


NPZ = {
    "zip bomb": ("compressed", zipfile.ZIP_DEFLATED, {"w.npy": npy(np.zeros(16 << 20))}),
    "compressed without gain": (
        "compressed",
        zipfile.ZIP_DEFLATED,
        {"w.npy": npy(np.frombuffer(np.random.default_rng(0).bytes(4000), np.uint8))},
    ),
    "shape of 2**60": (
        "of 0 bytes where its shape (1152921504606846976,)",
        zipfile.ZIP_STORED,
        {"w.npy": npy_header(1 << 60)},
    ),
    "shape of 4 GB": ("needs 4294967296", zipfile.ZIP_STORED, {"w.npy": npy_header(1 << 30)}),
    "shape that overflows": ("where its shape", zipfile.ZIP_STORED, {"w.npy": npy_header(1 << 40, 1 << 40)}),
    "negative shape": ("needs -4", zipfile.ZIP_STORED, {"w.npy": npy_header(-1)}),
    "bytes of nobody": (
        "of 25 bytes where its shape (6,) needs 24",
        zipfile.ZIP_STORED,
        {"w.npy": npy_header(6) + SIX + b"1"},
    ),
    "one name with and without its ending": (
        "two members of one name",
        zipfile.ZIP_STORED,
        {"w.npy": npy(np.zeros(1)), "w": npy(np.ones(1))},
    ),
    "no array": ("magic string", zipfile.ZIP_STORED, {"w.npy": b"not an array"}),
}


@pytest.mark.parametrize("case", NPZ)
def test_npz_files(tmp_path, case):
    path = tmp_path / "weights.npz"
    reason, compression, members = NPZ[case]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, raw in {"meta.json.npy": npy(META), **members}.items():
            archive.writestr(member, raw)
    assert_refused(read_archive, path, reason)


def test_npz_whose_directory_and_header_tell_the_same_lie(tmp_path):
    path, header, size = tmp_path / "weights.npz", npy_header(1 << 29), 4 << 29  # 2 GB
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", header)
        archive.writestr("meta.json.npy", npy(META))
    told, lie = (struct.pack("<2I", n, n) for n in (len(header), len(header) + size))
    raw = path.read_bytes()
    at = raw.rindex(told)
    path.write_bytes(raw[:at] + lie + raw[at + 8 :])
    assert_refused(read_archive, path, "overlapping")


def test_npz_with_a_member_twice(tmp_path):
    path = tmp_path / "weights.npz"
    write_archive(path, {"w": np.zeros(1)}, {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("w.npy", npy(np.ones(1)))
    assert_refused(read_archive, path, "two members of one name")


# Every reader.


def torch_zip(path):
    write.torch_zip(path, write.dict_of(("w", write.tensor())), {"0": SIX})


def torch_legacy(path):
    write.torch_legacy(path, write.dict_of(("w", write.tensor())), {"0": (6, SIX)})


def small_safetensors(path):
    write_safetensors(path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"a": "b"})


def caffemodel(path):
    path.write_bytes(
        layer("conv", shape(2, 3) + FLOATS) + write.v1_layer("old", write.legacy_shape(1, 1, 2, 3) + FLOATS)
    )


READERS = {
    "torch, zip": (read_torch, torch_zip),
    "torch, legacy": (read_torch, torch_legacy),
    "safetensors": (read_safetensors, small_safetensors),
    "caffe": (read_caffemodel, caffemodel),
}
readers = pytest.mark.parametrize("read, write_small", READERS.values(), ids=READERS)


@readers
def test_a_file_that_is_missing_empty_or_none(tmp_path, read, write_small):
    with pytest.raises(FileNotFoundError, match=r"absent: no such file; expected a"):
        read(tmp_path / "absent")
    assert_refused(read, tmp_path, "got a folder")
    (tmp_path / "empty").touch()
    assert_refused(read, tmp_path / "empty", "got an empty file")


def outcome(read, path):
    """What came of reading: nothing, a refusal, or something that should not have escaped."""
    try:
        read(path)
    except ValueError as error:
        message = str(error)
        return None if message.startswith(f"{path}: expected ") and message.isprintable() else message
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@readers
def test_a_file_cut_off_anywhere_is_refused(tmp_path, read, write_small):
    path = tmp_path / "whole"
    write_small(path)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        if read is read_caffemodel and length == len(layer("conv", shape(2, 3) + FLOATS)):
            continue  # the end of a layer is the end of a smaller network
        with pytest.raises(ValueError, match="whole: expected"):
            read(path)


@readers
@pytest.mark.parametrize("value", [0x00, 0x81, 0xFF])
def test_one_wrong_byte_raises_nothing_else(tmp_path, read, write_small, value):
    path = tmp_path / "whole"
    write_small(path)
    whole = path.read_bytes()
    escaped = {}
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
        if told := outcome(read, path):
            escaped.setdefault(told, position)
    assert escaped == {}


@readers
def test_noise_raises_nothing_else(tmp_path, read, write_small, rng):
    """Files with a stretch of random bytes, or wholly of them."""
    path = tmp_path / "noise"
    write_small(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    escaped = {}
    for _ in range(300):
        noisy = whole.copy()
        start = rng.integers(len(noisy))
        stretch = noisy[start : start + rng.integers(1, 1 << rng.integers(1, 9))]
        stretch[:] = rng.integers(256, size=len(stretch))
        path.write_bytes(noisy.tobytes())
        if told := outcome(read, path):
            escaped.setdefault(told, noisy.tobytes())
    assert escaped == {}


MEGABYTES = np.ones((1024, 4096), np.float32)  # 16 MB


def large(kind, path):
    count, raw = MEGABYTES.size, MEGABYTES.tobytes()
    whole = write.tensor(write.storage(count=count), size=MEGABYTES.shape, stride=(4096, 1))
    if kind == "torch, zip":
        write.torch_zip(path, write.dict_of(("w", whole)), {"0": raw})
    elif kind == "torch, legacy":
        write.torch_legacy(path, write.dict_of(("w", whole)), {"0": (count, raw)})
    elif kind == "safetensors":
        write_safetensors(path, {"w": MEGABYTES})
    else:
        path.write_bytes(layer("w", shape(*MEGABYTES.shape) + bytes_field(5, raw)))


@pytest.mark.parametrize("kind", READERS)
def test_a_good_file_takes_two_to_three_times_its_size(tmp_path, kind):
    path = tmp_path / "large"
    large(kind, path)
    tracemalloc.start()
    READERS[kind][0](path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * path.stat().st_size
