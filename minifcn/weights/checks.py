"""What every reader of weight files checks: the file and its checksum, the names, the values."""

import hashlib
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError

# All that NumPy, zipfile, struct and json raise for damaged content. RecursionError and NotImplementedError are RuntimeErrors.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, EOFError, RuntimeError)
_DAMAGE += (MemoryError, zipfile.BadZipFile, zlib.error, struct.error)
_LONGEST_REASON = 300
# As torch hub names its files: vgg16-397923af.pth holds the first eight or more hex digits of its own SHA-256.
_IN_A_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")
_DIGITS = re.compile(r"[0-9a-fA-F]{8,64}")


def existing(path, kind):
    """The Path of a regular file of some `kind` ("a .caffemodel file"). Raises MissingFileError, or InputError for a folder."""
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: expected {kind}, got no such file")
    if not path.is_file():
        raise InputError(f"{path}: expected {kind}, got {'a folder' if path.is_dir() else 'no regular file'}")
    return path


def read_file(path, kind, sha256=None):
    """The bytes of an existing file. Raises InputError for one that is empty, unreadable, or has another checksum."""
    path = existing(path, kind)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected {kind}, got a file that cannot be read ({error.strerror})") from error
    check_sha256(path, content, sha256)
    if not content:
        raise InputError(f"{path}: expected {kind}, got an empty file")
    return content


def check_sha256(path, content, sha256=None):
    """Compare the SHA-256 of a file's content with `sha256` (its first 8 to 64 hex digits) and with the digits in the
    file's name, if it has any. Raises InputError if either differs, or if `sha256` is no such text."""
    if sha256 is not None and not (isinstance(sha256, str) and _DIGITS.fullmatch(sha256)):
        raise InputError(f"{path}: expected sha256 as 8 to 64 hex digits, got {sha256!r}")
    in_name = _IN_A_NAME.search(path.name)
    expected = {"": sha256, " as in the file's name (rename the file if that is no checksum)": in_name and in_name[1]}
    found = hashlib.sha256(content).hexdigest() if any(expected.values()) else ""
    for source, digits in expected.items():
        if digits and not found.startswith(digits.lower()):
            raise InputError(f"{path}: expected SHA-256 {digits.lower()}{source}, got {found[: len(digits)]}")


@contextmanager
def parsing(path, kind, also=()):
    """Around the parsing of bytes from elsewhere, and nothing else: whatever damaged content raises (and the exceptions
    `also`) becomes one InputError in one line, "file: expected kind, got reason"."""
    try:
        yield
    except (*_DAMAGE, *also) as error:
        # A library may repeat the file's own bytes, control characters and all.
        reason = "".join(c if c.isprintable() else " " for c in str(error)) or "a damaged file"
        if not isinstance(error, ValueError):
            reason = f"a damaged file ({type(error).__name__}: {reason})"
        if len(reason) > _LONGEST_REASON:
            reason = reason[:_LONGEST_REASON] + "..."
        raise InputError(f"{path}: expected {kind}, got {reason}") from error


def check_name(name):
    """Refuse a name that is no text, empty, or would be a path if it ever became a file's name."""
    if not isinstance(name, str):
        raise InputError(f"a name of type {type(name).__name__}")
    if not name or "\\" in name or not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"the name {name[:100]!r}, which is empty, a path or unprintable")


def check_finite(name, array):
    """Refuse weights with NaN or infinite values: one would spread to every output."""
    if array.dtype.kind in "fc":
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise InputError(f"{bad} of {array.size} values of {name!r} NaN or infinite")


def check_arrays(arrays):
    """Check all names and values."""
    for name, array in arrays.items():
        check_name(name)
        check_finite(name, array)


def from_bfloat16(bits):
    """float32 from the 16 bits (uint16) of bfloat16, exactly: bfloat16 is the upper half of a float32."""
    wide = bits.astype(np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
