"""Files that are written whole or not at all: a crash, or a full disk, leaves the old one as it was."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path):
    """Yield a binary file to write to; it takes the place of `path` when the context ends without an error.

    The content is on the disk before the name points to it, and the name before this returns, so that a power cut
    leaves the old file or the new one. Raises OSError, naming the file, if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with naming(path):
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


@contextmanager
def naming(path):
    """Let errors of the system say in one line which file or folder could not be written: writing to a full disk names none."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error


def sync(path):
    """Have what was written to a file, or the names in a folder, on the disk before going on."""
    if os.name == "nt" and Path(path).is_dir():  # Windows opens no folders, and keeps their names safe itself
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_leftovers(folder):
    """Remove what `written_whole` was in the middle of when its process was killed; nobody may be writing there now."""
    for leftover in Path(folder).glob(".*.part"):
        with naming(leftover):
            leftover.unlink(missing_ok=True)
