"""What every reader of weight files checks: the file and its checksum, the names, the values."""

import hashlib
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError
from ..files import START, stand_in

# As torch hub names its files: vgg16-397923af.pth holds the first eight or more hex digits of its own SHA-256.
_IN_A_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")


def existing(path: str | Path, kind: str) -> Path:
    """The Path of a regular file of some `kind` ("a .caffemodel file"). Raises MissingFileError, or InputError for a folder."""
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: expected {kind}, got no such file")
    if not path.is_file():
        raise InputError(f"{path}: expected {kind}, got {'a folder' if path.is_dir() else 'no regular file'}")
    return path


def require_ending(path: str | Path, *endings: str) -> None:
    """Raise InputError unless a file to be written has one of these endings, by which readers tell what it is."""
    if Path(path).suffix.lower() not in endings:
        raise InputError(f"{path}: expected a file ending in {' or '.join(endings)}")


def parsed(path, kind, parse, sha256=None):
    """What `parse` makes of the bytes of an existing file.

    Their SHA-256 is compared with `sha256` (its first 8 to 64 hex digits) and with the digits in a name like
    vgg16-397923af.pth. Raises MissingFileError, or InputError in one line that names the file, for another checksum and
    for whatever `parse` raises.
    """
    path = existing(path, kind)
    with parsing(path, kind):
        content = path.read_bytes()
        check_start(content[:START])
    _check_sha256(path, content, sha256)
    with parsing(path, kind):
        return parse(content)


def check_start(start):
    """Refuse what stands in for a file (`files.stand_in`).   start: its first START bytes"""
    if reason := stand_in(start):
        raise InputError(reason)


def _check_sha256(path, content, sha256):
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{8,64}", sha256)):
        raise InputError(f"{path}: expected sha256 as 8 to 64 hex digits, got {sha256!r}")
    in_name = _IN_A_NAME.search(path.name)
    expected = {"": sha256, " as in the file's name (rename the file if that is no checksum)": in_name and in_name[1]}
    found = hashlib.sha256(content).hexdigest() if any(expected.values()) else ""
    for source, digits in expected.items():
        if digits and not found.startswith(digits.lower()):
            raise InputError(f"{path}: expected SHA-256 {digits.lower()}{source}, got {found[: len(digits)]}")


@contextmanager
def parsing(path, kind):
    """A context for parsing untrusted bytes, and nothing else: whatever damaged content raises becomes one InputError
    in one line, "file: expected kind, got reason"."""
    try:
        yield
    except Exception as error:  # NumPy, zipfile, struct, json and safetensors raise some of every kind
        # A library may repeat the file's own bytes, control characters and all.
        reason = "".join(c if c.isprintable() else " " for c in str(error)) or "a damaged file"
        if not isinstance(error, ValueError):
            reason = f"a damaged file ({type(error).__name__}: {reason})"
        raise InputError(f"{path}: expected {kind}, got {reason:.300}") from error


def check_name(name):
    """Refuse a name that is no text, empty, or would be a path if it ever became a file's name."""
    if not isinstance(name, str):
        raise InputError(f"a name of type {type(name).__name__}")
    if not name or "\\" in name or not name.isprintable() or name.startswith("/") or ".." in name.split("/"):
        raise InputError(f"the name {name[:100]!r}, which is empty, a path or unprintable")


def check_arrays(arrays):
    """Check all names, and refuse weights with NaN or infinite values: one would spread to every output."""
    for name, array in arrays.items():
        check_name(name)
        if array.dtype.kind in "fc":
            bad = array.size - np.count_nonzero(np.isfinite(array))
            if bad:
                raise InputError(f"{bad} of {array.size} values of {name!r} NaN or infinite")


def from_bfloat16(bits):
    """float32 from the 16 bits (uint16) of bfloat16, exactly: bfloat16 is the upper half of a float32."""
    wide = bits.astype(np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
