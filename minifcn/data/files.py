"""The files of a data set, read by name: from a folder, or straight from a plain tar."""

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, MissingFileError
from ..files import GIT_LFS, stand_in
from . import tars

File = str | Path | BinaryIO  # a file by its path, or open


def open_binary(source):
    """Open a source: a path, or an already open binary file with a `name` for messages. -> a binary file with a name"""
    if hasattr(source, "read"):
        return source
    try:
        return open(source, "rb")
    except FileNotFoundError:
        raise MissingFileError(f"{source}: no such file") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error


def read_lines(source):
    """The lines of a text file that are not blank, stripped. Raises InputError, naming it, for what is no UTF-8 text."""
    with open_binary(source) as file:
        content = file.read()
        if content.startswith(GIT_LFS):
            raise InputError(f"{file.name}: {stand_in(content)}")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file.name}: expected text in UTF-8, got byte {error.object[error.start]:#x}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def files_below(folder, above=()):
    """The names, relative to a folder, of the files in it and in the folders below, in order; hidden ones (.ipynb_checkpoints,
    macOS's ._ files) are skipped. Links are followed, but not back to a folder that they are in. No names for what is no folder.
    """
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from (f"{entry.name}/{name}" for name in files_below(entry.path, (*above, real)))
        elif entry.is_file():
            yield entry.name


def files_at(path):
    """The FolderFiles or TarFiles at a path. Raises MissingFileError, or InputError for a file that is no plain tar."""
    path = Path(path)
    if path.is_dir():
        return FolderFiles(path)
    if path.is_file():
        return TarFiles(path, path, tars.index(path))
    raise MissingFileError(f"{path}: no such folder or tar file")


class FolderFiles:
    """Files in a folder. Names are relative to it, with "/" between their parts; "" is the folder itself."""

    def __init__(self, path):
        self.path = Path(path)

    def is_file(self, name):
        return os.path.isfile(self.path / name)  # unlike Path.is_file, it also answers for a name too long to be one

    def size(self, name):
        """The bytes of a file."""
        return os.path.getsize(self.path / name)

    def is_folder(self, name):
        return (self.path / name).is_dir()

    def children(self, name):
        """The names of what lies directly in a folder and is not hidden, sorted; none if there is no such folder."""
        return sorted(n for n in os.listdir(self.path / name) if n[0] != ".") if self.is_folder(name) else []

    def subfolder(self, name):
        return FolderFiles(self.path / name)

    def open(self, name):
        """A binary file whose name is its path."""
        return open_binary(self.path / name)


class TarFiles:
    """Files in a plain tar, with the methods of FolderFiles. index: {name: (offset, size)}, read and checked once.

    Any number of threads may read at once: each `open` reads through a file of its own.
    """

    def __init__(self, archive, path, index):
        self.archive, self.path, self._index = archive, path, index

    def is_file(self, name):
        return name in self._index

    def size(self, name):
        return self._index[name][1]

    def is_folder(self, name):
        return not name or any(file.startswith(f"{name}/") for file in self._index)

    def children(self, name):
        return sorted({file.partition("/")[0] for file in self.subfolder(name)._index if file[0] != "."})

    def subfolder(self, name):
        start = f"{name}/" if name else ""
        below = {file.removeprefix(start): place for file, place in self._index.items() if file.startswith(start)}
        return TarFiles(self.archive, self.path / name, below)

    def open(self, name):
        """The file's content, as a BytesIO with a name."""
        offset, size = self._index[name]
        with open(self.archive, "rb") as archive:
            archive.seek(offset)
            content = archive.read(size)
        if len(content) < size:
            raise InputError(f"{self.path / name}: expected {size:,} bytes, got {len(content):,}; has the tar changed?")
        file = BytesIO(content)
        file.name = self.path / name
        return file
