"""The base of every data set: a sequence of samples, each an image and a mask with one id, and where their files lie."""

import logging
from collections.abc import Sequence
from copy import copy
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, overload
from unicodedata import normalize

import numpy as np

from ...errors import InputError, MissingFileError
from ...preprocessing import bands_in_words
from ..files import open_binary, read_lines
from ..images import kind_of, read_colours, read_image, read_mask
from ..labels import BLACK_AND_WHITE, VOID, check_labels, describe, match_colours, voc_palette
from .names import existing, find

log = logging.getLogger("minifcn.data")
SPLITS = ("train", "val", "test")
END = 2048  # bytes at either end of a mask by which copies of a data set are compared


class Sample(NamedTuple):
    """One labelled image: image (H, W, 3) uint8 RGB or (H, W, C) of bands, label (H, W) uint8 with 255 for void, and its id."""

    image: np.ndarray
    label: np.ndarray
    id: str

    @property
    def instances(self) -> np.ndarray | None:
        """None: only an `ObjectSample` has an instance map."""
        return None


class ObjectSample(NamedTuple):
    """A Sample with an instance map. instances: (H, W) uint16, the number of each pixel's object from 1, 0 for none, AMBIGUOUS
    where it is unknown which object it is. Numbers may be missing."""

    image: np.ndarray
    label: np.ndarray
    id: str
    instances: np.ndarray


class SegmentationDataset(Sequence):
    """Samples read on demand from files in one layout.

    A layout is a subclass that says where files lie. The reader uses this to refuse what is wrong, and the doctor to
    report it. Here: a folder of lists, one of images and one of masks; files are named by their ids.

    layout: its name. images, masks: (folder, endings of the file names, the usual one first).
    lists: what names the ids of a split, with {} for the split. hints: {split: what to do if its list is missing}.
    others: endings of files that also belong in the folders. palette: (256, 3) uint8, the colour of each label, so that
    palette[label] is a picture. coloured: masks are pictures in these colours; void: whether palette[255] is void in them.
    If not coloured, masks hold numbers; table: (256,) uint8, the label of each number; shown: whether the masks' own palettes
    should have the classes' colours. exif: whether images and masks are turned as their EXIF data say; False reads them as
    stored. objects: an id's mask is a folder or file of single objects. tells_objects: samples are ObjectSamples (`with_instances`).

    files: FolderFiles or TarFiles. split: a split's name, or a path ending in .txt to a list elsewhere. ids: use these
    instead. limit: only the first so many. Raises InputError, naming the file, for a missing list, image or mask
    (MissingFileError); for files that do not fit together (sizes, bands, labels, colours) when they are read.
    """

    layout = ""
    images: tuple = ("", "")
    masks: tuple = ("", "")
    others: tuple = ()
    lists, hints = "{}.txt", {}
    palette, coloured, void = voc_palette(), False, True
    table, shown = np.arange(256, dtype=np.uint8), True
    exif, objects, tells_objects = True, False, False
    _first: tuple | None = None  # (name, C) of the image that was looked at first

    def __init__(self, files: Any, split: str, classes: tuple, ids: list | None = None, limit: int | None = None):
        self.files, self.split, self.classes = files, str(split), classes
        self.ids = (self.read_split(self.split) if ids is None else [normalize("NFC", id) for id in ids])[:limit]
        if not self.ids and ids is None:
            where = split if self.split.endswith(".txt") else self.folder / self.lists.format(split)
            raise InputError(f"{where}: expected images for this split, found none")
        for id in self.ids:
            if id.startswith("/") or ".." in id.split("/"):
                raise InputError(f"{self.folder}: expected ids of files in this folder, got {id!r} in {self.split!r}")
            pair = ("image", self.image_name(id), self.files.is_file), ("mask", self.mask_name(id), self._is_mask)
            for what, name, there in pair:
                if not there(name):
                    raise MissingFileError(f"{self.folder / name}: no {what} for id {id!r} of split {self.split!r}")

    def _is_mask(self, name):
        return self.files.is_file(name) or (self.objects and self.files.is_folder(name))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def things(self) -> tuple[int, ...]:
        """The classes that can have instances: all but the first, which is the background."""
        return tuple(range(1, self.num_classes))

    @property
    def channels(self) -> int:
        """Of the images, going by the first: the number of a TIFF's bands, 1 if it is stored in grey, else 3."""
        return self._kind_of_images()[0]

    @property
    def bands(self) -> int:
        """C of its images (H, W, C): 3, also for grey; for a TIFF's bands, their number."""
        return 3 if self.channels == 1 else self.channels

    def _kind_of_images(self):
        return kind_of(self.files.open(self.image_name(self.ids[0])))

    @property
    def folder(self) -> Path:
        return self.files.path

    @property
    def allowed(self) -> np.ndarray:
        """(256,) bool: the numbers that a mask may hold."""
        return (self.table < self.num_classes) | (self.table == VOID)

    def colours(self) -> tuple[np.ndarray, np.ndarray]:
        """The colours that pictures of labels may have, (K, 3) uint8, and the label of each, (K,) uint8."""
        labels = np.array([*range(self.num_classes), *([VOID] if self.void else [])], np.uint8)
        return self.palette[labels], labels

    def image_name(self, id: str) -> str:
        """The image of an id, whether it is there or not."""
        return existing(self.files, self.images, id)

    def mask_name(self, id: str) -> str:
        """The mask of an id, whether it is there or not."""
        return existing(self.files, self.masks, id)

    def mask_files(self, id: str) -> list[str]:
        """The files that an id's labels and instances are read from."""
        return [self.mask_name(id)]

    def source(self, id: str) -> str:
        """What messages call an id's mask: its path."""
        return str(self.folder / self.mask_name(id))

    def splits(self) -> dict:
        """{split: its ids, or the name of the file that lists them}"""
        folder, _, ending = self.lists.rpartition("{}")
        names = [name for name in self.files.children(folder.rstrip("/")) if name.endswith(ending)]
        return {name.removesuffix(ending): folder + name for name in names}

    def list_files(self) -> dict:
        """{split: the name of its list} for those of SPLITS that have one; other files beside them are ignored."""
        return {split: self.lists.format(split) for split in SPLITS if self.files.is_file(self.lists.format(split))}

    def found(self) -> tuple:
        """({id: its images}, {id: its masks}): the names of the files that exist, listed or not. For folders, not tars."""
        return find(self.folder, *self.images), find(self.folder, *self.masks)

    def read_split(self, split: str) -> list[str]:
        """The ids of a split. In an id, a letter with an accent is one character (NFC), however the list writes it.

        Raises MissingFileError where there is no such split, InputError for a list that is no text.
        """
        splits = self.splits()
        if split in splits and not isinstance(splits[split], str):
            return list(splits[split])
        if split not in splits and not split.endswith(".txt"):
            hint = self.hints.get(split, f"there are: {', '.join(splits) or 'none'}")
            raise MissingFileError(f"{self.folder / self.lists.format(split)}: no such split list; {hint}")
        return self.read_ids(self.files.open(splits[split]) if split in splits else open_binary(split))

    def read_ids(self, file: BinaryIO) -> list[str]:
        """The ids in a list. Raises InputError, naming it, for what is no text."""
        return [normalize("NFC", id) for id in map(self.id_of, read_lines(file)) if id is not None]

    def id_of(self, line: str) -> str | None:
        """The id in a line of a list: all of it, unless a layout's lists say more. None for a line that does not count."""
        return line

    def with_instances(self) -> Self:
        """The same samples as ObjectSamples, with instance maps.

        Raises MissingFileError, saying what was expected, if the data set has no instances, and InputError for what is wrong.
        """
        self.check_instances()
        dataset = copy(self)
        dataset.tells_objects = True
        return dataset

    def check_instances(self) -> None:
        """Raise what `with_instances` raises. Here: always, as class masks have no instances."""
        raise MissingFileError(
            f"{self.folder}: expected objects told apart, as in PASCAL VOC, Cityscapes, COCO's JSON or one mask for each; "
            f"got {self.layout or 'a data set'}, which has classes only"
        )

    def boxes(self, id: str) -> list | None:
        """An id's boxes, if its instances come from boxes alone; else None."""
        return None

    def read_instances(self, id: str, label: np.ndarray) -> np.ndarray:
        """An id's instance map, (H, W) uint16 as in ObjectSample. label: its labels."""
        raise NotImplementedError

    def label_of(self, label: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """The labels after objects were moved, scaled or bent: unchanged here; a layout may redraw them."""
        return label

    def read_label(self, id: str) -> np.ndarray:
        """An id's labels, (H, W) uint8: the mask's numbers, or the classes of its colours."""
        name = self.mask_name(id)
        if not self.coloured:
            numbers = read_mask(self.files.open(name), self.exif)
            check_labels(numbers, self.allowed, self.folder / name)
            return self.table[numbers]
        image = read_colours(self.files.open(name), self.exif)
        label, known = match_colours(image, *self.colours())
        if not known.all():
            found = describe(*np.unique(image[~known], axis=0, return_counts=True))
            raise InputError(f"{self.folder / name}: expected the colours of the classes only, got {found}")
        return label

    def read_maps(self, id: str) -> tuple[np.ndarray, np.ndarray | None]:
        """An id's labels, and its instance map or None: `read_label` and `read_instances`."""
        label = self.read_label(id)
        return label, self.read_instances(id, label) if self.tells_objects else None

    def read_pixels(self, id: str) -> np.ndarray:
        """An id's image, (H, W, C) uint8 with C as in the others."""
        name = self.image_name(id)
        image = read_image(self.files.open(name), self.exif)
        self._check_bands(name, image.shape[2])
        return image

    def _check_bands(self, name, channels):
        """Raise InputError unless an image of so many channels has as many as the one looked at first; grey counts as RGB."""
        found = 3 if channels == 1 else channels
        self._first = self._first or (name, found)
        if found != self._first[1]:
            raise InputError(
                f"{self.folder / name}: expected {bands_in_words(self._first[1])}, as in {self._first[0]}, got {bands_in_words(found)}; "
                "a network reads images of one kind"
            )

    def read(self, id: str) -> Sample | ObjectSample:
        """The Sample of an id; its ObjectSample after `with_instances`."""
        name = self.image_name(id)
        image, (label, instances) = self.read_pixels(id), self.read_maps(id)
        if label.shape != image.shape[:2]:
            raise InputError(
                f"{self.source(id)}: expected a mask of the image's size {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}{self._exif_hint(name, label)}"
            )
        return Sample(image, label, id) if instances is None else ObjectSample(image, label, id, instances)

    def check_for_training(self) -> None:
        """Check what training itself would not report. Warns if the first image has more than 8 bits a channel. Raises InputError for
        TIFFs of different numbers of bands, and if all masks hold only 0 and 255, which is void: a network would learn to answer 0
        everywhere. One mask that shows another class is enough to pass."""
        channels, deep = self._kind_of_images()
        if deep:
            log.warning("%s: images of more than 8 bits a channel, of which 8 are used", self.folder)
        for name in map(self.image_name, self.ids if channels not in (1, 3) else ()):
            self._check_bands(name, kind_of(self.files.open(name))[0])
        pixels = np.zeros(256, np.int64)
        for sample in self if self.shown and not self.coloured and self.num_classes > 1 else ():
            pixels += np.bincount(sample.label.reshape(-1), minlength=256)
            if pixels[1:VOID].any():
                return
        if pixels[VOID] and not pixels[:VOID].any():
            raise InputError(
                f"{self.folder / self.masks[0]}: no pixel is labelled: all masks hold only {VOID}, which is void"
            )
        if pixels[0] and pixels[VOID]:
            raise InputError(f"{self.folder / self.masks[0]}: {BLACK_AND_WHITE}")

    def fingerprint(self) -> str:
        """A hash that copies of a data set share: of its classes, its ids, the sizes of their files, and the ends of its masks (all of
        JSON and XML)."""
        found, masks = sha256(repr(self.classes).encode()), {}
        for id in self.ids:
            names = [name for name in (self.image_name(id), *self.mask_files(id)) if self.files.is_file(name)]
            found.update(repr((id, [self.files.size(name) for name in names])).encode("utf-8", "surrogateescape"))
            masks |= dict.fromkeys(names[1:])  # one file may be the mask of many
        for name in masks:
            found.update(self._ends_of(name))
        return found.hexdigest()

    def _ends_of(self, name):
        """The first and the last bytes of a file, or a hash of a text: a PNG's last bytes hold the checksum of all its pixels."""
        with self.files.open(name) as file:
            if name.endswith((".json", ".xml")):
                return file_digest(file, "sha256").digest()
            start = file.read(END)
            file.seek(max(len(start), self.files.size(name) - END))
            return start + file.read(END)

    def _exif_hint(self, name, label):
        """A hint for a mask that fits its image as stored; empty for any other."""
        if not self.exif or read_image(self.files.open(name), exif=False).shape[:2] != label.shape:
            return ""
        return (
            ", that of the image before EXIF turns it; to leave EXIF alone: --no-exif, or exif = false in dataset.toml"
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample | ObjectSample: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index):
        """A sample, read now; of a slice, the data set of these samples."""
        if not isinstance(index, slice):
            return self.read(self.ids[index])
        part = copy(self)
        part.ids = self.ids[index]
        return part
