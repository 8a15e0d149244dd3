"""The description of your own data set, dataset.toml; `EXAMPLE` shows all of it."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError, MissingFileError
from ..labels import VOID, voc_palette

FILE_NAME = "dataset.toml"
EXAMPLE = """\
# Beside the folders images/ and masks/. The mask of images/ID.jpg is masks/ID.png.
images = "images"           # the folder of the images (default)
masks = "masks"             # the folder of the masks (default)
mask_kind = "ids"           # "ids": palette or grey PNG of class numbers, 255 for void (pixels that do not count)
                            # "colours": pictures in exactly the colours below
void = [224, 224, 192]      # the colour of void; optional

[splits]                    # default: a fifth of the images for validation, chosen by their names
val = 0.2                   # or lists of ids, one a line: train = "train.txt" and val = "val.txt"

[[classes]]                 # class 0
name = "background"
colour = [0, 0, 0]

[[classes]]                 # class 1
name = "leaf"
colour = [60, 180, 75]
"""

_KEYS = ("images", "masks", "mask_kind", "void", "splits", "classes")
_KINDS = ("ids", "colours")


@dataclass(frozen=True)
class Description:
    """images, masks: folders, relative to the file's. coloured: masks hold colours, not class numbers. palette: (256, 3) uint8.
    void: whether palette[255] in a coloured mask stands for void. splits: {name: list file}, or the share of val."""

    images: str
    masks: str
    coloured: bool
    classes: tuple
    palette: np.ndarray
    void: bool
    splits: dict | float


def read_description(path):
    """The Description in a dataset.toml. Raises MissingFileError, or InputError with the first of its problems."""
    path = Path(path)
    values = _read_toml(path)
    for problem in _problems(values, path.parent):
        raise InputError(f"{path}: {problem}")
    palette = voc_palette().copy()
    palette[: len(values["classes"])] = [c["colour"] for c in values["classes"]]
    palette[VOID] = values.get("void", palette[VOID])
    splits = values.get("splits", {"val": 0.2})
    return Description(
        images=values.get("images", "images"),
        masks=values.get("masks", "masks"),
        coloured=values.get("mask_kind", "ids") == "colours",
        classes=tuple(c["name"].strip() for c in values["classes"]),
        palette=palette,
        void="void" in values,
        splits=splits if isinstance(splits.get("val", ""), str) else splits["val"],
    )


def description_problems(path):
    """Every wrong entry of a dataset.toml: one line each with the key, what was expected and what was found."""
    path = Path(path)
    try:
        return list(_problems(_read_toml(path), path.parent))
    except InputError as error:
        return [str(error).removeprefix(f"{path}: ")]


def _read_toml(path):
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected the description of a data set")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected TOML in UTF-8, got other bytes ({error.reason})") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: expected TOML, got: {error}") from error


def _problems(values, folder):
    """What is wrong with the entries, one line each."""
    yield from _unknown("", values, _KEYS)
    folders = {key: values.get(key, key) for key in ("images", "masks")}
    for key, value in folders.items():
        if not isinstance(value, str) or not value:
            yield f"{key}: expected the name of a folder, got {_short(value)}"
        elif not os.path.isdir(folder / value):
            yield f"{key}: expected a folder, found none at {value!r}"
    if folders["images"] == folders["masks"]:
        yield f"masks: expected another folder than that of the images, got {_short(folders['masks'])} for both"
    kind = values.get("mask_kind", "ids")
    if kind not in _KINDS:
        yield f"mask_kind: expected {' or '.join(map(repr, _KINDS))}, got {_short(kind)}"
    yield from _class_problems(values.get("classes"), values.get("void"))
    if "void" in values and not _is_colour(values["void"]):
        yield f"void: expected a colour of three numbers 0..255, got {_short(values['void'])}"
    yield from _split_problems(values.get("splits", {"val": 0.2}), folder)


def _class_problems(classes, void):
    if not isinstance(classes, list) or not 1 <= len(classes) <= VOID:
        found = f"{len(classes)} of them" if isinstance(classes, list) else _short(classes)
        yield f"classes: expected 1 to {VOID} tables [[classes]], got {found}"
        return
    names, colours = {}, {tuple(void): "void"} if _is_colour(void) else {}
    for key, entry in ((f"classes[{i}]", entry) for i, entry in enumerate(classes)):
        if not isinstance(entry, dict):
            yield f"{key}: expected a table with name and colour, got {_short(entry)}"
            continue
        yield from _unknown(f"{key}.", entry, ("name", "colour"))
        name, colour = entry.get("name"), entry.get("colour")
        if not isinstance(name, str) or not name.strip():
            yield f"{key}.name: expected a name, got {_short(name)}"
        elif (other := names.setdefault(name.strip(), key)) != key:
            yield f"{key}.name: expected a name of its own, got {name!r} as for {other}"
        if not _is_colour(colour):
            yield f"{key}.colour: expected a colour of three numbers 0..255, got {_short(colour)}"
        elif (other := colours.setdefault(tuple(colour), key)) != key:
            yield f"{key}.colour: expected a colour of its own, got {colour} as for {other}"


def _split_problems(splits, folder):
    if not isinstance(splits, dict) or not splits:
        yield f"splits: expected a table of lists, or val = a share of the images; got {_short(splits)}"
        return
    for name, value in splits.items():
        if isinstance(value, str):
            if not os.path.isfile(folder / value):
                yield f"splits.{name}: expected a file with one id a line, found none at {value!r}"
        elif name != "val" or not isinstance(value, float) or not 0 < value < 1:
            expected = "a list's file name, or a share above 0 and below 1" if name == "val" else "a list's file name"
            yield f"splits.{name}: expected {expected}, got {_short(value)}"
        elif len(splits) > 1:
            yield f"splits: expected nothing beside the share of val, got also {', '.join(n for n in splits if n != name)}"


def _unknown(prefix, values, known):
    for key in values:
        if key not in known:
            yield f"{prefix}{key}: expected only {', '.join(known)}; got {_short(key)}"


def _is_colour(value):
    return isinstance(value, list) and len(value) == 3 and all(type(c) is int and 0 <= c <= 255 for c in value)


def _short(value):
    return "nothing" if value is None else repr(value)[:60]
