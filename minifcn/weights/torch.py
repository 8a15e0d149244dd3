"""State dictionaries saved by `torch.save`, read without PyTorch: its zip files (since 1.6) and its older format."""

import io
import math
import struct
import warnings
import zipfile
import zlib

import numpy as np

from ..errors import InputError
from . import torch_pickle
from .checks import check_arrays, from_bfloat16, parsed

_ZIP, _ZIP_ENTRY, _PICKLE = b"PK\x03\x04", b"PK\x01\x02", b"\x80"  # how each begins
_ENCRYPTED = 1
_LOCAL_HEADER = 30  # bytes before the name, whose length stands at 26 and that of the extra field at 28
_MAX_MEMBERS = 20_000
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
# A shared storage is copied for each tensor that uses it: tied weights make two copies, no network makes more.
_MAX_GROWTH = 4


def read_torch(path, sha256=None):
    """The arrays, by name, of a state dictionary in a .pth or .pt file: contiguous copies in the file's
    types, bfloat16 as float32.

    A checkpoint that holds one such dictionary among other things ({"state_dict": ..., "epoch": 3}) is searched for it.
    Nothing in the file is executed: see `torch_pickle`. Memory stays below six times the file's size and some 50 MB.
    sha256, and what is raised: see `checks.parsed`. Source: torch/serialization.py, `_save` and `_legacy_save`.
    """
    return parsed(path, "a state dictionary saved by torch.save", _read, sha256)


def _read(content):
    with warnings.catch_warnings(action="ignore"):  # pickletools': odd escapes in texts that are refused anyway
        value, storages = (_read_zip if content.startswith(_ZIP) else _read_legacy)(content)
    state = _find_state(value)
    itemsize = {"bfloat16": 4}
    size = sum(
        math.prod(t.size) * itemsize.get(t.storage.dtype, _stored_type(t.storage).itemsize) for t in state.values()
    )
    if size > _MAX_GROWTH * len(content):
        raise InputError(f"tensors that take more than {_MAX_GROWTH} times the file's size")
    arrays = {name: _array(name, tensor, storages) for name, tensor in state.items()}
    check_arrays(arrays)
    return arrays


def _find_state(value):
    """The dictionary of tensors that `value` is, or the one that it holds."""
    if not isinstance(value, dict):
        raise InputError(f"a {type(value).__name__.lower()}")
    if _is_state(value):
        return value
    # One dictionary may be held under many keys; it is checked once.
    states = {key for key, held in {id(held): held for held in value.values()}.items() if _is_state(held)}
    inner = [key for key, held in value.items() if id(held) in states]
    if len(inner) == 1:
        return value[inner[0]]
    for state in {id(held): held for held in (value, *value.values()) if isinstance(held, dict)}.values():
        other = {key: held for key, held in state.items() if not isinstance(held, torch_pickle.Tensor)}
        if 0 < len(other) < len(state):
            key, held = next(iter(other.items()))
            raise InputError(
                f"the entry {str(key)[:60]!r} of type {type(held).__name__} among {len(state) - len(other)} tensors; in PyTorch, "
                "save the tensors alone: {k: v for k, v in state.items() if torch.is_tensor(v)}"
            )
    found = ", ".join(f"{str(key)[:40]!r} ({type(held).__name__.lower()})" for key, held in list(value.items())[:8])
    raise InputError(f"{len(inner) or 'no'} dictionaries of tensors among: {found or 'nothing'}")


def _is_state(value):
    return isinstance(value, dict) and value and all(isinstance(held, torch_pickle.Tensor) for held in value.values())


def _stored_type(storage):
    """The type as which NumPy reads a storage's numbers: uint16 for bfloat16, which it does not know."""
    return np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype).newbyteorder("<")


def _array(name, tensor, storages):
    """A contiguous copy of a tensor's numbers."""
    storage, offset, size, stride = tensor
    stored_as, raw = _stored_type(storage), storages[storage.key]
    if len(raw) != storage.count * stored_as.itemsize:
        raise InputError(f"{len(raw)} bytes where {name!r} needs a storage of {storage.count} {storage.dtype}")
    # NumPy checks this as well, but in numbers of 64 bits, which a hostile stride makes overflow.
    count, last = math.prod(size), offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count > storage.count or (count and last >= storage.count):
        raise InputError(f"{name!r} of size {size}, which does not fit its storage of {storage.count}")
    # A stride of an axis of one element is never taken, and may be any number.
    steps = [s * stored_as.itemsize if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
    view = np.ndarray(size, stored_as, raw, offset * stored_as.itemsize, steps)
    return from_bfloat16(view) if storage.dtype == "bfloat16" else view.astype(storage.dtype, order="C")


def _read_zip(content):
    """(value, storages by key) of a zip file without compression: <name>/data.pkl is the value, <name>/data/<key> a
    storage."""
    # zipfile makes an object of some 700 bytes for every entry it finds, before anyone could stop it.
    if content.count(_ZIP_ENTRY) > _MAX_MEMBERS:
        raise InputError(f"an archive of more than {_MAX_MEMBERS} members")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) < len(infos):
        raise InputError("an archive with two members of one name")
    if sum(info.file_size for info in infos) > len(content):
        raise InputError("an archive with compressed or overlapping members")
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise InputError("an archive of another kind, without the one <name>/data.pkl")
    root = roots[0]
    if root + "byteorder" in members and _member(content, members[root + "byteorder"]) != b"little":
        raise InputError("numbers in big-endian byte order; save them on a little-endian machine")
    value, _, announced = torch_pickle.load(_member(content, members[root + "data.pkl"]))
    return value, {key: _member(content, members[f"{root}data/{key}"]) for key in announced}


def _member(content, info):
    """The bytes of a stored member, as a view of the file's: nothing is unpacked, so nothing can grow."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        raise InputError(f"a compressed or encrypted member {info.filename[:100]!r}, which torch.save does not write")
    name_length, extra_length = struct.unpack_from("<HH", content, info.header_offset + 26)
    start = info.header_offset + _LOCAL_HEADER + name_length + extra_length
    view = memoryview(content)[start : start + info.file_size]
    if len(view) != info.file_size or zlib.crc32(view) != info.CRC:
        raise InputError(f"a damaged or truncated member {info.filename[:100]!r}")
    return view


def _read_legacy(content):
    """(value, storages by key) of a file before PyTorch 1.6: pickles of magic number, version, system, value and
    storage keys; then the storages, each as its count (int64) and its numbers, little-endian."""
    if not content.startswith(_PICKLE):
        raise InputError(f"a file that begins with {content[:12]!r}")
    parts, at, announced = [], 0, {}
    for _ in range(5):
        part, at, storages = torch_pickle.load(content, at)
        parts.append(part)
        announced |= storages
    magic_number, version, _system, value, keys = parts
    if magic_number != _MAGIC_NUMBER or version != _PROTOCOL_VERSION:
        raise InputError("pickles without PyTorch's magic number and version")
    texts = isinstance(keys, list) and all(type(key) is str for key in keys)  # nested tuples could be compared for days
    if not texts or sorted(keys) != sorted(announced):
        raise InputError("a list of storages that is not the list of those in use")
    storages = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", content, at)
        if count != announced[key].count:
            raise InputError(f"a storage of {count} where {announced[key].count} were announced")
        start, at = at + 8, at + 8 + count * _stored_type(announced[key]).itemsize
        storages[key] = memoryview(content)[start:at]
    return value, storages
