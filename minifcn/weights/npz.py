"""The library's own file format: a NumPy archive of named arrays and one JSON text, the metadata. And Chainer's archives."""

import hashlib
import io
import json
import math
import zipfile

import numpy as np

from ..errors import InputError
from ..files import START, atomic_write
from .checks import check_arrays, check_start, existing, parsing

FORMAT = "minifcn 1"
_META = "meta.json"
_KIND = "weights or a checkpoint of minifcn (.npz)"
_CHAINER = "/W.npy"  # how Chainer calls a layer's weights
_MAX_BYTES = 768 << 20  # of Chainer's arrays, which may be compressed; VGG16's take 528 MiB


def write_archive(path, arrays, meta):
    """Write arrays (by name), meta (JSON-ready) and the arrays' SHA-256 to `path`, whole or not at all."""
    text = np.frombuffer(json.dumps({**meta, "format": FORMAT, "sha256": _digest(arrays)}).encode("utf-8"), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, **{_META: text}, **arrays)


def by_chainer(path):
    """Whether an .npz file is Chainer's and not ours, from the names in it alone. Raises as `read_archive`, also for any other's."""
    path = existing(path, _KIND)
    with parsing(path, _KIND), open(path, "rb") as file:
        check_start(file.read(START))
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if f"{_META}.npy" in names:
            return False
        if not any(name.endswith(_CHAINER) for name in names):
            raise InputError(
                f"arrays without a card ({', '.join(names[:3])}, … {len(names)} in all); in Python, put them into their network by "
                "load_state_dict and save it by weights.save"
            )
    return True


def read_archive(path):
    """(arrays by name, meta); meta is empty for an archive by Chainer, whose arrays are called conv1_1/W and conv1_1/b.

    Raises MissingFileError, or InputError naming the file if it is damaged or of another kind.
    """
    chainers, path = by_chainer(path), existing(path, _KIND)
    with parsing(path, _KIND), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not (stored or chainers) or sum(info.compress_size for info in infos) > path.stat().st_size:
            raise InputError("an archive with compressed or overlapping members")
        if not stored and sum(info.file_size for info in infos) > _MAX_BYTES:
            raise InputError(f"an archive of more than {_MAX_BYTES >> 20} MiB once it is unpacked")
        arrays = {info.filename.removesuffix(".npy"): _array(archive.read(info)) for info in infos}
        if len(arrays) < len(infos):
            raise InputError("an archive with two members of one name")
        check_arrays(arrays)
        if chainers:
            return arrays, {}
        meta = json.loads(arrays.pop(_META).tobytes())
        if meta["format"] != FORMAT:
            raise InputError(f"the format {meta['format']!r}, not {FORMAT!r}")
        if meta.pop("sha256", None) not in (None, _digest(arrays)):
            raise InputError("other arrays than those of its SHA-256")
    return arrays, meta


def _digest(arrays):
    """The SHA-256 of all arrays with their names, shapes and types, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(memoryview(array.reshape(-1)).cast("B"))
    return digest.hexdigest()


def _array(raw):
    """The array of an .npy file's bytes. NumPy's own reader would first reserve as much memory as the header says."""
    file = io.BytesIO(raw)
    if np.lib.format.read_magic(file) != (1, 0):
        raise InputError("a member of an unknown version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    numbers = np.frombuffer(raw, dtype, offset=file.tell())
    if math.prod(shape) != numbers.size:
        raise InputError(f"a member of {numbers.size} numbers and shape {shape}")
    return numbers.reshape(shape, order="F" if fortran_order else "C").copy(order="K")


def section(arrays, name):
    """The arrays whose names begin with "name/", without that beginning."""
    return {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(name + "/")}
