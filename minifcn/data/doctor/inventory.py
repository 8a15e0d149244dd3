"""What a data set names in its lists and holds in its folders, without opening an image; broken data sets too."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..files import FolderFiles, read_lines
from ..images import SUFFIXES
from ..labels import VOC_CLASSES, VOID, read_class_names, voc_palette
from ..sets import Cityscapes, cityscapes, folder, layout_of
from ..sets.description import FILE_NAME, description_problems, read_description
from ..sets.voc import VOC, year_folder


@dataclass
class Inventory:
    """layout: "PASCAL VOC", "Cityscapes" or "own data". splits: {name: ids, each once}.

    images, masks: {id: path} of the files that are there. expected(id): where its image and its mask should be.
    table: (256,) uint8, the label of each number in a mask. allowed: (256,) bool, the numbers that may occur there.
    coloured: masks hold colours. void: whether palette[255] in them means void.
    """

    layout: str
    folder: Path
    classes: tuple
    palette: np.ndarray
    splits: dict = field(default_factory=dict)
    images: dict = field(default_factory=dict)
    masks: dict = field(default_factory=dict)
    expected: object = None
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
        """A file's name in findings: relative to the data set's folder."""
        path = Path(path)
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def class_name(self, label):
        return "void" if label == VOID else self.classes[label]

    @property
    def ids(self):
        """Every id that a list names or that has a mask, each once."""
        return list(dict.fromkeys([*(id for ids in self.splits.values() for id in ids), *self.masks]))

    def disjoint_splits(self):
        """The pairs of lists that should have no image in common."""
        pairs = (("train", "val"), ("train", "test"), ("val", "test"))
        return [(a, b) for a, b in pairs if a in self.splits and b in self.splits]


def collect(root, findings):
    """Read a data set's lists and folders; what is wrong with them goes into `findings`. -> Inventory

    None where a dataset.toml is too wrong to go on. Raises InputError as `layout_of` for what is no data set, and for a file.
    """
    root = Path(root)
    if root.is_file():
        raise InputError(f"{root}: expected a folder, got a file; unpack the archive first")
    collectors = {VOC: _collect_voc, Cityscapes: _collect_cityscapes, folder.Folder: _collect_folder}
    inventory = collectors[layout_of(root)](root, findings)
    if inventory is not None:
        _check_lists(inventory, findings)
        _check_pairs(inventory, findings)
    return inventory


def _collect_voc(root, findings):
    root = root / year_folder(FolderFiles(root))
    classes, names = VOC_CLASSES, root / "classes.txt"
    if names.is_file():
        try:
            classes = read_class_names(names)
            repeated = sorted({name for name in classes if classes.count(name) > 1})
            if repeated:
                findings.add("classes-file", names.name, f"more than once: {', '.join(repeated)}")
        except InputError as error:
            findings.add("classes-file", names.name, str(error).removeprefix(f"{names}: "))
    photos, masks = root / "JPEGImages", root / "SegmentationClass"
    inventory = Inventory(
        *("PASCAL VOC", root, classes, voc_palette()),
        expected=lambda id: (photos / f"{id}.jpg", masks / f"{id}.png"),
    )
    for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        _read_list(inventory, path.stem, path, findings)
    for files, place, ending in ((inventory.images, photos, ".jpg"), (inventory.masks, masks, ".png")):
        paths = sorted(place.iterdir()) if place.is_dir() else []
        files |= {path.stem: path for path in paths if path.suffix == ending}
        _add_stray_files(inventory, paths, findings)
    return inventory


def _collect_cityscapes(root, findings):
    inventory = Inventory(
        *("Cityscapes", root, cityscapes.CITYSCAPES_CLASSES, cityscapes.cityscapes_palette()),
        table=cityscapes.train_ids(),
        allowed=np.arange(256) < cityscapes.NUM_LABEL_IDS,
    )
    image = inventory.images.get  # every listed image is there
    inventory.expected = lambda id: (image(id), root / cityscapes.mask_name_of(inventory.name(image(id))))
    for split in sorted(path.name for path in (root / "leftImg8bit").iterdir() if path.is_dir()):
        images = cityscapes.list_files(root, f"leftImg8bit/{split}", cityscapes.IMAGE_SUFFIX)
        masks = cityscapes.list_files(root, f"gtFine/{split}", cityscapes.MASK_SUFFIX)
        inventory.splits[split] = list(images)
        inventory.images |= {id: root / name for id, name in images.items()}
        inventory.masks |= {id: root / name for id, name in masks.items()}
        if not images:
            findings.add("empty-list", f"leftImg8bit/{split}", f"no files <city>/<id>{cityscapes.IMAGE_SUFFIX}")
    return inventory


def _collect_folder(root, findings):
    problems = description_problems(root / FILE_NAME)
    for problem in problems:
        findings.add("description", FILE_NAME, problem)
    if problems:
        return None
    described = read_description(root / FILE_NAME)
    photos, masks = root / described.images, root / described.masks
    inventory = Inventory(
        *("own data", root, described.classes, described.palette),
        expected=lambda id: (photos / f"{id}.jpg", masks / f"{id}.png"),
        coloured=described.coloured,
        void=described.void,
    )
    for files, place, suffixes in (
        (inventory.images, described.images, SUFFIXES),
        (inventory.masks, described.masks, folder.MASK_SUFFIXES),
    ):
        for id, names in folder.find_files(root, place, suffixes).items():
            files[id] = root / names[0]
            if len(names) > 1:
                others = ", ".join(inventory.name(root / name) for name in names[1:])
                findings.add("two-files", inventory.name(files[id]), f"and {others}")
        _add_stray_files(inventory, (root / place).rglob("*"), findings)
    if isinstance(described.splits, float):
        inventory.splits = folder.random_split(inventory.images, described.splits)
        if not inventory.splits["train"]:
            findings.add("empty-list", inventory.name(photos), f"too few images for a split: {len(inventory.images)}")
    else:
        for split, name in described.splits.items():
            _read_list(inventory, split, root / name, findings)
    return inventory


def _add_stray_files(inventory, paths, findings):
    for path in paths:
        if path.suffix.lower() not in SUFFIXES and path.is_file():
            findings.add("stray-file", inventory.name(path))


def _read_list(inventory, split, path, findings):
    """Put a list's ids into inventory.splits; repeated ones once, and none of a list that is no text."""
    try:
        lines = read_lines(path)
        if not lines:
            findings.add("empty-list", inventory.name(path))
    except InputError as error:
        findings.add("list-unreadable", inventory.name(path), str(error).removeprefix(f"{path}: "))
        lines = []
    counts = Counter(line.split()[0] if inventory.layout == "PASCAL VOC" else line for line in lines)
    inventory.splits[split] = list(counts)
    for id, count in counts.items():
        if count > 1:
            findings.add("repeated-id", id, f"{count} times in {inventory.name(path)}")


def _check_lists(inventory, findings):
    splits = inventory.splits
    if "train" not in splits:
        findings.add("no-list", inventory.folder.name, f"no list named train; found: {', '.join(splits) or 'none'}")
    elif "val" not in splits:
        findings.add("no-val-list", inventory.folder.name, f"no list named val; found: {', '.join(splits)}")
    for a, b in inventory.disjoint_splits():
        for id in sorted(set(splits[a]) & set(splits[b])):
            findings.add("overlap-by-id", id, f"in {a} and {b}")


def _check_pairs(inventory, findings):
    """Ids without a file and files without an id."""
    splits_of = {}
    for split, ids in inventory.splits.items():
        for id in ids:
            splits_of.setdefault(id, []).append(split)
    names_in = cache(_names_by_stem)
    for which, (kind, files) in enumerate((("missing-image", inventory.images), ("missing-mask", inventory.masks))):
        for path, id in ((inventory.expected(id)[which], id) for id in splits_of if id not in files):
            similar = names_in(path.parent).get(path.stem.casefold(), [])
            hint = f"; there is {', '.join(similar)}" if similar else ""
            findings.add(kind, inventory.name(path), f"listed in {', '.join(splits_of[id])}{hint}")
    for id in (id for id in inventory.masks if id not in splits_of):
        if id in inventory.images:
            findings.add("unlisted", id)
        else:
            findings.add("mask-without-image", inventory.name(inventory.masks[id]))
    for id in (id for id in inventory.images if id not in splits_of and id not in inventory.masks):
        findings.add("image-without-mask", inventory.name(inventory.images[id]))


def _names_by_stem(folder):
    """{a name without its ending, in lower case: the files of that name}, to hint at almost the right name."""
    names = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        names.setdefault(path.stem.casefold(), []).append(path.name)
    return names
