"""The library's own file format: a NumPy archive of named arrays plus one JSON text. Nothing in it is ever executed."""

import hashlib
import json
import math
import zipfile
from pathlib import Path

import numpy as np

from ..card import settings_of
from ..errors import InputError, MissingFileError
from ..files import written_whole
from .checks import check_finite, one_line

FORMAT = "minifcn 1"
_META = "meta.json"


def write_archive(path, arrays, meta):
    """Write arrays (by name) and meta (JSON-ready) to `path`, whole or not at all: a crash leaves the old file as it
    was.

    The meta data also holds the arrays' SHA-256, which `read_archive` compares.
    """
    text = np.frombuffer(json.dumps({"format": FORMAT, "sha256": _digest(arrays), **meta}).encode("utf-8"), np.uint8)
    with written_whole(path) as file:
        np.savez(file, **{_META: text}, **arrays)


def read_archive(path):
    """(arrays by name, meta). Raises FileNotFoundError, or ValueError for a file that is damaged or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected weights or a checkpoint of minifcn (.npz)")
    with one_line(path, "weights or a checkpoint of minifcn (.npz)"):
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        for name in arrays:
            check_finite(name, arrays[name])
        meta = json.loads(arrays.pop(_META).tobytes().decode("utf-8"))
        known = meta["format"]
    if known != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT!r}, got {known!r}")
    if meta.pop("sha256", None) not in (None, _digest(arrays)):
        raise InputError(f"{path}: expected the arrays that its SHA-256 was taken of, got others")
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
                raise InputError(
                    f"a member {info.filename!r} of {found} bytes where its shape {shape} needs {expected}"
                )


def save(path, model, **meta):
    """Write a model's weights, with its card beside them, and `meta` (JSON-ready)."""
    write_archive(
        path, {f"weights/{name}": a for name, a in model.state_dict().items()}, {**model.card.describe(), **meta}
    )


def load(path, model):
    """Read weights into a model. Raises InputError, naming the file, if they belong to another network; returns the
    meta data."""
    arrays, meta = read_archive(path)
    require_same_network(path, meta, model)
    try:
        model.load_state_dict(section(arrays, "weights"))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return meta


def require_same_network(path, meta, model):
    """Raise InputError if a file's meta data says that its weights belong to another network; seeds may differ."""
    if "network" not in meta:
        return
    theirs, ours = settings_of(meta["network"], path), (model.card.builder, model.card.options)
    (their_builder, theirs), (our_builder, ours) = theirs, ours
    theirs, ours = {"builder": their_builder, **theirs}, {"builder": our_builder, **ours}
    differ = [key for key in ours | theirs if key != "seed" and theirs.get(key) != ours.get(key)]
    if differ:
        told = ", ".join(f"{key} {theirs.get(key)!r} (expected {ours.get(key)!r})" for key in differ)
        raise InputError(f"{path}: weights of another network: {told}")


def section(arrays, name):
    """The arrays whose names begin with "name/", without that beginning."""
    return {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(name + "/")}
