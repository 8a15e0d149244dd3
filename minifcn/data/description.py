"""What a dataset.toml says about somebody's own images and masks; `EXAMPLE` shows all of it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, MissingFileError
from .labels import VOID, voc_palette

NAME = "dataset.toml"
EXAMPLE = """\
# Beside the folders images/ and masks/. The mask of images/ID.jpg is masks/ID.png.
images = "images"           # where the images lie (this unless given)
masks = "masks"             # where the masks lie (this unless given)
mask_kind = "ids"           # "ids": palette or grey PNG whose values are class numbers, 255 for what does not count
                            # "colours": pictures in exactly the colours below
void = [224, 224, 192]      # the colour of what does not count; may be left out

[splits]                    # this, unless given: a fifth of the images for validation, chosen by their names
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
    """images, masks: folders. coloured: masks hold colours, not numbers. palette: (256, 3) uint8. void: whether the colour
    palette[255] in a coloured mask stands for void. splits: {name: list file}, or the share of images for validation."""

    images: Path
    masks: Path
    coloured: bool
    classes: tuple
    palette: np.ndarray
    void: bool
    splits: dict | float


def read_description(path):
    """The Description in a dataset.toml. Raises FileNotFoundError, or ValueError with the first of its problems."""
    path = Path(path)
    values = _values(path)
    for problem in _problems(values, path.parent):
        raise InputError(f"{path}: {problem}")
    palette = voc_palette().copy()
    palette[: len(values["classes"])] = [c["colour"] for c in values["classes"]]
    palette[VOID] = values.get("void", palette[VOID])
    splits = values.get("splits", {"val": 0.2})
    return Description(
        images=path.parent / values.get("images", "images"),
        masks=path.parent / values.get("masks", "masks"),
        coloured=values.get("mask_kind", "ids") == "colours",
        classes=tuple(c["name"].strip() for c in values["classes"]),
        palette=palette,
        void="void" in values,
        splits=splits["val"] if _is_share(splits) else {name: path.parent / file for name, file in splits.items()},
    )


def description_problems(path):
    """Every wrong entry of a dataset.toml, a line each that names file, key, expected and found; none if all is well."""
    path = Path(path)
    try:
        values = _values(path)
    except (ValueError, FileNotFoundError) as error:
        return [str(error)]
    return [f"{path}: {problem}" for problem in _problems(values, path.parent)]


def _values(path):
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
    places = {}
    for key in ("images", "masks"):
        places[key] = value = values.get(key, key)
        if not isinstance(value, str) or not value:
            yield f"{key}: expected the name of a folder, got {_short(value)}"
        elif not _found(folder / value, Path.is_dir):
            yield f"{key}: expected a folder, found none at {value!r}"
    if places["images"] == places["masks"]:
        yield f"masks: expected another folder than that of the images, got {_short(places['masks'])} for both"
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
    for i, entry in enumerate(classes):
        key = f"classes[{i}]"
        if not isinstance(entry, dict):
            yield f"{key}: expected a table with name and colour, got {_short(entry)}"
            continue
        yield from _unknown(f"{key}.", entry, ("name", "colour"))
        name, colour = entry.get("name"), entry.get("colour")
        if not isinstance(name, str) or not name.strip():
            yield f"{key}.name: expected a name, got {_short(name)}"
        elif name.strip() in names:
            yield f"{key}.name: expected a name of its own, got {name!r} as for classes[{names[name.strip()]}]"
        else:
            names[name.strip()] = i
        if not _is_colour(colour):
            yield f"{key}.colour: expected a colour of three numbers 0..255, got {_short(colour)}"
        elif tuple(colour) in colours:
            yield f"{key}.colour: expected a colour of its own, got {colour} as for {colours[tuple(colour)]}"
        else:
            colours[tuple(colour)] = key


def _split_problems(splits, folder):
    if not isinstance(splits, dict) or not splits:
        yield f"splits: expected a table of lists, or val = a share of the images; got {_short(splits)}"
        return
    share = [name for name, value in splits.items() if not isinstance(value, str)]
    for name in share:
        value = splits[name]
        if name != "val" or isinstance(value, bool) or not isinstance(value, float) or not 0 < value < 1:
            expected = "a list's file name, or a share above 0 and below 1" if name == "val" else "a list's file name"
            yield f"splits.{name}: expected {expected}, got {_short(value)}"
        elif len(splits) > 1:
            yield f"splits: expected nothing beside the share of val, got also {', '.join(n for n in splits if n != name)}"
    for name in (name for name in splits if name not in share):
        if not _found(folder / splits[name], Path.is_file):
            yield f"splits.{name}: expected a file with one id a line, found none at {splits[name]!r}"


def _unknown(prefix, values, known):
    for key in values:
        if key not in known:
            yield f"{prefix}{key}: expected only {', '.join(known)}; got {_short(key)}"


def _found(path, test):
    try:
        return test(path)
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _is_share(splits):
    return not isinstance(splits.get("val", ""), str)


def _is_colour(value):
    return isinstance(value, list) and len(value) == 3 and all(type(c) is int and 0 <= c <= 255 for c in value)


def _short(value):
    return "nothing" if value is None else repr(value)[:60]
