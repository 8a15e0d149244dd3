"""What every reader of other people's weight files checks: the file, the names, the values. A refusal is one line
that names the file."""

import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError
from .hashes import check_sha256

# All that NumPy, zipfile, struct and json raise for damaged content; RecursionError and NotImplementedError are RuntimeErrors.
DAMAGE = (
    *(
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        OSError,
        EOFError,
        RuntimeError,
        MemoryError,
    ),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_LONGEST_REASON = 300


def read_file(path, kind, sha256=None):
    """The bytes of a file of some `kind` ("a Caffe model", say), its checksum compared if there is one (see
    `check_sha256`).

    Raises FileNotFoundError if there is none, and ValueError for a folder, a device, or a file that is empty, closed to
    us, or another than its checksum's.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; expected {kind}")
    if not path.is_file():
        raise InputError(f"{path}: expected {kind}, got {'a folder' if path.is_dir() else 'something that is no file'}")
    try:
        check_sha256(path, sha256)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected {kind}, got a file that cannot be read ({error.strerror})") from error
    if not content:
        raise InputError(f"{path}: expected {kind}, got an empty file")
    return content


@contextmanager
def one_line(path, kind, also=()):
    """Turn whatever damaged content raises (and the exceptions `also`) into one InputError: "file: expected kind,
    got reason"."""
    try:
        yield
    except (*DAMAGE, *also) as error:
        # A library may repeat the file's own bytes, control characters and all.
        reason = "".join(c if c.isprintable() else " " for c in str(error)) or "a damaged file"
        if not isinstance(error, ValueError):
            reason = f"a damaged file ({type(error).__name__}: {reason})"
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON] + "..."
        raise InputError(f"{path}: expected {kind}, got {reason}") from error


def check_name(name):
    """Refuse a name that is no text, empty, or would lead elsewhere if it ever became a file's name."""
    if not isinstance(name, str):
        raise InputError(f"a name that is no text ({type(name).__name__})")
    if not name or "\\" in name or not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"the name {name[:100]!r}, which is empty, a path or unprintable")


def check_finite(name, array):
    """Refuse weights that are not numbers: one NaN would spread to every output."""
    if array.dtype.kind in "fc":
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise InputError(f"{bad} of {array.size} values of {name!r} NaN or infinite")


def from_bfloat16(bits):
    """float32 from the 16 bits (uint16) of bfloat16, exactly: bfloat16 is the upper half of a float32."""
    wide = bits.astype(np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
