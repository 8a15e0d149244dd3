"""Images larger than memory: read by windows from a file's tiles, strips or rows, and masks written a few rows at a time.

A TIFF is stored in tiles, or in strips of rows, each compressed by itself. Those that a window touches are put into a small TIFF,
which Pillow decodes like any other: every kind of pixel and compression that Pillow knows works, and no file is read whole. PPM and
BMP store plain rows.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import BmpImagePlugin, Image, PpmImagePlugin, TiffImagePlugin

from ..errors import InputError, one_line
from ..files import atomic_write
from . import bands, images
from .files import File, open_binary
from .labels import voc_palette

# TIFF 6.0 (Adobe, 1992): the numbers of the tags. The tags without a name in DECODING: photometric interpretation, fill order,
# predictor, colour map, extra samples, sample format, JPEG tables and three of YCbCr.
WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, PLANES = 256, 257, 258, 259, 277, 284
STRIPS, STRIP_LENGTH, STRIP_BYTES = 273, 278, 279
TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES = 322, 323, 324, 325
DECODING = (BITS, COMPRESSION, 262, 266, SAMPLES, PLANES, 317, 320, 338, 339, 347, 529, 530, 532)
RAW, OLD_JPEG, SEPARATE = 1, 6, 2
SLACK = 1 << 16  # bytes that a compressed tile or strip may take beyond twice the bytes of its pixels
PLUGINS: dict[bytes, Any] = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0"), TiffImagePlugin.TiffImageFile),
    **dict.fromkeys((b"P6", b"P5"), PpmImagePlugin.PpmImageFile),
    b"BM": BmpImagePlugin.BmpImageFile,
}
BYTES = {"L": 1, "RGB": 3, "BGR": 3}  # of a pixel in plain rows


class LargeImage:
    """An image in a file: image[rows, columns], with two slices, reads (h, w, 3) uint8 RGB. shape: as that of an array.

    The region read last stays in memory, so that windows side by side read a strip once. It consists of whole tiles, or of whole
    strips as wide as the image.
    """

    def __init__(self, parts: Any, name: object, white: int | None = None, table: np.ndarray | None = None):
        self.shape, self.name = (*parts.size, 3), name
        self._parts, self._white, self._table = parts, white, table
        self._place: tuple = (0, 0, 0, 0)
        self._pixels = np.empty((0, 0, 3), np.uint8)

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (
            part.indices(length) for part, length in zip(window, self.shape[:2], strict=True)
        )
        first, last, start, end = self._place
        if not (first <= top and bottom <= last and start <= left and right <= end):
            self._pixels = np.empty((0, 0, 3), np.uint8)  # so that two regions are never in memory at once
            self._pixels, (first, start) = self._read(top, bottom, left, right)
            self._place = (first, first + len(self._pixels), start, start + self._pixels.shape[1])
        found = self._pixels[top - first : bottom - first, left - start : right - start]
        return found if self._table is None else self._table[found]

    def _read(self, top, bottom, left, right):
        """The pixels of all tiles or strips that a window touches, and the row and column where they begin."""
        height, width = self._parts.grid
        down, across = (top // height, -(-bottom // height)), (left // width, -(-right // width))
        try:
            rows, columns = (side * (end - start) for side, (start, end) in ((height, down), (width, across)))
            if rows * columns > images.MAX_PIXELS:
                raise InputError(
                    f"{columns}x{rows} pixels have to be read for {right - left}x{bottom - top}; take a smaller --tile, or save it as a TIFF of tiles"
                )
            pixels = images.upright(self._parts.picture(*down, *across), exif=False, white=self._white)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        except Exception as error:  # a broken file can make Pillow raise anything
            place = f"rows {top}..{bottom}, columns {left}..{right}"
            raise InputError(f"{self.name}: not readable at {place}: {one_line(error)}") from error
        first, start = down[0] * height, across[0] * width
        return pixels[: self.shape[0] - first, : self.shape[1] - start], (first, start)

    def counts(self) -> np.ndarray:
        """The histogram of all channels, (256,) integers, from one pass over the image, a row of tiles or strips at a time."""
        (height, width), counts = self._parts.grid, np.zeros(256, np.int64)
        width *= max(1, images.MAX_PIXELS // (height * width))
        for top, left in product(range(0, self.shape[0], height), range(0, self.shape[1], width)):
            counts += np.bincount(self[top : top + height, left : left + width].reshape(-1), minlength=256)
        return counts

    def through(self, table: np.ndarray) -> "LargeImage":
        """The same picture with its values replaced by a table (256,) uint8."""
        return LargeImage(self._parts, self.name, self._white, table)


class _Tiff:
    """The tiles or strips of an opened TIFF."""

    def __init__(self, file: BinaryIO, image: Any):
        tags, self._file = image.tag_v2, file
        self.size = tags[LENGTH], tags[WIDTH]  # as stored; image.size is already turned
        tiled = TILES in tags
        height, width = (tags[TILE_LENGTH], tags[TILE_WIDTH]) if tiled else (tags.get(STRIP_LENGTH, 0), self.size[1])
        height = height if tiled or 0 < height < self.size[0] else self.size[0]
        starts, lengths = (
            np.atleast_1d(tags[tag]).astype(np.int64)
            for tag in ((TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES))
        )
        planes = tags.get(SAMPLES, 1) if tags.get(PLANES) == SEPARATE else 1
        self.grid = height, width
        grid = planes, *(-(-length // max(side, 1)) for length, side in zip(self.size, self.grid, strict=True))
        row = width * int(np.sum(tags.get(BITS, 1))) / planes / 8  # bytes of a row of a tile or strip, uncompressed
        most, end = 2 * height * row + SLACK, file.seek(0, os.SEEK_END)
        # Checked before anything is read: the numbers come from the file, and may be anything.
        if (
            tags.get(COMPRESSION) == OLD_JPEG
            or not len(starts) == len(lengths) == math.prod(grid)
            or min(height - 1, width - 1, starts.min(), lengths.min()) < 0
            or (starts > end - lengths).any()
            or lengths.max() > most
        ):
            raise InputError("a TIFF whose parts are not where its size says; save it again, in tiles")
        if tags.get(COMPRESSION, RAW) == RAW and not tiled and height > 1:  # each row can be read by itself
            rows = np.minimum(height, self.size[0] - height * np.arange(len(starts) // planes))
            if lengths[0] < rows[0] * row:
                raise InputError("a TIFF that holds less than its size says; save it again, in tiles")
            row = int(lengths[0] // rows[0])
            starts = np.concatenate(
                [s + row * np.arange(n) for s, n in zip(starts, np.tile(rows, planes), strict=True)]
            )
            lengths, self.grid, grid = np.full(len(starts), row), (1, width), (planes, self.size[0], 1)
        self._starts, self._lengths, self._tiled = starts.reshape(grid), lengths.reshape(grid), tiled
        self._tags = {tag: tags[tag] for tag in DECODING if tag in tags}, tags.tagtype, tags.prefix

    def picture(self, top, bottom, left, right):
        """The tiles or strips in these rows and columns of the grid, as an opened Pillow image."""
        here = np.s_[:, top:bottom, left:right]
        starts, lengths = self._starts[here].reshape(-1), self._lengths[here].reshape(-1)
        parts = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            self._file.seek(start)
            parts.append(self._file.read(length))
        given, types, prefix = self._tags
        table = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix)
        height, width = self.grid
        rows = (bottom - top) * height  # the last tile is whole, the last strip ends with the picture
        own = {WIDTH: (right - left) * width, LENGTH: rows if self._tiled else min(rows, self.size[0] - top * height)}
        sizes = {TILE_WIDTH: width, TILE_LENGTH: height} if self._tiled else {STRIP_LENGTH: height}
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        for tag, value in {**given, **own, **sizes}.items():
            table.tagtype[tag] = types.get(tag, 4)
            table[tag] = value
        for tag, values in zip(
            (TILES, TILE_BYTES) if self._tiled else (STRIPS, STRIP_BYTES), (offsets, lengths), strict=True
        ):
            table.tagtype[tag] = 4
            table[tag] = tuple(values.tolist())
        file = BytesIO()
        table.save(file)
        if self._tiled:  # Pillow moves the offsets of strips past the table, but not those of tiles
            table[TILES] = tuple((offsets + file.tell()).tolist())
            file = BytesIO()
            table.save(file)
        file.write(b"".join(parts))
        file.seek(0)
        return TiffImagePlugin.TiffImageFile(file)


class _Rows:
    """The rows of an opened picture that is stored as plain rows."""

    def __init__(self, file: BinaryIO, image: Any):
        self.size, self._file, self._mode = image.size[::-1], file, image.mode
        (codec, _, self._start, arguments), *others = image.tile
        rawmode, stride, order = (arguments, 0, 1) if isinstance(arguments, str) else arguments
        if others or codec != "raw" or rawmode not in BYTES:
            raise InputError("larger than is read at once, and not in plain rows of 8 bits a channel")
        self._rawmode, self._order, self.grid = rawmode, order, (1, self.size[1])
        self._stride = stride or self.size[1] * BYTES[rawmode]

    def picture(self, top, bottom, *_):
        first = top if self._order == 1 else self.size[0] - bottom
        self._file.seek(self._start + first * self._stride)
        rows = self._file.read((bottom - top) * self._stride)
        size = self.size[1], bottom - top
        return Image.frombytes(self._mode, size, rows, "raw", self._rawmode, self._stride, self._order)


def _white_of(parts):
    """`images.white_of` a whole 16-bit grey image, read a row of tiles or strips at a time, and no further than it takes."""
    (height, width), (rows, columns) = parts.grid, parts.size
    across = -(-columns // width)
    step = max(1, images.MAX_PIXELS // (height * width))
    white = images.WHITE_OF_12_BITS
    for row, column in product(range(-(-rows // height)), range(0, across, step)):
        grey = np.asarray(parts.picture(row, row + 1, column, min(column + step, across)))
        white = images.white_of(grey[: rows - row * height, : columns - column * width])
        if white > images.WHITE_OF_12_BITS:
            break
    return white


def open_large(source: File, exif: bool = True, more_than: int | None = None) -> LargeImage | None:
    """An image of more than `more_than` pixels, MAX_PIXELS unless given, to be read by windows; None for a smaller one, and for a file
    that is not a TIFF, PPM or BMP, or is a TIFF of bands, which `images.read_image` refuses above MAX_PIXELS.

    source: as for `images.read_image`; the file stays open. exif: whether to turn the image as its EXIF data say. Raises InputError,
    naming the file, if it cannot be read by windows: it is compressed in a single strip, or is stored turned.
    """
    file, limit = open_binary(source), images.MAX_PIXELS if more_than is None else more_than
    start = file.read(4)
    plugin = (
        None
        if bands.tags_of(file)
        else next((plugin for magic, plugin in PLUGINS.items() if start.startswith(magic)), None)
    )
    try:
        file.seek(0)
        image = plugin and plugin(file)
        if image is None or math.prod(image.size) <= limit:
            file.close()
            return None
        images.check_kind(image, file)
        if exif and images.orientation(image):
            raise InputError(
                "larger than is read at once, and stored turned; save it upright, or predict with --no-exif"
            )
        parts = (_Tiff if plugin is TiffImagePlugin.TiffImageFile else _Rows)(file, image)
        if math.prod(parts.grid) > images.MAX_PIXELS:
            raise InputError("larger than is read at once, and compressed in one piece; save it as a TIFF of tiles")
        return LargeImage(parts, file.name, _white_of(parts) if image.mode[0] == "I" else None)
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error
    except Exception as error:
        raise InputError(f"{file.name}: not a readable image: {images.reason_of(error, file)}") from error


def write_mask_rows(
    path: str | Path, size: tuple[int, int], bands: Iterable[np.ndarray], palette: np.ndarray | None = None,
    note: Callable[[], str] | None = None,
) -> None:  # fmt: skip
    """Write labels as `images.write_mask` does, from bands (h, W) uint8 of rows, with one band in memory at a time.

    size: (height, width) of the whole mask. note: called after the last band. Source of the format: https://www.w3.org/TR/png-3/
    """

    def chunk(kind, content):
        file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))

    with atomic_write(path) as file:
        file.write(images.PNG)
        chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, 3, 0, 0, 0))  # 8 bits, of a palette
        chunk(b"PLTE", (voc_palette() if palette is None else palette).tobytes())
        packer = zlib.compressobj()
        for band in bands:
            rows = np.pad(band, ((0, 0), (1, 0)))  # a 0 before each row: stored without a filter
            chunk(b"IDAT", packer.compress(rows.tobytes()))
        chunk(b"IDAT", packer.flush())
        if note:
            chunk(b"tEXt", images.NOTE + note().encode("latin-1"))
        chunk(b"IEND", b"")
