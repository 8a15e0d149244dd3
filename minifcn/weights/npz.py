"""The library's own file format: a NumPy archive of named arrays and one JSON text, the metadata."""

import hashlib
import json
import math
import zipfile

import numpy as np

from ..errors import InputError
from ..files import atomic_write
from .checks import check_arrays, existing, parsing

FORMAT = "minifcn 1"
_META = "meta.json"
_KIND = "weights or a checkpoint of minifcn (.npz)"


def write_archive(path, arrays, meta):
    """Write arrays (by name), meta (JSON-ready) and the arrays' SHA-256 to `path`, whole or not at all."""
    text = np.frombuffer(json.dumps({"format": FORMAT, "sha256": _digest(arrays), **meta}).encode("utf-8"), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, **{_META: text}, **arrays)


def read_archive(path):
    """(arrays by name, meta). Raises MissingFileError, or InputError naming the file if it is damaged or of another kind."""
    path = existing(path, _KIND)
    with parsing(path, _KIND):
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        check_arrays(arrays)
        meta = json.loads(arrays.pop(_META).tobytes().decode("utf-8"))
        known = meta["format"]
    if known != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT!r}, got {known!r}")
    if meta.pop("sha256", None) not in (None, _digest(arrays)):
        raise InputError(f"{path}: expected the arrays of its SHA-256, got others")
    return arrays, meta


def _digest(arrays):
    """The SHA-256 of all arrays with their names, shapes and types, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(memoryview(array.reshape(-1)).cast("B"))
    return digest.hexdigest()


def _check_members(archive, size):
    """Refuse what would make NumPy reserve more memory than the file has bytes, and what np.savez does not write."""
    infos = archive.infolist()
    if len({info.filename.removesuffix(".npy") for info in infos}) < len(infos):
        raise InputError("an archive with two members of one name")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(info.file_size for info in infos) > size:
        raise InputError("an archive with compressed or overlapping members")
    for info in infos:
        with archive.open(info) as member:
            if np.lib.format.read_magic(member) != (1, 0):
                raise InputError(f"a member {info.filename!r} of an unknown version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            expected, found = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
            if expected != found:
                name = info.filename
                raise InputError(f"a member {name!r} of {found} bytes where its shape {shape} needs {expected}")


def section(arrays, name):
    """The arrays whose names begin with "name/", without that beginning."""
    return {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(name + "/")}
