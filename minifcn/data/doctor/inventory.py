"""The ids in a data set's lists and the files in its folders, found without opening an image; also for broken data sets."""

import os
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

from ...errors import InputError
from ..files import files_below
from ..images import SUFFIXES
from ..sets import VOC, layout_of, open_dataset
from ..sets.base import SPLITS
from ..sets.description import FILE_NAME, DescriptionError


def open_for_doctor(root, findings, exif=True):
    """The data set in a folder, without samples; None, and a finding, if its description or its list of classes is wrong.

    Raises InputError as `layout_of` does, and for a file.
    """
    if Path(root).is_file():
        raise InputError(f"{root}: expected a folder, got a file; unpack the archive first")
    layout_of(root)
    try:
        dataset = open_dataset(root, ids=(), exif=exif)
    except DescriptionError as error:
        for problem in error.problems:
            findings.add("description", FILE_NAME, problem)
        return None
    except InputError as error:
        name, _, reason = str(error).partition(": ")
        findings.add("classes-file", Path(name).name, reason)
        return None
    repeated = [name for name, count in Counter(dataset.classes).items() if count > 1]
    if repeated:
        name = "classes.txt" if dataset.layout == "PASCAL VOC" else dataset.layout
        findings.add("classes-file", name, f"more than once: {', '.join(repeated)}")
    return dataset


def read_lists(dataset, findings):
    """{split: ids, each once}; no ids for a list that is not text."""
    lists = {}
    for split, source in dataset.splits().items():
        name = source if isinstance(source, str) else dataset.lists.format(split)
        try:
            counts = Counter(dataset.read_split(split))
            if not counts:
                findings.add("empty-list", name)
        except InputError as error:
            counts = {}
            findings.add("list-unreadable", name, str(error).removeprefix(f"{dataset.folder / name}: "))
        usual = not isinstance(dataset, VOC) or split in (*SPLITS, "trainval")
        if counts and not usual and not any(dataset.files.is_file(dataset.image_name(id)) for id in counts):
            continue  # a README.txt beside the lists
        lists[split] = list(counts)
        for id, count in counts.items():
            if count > 1:
                findings.add("repeated-id", id, f"{count} times in {name}")
    if "train" not in lists:
        findings.add("no-list", dataset.folder.name, f"no list named train; found: {', '.join(lists) or 'none'}")
    elif "val" not in lists:
        findings.add("no-val-list", dataset.folder.name, f"no list named val; found: {', '.join(lists)}")
    for a, b in disjoint(lists):
        for id in sorted(set(lists[a]) & set(lists[b])):
            findings.add("overlap-by-id", id, f"in {a} and {b}")
    return lists


def in_list(id):
    """An id as a list can hold it: bytes that are no UTF-8 are taken for Latin-1, and there are no spaces at either end."""
    try:
        id.encode("utf-8")
    except UnicodeEncodeError:
        id = id.encode("utf-8", "surrogateescape").decode("latin-1")
    return " ".join(id.splitlines()).strip() or "image"


def disjoint(lists):
    """The pairs of lists that should have no image in common."""
    return combinations([split for split in ("train", "val", "test") if split in lists], 2)


def find_pairs(dataset, lists, findings):
    """{id: (name of its image, name of its mask)} of every id that a list names or that has a mask; None for what is not there."""
    splits_of, pairs, names_in = {}, {}, cache(_names_by_stem)
    for split, ids in lists.items():
        for id in ids:
            splits_of.setdefault(id, []).append(split)
    for id, splits in splits_of.items():
        pair = []
        for kind, name in (("missing-image", dataset.image_name(id)), ("missing-mask", dataset.mask_name(id))):
            path = dataset.folder / name
            there = os.path.lexists(path)  # a link to nothing is reported when it is opened
            pair.append(name if there else None)
            if not there:
                similar = names_in(path.parent).get(path.stem.casefold())
                hint = f"; there is {', '.join(similar)}" if similar else ""
                findings.add(kind, name, f"listed in {', '.join(splits)}{hint}")
        pairs[id] = tuple(pair)
    images, masks = dataset.found()
    for id in images:
        if id != in_list(id):
            findings.add("name-coding", images[id][0])
    for id, (image, *_) in images.items():
        if id not in pairs and id not in masks:
            findings.add("image-without-mask", image)
    for id, (mask, *_) in masks.items():
        if id not in pairs:
            pairs[id] = images.get(id, [None])[0], mask
            findings.add(*(("unlisted", id) if id in images else ("mask-without-image", mask)))
    for name, *others in (*images.values(), *masks.values()):
        if others:
            findings.add("two-files", name, f"and {', '.join(others)}")
    for place in dict.fromkeys((dataset.images[0], dataset.masks[0])):
        for name in files_below(dataset.folder / place):
            if os.path.splitext(name)[1].lower() not in (*SUFFIXES, *dataset.others):
                findings.add("stray-file", f"{place}/{name}")
    return pairs


def _names_by_stem(folder):
    """{a name without its ending, in lower case: the files of that name}, to hint at almost the right name."""
    names = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        names.setdefault(path.stem.casefold(), []).append(path.name)
    return names
