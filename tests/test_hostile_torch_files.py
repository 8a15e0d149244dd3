"""Broken and hostile files for PyTorch: each ends in one line that names the file, runs nothing, and takes little memory."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
import weight_writers as write
from minifcn.weights.torch_file import read_torch
from weight_writers import assert_refused, call, dict_of, name, number, tensor, text, tuple_of

from minifcn.weights import torch_pickle

NOISE = np.random.default_rng(0).bytes(4000)
SIX = struct.pack("<6f", 0, 1, 2, 3, 4, 5)
NAN = struct.pack("<6f", 0, 1, float("nan"), 3, float("inf"), 5)


# Pickles that would run something. Each is tried on Python's own unpickler first: it does work where it is let.


def the_os():
    return call("builtins.__import__", text("os"))


PAYLOADS = {
    "os.system": lambda file: call("os.system", text(f"touch {file}")),
    "posix.system": lambda file: call("posix.system", text(f"touch {file}")),
    "builtins.eval": lambda file: call("builtins.eval", text(f"open({file!r}, 'w')")),
    "builtins.exec": lambda file: call("builtins.exec", text(f"open({file!r}, 'w')")),
    "builtins.open": lambda file: call("builtins.open", text(file), text("w")),
    "subprocess.check_call": lambda file: call("subprocess.check_call", write.list_of(text("touch"), text(file))),
    "builtins.getattr": lambda file: call("builtins.getattr", the_os(), text("mkdir")) + tuple_of(text(file)) + b"R",
    "operator.attrgetter": lambda file: (
        call("operator.attrgetter", text("mkdir")) + tuple_of(the_os()) + b"R" + tuple_of(text(file)) + b"R"
    ),
    "numpy.save": lambda file: call("numpy.save", text(file), number(1)),
    "pathlib.Path.touch": lambda file: (
        text("pathlib") + text("Path.touch") + b"\x93" + tuple_of(call("pathlib.Path", text(file))) + b"R"
    ),
    "os.mkdir": lambda file: b"(" + text(file) + b"ios\nmkdir\n",  # INST
    "pathlib.PosixPath": lambda file: (
        b"(" + name("pathlib.PosixPath") + text(file) + b"o" + call("os.mkdir", text(file))
    ),
}


@pytest.mark.parametrize("container", ["zip", "legacy", "legacy, first pickle", "bare pickle"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_is_executed(tmp_path, container, payload):
    trace, path = tmp_path / "executed.npy", tmp_path / "weights.pth"
    attack = PAYLOADS[payload](str(trace))
    pickle.loads(b"\x80\x04" + attack + write.STOP)
    assert trace.exists()
    trace.rmdir() if trace.is_dir() else trace.unlink()
    if container == "zip":
        write.torch_zip(path, dict_of(("w", attack)), {"0": SIX})
    elif container == "legacy":
        write.torch_legacy(path, dict_of(("w", attack)), {"0": (6, SIX)})
    else:
        path.write_bytes(b"\x80\x04" + attack + write.STOP + (SIX if container == "bare pickle" else b""))
    assert_refused(read_torch, path, "refused (nothing was executed)")
    assert not trace.exists()
    first_name = {"pathlib.Path.touch": "pathlib.Path", "operator.attrgetter": "operator.attrgetter"}.get(
        payload, payload
    )
    with pytest.raises(ValueError, match=first_name):
        read_torch(path)


@pytest.mark.parametrize(
    "asked",
    ["torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "torch._utils._rebuild_tensor_v3"]
    + ["torch.ComplexFloatStorage", "torch.nn.modules.linear.Linear", "numpy.core.multiarray._reconstruct"]
    + ["numpy._core.multiarray.scalar", "codecs.encode", "collections.Counter", "argparse.Namespace"],
)
def test_every_other_name_is_refused_by_name(tmp_path, asked):
    path = tmp_path / "weights.pth"
    write.torch_zip(path, dict_of(("w", name(asked))))
    assert_refused(read_torch, path, f"asks for {asked!r}, which is refused")


def test_the_admitted_names_are_these():
    """Whoever admits another name is to think of it twice."""
    storages = ["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
    functions = ["_utils._rebuild_tensor", "_utils._rebuild_tensor_v2", "_utils._rebuild_parameter"]
    functions += ["nn.parameter.Parameter", "Size"]
    expected = {"collections.OrderedDict", *(f"torch.{n}" for n in functions), *(f"torch.{n}Storage" for n in storages)}
    assert torch_pickle.ADMITTED.keys() == expected


# Pickles that run nothing and yet are no state dictionary: (reason, the instructions that push the value).

HUGE = 1 << 62
NESTED = b")" + b"\x85" * 100_000  # tuples, a hundred thousand deep
PICKLES = {
    "size beyond the storage": ("does not fit its storage", tensor(size=(2, 4), stride=(4, 1))),
    "offset beyond the storage": ("does not fit its storage", tensor(offset=1)),
    "stride beyond the storage": ("does not fit its storage", tensor(stride=(HUGE, 1))),
    "stride zero": ("does not fit its storage", tensor(size=(4, 6), stride=(0, 1))),
    "stride zero, a billion times": ("4 times the file's size", tensor(size=(1_000_000_000,), stride=(0,))),
    "stride zero and overflow": ("4 times the file's size", tensor(size=(HUGE, 4), stride=(0, 0))),
    "empty but far away": ("does not fit its storage", tensor(size=(0, HUGE, HUGE), stride=(1, 1, 1), offset=HUGE)),
    "empty but vast": ("", tensor(size=(0, HUGE, HUGE), stride=(1, 1, 1))),
    "negative stride": ("negative", tensor(stride=(3, -1))),
    "negative size": ("negative", tensor(size=(-2, -3))),
    "negative offset": ("negative", tensor(offset=-1)),
    "size of 2**63": ("impossible", tensor(size=(1 << 63, 0))),
    "a hundred dimensions": ("100 dimensions", tensor(size=(1,) * 100, stride=(1,) * 100)),
    "sizes without strides": ("do not fit", tensor(stride=(3,))),
    "tensor of a text": ("without a storage", tensor(text("0"))),
    "storage of another size": ("24 bytes where", tensor(write.storage("1", count=7))),
    "storage of 2**80": ("24 bytes where", tensor(write.storage("1", count=1 << 80))),
    "storage of another type": ("24 bytes where", tensor(write.storage("1", "torch.DoubleStorage"))),
    "storage that is not there": ("none where", tensor(write.storage("../data.pkl"))),
    "storage of two types": ("two storages", tuple_of(write.storage(), write.storage(count=3))),
    "storage that is a view": ("a view", tensor(write.storage(more=tuple_of(text("1"), number(0), number(3))))),
    "persistent id of a module": ("persistent id", tuple_of(text("module"), text("x")) + b"Q"),
    "conjugated": (
        "conjugated",
        call("torch._utils._rebuild_tensor_v2", *[tuple_of()] * 6, dict_of(("conj", b"\x88"))),
    ),
    "too few arguments": ("TypeError", call("torch._utils._rebuild_tensor_v2")),
    "call of a text": ("calls a str", text("os.system") + tuple_of() + b"R"),
    "call of a storage type": ("calls a _StorageType", call("torch.FloatStorage", number(HUGE))),
    "call with a list": ("with a list", name("collections.OrderedDict") + b"]R"),
    "attributes of a number": ("attributes of a int", number(1) + b"}b"),
    "append to a dictionary": ("appends to a dict", b"}" + number(1) + b"a"),
    "tuple nested deep": ("no dictionaries", NESTED),
    "tuple nested deep as a key": ("an item tuple", b"}" + NESTED + b"Ns"),
    "list that holds itself": ("no dictionaries", b"]q\x00h\x00a"),
    "memo index never set": ("KeyError", b"h\x07"),
    "empty stack": ("IndexError", b"bbbbb"),
    "extension": ("EXT1 '7'", b"\x82\x07"),
    "bytearray of 2**60": ("bytearray8", b"\x96" + struct.pack("<Q", 1 << 60)),
    "text of 2**60": ("unicodestring8", b"\x8d" + struct.pack("<Q", 1 << 60)),
    "text of 2**64 - 1": ("unicodestring8", b"\x8d" + b"\xff" * 8),
    "text of 4 GB": ("unicodestring4", b"X\xff\xff\xff\xff"),
    "number of one byte, as a long one": ("LONG4 '7'", b"\x8b\x01\0\0\0\x07"),
    "number of 2 GB": ("long4", b"\x8b\xff\xff\xff\x7f"),
    "number of a million digits": ("digits", b"I" + b"9" * 1_000_000 + b"\n"),
    "unknown instruction": ("unknown", b"\xff"),
    "name twice": ("'w' twice", tensor() + text("w") + tensor()),
    "NaN": ("2 of 6 values of 'w' NaN", tensor(write.storage("nan"))),
    "a number among tensors": ("no dictionaries", number(3)),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_are_no_state(tmp_path, case):
    path = tmp_path / "weights.pth"
    reason, value = PICKLES[case]
    write.torch_zip(path, dict_of(("w", value), ("v", tensor())), {"0": SIX, "1": SIX, "nan": NAN})
    assert_refused(read_torch, path, reason)


def test_a_pickle_of_a_million_instructions_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    write.torch_zip(path, dict_of(("w", b"N" + b"q\x00" * 500_000)))
    assert_refused(read_torch, path, "250000 instructions")
    write.torch_zip(path, dict_of(("w", b"}" * 300_000)))
    assert_refused(read_torch, path, "250000 instructions", slack=40 << 20)
    write.torch_zip(path, dict_of(("w", text("w" * (5 << 20)))))
    assert_refused(read_torch, path, "4194304 bytes")


def test_one_storage_does_not_become_many_arrays(tmp_path):
    path = tmp_path / "weights.pth"
    many = [(f"w{i}", tensor(write.storage(count=1 << 20), size=(1 << 20,), stride=(1,))) for i in range(100)]
    write.torch_zip(path, dict_of(*many), {"0": bytes(4 << 20)})
    assert_refused(read_torch, path, "more than 4 times the file's size")


def test_one_list_does_not_become_many_dictionaries(tmp_path):
    path = tmp_path / "weights.pth"
    items = write.list_of(*(write.list_of(number(i), b"N") for i in range(1000)))
    again = (name("collections.OrderedDict") + b"h\x01\x85R") * 10_000
    write.torch_zip(path, tuple_of(items + b"q\x01", again))
    assert_refused(read_torch, path, "a tuple")


# Containers.


def damage(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def zip_of(**options):
    return lambda path: write.torch_zip(path, **{"value": dict_of(("w", tensor())), "storages": {"0": SIX}, **options})


def zip_bomb(path):
    zip_of(storages={"0": bytes(256 << 20)}, compression=zipfile.ZIP_DEFLATED)(path)


def zip_with_a_wrong_byte(path):
    zip_of()(path)
    damage(path, SIX, SIX[:-1] + b"\x00")


def zip_encrypted(path):
    zip_of()(path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def zip_with_lying_sizes(path):
    """The central directory claims 4 GB for every member."""
    zip_of()(path)
    head, *entries = path.read_bytes().split(b"PK\x01\x02")
    lying = [entry[:16] + b"\xf0\xff\xff\xff" * 2 + entry[24:] for entry in entries]
    path.write_bytes(b"PK\x01\x02".join([head, *lying]))


def zip_with_two_storages_of_one_name(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(more=[("archive/data/0", SIX)])(path)


def zip_of_many_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_001):
            archive.writestr(str(i), b"")


def another_archive(path):
    with open(path, "wb") as file:
        np.savez(file, w=np.zeros(3))


def legacy_of(**options):
    return lambda path: write.torch_legacy(
        path, **{"value": dict_of(("w", tensor())), "storages": {"0": (6, SIX)}, **options}
    )


def legacy_of_another_version(path):
    legacy_of()(path)
    damage(path, number(1001), number(1002))


def content(raw):
    return lambda path: path.write_bytes(raw)


def legacy_checkpoint(*pairs):
    return legacy_of(value=dict_of(*pairs))


STATE = dict_of(("w", tensor()))
TORCH_FILES = {
    "zip bomb": ("compressed", zip_bomb),
    "compressed without gain": (
        "compressed member",
        zip_of(compression=zipfile.ZIP_LZMA, more=[("archive/noise", NOISE)]),
    ),
    "two members of one name": ("two members of one name", zip_with_two_storages_of_one_name),
    "wrong byte in a storage": ("damaged or truncated member 'archive/data/0'", zip_with_a_wrong_byte),
    "encrypted": ("encrypted member", zip_encrypted),
    "members that claim 4 GB": ("compressed or overlapping", zip_with_lying_sizes),
    "many members": ("more than 20000 members", zip_of_many_members),
    "TorchScript": ("TorchScript", zip_of(more=[("archive/constants.pkl", b"")])),
    "TorchScript code": ("TorchScript", zip_of(more=[("archive/code/__torch__.py", b"")])),
    "two values": ("without the one", zip_of(more=[("other/data.pkl", b"N.")])),
    "big-endian": ("big-endian", lambda path: (zip_of()(path), repack(path, "archive/byteorder", b"big"))),
    "another archive": ("another kind", another_archive),
    "storage cut off": ("16 bytes where", zip_of(storages={"0": SIX[:16]})),
    "legacy: storage cut off": ("16 bytes where", legacy_of(storages={"0": (6, SIX[:16])})),
    "legacy: storage of 2**62": ("announced", legacy_of(storages={"0": (1 << 62, SIX)})),
    "legacy: storage of -6": ("announced", legacy_of(storages={"0": (-6, SIX)})),
    "legacy: no storages": ("list of storages", legacy_of(storages={})),
    "legacy: a storage twice": ("list of storages", legacy_of(keys=["0", "0"])),
    "legacy: keys of two types": ("list of storages", legacy_of(keys=["0", "1"])),
    "legacy: another version": ("unknown version", legacy_of_another_version),
    "NaN": ("2 of 6 values of 'w' NaN or infinite", legacy_of(storages={"0": (6, NAN)})),
    "a tensor": ("a tensor", legacy_of(value=tensor())),
    "nothing": ("among: nothing", legacy_of(value=b"}", storages={})),
    "two states": (
        "2 dictionaries of tensors among: 'a' (dict), 'b' (dict)",
        legacy_checkpoint(("a", STATE), ("b", STATE)),
    ),
    "a state two levels down": ("no dictionaries", legacy_checkpoint(("a", dict_of(("b", STATE))))),
    "name that is a path": ("'../w'", legacy_checkpoint(("../w", tensor()))),
    "name that is an absolute path": ("'/w'", legacy_checkpoint(("/w", tensor()))),
    "name with a line end": ("'w\\n'", legacy_checkpoint(("w\n", tensor()))),
    "name with a NUL": ("'w\\x00'", legacy_checkpoint(("w\0", tensor()))),
    "name with a backslash": ("'a\\\\w'", legacy_checkpoint(("a\\w", tensor()))),
    "name that is empty": ("''", legacy_checkpoint(("", tensor()))),
    "name that is a number": ("a name that is no text", legacy_of(value=b"}" + number(1) + tensor() + b"s")),
    "a pickle of Python's": ("magic number", content(pickle.dumps({"w": 1}))),
    "tar": ("a tar file", content(b"storages".ljust(257, b"\0") + b"ustar\0" + bytes(300))),
    "a web page": ("begins with b'<!DOCTYPE ht'", content(b"<!DOCTYPE html>\n<p>404</p>\n")),
    "zeros": ("begins with", content(bytes(1000))),
    "only a signature": ("BadZipFile", content(b"PK\x03\x04")),
}


def repack(path, member, raw):
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()} | {member: raw}
    with zipfile.ZipFile(path, "w") as new:
        for name_, raw_ in members.items():
            new.writestr(name_, raw_)


@pytest.mark.parametrize("case", TORCH_FILES)
def test_torch_files(tmp_path, case):
    path = tmp_path / "weights.pth"
    reason, write_it = TORCH_FILES[case]
    write_it(path)
    assert_refused(read_torch, path, reason)
