"""Plain tar files: where each file in one lies, and unpacking. What a hostile archive could do with its names is refused.

Nothing here asks `tarfile` to write: it only reads the headers, and every file is then copied by its offset and size.
"""

import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import InputError

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}
MAX_DEPTH = 50  # folders within folders, so that nobody runs out of path or stack
_CHUNK = 1 << 20


def index(path):
    """The files in a plain tar: name -> (offset, size), in the archive's order. Folders are left out.

    Raises InputError, naming the archive and the member, for anything but files and folders that stay in the folder they
    are unpacked into (no "..", absolute path, link, device, FIFO or sparse file), for names that come twice or clash, and
    for an archive that is compressed, broken or cut off.
    """
    files, seen = {}, {}
    end = os.path.getsize(path)
    for member in _members(path):
        name = _inside(path, member.name)
        if member.isdir():
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            kind = _KINDS.get(member.type, "a sparse file" if member.issparse() else f"of the type {member.type!r}")
            raise _refused(path, member.name, f"is {kind}; expected files and folders only")
        if not name:
            raise _refused(path, member.name, "is a file without a name")
        if (last := member.offset_data + member.size) > end:
            raise InputError(f"{path}: cut off at byte {end:,}; {_short(name)} ends at {last:,}")
        same = name.casefold()  # which of two would win depends on who reads it, and on the file system
        if same in seen:
            raise _refused(path, seen[same], f"and {_short(name)} would be one file")
        seen[same] = name
        files[name] = (member.offset_data, member.size)
    for name in files:
        parts = name.casefold().split("/")
        for depth in range(1, len(parts)):
            if (above := "/".join(parts[:depth])) in seen:
                raise _refused(path, seen[above], f"is a file, and {_short(name)} lies in it")
    return files


def unpack(path, folder, progress=None):
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
                for chunk in _chunks(archive, size):
                    file.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(done, total)
        for top in made:
            os.rename(Path(scratch, top.name), top)
    return made


def _chunks(archive, size):
    while size:
        chunk = archive.read(min(size, _CHUNK))
        if not chunk:
            raise InputError(f"{archive.name}: cut off while it was read")
        size -= len(chunk)
        yield chunk


def _members(path):
    """Yield the headers of an archive. Raises InputError unless it is a plain tar that is sound up to its end mark."""
    with open(path, "rb") as file:
        start = file.read(8)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic):
                raise InputError(f"{path}: compressed ({kind}); expected a plain .tar, decompress it first")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    if member.size < 0:  # the next header would be this one again, for ever
                        raise InputError(f"the member {_short(member.name)} has a size of {member.size}")
                    yield member
                file.seek(archive.offset)
                mark = file.read(tarfile.BLOCKSIZE)
        except RecursionError:
            raise InputError(f"{path}: not a readable tar: headers of headers without end") from None
        except Exception as error:  # tarfile lets out whatever a broken header makes it stumble over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path}: not a readable tar: {reason}") from error
    if mark != bytes(tarfile.BLOCKSIZE):  # tarfile itself takes a broken header for the end
        what = "cut off: no end mark" if len(mark) < tarfile.BLOCKSIZE else "broken: no header"
        raise InputError(f"{path}: {what} at byte {archive.offset:,}")


def _inside(path, name):
    """A member's name without "." and empty parts. Raises InputError if it leads out of a folder, on any system."""
    parts = name.split("/")
    if name.startswith("/"):
        raise _refused(path, name, "has an absolute path")
    if ".." in parts:
        raise _refused(path, name, "leads out of the folder")
    if any(c in "\\:" or ord(c) < 32 for c in name):  # on Windows these are other folders, drives and streams
        raise _refused(path, name, "has a character that no file name should have")
    parts = [part for part in parts if part not in ("", ".")]
    if len(parts) > MAX_DEPTH:
        raise _refused(path, name, f"lies {len(parts)} folders deep")
    return "/".join(parts)


def _refused(path, name, why):
    return InputError(f"{path}: refused: the member {_short(name)} {why}")


def _short(name):
    text = repr(name)
    return text if len(text) <= 100 else f"{text[:100]}…"
