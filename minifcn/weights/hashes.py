"""A weight file's checksum, where the caller or the file's name tells one."""

import hashlib
import re
from pathlib import Path

from ..errors import InputError

# As torch hub names its files: vgg16-397923af.pth holds the first eight or more hex digits of its own SHA-256.
_IN_A_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth?$")
_DIGITS = re.compile(r"[0-9a-fA-F]{8,64}")
_CHUNK = 1 << 20


def check_sha256(path, sha256=None):
    """Compare a file's SHA-256 with `sha256` (its first 8 to 64 hex digits) and with the digits in the file's name, if
    it carries any.

    Raises InputError, naming the file, if either differs, or if `sha256` is not such a text.
    """
    path = Path(path)
    if sha256 is not None and not (isinstance(sha256, str) and _DIGITS.fullmatch(sha256)):
        raise InputError(f"{path}: expected sha256 as 8 to 64 hex digits, got {sha256!r}")
    in_name = _IN_A_NAME.search(path.name)
    expected = [("", sha256.lower())] if sha256 else []
    if in_name:
        expected.append((" as the file's name says (rename the file if that is no checksum)", in_name[1]))
    if not expected:
        return
    found = _sha256(path)
    for said_by, digits in expected:
        if not found.startswith(digits):
            raise InputError(f"{path}: expected SHA-256 {digits}{said_by}, got {found[: max(len(digits), 8)]}")


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
