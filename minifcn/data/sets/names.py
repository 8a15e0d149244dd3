"""Ids and names of files: which files are an id's, what a line of a list names, and a split of ids where no list makes one."""

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ..files import files_below
from ..images import SUFFIXES

VAL_SHARE = 0.2  # share of the images for validation, if no list says which
_PAIR = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))\s+(.+)", re.IGNORECASE)


def random_split(ids: Iterable[str], share: float) -> dict:
    """{"train", "val", "trainval": ids}, `share` of them for validation, and at least one.

    The choice depends on a hash of each id alone, so that adding images leaves almost all others in their split.
    """
    order = sorted(ids, key=lambda id: sha256(id.encode("utf-8", "surrogateescape")).digest())
    val = set(order[: max(1, round(share * len(order)))])
    return {"train": [id for id in ids if id not in val], "val": [id for id in ids if id in val], "trainval": list(ids)}


def existing(files: Any, where: tuple, id: str) -> str:
    """The file of an id with the first ending for which one exists, in lower or upper case; else the usual name.

    where: (folder, endings). Letters with accents are found in either Unicode form (NFC, NFD).
    """
    folder, *endings = where
    forms = dict.fromkeys((id, *(normalize(form, id) for form in ("NFD", "NFC"))))
    names = [f"{folder}/{form}{e}" for form in forms for small in endings for e in (small, small.upper())]
    return next((name for name in names if files.is_file(name)), names[0])


def stem_of(name: str) -> str:
    """An image's name without its ending, if that is one of SUFFIXES."""
    return next((name[: -len(ending)] for ending in SUFFIXES if name.lower().endswith(ending)), name)


def pair_in(line: str) -> list[str]:
    """[the path of an image, the path of its mask] in a line that names both; else []."""
    found = _PAIR.fullmatch(line)
    return [path.lstrip("/") for path in found.groups()] if found else []


def find(root: str | Path, folder: str, *endings: str) -> dict:
    """{id: names} of the files in root/folder and below with one of the endings, in any case; an id is the name without it.

    In an id, a letter with an accent is one character (NFC), whichever way the file system writes it.
    """
    found = {}
    for name in files_below(Path(root, folder)):
        ending = next((ending for ending in endings if name.lower().endswith(ending.lower())), None)
        if ending:
            found.setdefault(normalize("NFC", name[: -len(ending)]), []).append(f"{folder}/{name}".removeprefix("./"))
    return found
