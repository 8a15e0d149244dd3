"""Plain tar files: an index of their members, and unpacking. Names by which a hostile archive could do harm are refused.

Nothing here asks `tarfile` to write: it only reads the headers, and every file is then copied by its offset and size.
"""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ..errors import InputError, one_line

MAX_DEPTH = 50  # folders within folders, so that nobody runs out of path or stack
_CHUNK = 1 << 20


def index(path: str | Path) -> dict[str, tuple]:
    """The files in a plain tar: name -> (offset, size), in the archive's order. Folders are left out.

    Raises InputError, naming the archive and the member, for anything but files and folders that stay in the folder they
    are unpacked into (no "..", absolute path, link, device, FIFO or sparse file), for names that come twice or clash, and
    for an archive that is compressed, broken or cut off.
    """
    files, taken, folders = {}, set(), set()
    end = os.path.getsize(path)
    for member in _members(path):
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or len(name.parts) > MAX_DEPTH:
            raise _refused(path, member, "does not stay in the folder, or lies too deep in it")
        if any(c in "\\:" or ord(c) < 32 for c in member.name):  # on Windows other folders, drives and streams
            raise _refused(path, member, "has a character that no file name should have")
        if member.isdir():
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not name.parts:
            raise _refused(path, member, f"is no plain file or folder (type {member.type.decode('latin-1')!r})")
        if member.offset_data + member.size > end:
            raise _refused(path, member, f"is cut off by the archive's end at byte {end:,}")
        # Which of two would win depends on who reads it, and on the file system.
        same = PurePosixPath(str(name).casefold())
        if same in taken or same in folders or not taken.isdisjoint(same.parents):
            raise _refused(path, member, "and another member would be one file, or one lies in the other")
        taken.add(same)
        folders.update(same.parents)
        files[str(name)] = (member.offset_data, member.size)
    return files


def unpack(path: str | Path, folder: str | Path, progress: Callable = lambda done, total: None) -> list[Path]:
    """Unpack a plain tar into `folder`; everything or, if anything is refused or fails, nothing. -> what was made there.

    progress: called with (bytes written, bytes in all) as it goes on. Raises InputError as `index` does, and for something already
    in `folder` that would be overwritten or written into.
    """
    files, folder = index(path), Path(folder)
    done, total = 0, sum(size for _, size in files.values())
    made = [folder / top for top in dict.fromkeys(name.split("/")[0] for name in files)]
    for top in made:
        if os.path.lexists(top):
            raise InputError(f"{top}: exists already; nothing was unpacked from {path}")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unpacking-", dir=folder) as scratch, open(path, "rb") as archive:
        for name, (offset, size) in files.items():
            target = Path(scratch, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            archive.seek(offset)
            with open(target, "xb") as file:
                while size and (chunk := archive.read(min(size, _CHUNK))):
                    file.write(chunk)
                    size -= len(chunk)
                    done += len(chunk)
                    progress(done, total)
            if size:
                raise InputError(f"{path}: cut off while it was read")
        for top in made:
            os.rename(Path(scratch, top.name), top)
    return made


def _members(path):
    """Yield the headers of an archive. Raises InputError unless it is a plain tar that is sound up to its end mark."""
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.size < 0:  # the next header would be this one again, for ever
                    raise InputError(f"the member {member.name!r} has a size of {member.size}")
                yield member
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a broken header for the end
                raise InputError(f"no header and no end mark at byte {archive.offset:,}; broken or cut off")
    except Exception as error:  # tarfile lets out whatever a broken header makes it stumble over
        raise InputError(f"{path}: not a readable tar, uncompressed and whole: {one_line(error)[:200]}") from error


def _refused(path, member, why):
    return InputError(f"{path}: refused: the member {member.name!r:.100} {why}")
