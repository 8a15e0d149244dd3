"""Reader of somebody's own data: a folder of images, a folder of masks, and a dataset.toml that describes them."""

from hashlib import sha256
from pathlib import Path

from ..errors import InputError, MissingFileError
from .description import EXAMPLE, NAME, read_description
from .files import read_lines
from .images import SUFFIXES, read_image
from .labels import from_colours
from .pairs import Pairs

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # what keeps every value as it was


class Folder(Pairs):
    """The samples of one split of own data.

    root: the folder that holds dataset.toml. split: "train", "val" or a list that the file names. ids: use these
    instead. limit: only the first so many. An id is an image's name below the images' folder, without its ending.
    Raises FileNotFoundError or ValueError, naming the file (and in dataset.toml the key), for what is missing or
    wrong: at construction, or for files that do not fit together (sizes, labels, colours) when they are read.

    A complete dataset.toml:

    """

    __doc__ += "".join(f"        {line}\n" for line in EXAMPLE.splitlines())

    def __init__(self, root, split="train", ids=None, limit=None):
        self.folder, self.split = Path(root), split
        self.description = read_description(self.folder / NAME)
        self.classes, self.palette = self.description.classes, self.description.palette
        self._images = _one_each(self.description.images, SUFFIXES)
        self._masks = _one_each(self.description.masks, MASK_SUFFIXES)
        self.ids = (list(ids) if ids is not None else self._read_split())[:limit]
        self._require_files()

    def _read_split(self):
        splits = self.description.splits
        if isinstance(splits, float):
            splits = shared_out(self._images, splits)
            if self.split in splits and not splits[self.split]:
                raise InputError(f"{self.description.images}: too few images ({len(self._images)}) for a split")
        if self.split not in splits:
            raise MissingFileError(f"{self.folder / NAME}: no split {self.split!r}; it has: {', '.join(splits)}")
        return read_ids(splits[self.split]) if isinstance(splits[self.split], Path) else splits[self.split]

    def image_path(self, id):
        return self._images.get(id, self.description.images / f"{id}.jpg")

    def mask_path(self, id):
        return self._masks.get(id, self.description.masks / f"{id}.png")

    def read_label(self, id):
        """The labels (H, W) uint8 of one mask: its numbers, or the classes of its colours."""
        if not self.description.coloured:
            return super().read_label(id)
        path = self.mask_path(id)
        return from_colours(read_image(path), self.palette, self.num_classes, self.description.void, path)


def find_files(folder, suffixes):
    """{id: paths} of the files with one of these endings, in `folder` and below, by name."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file():
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return found


def _one_each(folder, suffixes):
    """{id: path}. Raises InputError for two files of one id."""
    found = find_files(folder, suffixes)
    for id, paths in found.items():
        if len(paths) > 1:
            raise InputError(f"{paths[0]}: expected one file for id {id!r}, got also {paths[1].name}")
    return {id: paths[0] for id, paths in found.items()}


def shared_out(ids, share):
    """{"train", "val", "trainval": ids}, `share` of them for validation, and at least one.

    The choice hangs on each id alone, so that images added later do not move those that are there from one to the other
    (but for the few that the changed count moves).
    """
    order = sorted(ids, key=lambda id: sha256(id.encode("utf-8")).digest())
    chosen = set(order[: max(1, round(share * len(order)))])
    return {
        "train": [id for id in ids if id not in chosen],
        "val": [id for id in ids if id in chosen],
        "trainval": list(ids),
    }


def read_ids(path):
    """The ids in a list, one a line; an id may hold spaces, as a file's name may.

    Raises InputError, naming the file, for an empty list or one that is not text.
    """
    ids = read_lines(path)
    if not ids:
        raise InputError(f"{path}: expected one id a line, got an empty list")
    return ids
