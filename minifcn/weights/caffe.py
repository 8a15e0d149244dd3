"""Caffe's .caffemodel: a network as a protocol buffer, of which the layers' names and blobs are read, by hand.

A message is a run of fields; a field is a tag (its number and how it is written), then the value: a number, or a length
and so many bytes, which may be a message again. Three messages stand inside each other here, network, layer and blob,
and no field tells how much memory to reserve.
"""

import math

import numpy as np

from ..errors import InputError
from .checks import check_finite, check_name, parsing, read_file

_KIND = "a .caffemodel file"
# Field numbers, from src/caffe/proto/caffe.proto.
_NET_V1_LAYERS, _NET_LAYERS = 2, 100
_NAME_AND_BLOBS = {_NET_V1_LAYERS: (4, 6), _NET_LAYERS: (1, 7)}
_V1_LAYER_V0 = 1
_BLOB_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLE_DATA = 5, 7, 8
_SHAPE_DIM = 1
# Wire types: how a value is written.
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MAX_FIELD = (1 << 29) - 1
_MAX_RANK = 32  # Caffe's
_MAX_BLOBS = 5_000  # a blob of one number takes 13 bytes in the file, and 600 in memory


def read_caffemodel(path, sha256=None):
    """Each layer's blobs (weights, then bias; float32, or float64 where saved so), as a list by the layer's name.
    Layers without blobs are left out.

    Layers may be old (V1) or new, shapes old (always four: num, channels, height, width) or new. The SHA-256 is
    compared with `sha256` (8 to 64 hex digits). Memory stays below four times the file's size and some 10 MB. Raises
    MissingFileError, or InputError naming the file for anything else than weights, V0 networks included.
    Source: caffe.proto of BVLC/caffe, https://protobuf.dev/programming-guides/encoding
    """
    content = read_file(path, _KIND, sha256)
    layers, count = {}, 0
    with parsing(path, _KIND):
        for field, wire_type, value in _fields(memoryview(content)):
            if field not in _NAME_AND_BLOBS:
                continue
            name, blobs = _read_layer(_message(wire_type, value), field)
            count += len(blobs)
            if not blobs:
                continue
            check_name(name)
            if name in layers:
                raise InputError(f"two layers named {name[:100]!r} with blobs")
            if count > _MAX_BLOBS:
                raise InputError(f"more than {_MAX_BLOBS} blobs")
            for i, blob in enumerate(blobs):
                check_finite(f"{name}[{i}]", blob)
            layers[name] = blobs
        if not layers:
            raise InputError("a network without blobs, or no network at all")
    return layers


def _read_layer(message, kind):
    """(name, blobs) of a layer of the field `kind` of the network."""
    name_field, blobs_field = _NAME_AND_BLOBS[kind]
    name, blobs = "", []
    for field, wire_type, value in _fields(message):
        if field == name_field:
            name = str(_message(wire_type, value), "utf-8")
        elif field == blobs_field:
            blobs.append(_read_blob(_message(wire_type, value)))
            if len(blobs) > _MAX_BLOBS:
                raise InputError(f"more than {_MAX_BLOBS} blobs")
        elif kind == _NET_V1_LAYERS and field == _V1_LAYER_V0:
            raise InputError("a V0 network; upgrade it with Caffe's upgrade_net_proto_binary")
    return name, blobs


def _read_blob(message):
    """A blob as an array."""
    legacy, dims = {}, []
    numbers = {_BLOB_DATA: bytearray(), _BLOB_DOUBLE_DATA: bytearray()}
    for field, wire_type, value in _fields(message):
        if field in _BLOB_LEGACY_SHAPE:
            legacy[field] = _signed(wire_type, value)
        elif field == _BLOB_SHAPE:
            _read_shape(_message(wire_type, value), dims)
        elif field in numbers:
            # Packed, or one by one; a writer may even mix them.
            if wire_type not in (_BYTES, _FOUR_BYTES if field == _BLOB_DATA else _EIGHT_BYTES):
                raise InputError(f"a blob whose numbers are of wire type {wire_type}")
            numbers[field] += value
    shape = [legacy.get(field, 0) for field in _BLOB_LEGACY_SHAPE] if legacy else dims
    if numbers[_BLOB_DATA] and numbers[_BLOB_DOUBLE_DATA]:
        raise InputError("a blob with float and double numbers")
    doubles = bool(numbers[_BLOB_DOUBLE_DATA])
    data = np.frombuffer(numbers[_BLOB_DOUBLE_DATA], "<f8") if doubles else np.frombuffer(numbers[_BLOB_DATA], "<f4")
    if min(shape, default=0) < 0 or math.prod(shape) != data.size or not data.size:
        raise InputError(f"a blob of {data.size} numbers and shape {shape}")
    return data.reshape(shape)


def _read_shape(message, dims):
    """Append the dims of a BlobShape, packed or one by one."""
    for field, wire_type, value in _fields(message):
        if field != _SHAPE_DIM:
            continue
        if wire_type == _VARINT:
            dims.append(_signed(wire_type, value))
        else:
            packed, at = _message(wire_type, value), 0
            while at < len(packed) and len(dims) <= _MAX_RANK:
                dim, at = _varint(packed, at)
                dims.append(_signed(_VARINT, dim))
        if len(dims) > _MAX_RANK:
            raise InputError(f"a blob of more than {_MAX_RANK} dimensions")


def _fields(message):
    """(field number, wire type, value) of every field: an int for a varint, otherwise a view of its bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire_type = tag >> 3, tag & 7
        if not 1 <= field <= _MAX_FIELD:
            raise InputError(f"a field numbered {field}")
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield field, wire_type, value
            continue
        if wire_type == _BYTES:
            length, at = _varint(message, at)
        elif wire_type in (_FOUR_BYTES, _EIGHT_BYTES):
            length = 4 if wire_type == _FOUR_BYTES else 8
        else:
            raise InputError(f"a field of wire type {wire_type}")
        if length > len(message) - at:
            raise InputError(f"a field of {length} bytes where {len(message) - at} are left")
        yield field, wire_type, message[at : at + length]
        at += length


def _varint(data, at):
    """(number, position behind it) of a number in 7-bit groups, the lowest first; all bytes but the last have the
    highest bit set."""
    number = 0
    for i, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, at + i + 1
    raise InputError("a varint that is cut off or longer than 64 bits")


def _message(wire_type, value):
    if wire_type != _BYTES:
        raise InputError(f"a message or text of wire type {wire_type}")
    return value


def _signed(wire_type, value):
    """An int32 or int64: two's complement in 64 bits."""
    if wire_type != _VARINT:
        raise InputError(f"a dimension of wire type {wire_type}")
    return value - (1 << 64) if value >= 1 << 63 else value
