"""Reader of SBD, the Semantic Boundaries Dataset, which labels 11,355 images of VOC 2011. Hariharan et al., ICCV 2011."""

from pathlib import Path

import numpy as np

from ...errors import InputError, MissingFileError
from ..files import files_at
from ..labels import VOC_CLASSES, check_labels
from .base import SegmentationDataset

_PARENTS = ("", "dataset", "benchmark_RELEASE/dataset")


class SBD(SegmentationDataset):
    """The samples of one split of SBD, read when asked for. Its labels are VOC's 21 classes, without void.

    root: the folder benchmark_RELEASE, its parent, or the folder dataset in it, with img/, cls/, train.txt, val.txt.
    split, ids, limit: as for VOC. Needs SciPy, which reads the .mat files: pip install scipy.
    Raises InputError, naming the file, as VOC does; MissingFileError without SciPy.
    """

    images, masks = ("img", ".jpg"), ("cls", ".mat")

    def __init__(self, root: str | Path, split: str = "train", ids: list | None = None, limit: int | None = None):
        try:
            from scipy.io import loadmat
        except ImportError:
            raise MissingFileError("scipy: not installed; it reads SBD's .mat files: pip install scipy") from None
        self._loadmat = loadmat
        files = files_at(root)
        folder = next((name for name in _PARENTS if files.is_folder(f"{name}/cls".lstrip("/"))), None)
        if folder is None:
            raise MissingFileError(f"{root}: expected SBD's folder dataset with img, cls, train.txt and val.txt")
        super().__init__(files.subfolder(folder), split, VOC_CLASSES, ids, limit)

    def read_label(self, id: str) -> np.ndarray:
        """The class numbers (H, W) uint8 of one .mat file. Raises InputError, naming it, for one that has none."""
        with self.files.open(self.mask_name(id)) as file:
            try:
                label = np.asarray(self._loadmat(file, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
            except Exception as error:  # a broken file can make SciPy raise anything
                reason = " ".join(f"{type(error).__name__} {error}".split())
                raise InputError(f"{file.name}: expected a .mat file with GTcls.Segmentation, got {reason}") from error
        if label.ndim != 2 or label.dtype.kind not in "ui" or label.size == 0:
            raise InputError(
                f"{file.name}: expected GTcls.Segmentation (H, W) of integers, got {label.shape} {label.dtype}"
            )
        check_labels(label, self.allowed, file.name)
        return label.astype(np.uint8)


class _Joined(SegmentationDataset):
    """Several data sets as one. home: {id: the data set that it is read from}, in order."""

    def __init__(self, home: dict, like: SegmentationDataset):
        self.files, self.classes, self.split = like.files, like.classes, "train_aug"
        self.ids, self._home = list(home), home

    def read(self, id):
        return self._home[id].read(id)

    def fingerprint(self):
        return " ".join(home.fingerprint() for home in dict.fromkeys(self._home.values()))

    def _kind_of_images(self):
        return self._home[self.ids[0]]._kind_of_images()


def train_aug(
    train: SegmentationDataset, val: SegmentationDataset, sbd_root: str | Path, limit: int | None = None
) -> SegmentationDataset:
    """VOC's training samples plus SBD's that are in neither VOC set: for all of VOC 2012 and SBD, the usual 10,582.

    train, val: data.VOC of the lists trained and validated on. sbd_root: as for SBD. Raises InputError for other classes.
    """
    if train.classes != VOC_CLASSES:
        raise InputError(f"{train.folder}: expected VOC's {len(VOC_CLASSES)} classes, got {train.num_classes}")
    home, excluded = dict.fromkeys(train.ids, train), set(val.ids)
    for extra in (SBD(sbd_root, "train"), SBD(sbd_root, "val")):
        extra.exif = train.exif
        home |= {id: extra for id in extra.ids if id not in home and id not in excluded}
    return _Joined(dict(list(home.items())[:limit]), train)
