"""The description of your own data set, dataset.toml; `EXAMPLE` shows all of it."""

import os
import tomllib
from pathlib import Path

from ...errors import InputError
from ..files import open_binary
from ..labels import VOID

FILE_NAME = "dataset.toml"
EXAMPLE = """\
# Beside the folders images/ and masks/. The mask of images/ID.jpg is masks/ID.png.
images = "images"           # the folder of the images (default)
masks = "masks"             # the folder of the masks (default); also the images', for masks named ID_mask.png
mask_kind = "ids"           # "ids": palette or grey PNG of class numbers, 255 for void (pixels that do not count)
                            # "colours": pictures in exactly the colours below
void = [224, 224, 192]      # the colour of void; optional
void_numbers = [255]        # the numbers of void in masks of numbers (default)
exif = true                 # images are turned as their EXIF data say (default); false: masks fit the pixels as stored

[splits]                    # default: a fifth of the images for validation, chosen by their names
val = 0.2                   # or lists of ids, one a line: train = "train.txt" and val = "val.txt"

[[classes]]                 # class 0
name = "background"
colour = [0, 0, 0]

[[classes]]                 # class 1
name = "leaf"
colour = [60, 180, 75]
numbers = [1]               # its numbers in masks (default: its place in this list); other numbers are refused
more_colours = []           # further colours that mean this class in masks of colours (default: none)
"""
_DEFAULTS = {
    "images": "images",
    "masks": "masks",
    "mask_kind": "ids",
    "void_numbers": [VOID],
    "exif": True,
    "splits": {"val": 0.2},
    "classes": None,
}


class DescriptionError(InputError):
    """problems: for each wrong entry of a dataset.toml, its key, what was expected and what was found. The message is the first."""

    def __init__(self, path, problems):
        super().__init__(f"{path}: {problems[0]}")
        self.problems = problems


def read_description(path):
    """The entries of a dataset.toml, with the defaults; "void" is missing where the file has none. Each class has its numbers.

    Raises MissingFileError, or DescriptionError for wrong entries.
    """
    with open_binary(path) as file:
        content = file.read()
    try:
        given = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
        hint = "; write folders with / in place of \\" if b"\\" in content else ""
        raise DescriptionError(path, [f"expected TOML in UTF-8, got: {error}{hint}"]) from error
    values = _DEFAULTS | given
    problems = [
        f"{key}: expected {expected}, got {'nothing' if found is None else repr(found)[:60]}"
        for key, expected, found in _wrong(values, path)
    ]
    void = values.get("void")
    if not problems and values["mask_kind"] == "ids" and _grey(void) and "void_numbers" not in given:
        problems.append(
            "void: a grey colour, which marks no pixel in masks of numbers; name the numbers of void, too: "
            f"void_numbers = [{void[0]}]{'' if void[0] == VOID else f' or [{VOID}]'}"
        )
    if problems:
        raise DescriptionError(path, problems)
    values["classes"] = [{"numbers": [i], "more_colours": []} | entry for i, entry in enumerate(values["classes"])]
    return values


def _grey(colour):
    return isinstance(colour, list) and len(colour) == 3 and colour == colour[:1] * 3 and isinstance(colour[0], int)


def _wrong(values, path):
    """(key, what was expected, what was found) of every wrong entry."""
    yield from _unknown("", values, (*_DEFAULTS, "void"))
    folder = Path(path).parent
    for key in ("images", "masks"):
        if not (isinstance(values[key], str) and values[key] and os.path.isdir(folder / values[key])):
            yield key, "the name of a folder", values[key]
    if values["mask_kind"] not in ("ids", "colours"):
        yield "mask_kind", "'ids' or 'colours'", values["mask_kind"]
    if not isinstance(values["exif"], bool):
        yield "exif", "true or false", values["exif"]
    taken = {}  # {a class's name, a colour or a number: the key that has it}
    if "void" in values:
        yield from _wrong_colour("void", values["void"], taken)
    yield from _wrong_numbers("void_numbers", values["void_numbers"], taken)
    classes, splits = values["classes"], values["splits"]
    if not isinstance(classes, list) or not 1 <= len(classes) <= VOID:
        yield "classes", f"1 to {VOID} tables [[classes]]", classes
        classes = []
    for number, entry in enumerate(classes):
        yield from _wrong_class(f"classes[{number}]", entry, taken, number)
    if not isinstance(splits, dict) or not splits:
        yield "splits", "a table of lists, or val = a share of the images", splits
        splits = {}
    for name, value in splits.items():
        if name == "val" and isinstance(value, float):
            if len(splits) > 1 or not 0 < value < 1:
                yield "splits.val", "a list's file name, or a share above 0 and below 1 and no other list", splits
        elif not isinstance(value, str) or not os.path.isfile(folder / value):
            yield f"splits.{name}", "the name of a file with one id a line", value


def _wrong_class(key, entry, taken, place):
    if not isinstance(entry, dict):
        yield key, "a table with name and colour", entry
        return
    yield from _unknown(f"{key}.", entry, ("name", "colour", "numbers", "more_colours"))
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        yield f"{key}.name", "a name", name
    elif (other := taken.setdefault(name.strip(), key)) != key:
        yield f"{key}.name", f"another name than that of {other}", name
    yield from _wrong_colour(f"{key}.colour", entry.get("colour"), taken)
    yield from _wrong_numbers(f"{key}.numbers", entry.get("numbers", [place]), taken)
    more = entry.get("more_colours", [])
    if not isinstance(more, list):
        yield f"{key}.more_colours", "a list of colours", more
        more = []
    for i, colour in enumerate(more):
        yield from _wrong_colour(f"{key}.more_colours[{i}]", colour, taken)


def _wrong_numbers(key, numbers, taken):
    if not isinstance(numbers, list) or not {type(n) for n in numbers} <= {int} or not set(numbers) <= set(range(256)):
        yield key, "a list of numbers 0..255", numbers
        return
    for number in numbers:
        if (other := taken.setdefault(number, key)) != key:
            yield key, f"other numbers than those of {other}", number


def _wrong_colour(key, colour, taken):
    if not isinstance(colour, list) or [type(c) for c in colour] != [int] * 3 or not set(colour) <= set(range(256)):
        yield key, "a colour of three numbers 0..255", colour
    elif (other := taken.setdefault(tuple(colour), key)) != key:
        yield key, f"another colour than that of {other}", colour


def _unknown(prefix, values, known):
    for key in values:
        if key not in known:
            yield f"{prefix}{key}", f"only {', '.join(known)}", key
