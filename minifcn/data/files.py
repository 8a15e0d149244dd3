"""The files of a data set, read by name: from a folder, or straight from a plain tar."""

import os
from io import BytesIO
from pathlib import Path

from ..errors import InputError, MissingFileError
from . import tars


def opened(source):
    """A source is a path, or a pair (binary file, its name for messages). -> such a pair, to be closed by the caller."""
    if isinstance(source, tuple):
        return source
    try:
        return open(source, "rb"), str(source)
    except FileNotFoundError:
        raise MissingFileError(f"{source}: no such file") from None


def read_lines(source):
    """The lines of a text file that hold something, stripped. Raises InputError, naming it, for what is no UTF-8 text."""
    file, name = opened(source)
    with file:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: expected text in UTF-8, got byte {error.object[error.start]:#x}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def files_at(path):
    """The FolderFiles or TarFiles at a path. Raises FileNotFoundError, or ValueError for a file that is no plain tar."""
    path = Path(path)
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return TarFiles(path)
    raise MissingFileError(f"{path}: no such folder or tar file")


class FolderFiles:
    """Files under a folder. Names are relative to it, with "/" between their parts; "" is the folder itself."""

    def __init__(self, path):
        self.path = Path(path)

    def is_file(self, name):
        return os.path.isfile(self.path / name)  # unlike a Path's, it also answers for a name too long to be one

    def is_folder(self, name):
        return (self.path / name).is_dir()

    def children(self, name):
        """The names of what lies directly in a folder, sorted; none if there is no such folder."""
        folder = self.path / name
        return sorted(child.name for child in folder.iterdir()) if folder.is_dir() else []

    def open(self, name):
        """A binary file object."""
        return open(self.path / name, "rb")


class TarFiles:
    """Files in a plain tar, with the methods of FolderFiles. The archive's headers are read once, at construction, and checked
    as for unpacking. Any number of threads may read at once: each `open` reads through a file of its own."""

    def __init__(self, path):
        self.path = Path(path)
        self._files = tars.index(path)
        self._children = {"": set()}
        for name in self._files:
            while name:
                above, _, last = name.rpartition("/")
                if last in self._children.setdefault(above, set()):
                    break
                self._children[above].add(last)
                name = above

    def is_file(self, name):
        return name in self._files

    def is_folder(self, name):
        return name in self._children

    def children(self, name):
        return sorted(self._children.get(name, ()))

    def open(self, name):
        """The file's content, as a BytesIO."""
        offset, size = self._files[name]
        with open(self.path, "rb") as archive:
            archive.seek(offset)
            content = archive.read(size)
        if len(content) < size:
            raise InputError(f"{self.path / name}: expected {size:,} bytes, got {len(content):,}; has the tar changed?")
        return BytesIO(content)
