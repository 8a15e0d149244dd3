"""A data set from its folder alone: which of the three layouts it has is seen by what is in it."""

from pathlib import Path

from ..errors import InputError, MissingFileError
from .cityscapes import Cityscapes
from .description import NAME
from .files import files_at
from .folder import Folder
from .voc import VOC, years_in


def kind_of(root):
    """The class that reads what is here: Folder, Cityscapes or VOC, which reads its official tar too.

    Raises FileNotFoundError for no folder and ValueError, saying what was expected and what is there, for another.
    """
    root = Path(root)
    if not root.exists():
        raise MissingFileError(f"{root}: no such folder or tar file; expected a data set")
    if root.is_dir():
        if (root / NAME).is_file():
            return Folder
        if (root / "leftImg8bit").is_dir():
            return Cityscapes
        if not (root / "JPEGImages").is_dir() and not years_in(files_at(root)):
            there = sorted(path.name for path in root.iterdir())
            raise InputError(
                f"{root}: expected VOC<year> with JPEGImages (PASCAL VOC), leftImg8bit with gtFine (Cityscapes) or "
                f"{NAME} (own data); found {', '.join(there[:5]) or 'nothing'}{', …' if len(there) > 5 else ''}"
            )
    return VOC


def voc_year(root):
    """The year to read from a VOCdevkit: 2012, or the latest there is."""
    years = sorted(years_in(files_at(root)))
    return years[-1][3:] if years and "VOC2012" not in years else "2012"


def open_dataset(root, split="train", year=None, ids=None, limit=None):
    """The samples of one split of a data set in any of the layouts: data.VOC, data.Cityscapes or data.Folder.

    year: of VOC's; 2012 unless given, or the latest there is. ids, limit: as the readers take them.
    Raises FileNotFoundError or ValueError, in one line that names the folder or file, for what is none of them and
    for what the reader refuses.
    """
    kind = kind_of(root)
    more = {"year": year or voc_year(root)} if kind is VOC else {}
    return kind(root, split, ids=ids, limit=limit, **more)
