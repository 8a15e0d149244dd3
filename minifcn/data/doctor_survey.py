"""What a data set says it has and what lies in its folders, without opening an image; broken data sets too."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from . import cityscapes, folder
from .datasets import kind_of, voc_year
from .description import NAME, description_problems, read_description
from .files import files_at, read_lines
from .images import SUFFIXES
from .labels import VOC_CLASSES, VOID, read_class_names, voc_palette
from .voc import VOC, years_in


@dataclass
class Survey:
    """kind: "PASCAL VOC", "Cityscapes" or "own data". splits: {name: ids, each once}.

    images, masks: {id: path} of the files that are there. image_at, mask_at: functions of an id, where its file should be.
    table: (256,) uint8, the label for each number in a mask. allowed: (256,) bool, the numbers that may occur there.
    coloured: masks hold colours. void: whether palette[255] in them means void.
    """

    kind: str
    folder: Path
    classes: tuple
    palette: np.ndarray
    splits: dict = field(default_factory=dict)
    images: dict = field(default_factory=dict)
    masks: dict = field(default_factory=dict)
    image_at: object = None
    mask_at: object = None
    table: np.ndarray = None
    allowed: np.ndarray = None
    coloured: bool = False
    void: bool = True

    def __post_init__(self):
        numbers = np.arange(256)
        if self.table is None:
            self.table = numbers.astype(np.uint8)
            self.allowed = (numbers < len(self.classes)) | (numbers == VOID)

    def name(self, path):
        """A file as findings call it: below the data set's folder."""
        path = Path(path)
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    @property
    def ids(self):
        """Every id that a list names or that has a mask, each once."""
        return list(dict.fromkeys([*(id for ids in self.splits.values() for id in ids), *self.masks]))


def survey(root, findings):
    """Look through a data set's folders; what is wrong with lists and pairs goes into `findings`. -> Survey

    None where a dataset.toml is too wrong to go on. Raises as `kind_of` for what is no data set, ValueError for a file.
    """
    root = Path(root)
    kind = kind_of(root)
    if root.is_file():
        raise InputError(f"{root}: expected a folder; the doctor reads no archives")
    found = {VOC: _voc, cityscapes.Cityscapes: _cityscapes, folder.Folder: _own}[kind](root, findings)
    if found is not None:
        _check_lists(found, findings)
        _check_pairs(found, findings)
    return found


def _voc(root, findings):
    if not (root / "JPEGImages").is_dir():
        root = root / years_in(files_at(root))[f"VOC{voc_year(root)}"]
    classes, names = VOC_CLASSES, root / "classes.txt"
    if names.is_file():
        try:
            classes = read_class_names(names)
            twice = sorted({name for name in classes if classes.count(name) > 1})
            if twice:
                findings.add("classes-file", names.name, f"more than once: {', '.join(twice)}")
        except ValueError as error:  # among them UnicodeDecodeError
            findings.add("classes-file", names.name, str(error).removeprefix(f"{names}: "))
    found = Survey("PASCAL VOC", root, classes, voc_palette())
    for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        _read_list(found, path.stem, path, findings)
    photos, masks = root / "JPEGImages", root / "SegmentationClass"
    found.image_at, found.mask_at = (lambda id: photos / f"{id}.jpg"), (lambda id: masks / f"{id}.png")
    found.images = {path.stem: path for path in _images_in(found, photos, findings) if path.suffix == ".jpg"}
    found.masks = {path.stem: path for path in _images_in(found, masks, findings) if path.suffix == ".png"}
    return found


def _cityscapes(root, findings):
    numbers = np.arange(256)
    found = Survey(
        *("Cityscapes", root, cityscapes.CITYSCAPES_CLASSES, cityscapes.cityscapes_palette()),
        table=cityscapes.train_ids(),
        allowed=numbers < len(cityscapes.LABELS),
    )
    found.mask_at = lambda id: cityscapes.mask_beside(root, found.images[id])
    for split in sorted(path.name for path in (root / "leftImg8bit").iterdir() if path.is_dir()):
        images = cityscapes.list_files(root / "leftImg8bit" / split, cityscapes.IMAGE_END)
        masks = cityscapes.list_files(root / "gtFine" / split, cityscapes.MASK_END)
        found.splits[split] = list(images)
        found.images |= images
        found.masks |= masks
        if not images:
            findings.add("empty-list", f"leftImg8bit/{split}", f"no files <city>/<id>{cityscapes.IMAGE_END}")
    return found


def _own(root, findings):
    problems = description_problems(root / NAME)
    for problem in problems:
        findings.add("description", NAME, problem.removeprefix(f"{root / NAME}: "))
    if problems:
        return None
    told = read_description(root / NAME)
    found = Survey("own data", root, told.classes, told.palette, coloured=told.coloured, void=told.void)
    found.image_at, found.mask_at = (lambda id: told.images / f"{id}.jpg"), (lambda id: told.masks / f"{id}.png")
    for which, place, endings in (
        (found.images, told.images, SUFFIXES),
        (found.masks, told.masks, folder.MASK_SUFFIXES),
    ):
        for id, paths in folder.find_files(place, endings).items():
            which[id] = paths[0]
            if len(paths) > 1:
                findings.add("two-files", found.name(paths[0]), f"and {', '.join(found.name(p) for p in paths[1:])}")
        _note_strays(found, place.rglob("*"), SUFFIXES, findings)
    if isinstance(told.splits, float):
        found.splits = folder.shared_out(found.images, told.splits)
        if not found.splits["train"]:
            findings.add("empty-list", found.name(told.images), f"too few images for a split: {len(found.images)}")
    else:
        for name, path in told.splits.items():
            _read_list(found, name, path, findings)
    return found


def _images_in(found, place, findings):
    """The image files right in a folder; others are noted."""
    paths = sorted(place.iterdir()) if place.is_dir() else []
    _note_strays(found, paths, SUFFIXES, findings)
    return [path for path in paths if path.suffix.lower() in SUFFIXES]


def _note_strays(found, paths, endings, findings):
    for path in paths:
        if path.is_file() and path.suffix.lower() not in endings:
            findings.add("stray-file", found.name(path))


def _read_list(found, split, path, findings):
    """Put a list's ids into found.splits; repeated ones once, and none of a list that is no text."""
    try:
        lines = read_lines(path)
        if not lines:
            findings.add("empty-list", found.name(path))
    except ValueError as error:
        findings.add("list-unreadable", found.name(path), str(error).removeprefix(f"{path}: "))
        lines = []
    ids = [line.split()[0] for line in lines] if found.kind == "PASCAL VOC" else lines
    counts = Counter(ids)
    found.splits[split] = list(counts)
    for id, count in counts.items():
        if count > 1:
            findings.add("repeated-id", id, f"{count} times in {found.name(path)}")


def _check_lists(found, findings):
    splits = found.splits
    if "train" not in splits:
        findings.add("no-list", found.folder.name, f"no list named train; found: {', '.join(splits) or 'none'}")
    elif "val" not in splits:
        findings.add("no-val-list", found.folder.name, f"no list named val; found: {', '.join(splits)}")
    for a, b in disjoint(splits):
        for id in sorted(set(splits[a]) & set(splits[b])):
            findings.add("overlap-by-id", id, f"in {a} and {b}")


def disjoint(splits):
    """The pairs of lists that should have no image in common."""
    return [(a, b) for a, b in (("train", "val"), ("train", "test"), ("val", "test")) if a in splits and b in splits]


def _check_pairs(found, findings):
    """Ids without a file and files without an id."""
    listed = {}
    for split, ids in found.splits.items():
        for id in ids:
            listed.setdefault(id, []).append(split)
    for kind, there, at in (
        ("missing-image", found.images, found.image_at),
        ("missing-mask", found.masks, found.mask_at),
    ):
        near = {}
        for id in (id for id in listed if id not in there):
            path = at(id)
            if path.parent not in near:
                near[path.parent] = _stems(path.parent)
            hint = near[path.parent].get(path.stem.casefold(), [])
            told = f"listed in {', '.join(listed[id])}" + (f"; there is {', '.join(hint)}" if hint else "")
            findings.add(kind, found.name(path), told)
    for id, path in found.masks.items():
        if id not in listed:
            findings.add(*(("unlisted", id) if id in found.images else ("mask-without-image", found.name(path))))
    for id, path in found.images.items():
        if id not in listed and id not in found.masks:
            findings.add("image-without-mask", found.name(path))


def _stems(folder):
    """{a name without its ending, in small letters: the files that are called so}, to hint at almost the right name."""
    stems = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        stems.setdefault(path.stem.casefold(), []).append(path.name)
    return stems
