"""Weight files written byte by byte, so that a test can write what no honest program would; and how a reader is to refuse them."""

import faulthandler
import json
import struct
import sys
import tracemalloc
import zipfile

import pytest

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STOP = b"."
SLACK = 8 << 20
SECONDS = 60  # each takes milliseconds, and a careless reader more than a lifetime
SIX = struct.pack("<6f", 0, 1, 2, 3, 4, 5)


def assert_refused(read, path, reason, slack=SLACK):
    """One ValueError in one line, with the file and the reason, at once and with little memory taken on the way."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)  # a loop in C hears nothing else
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        faulthandler.cancel_dump_traceback_later()
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ") and reason in message
    assert message.isprintable() and len(message) < len(str(path)) + 500
    assert peak <= 4 * path.stat().st_size + slack, f"{peak} bytes for a file of {path.stat().st_size}"
    return message


# Pickles: each function gives the instructions that push one value.


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def list_of(*items):
    return b"](" + b"".join(items) + b"e"


def dict_of(*pairs):
    return b"}(" + b"".join(text(key) + value for key, value in pairs) + b"u"


def name(dotted):
    return b"c" + "\n".join(dotted.rsplit(".", 1)).encode() + b"\n"


def call(dotted, *arguments):
    return name(dotted) + tuple_of(*arguments) + b"R"


def storage(key="0", type_="torch.FloatStorage", count=6, more=b""):
    return tuple_of(text("storage"), name(type_), text(key), text("cpu"), number(count), more) + b"Q"


def tensor(stored=None, offset=0, size=(2, 3), stride=(3, 1), function="torch._utils._rebuild_tensor_v2"):
    stored = storage() if stored is None else stored
    where = (stored, number(offset), tuple_of(*map(number, size)), tuple_of(*map(number, stride)))
    return call(function, *where, b"\x89", call("collections.OrderedDict"))


def program(value):
    return b"\x80\x02" + value + STOP


# The two containers of torch.save.


def torch_zip(path, value, storages=None, more=(), compression=zipfile.ZIP_STORED):
    """`value`: the instructions that push it. `storages`: bytes by key. `more`: (name, content) of further members."""
    members = [("archive/data.pkl", program(value)), ("archive/byteorder", b"little"), *more]
    members += [(f"archive/data/{key}", raw) for key, raw in (storages or {}).items()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)


def torch_legacy(path, value, storages=None, keys=None):
    """`storages`: (count, bytes) by key. `keys`: the list of them, where it is to be another."""
    storages = storages or {}
    pickles = [number(MAGIC_NUMBER), number(1001), dict_of(("little_endian", b"\x88")), value]
    pickles.append(list_of(*map(text, storages if keys is None else keys)))
    raw = b"".join(struct.pack("<q", count) + numbers for count, numbers in storages.values())
    path.write_bytes(b"".join(map(program, pickles)) + raw)


def safetensors(header, numbers):
    """`header`: the JSON text, or what becomes it."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + numbers


# Protocol buffers: each function gives one field.


def varint(value):
    value &= (1 << 64) - 1
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def int_field(field, value):
    return varint(field << 3) + varint(value)


def bytes_field(field, *content):
    content = b"".join(content)
    return varint(field << 3 | 2) + varint(len(content)) + content


def numbers_one_by_one(field, form, values):
    wire_type = 5 if form == "<f" else 1
    return b"".join(varint(field << 3 | wire_type) + struct.pack(form, value) for value in values)


def numbers_packed(field, form, values):
    return bytes_field(field, *(struct.pack(form, value) for value in values))


def shape(*dims):
    return bytes_field(7, bytes_field(1, *map(varint, dims)))


def legacy_shape(*dims):
    return b"".join(int_field(1 + i, dim) for i, dim in enumerate(dims))


def layer(name, *blobs):
    return bytes_field(100, bytes_field(1, name.encode()), bytes_field(2, b"Type"), *(bytes_field(7, b) for b in blobs))


def v1_layer(name, *blobs):
    return bytes_field(2, *(bytes_field(6, b) for b in blobs), bytes_field(4, name.encode()), int_field(5, 4))
