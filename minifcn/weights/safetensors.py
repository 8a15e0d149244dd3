"""The .safetensors format: a JSON header of names, types and shapes, then the numbers."""

import json
import struct

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import InputError
from ..files import atomic_write
from .checks import check_arrays, from_bfloat16, parsed

# 40,000 tensors; the format allows 100 MB, which would take gigabytes as Python objects.
_MAX_HEADER = 4 << 20
_METADATA = "__metadata__"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"}
_DTYPES |= {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (8, 4, 2, 1)}


def read_safetensors(path, sha256=None):
    """(arrays by name, metadata: text by name) of a .safetensors file. Arrays keep the file's types, but for bfloat16,
    which becomes float32.

    Memory stays below five times the file's size and some 40 MB. sha256, and what is raised: see `checks.parsed`.
    Source: https://github.com/huggingface/safetensors#format
    """
    return parsed(path, "a .safetensors file", _read, sha256)


def _read(content):
    (size,) = struct.unpack_from("<Q", content)
    if size > _MAX_HEADER:
        raise InputError(f"a header of {size} bytes, more than {_MAX_HEADER}")
    tensors = dict(safetensors.deserialize(content))
    # The library keeps the last of two entries with one name, and does not return the metadata.
    header = json.loads(content[8 : 8 + size], object_pairs_hook=_without_repeats)
    metadata = header.pop(_METADATA, None) or {}
    if not tensors:
        raise InputError("a file without tensors")
    arrays = {name: _array(name, tensors.pop(name)) for name in header}
    check_arrays(arrays)
    return arrays, metadata


def _without_repeats(pairs):
    made = {}
    for name, value in pairs:
        if name in made:
            raise InputError(f"the name {name[:100]!r} twice")
        made[name] = value
    return made


def _array(name, tensor):
    """One tensor of the library's ({"dtype", "shape", "data"}) as an array, on the library's copy of its bytes."""
    dtype = tensor["dtype"]
    if dtype not in _DTYPES:
        raise InputError(f"{name!r} of type {dtype}, which NumPy does not know")
    array = np.frombuffer(tensor["data"], _DTYPES[dtype]).reshape(tensor["shape"])
    return from_bfloat16(array) if dtype == "BF16" else array


def write_safetensors(path, arrays, metadata=None):
    """Write arrays (by name) and metadata (text by name) to `path`, whole or not at all.

    Raises InputError, naming the file, for a name, a type, a value or metadata that `read_safetensors` would refuse.
    """
    try:
        content = safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()}, metadata)
        _read(content)
    except (ValueError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: expected arrays and texts that the format can hold, got {error}") from error
    with atomic_write(path) as file:
        file.write(content)
