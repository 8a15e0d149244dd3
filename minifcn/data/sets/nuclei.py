"""Reader of the 2018 Data Science Bowl's layout: a folder for each image, with one mask for each object in it."""

from pathlib import Path
from unicodedata import normalize

import numpy as np

from ...errors import InputError
from ..files import FolderFiles
from ..images import SUFFIXES, read_marks
from ..labels import VOID
from ..targets import separate
from .base import ObjectSample, SegmentationDataset
from .names import existing, random_split

STAGE = "stage1_train"
_VAL_SHARE = 0.15
# Share of the smaller object. Masks drawn separately share a pixel or two at the rim; an object drawn twice shares far more.
MOST_SHARED = 0.01


class Nuclei(SegmentationDataset):
    """The samples of one split: background 0, nucleus 1, and instance maps (`Sample.instances`).

    root: the folder with <id>/images/<id>.png and <id>/masks/*.png, one object each, or the folder that holds it as stage1_train.
    Labels are background where objects touch (see `separate`), so that a network learns to leave gaps between objects; not after
    `with_instances`, for networks that find instances by themselves.
    split: "train", "val" (15 % of the ids), "trainval", or a path ending in .txt to a list of ids.
    ids: use these instead. limit: only the first so many.
    Raises MissingFileError, naming the image or the folder of masks that is missing, at construction; InputError, naming the file, when
    samples are read: for masks of another size than the image, of more than two values, or that overlap in more than a
    hundredth of the smaller object. The pixels of a smaller overlap go to the first object.
    """

    layout = "Data Science Bowl"
    images, masks, objects = (".", *SUFFIXES), (".", *SUFFIXES), True
    lists, others = "{}", (".csv", ".txt")

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        files = FolderFiles(root)
        files = files.subfolder(STAGE) if files.is_folder(STAGE) else files
        self._folders = {normalize("NFC", name): name for name in files.children("")}
        self._all = [id for id, name in self._folders.items() if files.is_folder(f"{name}/images")]
        super().__init__(files, split, ("background", "nucleus"), ids, limit)

    def splits(self) -> dict:
        return random_split(self._all, _VAL_SHARE)

    def found(self) -> tuple:
        masks = {id: [self.mask_name(id)] for id in self._folders if self.files.is_folder(self.mask_name(id))}
        return {id: [self.image_name(id)] for id in self._all}, masks

    def image_name(self, id: str) -> str:
        return existing(self.files, (f"{self._folders.get(id, id)}/images", ".png", *SUFFIXES), id)

    def mask_name(self, id: str) -> str:
        """The folder of an id's masks, whether it is there or not."""
        return f"{self._folders.get(id, id)}/masks"

    def object_names(self, id: str) -> list[str]:
        """The masks of an id, one for each object, by name."""
        folder = self.mask_name(id)
        return [f"{folder}/{n}" for n in self.files.children(folder) if n.lower().endswith(SUFFIXES)]

    def mask_files(self, id: str) -> list[str]:
        return self.object_names(id)

    def check_instances(self) -> None:
        """Nothing: there are always instances."""

    def read(self, id: str) -> ObjectSample:
        image = self.read_pixels(id)
        instances = np.zeros(image.shape[:2], np.uint16)
        names = [""]  # of the objects by number
        for name in self.object_names(id):
            drawn = self.read_object(name)
            if drawn.shape != instances.shape:
                sizes = "the image's size {1}x{0}, got {3}x{2}".format(*instances.shape, *drawn.shape)
                raise InputError(f"{self.folder / name}: expected a mask of {sizes}")
            if shared := overlap(instances, drawn):
                other, pixels = shared
                raise InputError(
                    f"{self.folder / name}: overlaps {Path(names[other]).name} (pixels in both: {pixels}); "
                    "expected masks without overlap: erase these pixels in one of the two"
                )
            if drawn.any():
                instances[drawn & (instances == 0)] = len(names)
                names.append(name)
        return ObjectSample(image, self._drawn(instances), id, instances)

    def label_of(self, label: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """As `separate` draws them, so that the gaps keep their width; void stays."""
        return np.where(label == VOID, np.uint8(VOID), self._drawn(instances))

    def _drawn(self, instances):
        return (instances > 0).astype(np.uint8) if self.tells_objects else separate(instances)

    def read_object(self, name: str) -> np.ndarray:
        """The pixels of the object in a mask, (H, W) bool. Raises InputError, naming the file, as `drawn_in` does."""
        marks = read_marks(self.files.open(name), self.exif)
        try:
            return drawn_in(marks)
        except InputError as error:
            raise InputError(f"{self.folder / name}: {error}") from error


def drawn_in(picture: np.ndarray) -> np.ndarray:
    """Where an integer image (H, W, 3) is not black. -> (H, W) bool. Raises InputError unless all these pixels have one value."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    drawn = (red | green | blue) > 0  # far faster than any(axis=2)
    inside = picture[drawn]
    if (inside != inside[:1]).any():
        values = len(np.unique(inside, axis=0))
        raise InputError(
            f"expected one object in one value on black, got {values} values; save it without smoothing, as PNG"
        )
    return drawn


def overlap(instances: np.ndarray, drawn: np.ndarray) -> tuple[int, int] | None:
    """(the number of the object that overlaps `drawn` most, the pixels they share); None if that is within MOST_SHARED.

    instances (H, W) uint16, drawn (H, W) bool.
    """
    shared = np.bincount(instances[drawn], minlength=2)
    other = 1 + int(shared[1:].argmax())
    smaller = min(np.count_nonzero(instances == other), np.count_nonzero(drawn))
    return (other, int(shared[other])) if shared[other] > MOST_SHARED * smaller else None
