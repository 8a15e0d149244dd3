"""Protocol buffers, read by hand.

A message is a run of fields; a field is a tag (its number and how it is written), then the value: a number, or a length
and so many bytes, which may be a message again. Source: https://protobuf.dev/programming-guides/encoding
"""

from ..errors import InputError

_VARINT, _BYTES = 0, 2  # wire types: how a value is written
_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def fields(message):
    """(field number, value) of every field: an int for a varint, otherwise a view of its bytes."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = varint(message, at)
            yield field, value
            continue
        if wire_type == _BYTES:
            length, at = varint(message, at)
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise InputError(f"a field of wire type {wire_type}")
        if length > len(message) - at:
            raise InputError(f"a field of {length} bytes where {len(message) - at} are left")
        yield field, message[at : at + length]
        at += length


def varint(data, at):
    """(number, position after it) of a number in 7-bit groups, the lowest first; all bytes but the last have the
    highest bit set."""
    number = 0
    for i, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80 and number < 1 << 64:
            return number, at + i + 1
    raise InputError("a varint that is cut off or longer than 64 bits")
