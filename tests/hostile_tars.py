"""Archives that a data set's reader must refuse: name -> (bytes of the tar, what the message must tell).

Each has sound members before and after the bad one where its kind allows, so that "nothing is written" means something.
"""

import gzip
import lzma
import tarfile

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LONG = "x" * 120 + "/"


def header(name, kind=tarfile.REGTYPE, size=0, link="", format=tarfile.GNU_FORMAT, size_field=None):
    """One member's header blocks. size_field: the twelve bytes to write for its size, whatever they say."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    made = info.tobuf(format, "utf-8", "surrogateescape")
    return with_checksum(made, {124: size_field}) if size_field else made


def with_checksum(made, changes):
    """The header with bytes changed at some places, and the sum that makes it look right."""
    block = bytearray(made[-BLOCK:])
    for place, content in changes.items():
        block[place : place + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return made[:-BLOCK] + bytes(block)


def file(name, content=b"content", **more):
    return header(name, size=len(content), **more) + content + bytes(-len(content) % BLOCK)


def pax(**records):
    """An extended header of the POSIX format with these records."""
    info = tarfile.TarInfo("pax")
    info.pax_headers = {key.replace("_", "."): value for key, value in records.items()}
    return info.tobuf(tarfile.PAX_FORMAT)[:-BLOCK]


GOOD = file("VOCdevkit/VOC2012/JPEGImages/a.jpg")
MORE = file("VOCdevkit/VOC2012/JPEGImages/b.jpg")


def around(*members):
    return GOOD + b"".join(members) + MORE + END


def signed(number):
    return (number % 256**12).to_bytes(12, "big")


SPARSE = with_checksum(
    header("sparse", tarfile.GNUTYPE_SPARSE, 0), {386: b"%011o\0%011o\0" % (0, 0), 483: b"77777777777\0"}
)

OUT = "does not stay in the folder"
CHARACTER = "character that no file name should have"
KIND = "no plain file or folder"
CLASH = "would be one file, or one lies in the other"
NOT_ONE = "not a readable tar"
GNU_SPARSE = {"GNU_sparse_major": "0", "GNU_sparse_minor": "1", "GNU_sparse_size": "9" * 15, "GNU_sparse_map": "0,1"}
HOSTILE = {
    "parent": (around(file("../evil")), OUT),
    "parent that comes back": (around(file("VOCdevkit/../VOCdevkit/VOC2012/evil")), OUT),
    "parent at the end": (around(file("VOCdevkit/..")), OUT),
    "parent folder": (around(header("../evil", tarfile.DIRTYPE)), OUT),
    "parent in a long name": (around(file(LONG + "../../evil")), OUT),
    "parent in a POSIX header": (around(pax(path="../evil"), file("good")), OUT),
    "parent in a global POSIX header": (
        around(tarfile.TarInfo.create_pax_global_header({"path": "../evil"}), file("good")),
        OUT,
    ),
    "absolute": (around(file("/tmp/evil")), OUT),
    "absolute folder": (around(header("/evil", tarfile.DIRTYPE)), OUT),
    "absolute in a POSIX header": (around(pax(path="/tmp/evil"), file("good")), OUT),
    "absolute in a long name": (around(file("/" + LONG + "evil")), OUT),
    "folders without end": (around(pax(path="a/" * 1500 + "evil"), file("good")), OUT),
    "parent of Windows": (around(file("..\\evil")), CHARACTER),
    "drive": (around(file("C:\\evil")), CHARACTER),
    "alternate stream": (around(file("a.jpg:evil")), CHARACTER),
    "terminal escape": (around(file("\x1b[2Jevil")), CHARACTER),
    "line break": (around(file("good\nminifcn: all is well")), CHARACTER),
    "zero byte": (around(pax(path="good\0/evil"), file("good")), CHARACTER),
    "file through a symbolic link": (around(header("l", tarfile.SYMTYPE, link="/tmp"), file("l/evil")), KIND),
    "file through a hard link": (around(header("l", tarfile.LNKTYPE, link="/tmp/victim"), file("l")), KIND),
    "character device": (around(header("null", tarfile.CHRTYPE)), KIND),
    "block device": (around(header("disk", tarfile.BLKTYPE)), KIND),
    "FIFO": (around(header("pipe", tarfile.FIFOTYPE)), KIND),
    "sparse file of 8 GB": (around(SPARSE), KIND),
    "sparse file in POSIX headers": (around(pax(**GNU_SPARSE), file("sparse")), KIND),
    "contiguous file": (around(file("c", kind=tarfile.CONTTYPE)), KIND),
    "unknown type": (around(file("z", kind=b"Z")), KIND),
    "file without a name": (around(file("./.")), KIND),
    "same name twice": (around(GOOD), CLASH),
    "same name in capitals": (around(file("vocdevkit/voc2012/jpegimages/A.JPG")), CLASH),
    "same name through dots": (around(file("./VOCdevkit//VOC2012/./JPEGImages/a.jpg")), CLASH),
    "file below a file": (around(file("VOCdevkit/VOC2012/JPEGImages/a.jpg/evil")), CLASH),
    "file above files": (around(file("VOCdevkit")), CLASH),
    "size beyond the end": (GOOD + header("evil", size=10**9) + END, "cut off"),
    "size a little beyond the end": (GOOD + header("evil", size=2000) + END, "cut off"),
    "size of 2**63": (GOOD + header("evil", size_field=b"\x80" + signed(2**63)[1:]) + END, ""),
    "negative size": (around(header("evil", size_field=signed(-BLOCK))), NOT_ONE),
    "negative size in a POSIX header": (around(pax(size="-1024"), file("evil")), NOT_ONE),
    "negative size of a long name": (around(header("l", tarfile.GNUTYPE_LONGNAME, size_field=signed(-BLOCK))), NOT_ONE),
    "long name of 8 EB": (
        around(header("l", tarfile.GNUTYPE_LONGNAME, size_field=b"\x80" + signed(2**63)[1:])),
        NOT_ONE,
    ),
    "POSIX header of 1 TB": (around(header("x", tarfile.XHDTYPE, size_field=b"\x80" + signed(2**40)[1:])), NOT_ONE),
    "endless long names": (GOOD + header("l", tarfile.GNUTYPE_LONGNAME, 0) * 3000 + MORE + END, NOT_ONE),
    "endless POSIX headers": (GOOD + pax(comment="x") * 3000 + MORE + END, NOT_ONE),
    "broken POSIX header": (
        around(header("x", tarfile.XHDTYPE, 30) + b"999999999999 path=../evil".ljust(BLOCK, b"\0")),
        "",
    ),
    "wrong checksum in the middle": (GOOD + MORE.replace(b"ustar", b"USTAR") + END, NOT_ONE),
    "garbage in the middle": (GOOD + b"garbage!" * 64 + MORE + END, NOT_ONE),
    "no end mark": (GOOD + MORE, "no end mark"),
    "cut in a file": ((GOOD + file("big", bytes(5000)))[:-3000], "cut off"),
    "cut in a header": ((GOOD + MORE)[:-700], ""),
    "gzip": (gzip.compress(GOOD + END), "uncompressed"),
    "xz": (lzma.compress(GOOD + END), "uncompressed"),
    "text": (b"<!DOCTYPE html><title>404</title>" * 40, NOT_ONE),
    "empty": (b"", NOT_ONE),
}
