"""Files that are written whole or not at all: a crash or a full disk leaves the old file. And placeholders found in place of files."""

import json
import os
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_write(path):
    """Yield a binary file to write to; it takes the place of `path` when the context ends without an error.

    The content is on the disk before the name points to it, and the name before this returns, so that a power cut
    leaves the old file or the new one. Raises OSError, naming the file, if it cannot be written.
    """
    path = Path(os.path.realpath(path))  # the file behind a link, not the link, is replaced
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write a text in UTF-8, whole or not at all, as `atomic_write`; bytes of a file's name that are no text are written as \\udce9."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


class WriteError(OSError):
    """A file that cannot be written, which the message names."""


@contextmanager
def writing(path):
    """A context for writing a file or folder: an OSError names it, which the system's own does not for a full disk; of contexts one in
    the other, the innermost."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


def real(path):
    """A path without links, whether it can be reached or not."""
    return Path(os.path.realpath(path))


def check_outputs(files, images):
    """Raise InputError where one of the files to write is one of the images, real paths, or would be written twice."""
    for file, count in Counter(files).items():
        if real(file) in images:
            raise InputError(
                f"{file}: is one of the images, and would be written over; choose another folder with --out"
            )
        if count > 1:
            raise InputError(f"{file}: would be written for two of the images; rename one, or choose another --out")


def json_text(values, **options):
    """JSON, with null for each NaN, which JSON lacks, in dicts and dicts of dicts."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return None if value != value else value

    return json.dumps(plain(values), allow_nan=False, **options)


WINDOWS = os.name == "nt"
GIT_LFS = b"version https://git-lfs.github.com/spec/"
START = 512  # bytes of a file that are enough for `stand_in`


def stand_in(start):
    """What is in place of a file after a failed checkout or download, and what to do about it; None for anything else.

    start: the file's first START bytes.
    """
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if not start:
        return "an empty file"
    if start.startswith(GIT_LFS):
        return "a Git LFS pointer in its place; fetch the file itself with: git lfs pull"
    if b"\0" in start:
        return None
    again = 'in its place; download the file itself, from GitHub by its link "raw", from Hugging Face by "download"'
    if re.match(rb"(?i)<(!doctype|!--|html|head|\?xml)", start):
        return f"a web page {again}"
    text = start.decode("utf-8", "replace")
    if re.match(r'[{\[]\s*["{\[\]}]', text) or (len(start) < 200 and re.fullmatch(r"[\x20-\x7e\r\n]+", text)):
        return f"the text {' '.join(text[:60].split())!r} {again}"
    return None


def make_folder(path):
    """Make a folder, and those above it, unless it is there. -> its Path. Raises OSError, naming it."""
    path = Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_empty(path):
    """Raise InputError unless this folder is absent or empty."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: expected an empty or absent folder to write to; nothing was written")


def sync(path):
    """Flush a file's content, or a folder's names, to the disk."""
    is_folder = Path(path).is_dir()
    if WINDOWS and is_folder:  # Windows opens no folders, and keeps their names safe itself
        return
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse it for folders
        if not is_folder:
            raise
    finally:
        os.close(descriptor)


def clear_leftovers(folder):
    """Remove the temporary files of killed processes; no process may be writing to the folder now."""
    for leftover in Path(folder).glob(".*.part"):
        if (
            re.fullmatch(r"\..+\.\d+\.part", leftover.name) and leftover.is_file()
        ):  # not a browser's unfinished download
            with writing(leftover):
                leftover.unlink(missing_ok=True)
