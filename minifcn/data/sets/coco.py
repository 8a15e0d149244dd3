"""Reader of COCO's JSON: images, and one file for each split that has the objects in them as polygons or runs."""

import re
from collections import ChainMap
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from ...errors import InputError
from ..files import FolderFiles, files_below
from ..images import SUFFIXES
from ..labels import AMBIGUOUS
from .base import SegmentationDataset
from .coco_json import Entry, draw, read_annotations, region_of
from .names import VAL_SHARE, random_split

ROBOFLOW = "_annotations.coco.json"
ALONE = (
    "annotations.json",
    "instances.json",
    "result.json",
    "coco.json",
    ROBOFLOW,
)  # labelme, own, Label Studio, own, Roboflow
_FOR_A_SPLIT = re.compile(
    r"(?:instances_|annotations_)?((train|val|valid|validation|test|default)\d*)\.json", re.IGNORECASE
)
_SPLITS = {"valid": "val", "validation": "val"}  # what tools call splits -> their names here


class Place(NamedTuple):
    """Where an image and its objects are: the image's name, the JSON file's name, and the Entry there."""

    image: str
    annotations: str
    entry: Entry


class Coco(SegmentationDataset):
    """The samples of one split: background 0, the categories from 1 on in the order of their ids.

    root: the folder with annotations/instances_<split>.json (COCO), <split>/_annotations.coco.json (Roboflow), or one
    annotations.json, a fifth of whose images is val. Images lie beside the file, in root, or in one of root's folders: the split's, images
    or JPEGImages. split: "train", "val", "test". An id is an image's name in root, without its ending (with it for
    the second of that name); ids: use these instead.
    limit: only the first so many.

    Where objects overlap, the smaller is on top. `with_instances` adds instance maps; crowds are AMBIGUOUS.
    Raises InputError, naming the file: at construction for JSON of another form; when samples are read, for objects without
    polygons or runs and for images of another size than the file says. Raises MissingFileError for missing images.
    """

    layout, objects, shown = "COCO's JSON", True, False
    images, masks, others = (".", *SUFFIXES), (".", ".json"), (".json", ".txt")
    lists = "annotations/instances_{}.json"

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        self._places, self.strays, classes, sources = {}, {}, (), {}
        there = list(files_below(files.path))
        names = {_folded(name): name for name in there} | {name: name for name in there}
        for name, source in annotation_files(files):
            if (other := sources.setdefault(name, source)) != source:
                raise InputError(
                    f"{files.path}: expected one JSON file for the split {name!r}, got {other} and {source}; move one away"
                )
            read = read_annotations(files.open(source))
            if classes and (read.classes, read.labels) != (classes, self._labels):
                raise InputError(
                    f"{files.path / source}: expected the categories of the other files under the same ids, got others"
                )
            self._labels, classes, self.strays[source] = read.labels, read.classes, read.strays
            self._places[name] = _places(files, names, source, read.entries)
        # An id in several splits is read from the requested one.
        self._by_id = ChainMap(self._places.get(split, {}), *self._places.values())
        super().__init__(files, split, classes, ids, limit)

    def splits(self) -> dict:
        alone = len(self._places) == 1
        return (
            random_split(self._by_id, VAL_SHARE) if alone else {name: list(ids) for name, ids in self._places.items()}
        )

    def found(self) -> tuple:
        places = self._by_id.items()
        return {id: [place.image] for id, place in places}, {id: [place.annotations] for id, place in places}

    def image_name(self, id: str) -> str:
        return self._by_id[id].image if id in self._by_id else super().image_name(id)

    def mask_name(self, id: str) -> str:
        """The JSON file that an id's objects are in."""
        return self._by_id[id].annotations if id in self._by_id else self.lists.format(self.split)

    def entry(self, id: str) -> Entry:
        """What the JSON file says of an id."""
        return self._by_id[id].entry

    def check_instances(self) -> None:
        """Nothing: there are always instances."""

    def read_maps(self, id: str) -> tuple[np.ndarray, np.ndarray | None]:
        regions, entry = [], self.entry(id)
        if len(entry.annotations) >= AMBIGUOUS:
            raise InputError(
                f"{self.source(id)}: expected fewer than {AMBIGUOUS} objects, got {len(entry.annotations)}"
            )
        for annotation in entry.annotations:
            try:
                regions.append(region_of(annotation, entry.size, self._labels))
            except InputError as error:
                raise InputError(f"{self.source(id)}: annotation {repr(annotation.get('id'))[:20]}: {error}") from error
        label, instances = draw(regions, entry.size)
        return label, instances if self.tells_objects else None

    def source(self, id: str) -> str:
        return f"{self.folder / self.mask_name(id)}: {self.entry(id).file_name[-60:]}"

    @property
    def labels(self) -> dict[int, int]:
        """{category id: label}"""
        return self._labels


def annotation_files(files: Any) -> list[tuple[str, str]]:
    """[(split, its JSON file)] in a folder; a single file for all splits is "trainval". Empty if there is none."""
    named = [(name, f"{name}/{ROBOFLOW}") for name in files.children("") if files.is_file(f"{name}/{ROBOFLOW}")]
    for folder in ("annotations/", ""):
        if not named:
            matches = map(_FOR_A_SPLIT.fullmatch, files.children(folder.rstrip("/")))
            named = [(found[2].lower(), f"{folder}{found[0]}") for found in matches if found]
            named = named or [("trainval", f"{folder}{n}") for n in ALONE if files.is_file(f"{folder}{n}")][:1]
    return [(_SPLITS.get(split, split), file) for split, file in named]


def _folded(name):
    """A file's name with capitals and accents written in one way."""
    return normalize("NFC", name.casefold())


def _places(files, there, source, entries):
    """{id: Place} of the images of a JSON file. there: {name, as it is or `_folded`: the file}"""
    places, taken, beside = {}, set(), source.rpartition("/")[0]
    found = _FOR_A_SPLIT.fullmatch(PurePosixPath(source).name)
    split = found[1] if found else ""
    folders = dict.fromkeys((beside, "", split, f"images/{split}".rstrip("/"), "images", "JPEGImages"))
    for entry in entries:
        name = PurePosixPath(entry.file_name.replace("\\", "/"))
        inside = [part for part in name.parts if part not in ("..", name.anchor)]
        names = dict.fromkeys(
            ("/".join(inside), inside[-1])
        )  # as it is given there, and without the folders of another machine
        choices = [f"{folder}/{name}".lstrip("/") for name in names for folder in folders]
        forms = (*choices, *map(_folded, choices))
        image = next((there[name] for name in forms if name in there), choices[0])
        id = normalize("NFC", PurePosixPath(image).with_suffix("").as_posix())
        if image in taken:
            raise InputError(f"{files.path / source}: expected each image once, got two of {id!r}")
        taken.add(image)
        id = normalize("NFC", image) if id in places else id  # a.png beside a.jpg
        places[id] = Place(image, source, entry)
    return places
