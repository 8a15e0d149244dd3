"""Caffe's .caffemodel: a network as a protocol buffer, whose layers' names and blobs are read by hand.

Three messages are nested here, network, layer and blob, and no field tells how much memory to reserve. A number where a
message is expected, or the reverse, is a TypeError.
"""

import math

import numpy as np

from ..errors import InputError
from .checks import check_arrays, check_name, parsed
from .protobuf import fields, varint

# Field numbers, from src/caffe/proto/caffe.proto.
_NAME_AND_BLOBS = {2: (4, 6), 100: (1, 7)}  # of a layer, by the network's field that holds it: V1's layers, layer
_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1
_MAX_RANK = 32  # Caffe's
_MAX_BLOBS = 5_000  # a blob of one number takes 13 bytes in the file, and 600 in memory


def read_caffemodel(path, sha256=None):
    """The blobs of all layers as {"layer[i]": array}: i is 0 for weights and 1 for a bias; float32, or float64 where
    saved so.

    Layers may be old (V1) or new, shapes old (always four: num, channels, height, width) or new; V0 networks are refused.
    Memory stays below four times the file's size and some 10 MB. sha256, and what is raised: see `checks.parsed`.
    Source: caffe.proto of BVLC/caffe, https://protobuf.dev/programming-guides/encoding
    """
    return parsed(path, "a .caffemodel file", _read_network, sha256)


def has_layer(path, name):
    """Whether a .caffemodel has a layer of that name, with blobs or without. Raises as `read_caffemodel`."""
    return parsed(path, "a .caffemodel file", lambda content: any(name == found for found, _ in _layers(content)))


def _layers(content):
    """(name, the messages of its blobs) of each layer."""
    count = 0
    for field, layer in fields(memoryview(content)):
        if field not in _NAME_AND_BLOBS:
            continue
        name, blobs, (name_field, blobs_field) = "", [], _NAME_AND_BLOBS[field]
        for layer_field, value in fields(layer):
            if layer_field == name_field:
                name = str(value, "utf-8")
            elif layer_field == blobs_field:
                blobs.append(value)
                count += 1
                if count > _MAX_BLOBS:
                    raise InputError(f"more than {_MAX_BLOBS} blobs")
        yield name, blobs


def _read_network(content):
    arrays = {}
    for name, blobs in _layers(content):
        if blobs:
            check_name(name)
        if f"{name}[0]" in arrays:
            raise InputError(f"two layers named {name[:100]!r} with blobs")
        arrays |= {f"{name}[{i}]": _read_blob(blob) for i, blob in enumerate(blobs)}
    if not arrays:
        raise InputError("no blobs, or a V0 network (Caffe's upgrade_net_proto_binary makes a new one of it)")
    check_arrays(arrays)
    return arrays


def _read_blob(message):
    """A blob as an array."""
    legacy, dims = {}, []
    numbers = {_DATA: bytearray(), _DOUBLE_DATA: bytearray()}
    for field, value in fields(message):
        if field in _LEGACY_SHAPE:
            legacy[field] = _signed(value)
        elif field == _SHAPE:
            for dim in _dims(value):
                dims.append(dim)
                if len(dims) > _MAX_RANK:
                    raise InputError(f"a blob of more than {_MAX_RANK} dimensions")
        elif field in numbers:
            numbers[field] += value  # packed, or one by one; a writer may even mix them
    shape = [legacy.get(field, 0) for field in _LEGACY_SHAPE] if legacy else dims
    if numbers[_DATA] and numbers[_DOUBLE_DATA]:
        raise InputError("a blob with float and double numbers")
    doubles = numbers[_DOUBLE_DATA]
    data = np.frombuffer(doubles, "<f8") if doubles else np.frombuffer(numbers[_DATA], "<f4")
    if min(shape, default=0) < 0 or math.prod(shape) != data.size or not data.size:
        raise InputError(f"a blob of {data.size} numbers and shape {shape}")
    return data.reshape(shape)


def _dims(message):
    """The dims of a BlobShape, packed or one by one."""
    for field, value in fields(message):
        if field == _DIM and isinstance(value, int):
            yield _signed(value)
        elif field == _DIM:
            at = 0
            while at < len(value):
                dim, at = varint(value, at)
                yield _signed(dim)


def _signed(number):
    """An int32 or int64: two's complement in 64 bits."""
    return number - (1 << 64) if number >= 1 << 63 else number
