"""Readers of data sets: one class for each layout, their common base in `base`, and the choice of one for a folder."""

from pathlib import Path

from ...errors import InputError, MissingFileError
from ..files import FolderFiles
from .base import SegmentationDataset
from .camvid import CAMVID_CLASSES, EXPECTED, CamVid, mask_folders
from .cityscapes import CITYSCAPES_CLASSES, Cityscapes
from .coco import Coco, annotation_files
from .description import FILE_NAME
from .folder import Folder
from .nuclei import STAGE, Nuclei
from .plain import PlainFolder, holds_masks, places
from .roboflow import CLASSES, Roboflow
from .sbd import SBD, train_aug
from .voc import VOC, year_folders

__all__ = [
    "CAMVID_CLASSES",
    "CITYSCAPES_CLASSES",
    "SBD",
    "VOC",
    "CamVid",
    "Coco",
    "Cityscapes",
    "Folder",
    "Nuclei",
    "PlainFolder",
    "Roboflow",
    "layout_of",
    "open_dataset",
    "train_aug",
]


_HINTS = {  # output of tools that is not a data set yet -> what to do
    "SegmentationClass*": "; masks without their images: put these into JPEGImages beside it (CVAT: Save images)",
    "task-*-annotation-*": "; masks of Label Studio, one for each brush: docs/data.md has the lines that join them",
    "*.json": "; labelme's polygons become masks by its labelme2voc.py; see docs/data.md",
}


def layout_of(root: str | Path) -> type:
    """The reader class for a folder or tar, such as VOC, which also reads its official tar.

    Raises MissingFileError if nothing is there, and InputError, saying what was expected and found, for an unknown layout.
    """
    root = Path(root)
    if not root.exists():
        raise MissingFileError(f"{root}: no such folder or tar file; expected a data set")
    if (root / FILE_NAME).is_file():
        return Folder
    if (root / "leftImg8bit").is_dir():
        return Cityscapes
    if any(root.glob(f"*/{CLASSES}")):
        return Roboflow
    masked = holds_masks(root) or any(root.glob("SegmentationClass*"))
    coco = annotation_files(FolderFiles(root)) if not masked else []
    if coco and ("/" in coco[0][1] or (root / "JPEGImages").is_dir()):
        return Coco
    if not root.is_dir() or (root / "JPEGImages").is_dir() or year_folders(FolderFiles(root)):
        return VOC
    if mask_folders(FolderFiles(root)):
        return CamVid
    if (root / STAGE).is_dir() or any(
        path.parts[-3] == path.stem and (path.parents[1] / "masks").is_dir() for path in root.glob("*/images/*")
    ):
        return Nuclei
    if coco:  # a bare train.json may lie in any of the others
        return Coco
    if places(root):
        return PlainFolder
    names = sorted(path.name for path in root.iterdir())
    raise InputError(
        f"{root}: expected VOC<year> with JPEGImages (PASCAL VOC), leftImg8bit with gtFine (Cityscapes), train with "
        f"{CLASSES} (Roboflow), {EXPECTED}, <id>/images with <id>/masks (Data Science Bowl), annotations/instances_<split>.json (COCO), images with masks, or {FILE_NAME} (own "
        f"data); found {', '.join(names[:5]) or 'nothing'}"
        f"{', …' if len(names) > 5 else ''}{next((hint for what, hint in _HINTS.items() if any(root.glob(what))), '')}"
    )


def open_dataset(
    root: str | Path,
    split: str = "train",
    year: str | None = None,
    ids: list | None = None,
    limit: int | None = None,
    exif: bool = True,
    instances: bool = False,
) -> SegmentationDataset:
    """The samples of one split of a data set in any of the layouts, by the class that `layout_of` finds.

    year: for VOC; 2012 unless given, or the latest there is. ids, limit: as the readers take them.
    exif: False reads images and masks as they are stored, whatever their EXIF data say. instances: as ObjectSamples.
    Raises InputError, naming the folder or file, for an unknown layout and for what the reader refuses.
    """
    layout = layout_of(root)
    options = {"year": year} if layout is VOC else {}
    dataset = layout(root, split, ids=ids, limit=limit, **options)
    dataset.exif = dataset.exif and exif
    return dataset.with_instances() if instances else dataset
