"""TIFFs of other bands than grey or red, green and blue, such as a satellite's with near infrared, or a microscope's of 2 or 5 channels.

Pillow reads their tags, tifffile their pixels. TIFF 6.0 (Adobe, 1992) has the tags.
"""

import zlib
from math import prod
from typing import Any, BinaryIO

import numpy as np
from PIL import TiffImagePlugin

from ..errors import InputError

WIDTH, LENGTH, BITS, PHOTOMETRIC, SAMPLES, EXTRA, FORMAT = 256, 257, 258, 262, 277, 338, 339
STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of a TIFF; the last two of a BigTIFF
MOST = 256  # bands
RAW, DEFLATE, ALONE = 1, (8, 32946), (1, 8, 32773, 32946)  # compressions; ALONE: those that tifffile decodes by itself
UNSPECIFIED, GREY, RGB = 0, 1, 2
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point"}


class Bands:
    """An opened TIFF of bands. It has what the readers ask of an opened Pillow image: size (width, height) as stored, mode, tag_v2 and so on.

    count, bits: the number of bands, and the bits of each. Raises InputError for pixels that are not of 8 or 16 bits, unsigned, for more
    than MOST bands, and where tifffile is not installed.
    """

    format, info = "TIFF", {}

    def __init__(self, file: BinaryIO, tags: Any, pages: int):
        self._file, self.tag_v2, self.n_frames = file, tags, pages
        self.size, self.count = (tags[WIDTH], tags[LENGTH]), tags[SAMPLES]
        kinds = {(b, _FORMATS.get(f, "unknown")) for b in tags.get(BITS, (1,)) for f in tags.get(FORMAT, (1,))}
        if self.count > MOST or kinds not in ({(8, "unsigned")}, {(16, "unsigned")}):
            found = " and ".join(f"{bits} bits {kind}" for bits, kind in sorted(kinds))
            raise InputError(
                f"expected at most {MOST} bands, of 8 or 16 bits unsigned, got {self.count} of {found}; save it so"
            )
        ((self.bits, _),) = kinds
        self.mode = f"{self.count} bands"
        try:
            import tifffile
        except ImportError:
            raise InputError(
                f"has {self.count} bands, and tifffile, which reads such files, is not installed; run pip install 'minifcn[bands]'"
            ) from None
        self._tifffile = tifffile

    def getbands(self) -> tuple:
        return tuple(map(str, range(self.count)))

    def getexif(self) -> Any:
        return self.tag_v2

    def pixels(self) -> np.ndarray:
        """(H, W, count) uint8 or uint16, as stored. Raises InputError for a file that does not hold what its tags say."""
        end, (width, height) = self._file.seek(0, 2), self.size
        self._file.seek(0)
        with self._tifffile.TiffFile(self._file, name="image.tif") as file:
            page = file.pages[0]
            starts, lengths = np.array(page.dataoffsets, float), np.array(page.databytecounts, float)
            planes, depth, *_, chunky = page.shaped
            if page.shaped != (planes, 1, height, width, chunky) or planes * chunky != self.count:
                raise InputError(f"expected {width}x{height} pixels of {self.count} bands, got {page.shaped}")
            whole = page.compression != RAW or lengths.sum() >= prod(page.shaped) * self.bits // 8
            there = 0 < lengths.size == starts.size and lengths.min() > 0 and (starts + lengths).max() <= end
            if not (there and whole):
                raise InputError("truncated: the file ends before its pixels do")
            if page.compression in DEFLATE:
                self._check_inflated(page)
            try:
                found = page.asarray(maxworkers=1).reshape(planes, height, width, chunky)
            except Exception as error:
                if page.compression in ALONE:
                    raise
                name = getattr(page.compression, "name", page.compression)
                raise InputError(
                    f"compressed by {name}, which tifffile does not read by itself; save it by deflate, or run pip install imagecodecs"
                ) from error
        return np.ascontiguousarray(found.transpose(1, 2, 0, 3).reshape(height, width, self.count))

    def _check_inflated(self, page):
        """Raise InputError for a strip or tile that inflates to more bytes than its pixels take: a thousand bytes may come of each."""
        most = prod(page.chunks) * self.bits // 8
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            self._file.seek(start)
            if len(zlib.decompressobj().decompress(self._file.read(length), most + 1)) > most:
                raise InputError("inflates to more than the pixels that its tags tell of; save it again")


def tags_of(file: BinaryIO) -> tuple[Any, int] | None:
    """The tags of a TIFF of bands, and the number of its pages; None for any other file, which is Pillow's.

    Bands are 2 or 4 without alpha, 3 of grey, and 5 or more. Four called RGB, the last one not explained, count as RGB with alpha.
    """
    try:
        file.seek(0)
        header = file.read(8)
        if not header.startswith(STARTS):
            return None
        header += file.read(8) if header[2:4] in (b"+\0", b"\0+") else b""
        directories = _directories(file, header)
        tags = next(directories)
        tags[WIDTH], tags[LENGTH]  # raises where they are missing
        extra, kind, count = tags.get(EXTRA, ()), tags.get(PHOTOMETRIC), tags.get(SAMPLES, 1)
        alpha = any(sample != UNSPECIFIED for sample in extra) or (kind == RGB and not extra)
        if kind not in (GREY, RGB) or count < 2 or (count == 3 and kind == RGB) or (count < 5 and alpha):
            return None
        return tags, 1 + sum(1 for _ in directories)
    except Exception:  # of any type, from a damaged file: Pillow says what is wrong
        return None
    finally:
        file.seek(0)


def _directories(file, header):
    """Yield the tags of each page of a TIFF with this header."""
    seen = {0}
    place = TiffImagePlugin.ImageFileDirectory_v2(header).next
    while place not in seen:
        seen.add(place)
        file.seek(place)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        tags.load(file)
        yield tags
        place = tags.next
