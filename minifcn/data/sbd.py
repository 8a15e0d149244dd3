"""Reader of SBD, the Semantic Boundaries Dataset, which labels 11,355 images of VOC 2011. Hariharan et al., ICCV 2011."""

import numpy as np

from ..errors import InputError, MissingFileError
from .dataset import SegmentationSet
from .files import files_at
from .labels import VOC_CLASSES, check_labels
from .listed import ListedSet

_PLACES = ("", "dataset", "benchmark_RELEASE/dataset")


class SBD(ListedSet):
    """The samples of one split of SBD, read when asked for. Its labels are VOC's 21 classes, without void.

    root: the folder benchmark_RELEASE, what it lies in, or the folder dataset in it, with img/, cls/, train.txt, val.txt.
    split, ids, limit: as for VOC. Needs SciPy, which reads the .mat files: pip install scipy.
    Raises FileNotFoundError or ValueError, naming the file, as VOC does; FileNotFoundError without SciPy.
    """

    images, masks, lists = "img/{}.jpg", "cls/{}.mat", ""

    def __init__(self, root, split="train", ids=None, limit=None):
        self._loadmat = _loadmat()
        files = files_at(root)
        inner = next((place for place in _PLACES if files.is_folder(f"{place}/cls".lstrip("/"))), None)
        if inner is None:
            raise MissingFileError(f"{root}: expected SBD's folder dataset with img, cls, train.txt and val.txt")
        super().__init__(files, inner, split, VOC_CLASSES, ids, limit)

    def read_label(self, id):
        """The class numbers (H, W) uint8 of one .mat file. Raises InputError, naming it, for one that has none."""
        name = self.mask_name(id)
        with self.open_mask(id) as file:
            try:
                label = np.asarray(self._loadmat(file, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
            except Exception as error:  # SciPy lets out whatever a broken file makes it stumble over
                reason = " ".join(f"{type(error).__name__} {error}".split())
                raise InputError(f"{name}: expected a .mat file with GTcls.Segmentation, got {reason}") from error
        if label.ndim != 2 or label.dtype.kind not in "ui" or label.size == 0:
            raise InputError(f"{name}: expected GTcls.Segmentation (H, W) of integers, got {label.shape} {label.dtype}")
        check_labels(label, self.num_classes, name)
        if label.min() < 0:
            raise InputError(f"{name}: expected labels 0..{self.num_classes - 1}, got {label.min()}")
        return label.astype(np.uint8)


class Joined(SegmentationSet):
    """Several data sets with the same classes as one: each id once, from the first set that has it, and none of `without`.

    Raises InputError for sets with different classes.
    """

    def __init__(self, datasets, split, without=(), limit=None):
        first = datasets[0]
        for other in datasets[1:]:
            if other.classes != first.classes:
                raise InputError(
                    f"{other.folder}: expected the {first.num_classes} classes of {first.folder}, got {other.num_classes}"
                )
        self.split, self.classes, self.folder = split, first.classes, first.folder
        self._home = {}
        for dataset in datasets:
            for id in dataset.ids:
                self._home.setdefault(id, dataset)
        self.ids = [id for id in self._home if id not in without][:limit]

    def open_image(self, id):
        return self._home[id].open_image(id)

    def open_mask(self, id):
        return self._home[id].open_mask(id)

    def image_name(self, id):
        return self._home[id].image_name(id)

    def mask_name(self, id):
        return self._home[id].mask_name(id)

    def read_label(self, id):
        return self._home[id].read_label(id)


def train_aug(train, val, sbd_root, limit=None):
    """VOC's training samples, and SBD's that are in neither VOC set: of the whole VOC 2012 and SBD the usual 10,582.

    train, val: data.VOC of the lists trained and validated on. sbd_root: as for SBD.
    """
    extra = [SBD(sbd_root, split) for split in ("train", "val")]
    return Joined([train, *extra], "train_aug", without=set(val.ids) - set(train.ids), limit=limit)


def _loadmat():
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingFileError(
            "scipy: not installed; SBD's labels are .mat files, which it reads: pip install scipy"
        ) from None
    return loadmat
