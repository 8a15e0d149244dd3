"""Broken and hostile weight files: each is refused in one line that names it, at once and in little memory, and nothing in it runs."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import weight_writers as write
from weight_writers import (
    SIX,
    assert_refused,
    bytes_field,
    call,
    dict_of,
    int_field,
    layer,
    name,
    number,
    shape,
    tensor,
    text,
    tuple_of,
)

from minifcn.weights import formats, torch_pickle
from minifcn.weights.caffe import read_caffemodel
from minifcn.weights.npz import read_archive, write_archive
from minifcn.weights.safetensors import read_safetensors, write_safetensors
from minifcn.weights.torch import read_torch

NAN = struct.pack("<6f", 0, 1, float("nan"), 3, float("inf"), 5)
HUGE = 1 << 62


# --- Files that would run something -----------------------------------------------------------------------------------


THE_OS = call("builtins.__import__", text("os"))
PAYLOADS = {  # each is tried on Python's own unpickler first: it does work where it is let
    "os.system": lambda file: call("os.system", text(f"touch {file}")),
    "builtins.open": lambda file: call("builtins.open", text(file), text("w")),
    "builtins.getattr": lambda file: call("builtins.getattr", THE_OS, text("mkdir")) + tuple_of(text(file)) + b"R",
    "pathlib.Path": lambda file: (
        text("pathlib") + text("Path.touch") + b"\x93" + tuple_of(call("pathlib.Path", text(file))) + b"R"
    ),
    "os.mkdir": lambda file: b"(" + text(file) + b"ios\nmkdir\n",  # INST
    "pathlib.PosixPath": lambda file: (
        b"(" + name("pathlib.PosixPath") + text(file) + b"o" + call("os.mkdir", text(file))
    ),
}


def working(payload, trace):
    """The instructions of a payload, once it was seen to leave its trace."""
    attack = PAYLOADS[payload](str(trace))
    pickle.loads(b"\x80\x04" + attack + write.STOP)
    assert trace.exists()
    trace.rmdir() if trace.is_dir() else trace.unlink()
    return attack


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_in_a_torch_file_is_executed(tmp_path, container, payload):
    trace, path = tmp_path / "executed.npy", tmp_path / "weights.pth"
    attack = working(payload, trace)
    if container == "zip":
        write.torch_zip(path, dict_of(("w", attack)), {"0": SIX})
    elif container == "legacy":
        write.torch_legacy(path, dict_of(("w", attack)), {"0": (6, SIX)})
    else:
        path.write_bytes(b"\x80\x04" + attack + write.STOP + SIX)
    message = assert_refused(read_torch, path, "refused (nothing was executed)")
    assert payload in message and not trace.exists()


@pytest.mark.parametrize("member", ["weights/w.npy", "meta.json.npy", "weights/other.npy", None])
def test_nothing_in_an_npz_is_executed(tmp_path, member):
    trace, path = tmp_path / "executed", tmp_path / "weights.npz"
    attack = b"\x80\x04" + working("builtins.open", trace) + write.STOP
    write_archive(path, {"weights/w": np.zeros(3)}, {})
    repack(path, {member: npy_header(descr="|O") + attack}) if member else path.write_bytes(attack)
    assert_refused(read_archive, path, "")
    assert not trace.exists()


def test_the_admitted_names_are_these():
    """Whoever admits another name is to think of it twice."""
    storages = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    functions = ["_utils._rebuild_tensor", "_utils._rebuild_tensor_v2", "_utils._rebuild_parameter"]
    functions += ["nn.parameter.Parameter", "Size"]
    expected = {"collections.OrderedDict", *(f"torch.{n}" for n in functions), *(f"torch.{n}Storage" for n in storages)}
    assert torch_pickle.ADMITTED.keys() == expected


# --- PyTorch's pickles: (reason, the instructions that push the value "w") ------------------------------------------


def doubled(times):
    """A tuple that holds one tuple twice, which holds one twice, and so on: a few bytes, 2**times leaves."""
    return text("x") + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times))


NESTED = b")" + b"\x85" * 100_000  # tuples, a hundred thousand deep
OTHERS = ["torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "torch._utils._rebuild_tensor_v3"]
OTHERS += ["torch.ComplexFloatStorage", "torch.nn.modules.linear.Linear", "numpy.core.multiarray._reconstruct"]
OTHERS += ["numpy._core.multiarray.scalar", "codecs.encode", "collections.Counter", "argparse.Namespace"]
PICKLES = {
    **{asked: (f"asks for {asked!r}, which is refused", name(asked)) for asked in OTHERS},
    "size beyond the storage": ("does not fit its storage", tensor(size=(2, 4), stride=(4, 1))),
    "offset beyond the storage": ("does not fit its storage", tensor(offset=1)),
    "stride that overflows to zero": ("does not fit its storage", tensor(size=(5,), stride=(1 << 60,))),
    "stride beyond the storage": ("does not fit its storage", tensor(stride=(HUGE, 1))),
    "stride zero": ("does not fit its storage", tensor(size=(4, 6), stride=(0, 1))),
    "stride zero, a billion times": ("4 times the file's size", tensor(size=(1_000_000_000,), stride=(0,))),
    "empty but far away": ("", tensor(size=(0, HUGE, HUGE), stride=(1, 1, 1), offset=HUGE)),
    "negative stride": ("negative", tensor(stride=(3, -1))),
    "negative size": ("negative", tensor(size=(-2, -3))),
    "a hundred dimensions": ("100 dimensions", tensor(size=(1,) * 100, stride=(1,) * 100)),
    "sizes without strides": ("1 strides", tensor(stride=(3,))),
    "tensor of a text": ("without a storage", tensor(text("0"))),
    "storage of another size": ("24 bytes where", tensor(write.storage("1", count=7))),
    "storage of 2**80": ("24 bytes where", tensor(write.storage("1", count=1 << 80))),
    "storage that is not there": ("KeyError", tensor(write.storage("../data.pkl"))),
    "storage of two types": ("two storages", tuple_of(write.storage(), write.storage(count=3))),
    "storage that is a view": ("a view", tensor(write.storage(more=tuple_of(text("1"), number(0), number(3))))),
    "persistent id of a module": ("persistent id", tuple_of(text("module"), text("x")) + b"Q"),
    "conjugated": ("conjugated", call("torch._utils._rebuild_tensor_v2", *[tuple_of()] * 6, dict_of(("", b"\x88")))),
    "too few arguments": ("TypeError", call("torch._utils._rebuild_tensor_v2")),
    "call of a text": ("not callable", text("os.system") + tuple_of() + b"R"),
    "call of a storage type": ("not callable", call("torch.FloatStorage", number(HUGE))),
    "call with a list": ("with a list", name("collections.OrderedDict") + b"]R"),
    "attributes of a number": ("of type int among 1 tensors", number(1) + b"}b"),
    "append to a dictionary": ("AttributeError", b"}" + number(1) + b"a"),
    "tuple nested deep": ("of type tuple among 1 tensors", NESTED),
    "tuple nested deep as a key": ("an item tuple", b"}" + NESTED + b"Ns"),
    "function named by an endless tuple": ("names a function by", doubled(60) + text("x") + b"\x93"),
    "list that holds itself": ("of type list among 1 tensors", b"]q\x00h\x00a"),
    "memo index never set": ("KeyError", b"h\x07"),
    "empty stack": ("IndexError", b"bbbbb"),
    "extension": ("EXT1 '7'", b"\x82\x07"),
    "bytearray of 2**60": ("bytearray8", b"\x96" + struct.pack("<Q", 1 << 60)),
    "text of 2**64 - 1": ("unicodestring8", b"\x8d" + b"\xff" * 8),
    "text of 5 MB": ("unicodestring4", text("w" * (5 << 20))),
    "number of 2 GB": ("long4", b"\x8b\xff\xff\xff\x7f"),
    "number of a million digits": ("digits", b"I" + b"9" * 1_000_000 + b"\n"),
    "unknown instruction": ("unknown", b"\xff"),
    "more instructions than any file has": ("250000 instructions", b"N" + b"q\x00" * 260_000),
    "name twice": ("'w' twice", tensor() + text("w") + tensor()),
    "NaN": ("2 of 6 values of 'w' NaN", tensor(write.storage("nan"))),
    "a number among tensors": ("of type int among 1 tensors; in PyTorch, save", number(3)),
}


def same_dictionary_under_many_names():
    """Of tensors that are one tensor: each is looked at once."""
    many = range(20_000)
    more = b"".join(text(f"t{i}") + b"h\x01" for i in many)
    inner = b"}(" + text("t") + tensor() + b"q\x01" + more + b"uq\x02"
    again = b"".join(text(f"k{i}") + b"h\x02" for i in many)
    return b"}(" + text("k") + inner + again + text("n") + b"Nu"


def lists_made_into_dictionaries():
    """One list of pairs, which is emptied as it is made into the first."""
    items = write.list_of(*(write.list_of(number(i), b"N") for i in range(1000)))
    return tuple_of(items + b"q\x01", (name("collections.OrderedDict") + b"h\x01\x85R") * 10_000)


LONG = tensor(write.storage(count=1 << 20), size=(1 << 20,), stride=(1,))


# --- PyTorch: the containers: (reason, the file's bytes or what writes it) --------------------------------------------


def pickled(value):
    """What writes a zip file of torch.save with this value among others."""
    storages = {"0": SIX, "1": SIX, "nan": NAN}
    return lambda path: write.torch_zip(path, dict_of(("w", value), ("v", tensor())), storages)


def repack(path, members):
    """Write an archive anew with these contents for some members, old or new."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()} | members
    write_zip(path, members)


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, raw in members.items():
            archive.writestr(member, raw)


def zip_of(then=lambda raw: raw, **options):
    """What writes a zip file of torch.save and changes its bytes."""

    def write_it(path):
        write.torch_zip(path, **{"value": dict_of(("w", tensor())), "storages": {"0": SIX}, **options})
        path.write_bytes(then(path.read_bytes()))

    return write_it


def legacy_of(then=lambda raw: raw, **options):
    def write_it(path):
        write.torch_legacy(path, **{"value": dict_of(("w", tensor())), "storages": {"0": (6, SIX)}, **options})
        path.write_bytes(then(path.read_bytes()))

    return write_it


def encrypted(raw):
    at = raw.index(b"PK\x01\x02") + 8
    return raw[:at] + bytes([raw[at] | 1]) + raw[at + 1 :]


def claiming_4_gb(raw):
    """The central directory claims 4 GB for every member."""
    head, *entries = raw.split(b"PK\x01\x02")
    return b"PK\x01\x02".join([head, *(entry[:16] + b"\xf0\xff\xff\xff" * 2 + entry[24:] for entry in entries)])


def storage_twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(more=[("archive/data/0", SIX)])(path)


def big_endian(path):
    zip_of()(path)
    repack(path, {"archive/byteorder": b"big"})


def endless_storage_keys(path):
    pickles = [number(write.MAGIC_NUMBER), number(1001), dict_of(("little_endian", b"\x88")), STATE]
    path.write_bytes(b"".join(map(write.program, [*pickles, write.list_of(doubled(60), doubled(60))])))


def checkpoint_of(*pairs):
    return legacy_of(value=dict_of(*pairs))


STATE = dict_of(("w", tensor()))
TORCH = {
    **{f"pickle: {case}": (reason, pickled(value)) for case, (reason, value) in PICKLES.items()},
    "dictionaries": ("250000 instructions", zip_of(value=dict_of(("w", b"}" * 260_000)))),
    "one dictionary": ("dictionaries of tensors among", zip_of(value=same_dictionary_under_many_names())),
    "dictionaries of one list": ("a tuple", zip_of(value=lists_made_into_dictionaries())),
    "a hundred tensors of one storage": (
        "4 times the file's size",
        zip_of(value=dict_of(*((f"w{i}", LONG) for i in range(100))), storages={"0": bytes(4 << 20)}),
    ),
    "zip bomb": ("compressed", zip_of(storages={"0": bytes(64 << 20)}, compression=zipfile.ZIP_DEFLATED)),
    "compressed without gain": ("compressed", zip_of(compression=zipfile.ZIP_LZMA)),
    "two members of one name": ("two members of one name", storage_twice),
    "wrong byte in a storage": ("member 'archive/data/0'", zip_of(lambda raw: raw.replace(SIX, SIX[:-1] + b"\x00"))),
    "encrypted": ("encrypted", zip_of(encrypted)),
    "members that claim 4 GB": ("overlapping", zip_of(claiming_4_gb)),
    "many members": ("more than 20000 members", lambda path: write_zip(path, {str(i): b"" for i in range(20_001)})),
    "two values": ("without the one", zip_of(more=[("other/data.pkl", b"N.")])),
    "big-endian": ("big-endian", big_endian),
    "another archive": ("another kind", lambda path: write_zip(path, {"w.npy": b""})),
    "storage cut off": ("16 bytes where", zip_of(storages={"0": SIX[:16]})),
    "legacy: storage cut off": ("16 bytes where", legacy_of(storages={"0": (6, SIX[:16])})),
    "legacy: storage of 2**62": ("announced", legacy_of(storages={"0": (1 << 62, SIX)})),
    "legacy: storage of -6": ("announced", legacy_of(storages={"0": (-6, SIX)})),
    "legacy: no storages": ("list of storages", legacy_of(storages={})),
    "legacy: a storage twice": ("list of storages", legacy_of(keys=["0", "0"])),
    "legacy: keys of two types": ("list of storages", legacy_of(keys=["0", "1"])),
    "legacy: keys that take forever to compare": ("list of storages", endless_storage_keys),
    "legacy: another version": (
        "magic number and version",
        legacy_of(lambda raw: raw.replace(number(1001), number(1002))),
    ),
    "NaN": ("2 of 6 values of 'w' NaN or infinite", legacy_of(storages={"0": (6, NAN)})),
    "a tensor": ("a tensor", legacy_of(value=tensor())),
    "nothing": ("among: nothing", legacy_of(value=b"}", storages={})),
    "two states": ("2 dictionaries of tensors among: 'a' (dict)", checkpoint_of(("a", STATE), ("b", STATE))),
    "a state two levels down": ("no dictionaries", checkpoint_of(("a", dict_of(("b", STATE))))),
    "name that is a path": ("'../w'", checkpoint_of(("../w", tensor()))),
    "name with a line end": ("'w\\n'", checkpoint_of(("w\n", tensor()))),
    "name with a NUL": ("'w\\x00'", checkpoint_of(("w\0", tensor()))),
    "name with a backslash": ("'a\\\\w'", checkpoint_of(("a\\w", tensor()))),
    "name that is empty": ("''", checkpoint_of(("", tensor()))),
    "name that is a number": ("a name of type int", legacy_of(value=b"}" + number(1) + tensor() + b"s")),
    "a pickle of Python's": ("exhausted", pickle.dumps({"w": 1})),
    "a tar file": ("begins with", b"storages".ljust(257, b"\0") + b"ustar\0" + bytes(300)),
    "a web page": ("a web page in its place; download", b"<!DOCTYPE html>\n<p>404</p>\n"),
}


# --- Safetensors ------------------------------------------------------------------------------------------------------


def entry(dims=(6,), dtype="F32", offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(dims), "data_offsets": list(offsets)}


def one(*arguments, numbers=SIX, **options):
    return write.safetensors({"w": entry(*arguments, **options)}, numbers)


W = json.dumps(entry())
MANY = ",".join(f'"{name}":"x"' for name in (*(f"n{i}" for i in range(150_000)), "n149999"))
SAFETENSORS = {
    "name twice": ("'w' twice", write.safetensors(f'{{"w": {W}, "w": {W}}}'.encode(), SIX)),
    "one of many twice": ("'n149999' twice", write.safetensors(f'{{"__metadata__":{{{MANY}}},"w":{W}}}'.encode(), SIX)),
    "overlapping": ("SafetensorError", write.safetensors({"v": entry(), "w": entry()}, SIX)),
    "beyond the end": ("SafetensorError", one((HUGE,), offsets=(0, HUGE * 4))),
    "shape that overflows": ("SafetensorError", one((HUGE, 4))),
    "shape that does not fit": ("SafetensorError", one((7,))),
    "negative dimension": ("SafetensorError", one((-6,))),
    "a hundred dimensions": ("100", one((6,) + (1,) * 99)),
    "more bytes than numbers": ("SafetensorError", one(numbers=SIX + b"1")),
    "header of 2**63": ("a header of 9223372036854775808 bytes", struct.pack("<Q", 1 << 63) + b"{}"),
    "header of 5 MB": ("a header of", write.safetensors(b"{" + b" " * (5 << 20) + b"}", b"")),
    "header beyond the end": ("SafetensorError", struct.pack("<Q", 1000) + b"{}"),
    "header nested deep": ("SafetensorError", write.safetensors(b'{"w":' * 100_000, b"")),
    "no tensors": ("without tensors", write.safetensors({}, b"")),
    "control characters in a type": ("unknown variant", one(dtype="F\x7f\x85\u2028")),
    "float8": ("'w' of type F8_E4M3", one((24,), "F8_E4M3")),
    "NaN": ("2 of 6 values of 'w' NaN", one(numbers=NAN)),
    "name that is a path": ("'../w'", write.safetensors({"../w": entry()}, SIX)),
    "a web page": ("a web page in its place", b"<!DOCTYPE html>\n<p>404</p>\n"),
}


# --- Caffe ------------------------------------------------------------------------------------------------------------


def blob(*fields):
    return layer("conv", b"".join(fields))


FLOATS = write.numbers_packed(5, "<f", range(6))
CAFFE = {
    "length beyond the end": ("a field of 1000 bytes where 1 are left", b"\xa2\x06" + write.varint(1000) + b"x"),
    "length of numbers beyond the blob": ("a field of 1000 bytes", blob(shape(6), b"\x2a" + write.varint(1000) + SIX)),
    "shape of 2**63": ("shape [-9223372036854775808]", blob(shape(1 << 63), FLOATS)),
    "shape that overflows": ("shape [4294967296, 4294967296]", blob(shape(1 << 32, 1 << 32), FLOATS)),
    "negative shape": ("shape [-2, -3]", blob(shape(-2, -3), FLOATS)),
    "shape of more than there is": ("a blob of 6 numbers and shape [7]", blob(shape(7), FLOATS)),
    "no shape": ("a blob of 6 numbers and shape []", blob(FLOATS)),
    "no numbers": ("a blob of 0 numbers", blob(shape(0))),
    "thousands of dimensions": ("more than 32 dimensions", blob(shape(6, *[1] * 50_000), FLOATS)),
    "shapes without end": ("more than 32 dimensions", blob(shape(1) * 100_000, FLOATS)),
    "numbers cut off": ("buffer size", blob(shape(6), bytes_field(5, SIX[:-1]))),
    "numbers as varints": ("TypeError", blob(shape(1), int_field(5, 1))),
    "numbers float and double": ("float and double", blob(shape(6), FLOATS, write.numbers_packed(8, "<d", range(6)))),
    "dimension as a text": ("TypeError", blob(bytes_field(1, b"6"), FLOATS)),
    "NaN": ("2 of 6 values of 'conv[0]' NaN", blob(shape(6), bytes_field(5, NAN))),
    "layer twice": ("two layers named 'conv'", blob(shape(6), FLOATS) * 2),
    "layer without a name": ("the name ''", layer("", shape(6) + FLOATS)),
    "layer named as a path": ("the name '../conv'", layer("../conv", shape(6) + FLOATS)),
    "layer named in no language": ("'utf-8' codec", bytes_field(100, bytes_field(1, b"\xff"))),
    "layer as a number": ("TypeError", int_field(100, 1)),
    "V0 network": ("upgrade_net_proto_binary", bytes_field(2, bytes_field(1, bytes_field(1, b"conv")))),
    "group": ("wire type 3", b"\x0b\x0c"),
    "zeros": ("no blobs", bytes(1000)),
    "varint of eleven bytes": ("a varint", b"\x80" * 10 + b"\x01"),
    "varint cut off": ("a varint", b"\x08\xff"),
    "no layers": ("no blobs", bytes_field(1, b"net")),
    "thousands of blobs": ("more than 5000 blobs", layer("conv", *[shape(1) + bytes_field(5, SIX[:4])] * 5_001)),
    "a web page": ("a web page in its place", b"<!DOCTYPE html>\n<p>404</p>\n"),
}


# --- This library's own format ----------------------------------------------------------------------------------------


def npy(array):
    raw = io.BytesIO()
    np.save(raw, array)
    return raw.getvalue()


def npy_header(*dims, descr="<f4"):
    """An .npy that announces numbers and holds none."""
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": descr, "fortran_order": False, "shape": dims})
    return raw.getvalue()


META = {"meta.json.npy": npy(np.frombuffer(b'{"format": "minifcn 1"}', np.uint8))}


def npz(compression=zipfile.ZIP_STORED, **members):
    members = META | {name.replace("_", "."): raw for name, raw in members.items()}
    return lambda path: write_zip(path, members, compression)


def same_lie_twice(path):
    """The directory and the header claim 2 GB."""
    header, size = npy_header(1 << 29), 4 << 29
    write_zip(path, {"w.npy": header} | META)
    truth, lie = (struct.pack("<2I", n, n) for n in (len(header), len(header) + size))
    raw = path.read_bytes()
    at = raw.rindex(truth)
    path.write_bytes(raw[:at] + lie + raw[at + 8 :])


def member_twice(path):
    write_archive(path, {"w": np.zeros(1)}, {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("w.npy", npy(np.ones(1)))


DEFLATED = zipfile.ZIP_DEFLATED
NPZ = {
    "zip bomb": ("compressed", npz(DEFLATED, w_npy=npy(np.zeros(16 << 20)))),
    "shape of 2**60": ("of 0 numbers and shape (1152921504606846976,)", npz(w_npy=npy_header(1 << 60))),
    "shape of 4 GB": ("of 0 numbers", npz(w_npy=npy_header(1 << 30))),
    "shape that overflows": ("of 0 numbers", npz(w_npy=npy_header(1 << 40, 1 << 40))),
    "negative shape": ("of 0 numbers", npz(w_npy=npy_header(-1))),
    "more bytes than numbers": ("buffer size", npz(w_npy=npy_header(6) + SIX + b"1")),
    "one name with and without its ending": ("two members", npz(w_npy=npy(np.zeros(1)), w=npy(np.ones(1)))),
    "member twice": ("two members of one name", member_twice),
    "no array": ("magic string", npz(w_npy=b"not an array")),
    "directory and header with the same lie": ("overlapping", same_lie_twice),
    "another archive": ("arrays without a card", lambda path: write_zip(path, {"w.npy": npy(np.zeros(3))})),
    "a bare array": ("BadZipFile", npy(np.arange(3))),
    "zeros": ("BadZipFile", bytes(1000)),
}


# --- Every format -----------------------------------------------------------------------------------------------------

FORMATS = {
    "torch": (read_torch, TORCH),
    "safetensors": (read_safetensors, SAFETENSORS),
    "caffe": (read_caffemodel, CAFFE),
    "npz": (read_archive, NPZ),
}
SLACK = {"one of many twice": 80, "dictionaries": 40, "one dictionary": 40}  # megabytes beside four times the file


@pytest.mark.parametrize("kind, case", [(kind, case) for kind, (_, cases) in FORMATS.items() for case in cases])
def test_hostile_files_are_refused_in_a_line(tmp_path, kind, case):
    read, cases = FORMATS[kind]
    reason, content = cases[case]
    path = tmp_path / "weights"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    assert_refused(read, path, reason, slack=SLACK.get(case, 8) << 20)


@pytest.mark.parametrize(
    "network", ["[" * 100_000, "U-Net", '{"name": "U-Net"}', "5"], ids=["nested", "text", "a dict", "5"]
)
def test_what_another_program_calls_the_network_is_left_alone(tmp_path, network):
    path = tmp_path / "net.safetensors"
    path.write_bytes(write.safetensors(f'{{"__metadata__":{{"network":{json.dumps(network)}}},"w":{W}}}'.encode(), SIX))
    arrays, meta = formats.read(path)
    assert list(arrays) == ["w"] and meta == {}


MEGABYTES = np.ones((1024, 4096), np.float32)  # 16 MB
RAW, COUNT = MEGABYTES.tobytes(), MEGABYTES.size
WHOLE = dict_of(("w", tensor(write.storage(count=COUNT), size=MEGABYTES.shape, stride=(4096, 1))))
LARGE = {
    "zip": (read_torch, lambda path: write.torch_zip(path, WHOLE, {"0": RAW})),
    "legacy": (read_torch, lambda path: write.torch_legacy(path, WHOLE, {"0": (COUNT, RAW)})),
    "safetensors": (read_safetensors, lambda path: write_safetensors(path, {"w": MEGABYTES})),
    "caffe": (read_caffemodel, lambda path: path.write_bytes(layer("w", shape(1024, 4096) + bytes_field(5, RAW)))),
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_good_file_takes_two_to_three_times_its_size(tmp_path, kind):
    path, (read, write_large) = tmp_path / "large", LARGE[kind]
    write_large(path)
    tracemalloc.start()
    read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * path.stat().st_size
