"""Data sets whose files are named by the ids of a list: the layouts of PASCAL VOC and of SBD."""

from ..errors import InputError, MissingFileError
from .dataset import SegmentationSet
from .files import read_lines


class ListedSet(SegmentationSet):
    """The samples whose ids stand in a list.

    A subclass says where files lie in the data set's folder: `images` and `masks`, with {} for the id, and `lists`, the
    folder of the lists. files, inner: a FolderFiles or TarFiles, and the data set's folder in it. split: a list's name, or
    a path ending in .txt to a list elsewhere. ids: use these instead. limit: only the first so many.
    Raises FileNotFoundError or ValueError, naming the file, for a missing list, image or mask.
    """

    images = masks = lists = None

    def __init__(self, files, inner, split, classes, ids=None, limit=None):
        self.files, self.inner, self.split, self.classes = files, inner, str(split), classes
        self.ids = (list(ids) if ids is not None else self._read_split())[:limit]
        for id in self.ids:
            if id.startswith("/") or ".." in id.split("/"):
                raise InputError(f"{self.folder}: expected ids of files in this folder, got {id!r} in {self.split!r}")
            for what, where in (("image", self.images), ("mask", self.masks)):
                if not files.is_file(self._inner(where.format(id))):
                    name = self._name(where.format(id))
                    raise MissingFileError(f"{name}: no {what} for id {id!r} of split {self.split!r}")

    @property
    def folder(self):
        return self.files.path / self.inner

    def open_image(self, id):
        return self.files.open(self._inner(self.images.format(id)))

    def open_mask(self, id):
        return self.files.open(self._inner(self.masks.format(id)))

    def image_name(self, id):
        return self._name(self.images.format(id))

    def mask_name(self, id):
        return self._name(self.masks.format(id))

    def _read_split(self):
        if self.split.endswith(".txt"):
            name, source = self.split, self.split
        else:
            name, source = self._list_of(self.split)
        ids = [line.split()[0] for line in read_lines(source)]
        if not ids:
            raise InputError(f"{name}: expected one image id a line, got an empty list")
        return ids

    def _list_of(self, split):
        path = "/".join(part for part in (self.lists, f"{split}.txt") if part)
        name = self._name(path)
        if not self.files.is_file(self._inner(path)):
            raise MissingFileError(f"{name}: no such split list; {self._advice(split)}")
        return name, (self.files.open(self._inner(path)), name)

    def _advice(self, split):
        """What to do about a missing list."""
        lists = [name[:-4] for name in self.files.children(self._inner(self.lists)) if name.endswith(".txt")]
        return f"this folder has: {', '.join(lists) or 'none'}"

    def _inner(self, name):
        return "/".join(part for part in (self.inner, name) if part)

    def _name(self, name):
        return str(self.folder / name)
