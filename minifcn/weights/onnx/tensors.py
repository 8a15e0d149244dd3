"""The arrays in an ONNX file and in files beside it. The package onnx parses the file; its memory is bounded beforehand."""

from math import prod

import numpy as np

from ...errors import InputError
from ..checks import from_bfloat16
from ..protobuf import fields

DTYPES = {"FLOAT": "<f4", "DOUBLE": "<f8", "FLOAT16": "<f2", "BFLOAT16": "<u2", "BOOL": "?"}
DTYPES |= {f"{kind}INT{8 * size}": f"<{kind or 'i'}{size}".lower() for kind in ("", "U") for size in (8, 4, 2, 1)}
_TYPED = {"FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "INT32": "int32_data"}
# Fields of onnx.proto: of a model, of a graph; float_, raw_ and double_data.
_GRAPH, _INITIALIZER, _NUMBERS = 7, 5, (4, 9, 10)
_MAX_STRUCTURE, _MAX_FIELDS = 8 << 20, 1 << 18  # bytes of a file that are no numbers; fields of a message


def check_structure(content):
    """Refuse a file with too many bytes outside arrays: any two of them may be a message, which takes a hundred in memory."""
    structure = len(content)
    for number, value in _counted(content):
        if number == _GRAPH:
            for inner, tensor in _counted(value):
                if inner == _INITIALIZER:
                    structure -= sum(len(x) for key, x in _counted(tensor) if key in _NUMBERS)
    if structure > _MAX_STRUCTURE:
        raise InputError(f"{structure} bytes beside the numbers of arrays; known: at most {_MAX_STRUCTURE}")


def _counted(message):
    """The fields of a message that hold bytes. Refuses a message of too many fields."""
    for count, (number, value) in enumerate(fields(message)):
        if count > _MAX_FIELDS:
            raise InputError(f"a message of more than {_MAX_FIELDS} fields")
        if not isinstance(value, int):
            yield number, value


class Tensors:
    """Makes arrays of a file's tensors, after counting their bytes."""

    def __init__(self, onnx, folder):
        self.kinds, self.external, self.folder = onnx.TensorProto.DataType, onnx.TensorProto.EXTERNAL, folder
        self.beside, self.taken = {}, 0  # the sizes of other files; how many bytes of them were read

    def array(self, tensor):
        """The array of a tensor; read-only if the file's bytes are used as they are."""
        name, dims = tensor.name, tuple(tensor.dims)
        kind = self.kinds.Name(tensor.data_type) if tensor.data_type in self.kinds.values() else tensor.data_type
        if kind not in DTYPES:
            raise InputError(f"{name!r} of type {kind}; known: {', '.join(DTYPES)}")
        dtype = np.dtype(DTYPES[kind])
        if any(n < 0 for n in dims) or len(dims) > 8:
            raise InputError(f"{name!r} of shape {dims}")
        if tensor.data_location == self.external:
            found = self._external(tensor, dtype, prod(dims))
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data  # a copy
            if len(raw) != prod(dims) * dtype.itemsize:
                raise InputError(f"{name!r} of shape {dims} in {len(raw)} bytes")
            found = np.frombuffer(raw, dtype)
        else:
            numbers = getattr(tensor, _TYPED.get(kind, "int32_data"))
            if len(numbers) != prod(dims):
                raise InputError(f"{name!r} of shape {dims} with {len(numbers)} numbers")
            bits = np.uint16 if kind in ("FLOAT16", "BFLOAT16") else dtype  # whose bits stand in integers
            # One by one: a list would take 8 times as much.
            found = np.fromiter(numbers, bits, len(numbers)).view(dtype)
        found = found.reshape(dims)
        return from_bfloat16(found) if kind == "BFLOAT16" else found

    def _external(self, tensor, dtype, count):
        """Numbers in a separate file, in the folder of the network's file."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = (self.folder / entries.get("location", "")).resolve()
        if not where.is_relative_to(self.folder.resolve()):
            raise InputError(f"{tensor.name!r} in a file outside the folder, {entries['location']!r}")
        if not where.is_file():
            raise InputError(f"{tensor.name!r} in a file that is not there, {entries.get('location')!r}")
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", count * dtype.itemsize))
        if offset < 0 or length != count * dtype.itemsize or offset + length > where.stat().st_size:
            raise InputError(f"{tensor.name!r} of {length} bytes from {offset} on, which {where.name!r} does not hold")
        self.beside[where] = where.stat().st_size
        self.taken += length
        if self.taken > sum(self.beside.values()):
            raise InputError(f"{tensor.name!r} out of {where.name!r}, of which more was read than it holds")
        return np.fromfile(where, dtype, count, offset=offset)
